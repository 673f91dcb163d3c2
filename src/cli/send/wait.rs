//! `flux-recv send --wait`: what Flux makes of the requests, as `flux reconcile` shows it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::cli::table::Table;
use crate::cli::{progress, say};
use crate::cluster::access;
use crate::cluster::connection::{ApiConnection, ClusterOptions};
use crate::flux::{REQUESTED_AT, Target};

/// How long Flux may take for all of them.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for the objects that an answer names, until Flux has handled a request from after `posted`.
pub(super) async fn wait(
    options: ClusterOptions,
    answer: &str,
    posted: Timestamp,
) -> anyhow::Result<ExitCode> {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    if answer["dryRun"] == true {
        progress::failure("it serves manifests, so nothing is requested in a cluster");
        return Ok(ExitCode::FAILURE);
    }
    if answer["outcome"] == "queued" {
        progress::failure(
            "the delivery is queued until its kinds are known; `flux-recv deliveries` shows what it comes to",
        );
        return Ok(ExitCode::FAILURE);
    }
    let targets = answer["targets"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let targets: Vec<Target> = targets.filter_map(Target::parse).collect();
    if targets.is_empty() {
        progress::failure("no object is requested, so there is nothing to wait for");
        return Ok(ExitCode::FAILURE);
    }
    let connection = ApiConnection::open(options).await?;
    let started = Instant::now();
    let mut table = Table::new(&["OBJECT", "HANDLED", "READY", "REVISION", "MESSAGE"]);
    let mut all_are_ready = true;
    for target in targets {
        progress::action(&format!("waiting for {target}"));
        let object = loop {
            let object = access::object(&connection, &target).await;
            let object =
                object.with_context(|| format!("cannot read {target} at {}", connection.server()))?;
            if is_handled(&object, posted) || started.elapsed() > WAIT_TIMEOUT {
                break object;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        };
        let is_handled = is_handled(&object, posted);
        let (ready, message) = readiness(&object);
        all_are_ready &= is_handled && ready == "True";
        let revision = object["status"]["artifact"]["revision"].as_str().unwrap_or_default();
        let handled = if is_handled { "yes" } else { "no" };
        table.add(vec![target.to_string(), handled.to_owned(), ready, revision.to_owned(), message]);
    }
    say(&table.draw())?;
    Ok(if all_are_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The difference of two clocks that does not matter.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// Whether Flux has handled a request from after this time.
fn is_handled(object: &Value, posted: Timestamp) -> bool {
    let requested = object["metadata"]["annotations"][REQUESTED_AT].as_str();
    let at = requested.and_then(|requested| requested.parse::<Timestamp>().ok());
    at.is_some_and(|at| at >= posted - CLOCK_TOLERANCE)
        && requested == object["status"]["lastHandledReconcileAt"].as_str()
}

/// Status and message of the condition `Ready`.
fn readiness(object: &Value) -> (String, String) {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let text = |field: &str| ready.and_then(|ready| ready[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("message"))
}
