//! `flux-recv subscribers`: who follows a publisher, and whom an instance follows, from a running one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::output::OutputArgs;
use super::runtime;
use super::table::Table;

#[derive(Debug, Args)]
pub(super) struct SubscribersArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The running instance to read from.
#[derive(Debug, Clone, Args)]
pub(super) struct InstanceArgs {
    /// The pages of a running instance, as `--debug-listen` serves them; with `kubectl port-forward` those of
    /// a Pod.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8082", env = "FLUX_RECV_INSTANCE")]
    instance: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    publisher: Option<PublisherPage>,
    publishers: Vec<PublisherRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublisherPage {
    public_keys: Vec<String>,
    log: LogPage,
    subscribers: Vec<SubscriberRow>,
    autoreconciler_clients: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogPage {
    head: String,
    entries: u64,
    bytes: u64,
    max_bytes: u64,
    available: bool,
    unpublished: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubscriberRow {
    name: String,
    streams: usize,
    lag_entries: Option<u64>,
    connected: Option<String>,
    refused: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublisherRow {
    name: String,
    url: String,
    connected: Option<String>,
    failure: Option<String>,
    cursor: Option<String>,
    must_catch_up: bool,
}

/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(args: &SubscribersArgs) -> anyhow::Result<ExitCode> {
    let page = runtime()?.block_on(page(&args.instance))?;
    args.output.print(&page, describe)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the page about subscribers of a running instance.
pub(super) async fn page(args: &InstanceArgs) -> anyhow::Result<Value> {
    details(args, "/subscribers").await
}

/// Reads a page of the details of a running instance.
pub(super) async fn details(args: &InstanceArgs, path: &str) -> anyhow::Result<Value> {
    let url = format!("{}{path}", args.instance.trim_end_matches('/'));
    let response = reqwest::Client::new().get(&url).timeout(PAGE_TIMEOUT).send().await;
    let response = response.and_then(reqwest::Response::error_for_status).with_context(|| {
        format!(
            "no running flux-recv at {}; forward its port with `kubectl -n flux-system port-forward deploy/flux-recv 8082`, or \
             name another one with --instance",
            args.instance
        )
    })?;
    response.json().await.context("the page cannot be read; is the instance another version?")
}

/// Describes the page in lines.
pub(super) fn describe(page: &Value) -> anyhow::Result<String> {
    let page =
        Page::deserialize(page).context("the page cannot be read; is the instance another version?")?;
    let mut text = String::new();
    if let Some(PublisherPage { public_keys, log, subscribers, autoreconciler_clients }) = page.publisher {
        let LogPage { head, entries, bytes, max_bytes, available, unpublished } = log;
        text.push_str(&format!("event log: {entries} entries, {bytes} of {max_bytes} bytes, head {head}\n"));
        if !available {
            text.push_str("event log: CANNOT BE FOLLOWED; the log of the instance says why\n");
        }
        if unpublished > 0 {
            text.push_str(&format!("event log: {unpublished} entries wait in the journal of this replica\n"));
        }
        text.extend(public_keys.iter().map(|key| format!("public key: {key}\n")));
        let mut table = Table::new(&["SUBSCRIBER", "STATE", "ENTRIES-BEHIND", "REFUSED"]);
        for SubscriberRow { name, streams, lag_entries, connected, refused } in subscribers {
            let state = match (streams, connected) {
                (0, None) => "never connected since the start".to_owned(),
                (0, Some(since)) => format!("NOT CONNECTED; last connected {since}"),
                (_, since) => format!("connected since {}", since.unwrap_or_default()),
            };
            let lag = lag_entries.map(|lag| lag.to_string()).unwrap_or_default();
            table.add(vec![name, state, lag, refused.filter(|_| streams == 0).unwrap_or_default()]);
        }
        text.push_str(&table.draw());
        if let Some(clients) = autoreconciler_clients {
            text.push_str(&format!("clients of flux-webhook-autoreconciler: {clients}\n"));
        }
    }
    if !page.publishers.is_empty() {
        let mut table = Table::new(&["PUBLISHER", "URL", "STATE", "CURSOR", "CATCHING-UP"]);
        for PublisherRow { name, url, connected, failure, cursor, must_catch_up } in page.publishers {
            let state = match (connected, failure) {
                (Some(since), _) => format!("connected since {since}"),
                (None, Some(why)) => format!("NOT CONNECTED: {why}"),
                (None, None) => "connecting".to_owned(),
            };
            let catching_up = if must_catch_up { "yes" } else { "no" }.to_owned();
            table.add(vec![name, url, state, cursor.unwrap_or_default(), catching_up]);
        }
        text.push_str(&table.draw());
    }
    if text.is_empty() {
        text.push_str("the config has neither `publish` nor `subscribe`\n");
    }
    Ok(text)
}
