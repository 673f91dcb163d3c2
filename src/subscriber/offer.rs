//! Whether a publisher offers what the config takes.

use super::connection::SubscribeError;
use crate::fleet::forward::covers;
use crate::fleet::hello::{Hello, OfferedEndpoint};
use crate::fleet::options::{SubscribedEndpoint, SubscriptionOptions};

/// Checks each endpoint of the config: it has to be offered, and what its filters read to be forwarded. A
/// filter over a field that never comes would be false for ever.
///
/// # Errors
/// The first endpoint or field that is missing.
pub(super) fn check(options: &SubscriptionOptions, hello: &Hello) -> Result<(), SubscribeError> {
    options.endpoints.iter().try_for_each(|endpoint| {
        let offered = hello.endpoints.get(&*endpoint.endpoint);
        let offered = offered.ok_or_else(|| SubscribeError::NotOffered(endpoint.endpoint.to_string()))?;
        match missing_field(endpoint, offered) {
            None => Ok(()),
            Some(field) => {
                Err(SubscribeError::NotForwarded { endpoint: endpoint.endpoint.to_string(), field })
            }
        }
    })
}

fn missing_field(endpoint: &SubscribedEndpoint, offered: &OfferedEndpoint) -> Option<String> {
    endpoint.read_fields().find(|field| !covers(&offered.forward, field)).map(str::to_owned)
}
