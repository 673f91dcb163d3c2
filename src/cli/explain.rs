//! `flux-recv explain`: which objects a change would reach, and why not the others.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use parking_lot::RwLock;

use super::output::OutputArgs;
use super::table::Table;
use super::{ClusterArgs, ConfigArgs, runtime};
use crate::cluster::access;
use crate::cluster::connection::{ApiConnection, ClusterOptions};
use crate::config::{self, Config, Rules};
use crate::matching::Inventory;
use crate::offline;
use crate::receive::{ExplainQuery, ExplainReport, ExplainRules, explain};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint, by its name; one of a subscription as SUBSCRIPTION/ENDPOINT.
    #[arg(long, value_name = "NAME", required_unless_present = "delivery")]
    endpoint: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
    /// The branch that moved, or a full ref such as refs/tags/v1.0.0.
    #[arg(long = "ref", value_name = "REF", default_value = "main", requires = "repo")]
    reference: String,
    /// The commit that it moved to.
    #[arg(long, value_name = "SHA", requires = "repo")]
    commit: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Look at the cluster with the rights of this user [default: your own].
    #[arg(long = "as", value_name = "USER", conflicts_with_all = ["manifests", "instance"])]
    impersonate: Option<String>,
    /// Look at the Flux objects in the YAML files of a folder instead of a cluster.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["instance", "kubeconfig"])]
    manifests: Option<PathBuf>,
    /// Ask a running instance, as `--debug-listen` serves it.
    #[arg(long, value_name = "URL")]
    instance: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The change to explain.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ChangeArgs {
    /// Any URL of the repository that was pushed to.
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The image that was pushed, with its tag.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The bucket in which an object has changed.
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// A delivery that a running instance remembers, by its identifier in `flux-recv deliveries`.
    #[arg(long, value_name = "ID", requires = "instance")]
    delivery: Option<String>,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let query = query(args);
    let report = match &args.instance {
        Some(instance) => runtime()?.block_on(ask(instance, &query))?,
        None => {
            let config = config::load(&args.config.config, Rules::default()).config?;
            let rules = rules(&config, query.endpoint.as_deref().unwrap_or_default())?;
            let events = query.events().map_err(|why| anyhow::anyhow!("--{why}"))?;
            explain(rules, &RwLock::new(inventory(args, &config)?), &events)
        }
    };
    args.output.print(&report, |report| Ok(describe(report)))?;
    Ok(if report.requests_anything() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn query(args: &ExplainArgs) -> ExplainQuery {
    let ChangeArgs { repo, image, bucket, delivery } = &args.change;
    ExplainQuery {
        endpoint: args.endpoint.clone(),
        repo: repo.clone(),
        reference: repo.as_ref().map(|_| args.reference.clone()),
        commit: args.commit.clone(),
        image: image.clone(),
        bucket: bucket.clone(),
        delivery: delivery.clone(),
    }
}

/// The endpoint of this name, or the one of a subscription.
fn rules<'c>(config: &'c Config, name: &str) -> anyhow::Result<ExplainRules<'c>> {
    if let Some(endpoint) = config.endpoints.named(name) {
        return Ok(ExplainRules::of_endpoint(endpoint));
    }
    let subscribed = || config.subscribe.iter().flat_map(|subscription| &subscription.endpoints);
    if let Some(endpoint) = subscribed().find(|endpoint| &*endpoint.name == name) {
        return Ok(ExplainRules::of_subscribed(endpoint));
    }
    let own = config.endpoints.iter().map(|endpoint| &*endpoint.name);
    let names: Vec<&str> = own.chain(subscribed().map(|endpoint| &*endpoint.name)).collect();
    bail!("no endpoint is called `{name}`; there are {}", names.join(", "))
}

fn inventory(args: &ExplainArgs, config: &Config) -> anyhow::Result<Inventory> {
    if let Some(folder) = &args.manifests {
        return offline::load(folder);
    }
    runtime()?.block_on(async {
        let options = ClusterOptions { impersonate: args.impersonate.clone(), ..args.cluster.options() };
        let connection = ApiConnection::open(options).await?;
        let kinds = config.needs().kinds;
        let listed = access::objects(&connection, &kinds, &args.cluster.namespaces()).await;
        let listed = listed.with_context(|| format!("cannot list objects at {}", connection.server()))?;
        let mut inventory = offline::known_to_be_empty();
        for manifest in listed.manifests {
            offline::add_manifest(&mut inventory, manifest);
        }
        for (kind, places) in listed.unlistable {
            inventory.set_unlistable(kind, places);
        }
        Ok(inventory)
    })
}

/// How long a running instance may take.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(10);

async fn ask(instance: &str, query: &ExplainQuery) -> anyhow::Result<ExplainReport> {
    let mut url = url::Url::parse(&format!("{}/explain", instance.trim_end_matches('/')))
        .with_context(|| format!("--instance: `{instance}` is not a URL"))?;
    let pairs = serde_json::to_value(query)?;
    for (name, value) in pairs.as_object().into_iter().flatten() {
        url.query_pairs_mut().append_pair(name, value.as_str().unwrap_or_default());
    }
    let response = reqwest::Client::new().get(url).timeout(EXPLAIN_TIMEOUT).send().await;
    let response = response.with_context(|| {
        format!(
            "no running flux-recv at {instance}; forward its port with `kubectl -n flux-system port-forward \
             deploy/flux-recv 8082`"
        )
    })?;
    let is_good = response.status().is_success();
    let text = response.text().await?;
    anyhow::ensure!(is_good, "{}", text.trim());
    serde_json::from_str(&text).context("the answer cannot be read; is the instance another version?")
}

fn describe(report: &ExplainReport) -> String {
    let ExplainReport { endpoint, event, ignored, candidates, unlistable, notes, known_objects } = report;
    let mut text = format!("{event}, at endpoint {endpoint}\n");
    if let Some(why) = ignored {
        text.push_str(&format!("ignored: {why}\n"));
    } else if candidates.is_empty() {
        text.push_str(&format!(
            "no object references it, nor anything written like it ({known_objects} objects are known)\n"
        ));
    } else {
        let mut table = Table::new(&["OBJECT", "VERDICT", "REASON"]);
        for candidate in candidates {
            table.add(vec![
                candidate.object.clone(),
                candidate.verdict.as_str().to_owned(),
                candidate.reason.clone(),
            ]);
        }
        text.push_str(&table.draw());
    }
    text.extend(unlistable.iter().map(|line| format!("warning: {line}\n")));
    text.extend(notes.iter().map(|line| format!("note: {line}\n")));
    text
}
