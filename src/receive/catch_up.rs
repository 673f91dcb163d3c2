//! Requests objects whose deliveries may have been missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{DeliveryHandler, Sink};
use crate::endpoint::Endpoint;
use crate::endpoint::registry::Endpoints;
use crate::flux::Target;
use crate::journal::NotDurable;
use crate::matching;

/// The average time between two requests of a catch-up.
pub(super) const CATCH_UP_INTERVAL: Duration = Duration::from_millis(20);

impl DeliveryHandler {
    /// Requests once the reconciliation of every object that a delivery to one of these endpoints could
    /// concern, spread out: for a start that does not know what it has missed.
    ///
    /// # Errors
    /// When the journal does not hold all of them.
    pub async fn catch_up(&self, endpoints: impl Iterator<Item = &Arc<Endpoint>>) -> Result<(), NotDurable> {
        self.catch_up_where(endpoints, |_| true).await
    }

    /// Requests some objects once: those that were created or changed while nobody watched.
    ///
    /// # Errors
    /// When the journal does not hold all of them.
    pub async fn catch_up_targets(
        &self,
        endpoints: &Endpoints,
        missed: &BTreeSet<Target>,
    ) -> Result<(), NotDurable> {
        self.catch_up_where(endpoints.iter(), |target| missed.contains(target)).await
    }

    async fn catch_up_where(
        &self,
        endpoints: impl Iterator<Item = &Arc<Endpoint>>,
        is_wanted: impl Fn(&Target) -> bool,
    ) -> Result<(), NotDurable> {
        let Sink::Flux(objects) = &self.sink else { return Ok(()) };
        let mut targets = BTreeSet::new();
        {
            let inventory = objects.inventory.read();
            for endpoint in endpoints {
                targets.extend(matching::all_of(&inventory, endpoint.provider.subjects, &endpoint.selection));
            }
        }
        let targets: Vec<Target> = targets.into_iter().filter(is_wanted).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let window = CATCH_UP_INTERVAL.saturating_mul(u32::try_from(targets.len()).unwrap_or(u32::MAX));
        log::info!(objects = targets.len(), within_s = window.as_secs(); "catching up: requesting each object once");
        objects.queue.request_spread(&targets, window).wait_until_durable().await
    }
}
