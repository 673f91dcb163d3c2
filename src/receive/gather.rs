//! Gathers what the expressions of an endpoint read of a delivery, and no more.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::endpoint::Endpoint;
use crate::expression::VariableName;
use crate::filter_input::{FilterInput, UnreadableBody};
use crate::json_items::{MAX_TREE_VALUES, has_too_many_values};
use crate::verify::Verified;
use crate::verify::auth::Auth;

/// A body that is longer takes too much memory to be read field by field, in bytes.
const MAX_REQUEST_BYTES: usize = 3 << 20;

/// The input about a delivery that the endpoint's expressions name; none if there are no expressions.
pub(super) fn filter_input(endpoint: &Endpoint, delivery: &Verified<'_>) -> FilterInput {
    let mut expressions = endpoint.filter.condition.iter().chain(endpoint.selection.filters()).peekable();
    if expressions.peek().is_none() {
        return FilterInput::default();
    }
    let (mut event, mut request, mut headers, mut claims) = (false, false, false, false);
    for expression in expressions {
        event |= expression.names(VariableName::Event);
        request |= expression.names(VariableName::Req);
        headers |= expression.names(VariableName::Headers);
        claims |= expression.names(VariableName::Claims);
    }
    let name = if event { endpoint.provider.event_type(delivery) } else { String::new() };
    let mut input = FilterInput::named(name);
    if request {
        input = input.with_request(body(endpoint, delivery));
    }
    if headers {
        input = input.with_headers(self::headers(endpoint, delivery));
    }
    match &delivery.claims {
        Some(of_token) if claims => input.with_claims(of_token),
        _ => input,
    }
}

/// The headers by their names in lower case, without those that authenticate.
pub(super) fn headers(endpoint: &Endpoint, delivery: &Verified<'_>) -> BTreeMap<String, String> {
    let named = endpoint.provider.event_header.map_or(&[][..], |header| header.names);
    let secret = match endpoint.credentials.header() {
        Some(Auth::Header(name)) => Some(name.as_str()),
        _ => None,
    };
    delivery.plain_headers(named, secret)
}

/// The body as JSON text; a body that is no JSON has no fields.
pub(super) fn body(endpoint: &Endpoint, delivery: &Verified<'_>) -> Result<String, UnreadableBody> {
    let length = delivery.body_length();
    if length > MAX_REQUEST_BYTES {
        return Err(UnreadableBody::TooLong { length, max: MAX_REQUEST_BYTES });
    }
    let read = match endpoint.provider.filter_body {
        Some(inside) => inside(delivery),
        None => delivery.json().map(|body: Box<RawValue>| body.get().to_owned()).ok(),
    };
    let text = read.unwrap_or_else(|| "{}".to_owned());
    match has_too_many_values(&text) {
        true => Err(UnreadableBody::TooManyValues { max: MAX_TREE_VALUES }),
        false => Ok(text),
    }
}
