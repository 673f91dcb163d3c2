//! The end of serving: stop accepting, then send what is pending.

use std::process::ExitCode;
use std::time::Duration;

use crate::journal::Journal;
use crate::listener::RunningServer;
use crate::publisher::Publisher;
use crate::queue::Queue;
use crate::service::Service;

/// Stops accepting, then waits until no reconcile request is pending or the time is over.
pub(super) async fn drain(
    running: Option<RunningServer>,
    service: &Service,
    publisher: Option<&Publisher>,
    queue: &Queue,
    journal: &Journal,
    limit: Duration,
) -> ExitCode {
    let stopped = tokio::time::timeout(limit, async {
        if let Some(running) = running {
            running.stop().await;
        }
        service.handler.wait_until_matched().await;
        let appended = async {
            if let Some(publisher) = publisher {
                publisher.wait_until_appended().await;
            }
        };
        tokio::join!(appended, queue.wait_until_idle());
    });
    if stopped.await.is_err() {
        log::warn!(limit_s = limit.as_secs_f64(); "drain timed out");
    }
    queue.remove_rested_records();
    let unmatched = service.handler.waiting_deliveries();
    let left: Vec<String> = queue.pending_targets().iter().map(ToString::to_string).collect();
    let is_kept = journal.is_persistent() && journal.is_writable();
    if !journal.close().await {
        log::error!("the journal cannot be closed; its disk does not respond");
    }
    let unpublished = publisher.map_or(0, Publisher::unpublished);
    if unpublished > 0 {
        log::error!(
            entries = unpublished;
            "entries that NATS has not taken stay in the journal for the next start, and are lost if its volume goes with the Pod"
        );
    }
    if unmatched.is_empty() && left.is_empty() {
        log::info!("drained; no reconcile request is pending");
        return ExitCode::SUCCESS;
    }
    if is_kept {
        log::warn!(
            deliveries = unmatched.len(), targets = left.len(), objects = left.join(", ");
            "pending reconcile requests stay in the journal for the next start"
        );
        return ExitCode::SUCCESS;
    }
    for delivery in &unmatched {
        log::error!(delivery:%; "delivery lost: the inventory never became complete");
    }
    if !left.is_empty() {
        log::error!(targets = left.len(), objects = left.join(", "); "pending reconcile requests lost");
    }
    ExitCode::FAILURE
}
