//! Whether a publisher offers what the config takes.

use super::connection::SubscribeError;
use crate::expression::{Expression, VariableName};
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
    let filters: Vec<&Expression> =
        endpoint.filter.condition.iter().chain(endpoint.selection.filters()).collect();
    let variables = [VariableName::Req, VariableName::Headers, VariableName::Claims];
    let mut read =
        filters.iter().flat_map(|filter| variables.iter().flat_map(|name| filter.fields_of(*name)));
    let is_forwarded = |field: &str| {
        let within =
            |path: &String| field.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'));
        offered.forward.iter().any(|path| path == field || within(path))
    };
    read.find(|field| !is_forwarded(field)).map(str::to_owned)
}
