//! Takes changes of Flux's Receivers in force.

use std::collections::HashSet;
use std::sync::Arc;

use super::reloading::forget_what_is_gone;
use super::{announce_endpoint, show_in_metrics};
use crate::cluster::inventory::Watches;
use crate::endpoint::{Conflict, Endpoint};
use crate::flux::needs::Needs;
use crate::server::Service;

/// What is done with the endpoints of all Receivers, whenever one of them has changed.
pub(super) fn put_in_force(
    service: Arc<Service>,
    watches: Option<Arc<Watches>>,
) -> impl Fn(Vec<Arc<Endpoint>>) + Send {
    move |endpoints| {
        let before = service.in_force.get();
        let known: HashSet<*const Endpoint> = before.endpoints.iter().map(Arc::as_ptr).collect();
        for endpoint in endpoints.iter().filter(|endpoint| !known.contains(&Arc::as_ptr(endpoint))) {
            show_in_metrics(endpoint, &service.metrics);
            announce_endpoint(endpoint);
        }
        // Before deliveries ask for them: those wait until they are listed.
        if let Some(watches) = &watches {
            watches.also_watch(Needs::of(endpoints.iter().map(|endpoint| &endpoint.selection)));
        }
        let receivers = endpoints.len();
        for (endpoint, conflict) in service.in_force.replace_receivers(endpoints) {
            let (Conflict::Path(other) | Conflict::Name(other)) = conflict;
            log::error!(endpoint:% = endpoint.name, other:% = other.name; "another endpoint has its path or its name, so the Receiver is not served");
        }
        forget_what_is_gone(&service, &before);
        log::info!(receivers; "the Receivers of the cluster are in force");
    }
}
