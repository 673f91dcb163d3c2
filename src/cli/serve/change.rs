//! Puts another config or other Receivers in force, and says what that changes.

use std::collections::HashSet;
use std::sync::Arc;

use super::announce::announce_endpoint;
use super::application::shown;
use crate::cluster::watches::Watches;
use crate::endpoint::registry::{Conflict, EndpointRegistry, Serving};
use crate::endpoint::{Endpoint, EndpointId};
use crate::flux::needs::InventoryNeeds;
use crate::service::Service;

/// Puts what `replace` brings in force; `needs` is what it takes to match by it. `replace` gives the
/// Receivers that cannot be served.
pub(super) fn put_in_force(
    service: &Service,
    watches: Option<&Watches>,
    needs: InventoryNeeds,
    replace: impl FnOnce(&EndpointRegistry) -> Vec<(Arc<Endpoint>, Conflict)>,
) {
    // Before deliveries need them: those wait until they are listed.
    if let Some(watches) = watches {
        watches.also_watch(needs);
    }
    let before = service.registry.get();
    let conflicts = replace(&service.registry);
    let now = service.registry.get();
    let known: HashSet<EndpointId> = before.endpoints.iter().map(|endpoint| endpoint.id()).collect();
    for endpoint in now.endpoints.iter().filter(|endpoint| !known.contains(&endpoint.id())) {
        service.metrics.show(&shown(endpoint));
        announce_endpoint(endpoint);
    }
    for (endpoint, conflict) in conflicts {
        let (endpoint, what, holder) = match conflict {
            Conflict::Path(holder) => (endpoint, "path", holder),
            Conflict::Name(holder) => (endpoint, "name", holder),
            Conflict::Alias(holder) => (endpoint, "alias", holder),
            Conflict::OtherPath(holder) => {
                log::warn!(endpoint:% = endpoint.name, holder:% = holder.name; "the hook path in the status of the Receiver belongs to another endpoint");
                continue;
            }
        };
        log::error!(endpoint:% = endpoint.name, conflict = what, holder:% = holder.name; "Receiver is not served: another endpoint has its path or name");
    }
    forget_what_is_gone(service, &before, &now);
    let named: HashSet<&str> = now
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.credentials.issuers())
        .map(|issuer| issuer.url.as_str())
        .collect();
    service.handler.retain_issuers(|url| named.contains(url));
}

fn forget_what_is_gone(service: &Service, before: &Serving, now: &Serving) {
    let gone = before.endpoints.iter().filter(|endpoint| now.endpoints.named(&endpoint.name).is_none());
    for endpoint in gone {
        service.metrics.forget(&shown(endpoint));
        service.history.forget(&endpoint.name);
    }
}
