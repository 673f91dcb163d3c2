//! `flux-recv deliveries`: what a running instance remembers of the last deliveries.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::output::OutputArgs;
use super::runtime;
use super::subscribers::{InstanceArgs, details};
use super::table::Table;

#[derive(Debug, Args)]
pub(super) struct DeliveriesArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Only those to this endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only those that came within this time.
    #[arg(long, value_name = "DURATION", value_parser = super::parse_duration)]
    since: Option<Duration>,
    /// Go on, and print each delivery as it comes.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The pause between two looks at an instance.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(args: &DeliveriesArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let deliveries = deliveries(args).await?;
        args.output.print(&deliveries, |list| Ok(table(list).draw()))?;
        if args.watch {
            watch(args, identifiers(&deliveries)).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints what is new; ends with the instance or a signal.
async fn watch(args: &DeliveriesArgs, mut seen: BTreeSet<String>) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let all = deliveries(args).await?;
        let new: Vec<Value> = all.iter().filter(|line| !seen.contains(&identifier(line))).cloned().collect();
        if !new.is_empty() {
            args.output.print(&new, |list| Ok(table(list).draw_rows()))?;
        }
        // Those that are forgotten need not be known any more.
        seen = identifiers(&all);
    }
}

/// The selected deliveries, the oldest first.
async fn deliveries(args: &DeliveriesArgs) -> anyhow::Result<Vec<Value>> {
    let page = details(&args.instance, "/deliveries").await?;
    let by_endpoint =
        page.as_object().context("the page cannot be read; is the instance another version?")?;
    let is_wanted = |name: &String| args.endpoint.as_ref().is_none_or(|wanted| wanted == name);
    let lists = by_endpoint.iter().filter(|(name, _)| is_wanted(name)).map(|(_, list)| list);
    let earliest = match args.since {
        Some(since) => Some(Timestamp::now() - SignedDuration::try_from(since)?),
        None => None,
    };
    let received = |line: &Value| line["received"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let mut all: Vec<Value> = lists
        .filter_map(Value::as_array)
        .flatten()
        .filter(|line| earliest.is_none_or(|earliest| received(line).is_some_and(|at| at >= earliest)))
        .cloned()
        .collect();
    all.sort_by_key(received);
    Ok(all)
}

fn identifier(line: &Value) -> String {
    line["id"].as_str().unwrap_or_default().to_owned()
}

fn identifiers(list: &[Value]) -> BTreeSet<String> {
    list.iter().map(identifier).collect()
}

fn table(list: &[Value]) -> Table {
    let mut table = Table::new(&["ID", "RECEIVED", "OUTCOME", "OBJECTS", "DETAIL"]);
    for line in list {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let (outcome, detail) = match &line["matched"] {
            Value::Null => (text("outcome"), text("detail")),
            matched => {
                let part = |field: &str| matched[field].as_str().unwrap_or_default().to_owned();
                (format!("{}→{}", text("outcome"), part("outcome")), part("detail"))
            }
        };
        table.add(vec![text("id"), text("received"), outcome, states(line), detail]);
    }
    table
}

/// How many objects are in which state: `2 handled, 1 failing`.
fn states(line: &Value) -> String {
    let objects = line["objects"].as_array().into_iter().flatten();
    let states: Vec<&str> = objects.filter_map(|object| object["state"].as_str()).collect();
    let counted = ["failing", "pending", "requested", "handled", "gone"].iter().filter_map(|state| {
        let count = states.iter().filter(|other| *other == state).count();
        (count > 0).then(|| format!("{count} {state}"))
    });
    counted.collect::<Vec<_>>().join(", ")
}
