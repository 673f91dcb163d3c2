//! Tasks that run in the background while deliveries are served.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cluster::watches::Watches;
use crate::endpoint::Endpoint;
use crate::journal::Journal;
use crate::journal::contents::JournalChange;
use crate::receive::EventPublisher;
use crate::service::Service;
use crate::subscriber::Subscriptions;

/// Logs that the inventory is complete, and catches up if that has to be; never ends.
pub(super) async fn when_synced(
    service: Arc<Service>,
    watches: Arc<Watches>,
    journal: Journal,
    catch_up: bool,
) {
    watches.wait_until_synced().await;
    let unlistable = watches.unlistable_kinds();
    if unlistable.is_empty() {
        log::info!("inventory complete; matching deliveries as they arrive");
    } else {
        let kinds: Vec<String> = unlistable.iter().map(ToString::to_string).collect();
        log::warn!(
            kinds = kinds.join(",");
            "inventory complete but for kinds that cannot be listed; matching deliveries as they arrive"
        );
    }
    if catch_up {
        let is_all = watches.is_all_known() && service.registry.knows_all();
        catch_up_with(&service).await;
        if !is_all {
            // Receivers can name kinds that nobody has watched before.
            service.registry.wait_until_known(Duration::MAX).await;
            watches.wait_until_known().await;
            catch_up_with(&service).await;
        }
    }
    // Until here a restart would have to catch up as well.
    journal.write_later([JournalChange::CaughtUp]);
    std::future::pending().await
}

/// Tells the subscribers of a publisher that it was away; ends once they cannot miss it.
pub(super) async fn announce_absence(publisher: Option<Arc<EventPublisher>>) {
    let Some(publisher) = publisher else { return };
    while publisher.request_catch_up().await.is_err() {
        tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
    }
    log::warn!("the publisher was away; every subscriber catches up");
}

async fn catch_up_with(service: &Service) {
    while service.handler.catch_up(service.registry.get().endpoints.iter()).await.is_err() {
        log::warn!("the catch-up could not be written to the journal, retrying");
        tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
    }
}

/// Requests objects that were created or changed while their watch was interrupted; never ends.
pub(super) async fn catch_up_after_gaps(
    service: Arc<Service>,
    watches: Arc<Watches>,
    subscriptions: Arc<Subscriptions>,
) {
    loop {
        let missed = watches.missed_changes().await;
        // Those of one list come together.
        tokio::time::sleep(GAP_BATCH_DELAY).await;
        while service.handler.catch_up_targets(&service.registry.get().endpoints, &missed).await.is_err() {
            tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
        }
        while subscriptions.catch_up_targets(&missed).await.is_err() {
            tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
        }
    }
}

/// Requests the objects of endpoints whose deliveries were answered as to unknown paths.
pub(super) async fn catch_up_late(service: &Service, watches: Option<&Watches>, came_late: &[Arc<Endpoint>]) {
    if let Some(watches) = watches {
        watches.wait_until_synced().await;
    }
    while service.handler.catch_up(came_late.iter()).await.is_err() {
        tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
    }
}

const GAP_BATCH_DELAY: Duration = Duration::from_secs(1);

/// The longest time between two of these records.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Returns the interval at which the journal is told: several times within the absence that matters, so
/// that a quick restart never looks like one.
pub(super) fn alive_interval(catch_up_after: Option<Duration>) -> Duration {
    let most = catch_up_after.map_or(ALIVE_INTERVAL, |after| after / 3);
    most.clamp(Duration::from_secs(1), ALIVE_INTERVAL)
}

/// Tells the journal that deliveries are accepted; never ends.
pub(super) async fn record_alive(journal: Journal, interval: Duration) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        journal.write_later([JournalChange::Alive(now.as_secs())]);
        tokio::time::sleep(interval).await;
    }
}

const CATCH_UP_RETRY_DELAY: Duration = Duration::from_secs(10);
