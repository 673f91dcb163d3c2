//! The JSON Schema of the config file names what the parser knows, at every level.

use std::collections::BTreeSet;

use flux_recv::internals::{KINDS, PROVIDERS};
use serde_json::Value;

use super::running::{flux_recv, project, stderr, stdout};

fn schema() -> Value {
    let output = flux_recv().arg("schema").output().expect("it runs");
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

fn names<'n>(list: impl IntoIterator<Item = &'n str>) -> BTreeSet<String> {
    list.into_iter().map(str::to_owned).collect()
}

fn properties(object: &Value) -> BTreeSet<String> {
    names(object["properties"].as_object().expect("properties").keys().map(String::as_str))
}

fn values(list: &Value) -> BTreeSet<String> {
    names(list.as_array().expect("a list").iter().filter_map(Value::as_str))
}

/// The fields that the parser knows where an unknown one stands.
fn known_to_the_parser(config: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fluxrecv.yaml");
    std::fs::write(&file, config).expect("a config");
    let output =
        flux_recv().args(["check", "--no-cluster", "--config"]).arg(&file).output().expect("it runs");
    let text = stderr(&output);
    let list = text.lines().find_map(|line| line.split("zzz: is an unknown field; known are ").nth(1));
    names(list.unwrap_or_else(|| panic!("no list in {text}")).split(", "))
}

#[test]
fn every_level_has_the_fields_of_the_parser() {
    let schema = schema();
    let of = |name: &str| properties(&schema["definitions"][name]);
    for (fields, config) in [
        (properties(&schema), "zzz: 1\n"),
        (of("endpoint"), "fluxRecvVersion: 1\nendpoints: [{zzz: 1}]\n"),
        (of("resource"), "fluxRecvVersion: 1\nendpoints: [{resources: [{zzz: 1}]}]\n"),
        (of("publish"), "fluxRecvVersion: 1\npublish: {zzz: 1}\n"),
        (
            properties(&schema["definitions"]["publish"]["properties"]["autoreconciler"]["anyOf"][1]),
            "fluxRecvVersion: 1\npublish: {autoreconciler: {zzz: 1}}\n",
        ),
        (
            properties(&schema["definitions"]["publish"]["properties"]["nats"]["anyOf"][1]),
            "fluxRecvVersion: 1\npublish: {nats: {zzz: 1}}\n",
        ),
        (of("subscriber"), "fluxRecvVersion: 1\npublish: {subscribers: [{zzz: 1}]}\n"),
        (of("subscription"), "fluxRecvVersion: 1\nsubscribe: [{zzz: 1}]\n"),
    ] {
        assert_eq!(fields, known_to_the_parser(config), "{config}");
    }
    let providers = names(PROVIDERS.iter().map(|provider| provider.name));
    assert_eq!(values(&schema["definitions"]["endpoint"]["properties"]["source"]["enum"]), providers);
    let kinds = names(KINDS.iter().map(|info| info.name));
    assert_eq!(values(&schema["definitions"]["resource"]["properties"]["kind"]["enum"]), kinds);
}

/// Editors complete the fields of every example.
#[test]
fn every_example_names_the_schema() {
    let mut seen = 0;
    let mut folders = vec![project().join("example")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
        let Ok(text) = std::fs::read_to_string(folder.join("fluxrecv.yaml")) else { continue };
        let first = text.lines().next().unwrap_or_default();
        let named = first.strip_prefix("# yaml-language-server: $schema=").expect("the line of the schema");
        let path = folder.join(named);
        let held: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("the schema")).expect("a JSON Schema");
        assert_eq!(held, schema(), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 3, "{seen}");
}

/// The values of the chart hold the same schema.
#[test]
fn the_charts_values_hold_the_schema() {
    let file = project().join("chart/flux-recv/values.schema.json");
    let chart: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("a schema")).expect("JSON");
    let schema = schema();
    assert_eq!(chart["definitions"], schema["definitions"]);
    for field in ["properties", "required", "additionalProperties"] {
        assert_eq!(chart["properties"]["config"][field], schema[field], "{field}");
    }
}
