//! The alerts and the dashboard use metrics and labels that exist.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use super::running::{CONFIG, FluxRecv, OBJECTS, project};

/// The queries of `example/monitoring`, each with where it stands.
fn queries() -> Vec<(String, String)> {
    let read = |name: &str| {
        std::fs::read_to_string(project().join("example/monitoring").join(name)).expect("an example")
    };
    let alerts: Value = serde_yaml::from_str(&read("alerts.yaml")).expect("YAML");
    let rules = alerts["spec"]["groups"][0]["rules"].as_array().expect("rules").clone();
    let mut queries: Vec<(String, String)> = rules
        .iter()
        .map(|rule| {
            (
                rule["alert"].as_str().expect("a name").to_owned(),
                rule["expr"].as_str().expect("a query").to_owned(),
            )
        })
        .collect();
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let title = panel["title"].as_str().expect("a title").to_owned();
            queries.push((title, target["expr"].as_str().expect("a query").to_owned()));
        }
    }
    queries
}

/// The metrics of a text that declares them, with their labels; samples of histograms by the names
/// that queries use.
fn served(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut unit = String::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a type");
            unit.clear();
            unit.push_str(name);
            let names = match kind {
                "counter" => vec![format!("{name}_total")],
                "histogram" => vec![format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count")],
                "info" => vec![format!("{name}_info")],
                _ => vec![name.to_owned()],
            };
            for name in names {
                served.entry(name).or_default();
            }
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name").to_owned();
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(labels, _)| labels);
            let names = labels
                .into_iter()
                .flat_map(|labels| labels.split("\","))
                .filter_map(|label| label.split('=').next());
            served.entry(name).or_default().extend(names.map(str::to_owned));
        }
    }
    served
}

#[derive(Default)]
struct QueriedMetrics {
    /// Metric names, with the labels that are selected by.
    metrics: Vec<(String, Vec<String>)>,
}

impl ExprVisitor for QueriedMetrics {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        let selector = match expr {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        if let Some(selector) = selector {
            let labels = selector.matchers.matchers.iter().map(|matcher| matcher.name.clone()).collect();
            self.metrics.push((selector.name.clone().expect("a metric name"), labels));
        }
        Ok(true)
    }
}

#[tokio::test]
async fn every_query_is_valid_and_uses_metrics_that_exist() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let (_, mut text) = running.get_admin("/metrics").await;
    text.push_str(&super::fleet::metrics_of_both_sides().await);
    let served = served(&text);
    // Labels of metrics that have counted nothing yet, as the code declares them.
    let declared: String = ["src/metrics.rs", "src/metrics/fleet.rs"]
        .map(|file| std::fs::read_to_string(project().join(file)).expect("the metrics"))
        .concat();
    let mut queried = BTreeSet::new();
    for (place, query) in queries() {
        let expr = parser::parse(&query).unwrap_or_else(|err| panic!("{place}: {err}"));
        let mut query = QueriedMetrics::default();
        walk_expr(&mut query, &expr).expect("a walk");
        assert!(!query.metrics.is_empty(), "{place} names no metric");
        for (name, labels) in query.metrics {
            let known = served.get(&name).unwrap_or_else(|| panic!("{place}: there is no {name} in\n{text}"));
            for label in labels {
                assert!(
                    known.contains(&label) || declared.contains(&format!("    {label}: ")),
                    "{place}: {name} has no {label}"
                );
            }
            queried.insert(name);
        }
    }
    // And the other way round: what is served is shown somewhere.
    for name in served.keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")) {
        assert!(queried.contains(name), "{name} is neither in the dashboard nor in the alerts");
    }
}
