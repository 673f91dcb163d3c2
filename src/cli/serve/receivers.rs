//! Takes changes of Flux's Receivers in force.

use std::sync::Arc;

use super::change;
use crate::cluster::watches::Watches;
use crate::endpoint::Endpoint;
use crate::flux::needs::InventoryNeeds;
use crate::service::Service;

/// Returns the function that serves the endpoints of all Receivers whenever one changes. Objects of those that
/// came late are requested once.
pub(super) fn put_in_force(
    service: Arc<Service>,
    watches: Option<Arc<Watches>>,
) -> impl Fn(Vec<Arc<Endpoint>>, Vec<Arc<Endpoint>>) + Send {
    move |endpoints, came_late| {
        let receivers = endpoints.len();
        let needs = InventoryNeeds::from_selections(endpoints.iter().map(|endpoint| &endpoint.selection));
        change::put_in_force(&service, watches.as_deref(), needs, |registry| {
            registry.replace_receivers(endpoints)
        });
        log::info!(receivers; "Receivers updated");
        if !came_late.is_empty() {
            let (service, watches) = (Arc::clone(&service), watches.clone());
            tokio::spawn(async move {
                super::background::catch_up_late(&service, watches.as_deref(), &came_late).await
            });
        }
    }
}
