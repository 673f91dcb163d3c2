//! What a verified delivery says, narrowed to what its endpoint accepts without expressions.

use crate::endpoint::Endpoint;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::provider::{ParseContext, Parsed};
use crate::verify::Verified;

/// A part of a delivery; most deliveries have one.
pub(super) struct Part {
    pub(super) content: PartContent,
    /// The position of the next part, if there is one.
    pub(super) resume_at: Option<usize>,
}

pub(super) enum PartContent {
    /// These events are to be matched.
    Events(Vec<Event>),
    /// The provider wants its subscription confirmed at this URL.
    Confirm(String),
    /// There is nothing to match.
    Nothing(Outcome),
}

/// Reads the part of the delivery that begins at `resume_at`.
pub(super) fn read_part(endpoint: &Endpoint, delivery: &Verified<'_>, resume_at: usize) -> Part {
    let context = ParseContext { resume_at, ..endpoint.parse_context() };
    let (parsed, resume_at) = match endpoint.provider.read(delivery, &context) {
        Ok(Parsed::Part { events, resume_at }) => (Ok(Parsed::Events(events)), Some(resume_at)),
        parsed => (parsed, None),
    };
    let content = match parsed {
        Ok(Parsed::Confirm(url)) => PartContent::Confirm(url),
        _ if endpoint.suspended => PartContent::ignored("the endpoint is suspended"),
        Ok(Parsed::Ping) if !endpoint.selection.matches_all => PartContent::Nothing(Outcome::Pong),
        _ if let Some(event_type) = unaccepted_type(endpoint, delivery) => {
            PartContent::ignored(format!("event type `{event_type}` is not in the endpoint's `events`"))
        }
        Ok(Parsed::Events(events) | Parsed::Part { events, .. }) => narrow(endpoint, events),
        // It concerns everything in `resources`, whatever it says.
        _ if endpoint.selection.matches_all && (endpoint.takes_any_body || delivery.is_json()) => {
            PartContent::Events(vec![unread_event(endpoint, delivery)])
        }
        Ok(Parsed::Ping) => PartContent::Nothing(Outcome::Pong),
        Ok(Parsed::Ignored(reason)) => PartContent::ignored(reason),
        Err(err) => PartContent::Nothing(Outcome::Unreadable { why: err.0.into() }),
    };
    Part { content, resume_at }
}

impl PartContent {
    fn ignored(reason: impl Into<String>) -> PartContent {
        PartContent::Nothing(Outcome::ignored(reason.into()))
    }
}

fn narrow(endpoint: &Endpoint, events: Vec<Event>) -> PartContent {
    let events = match without_long_fields(events) {
        Ok(events) => events,
        Err(field) => return PartContent::ignored(format!("the payload names {field} that is too long")),
    };
    match endpoint.filter.narrow(events) {
        Ok(events) => PartContent::Events(events),
        Err(none_left) => PartContent::ignored(none_left.to_string()),
    }
}

/// Leaves out events with a field that is longer than it can be.
///
/// # Errors
/// When nothing is left; returns the field.
fn without_long_fields(mut events: Vec<Event>) -> Result<Vec<Event>, &'static str> {
    let mut long_field = None;
    events.retain(|event| match event.check_lengths() {
        Ok(()) => true,
        Err(field) => {
            long_field = Some(field);
            false
        }
    });
    match long_field {
        Some(field) if events.is_empty() => Err(field),
        _ => Ok(events),
    }
}

/// An event of which nothing but its type is known.
fn unread_event(endpoint: &Endpoint, delivery: &Verified<'_>) -> Event {
    let event_type = endpoint.provider.event_type(delivery);
    let what = if event_type.is_empty() { "a delivery".to_owned() } else { format!("event `{event_type}`") };
    Event::Anything { what }
}

/// Returns the event type, if the endpoint does not accept it.
fn unaccepted_type(endpoint: &Endpoint, delivery: &Verified<'_>) -> Option<String> {
    endpoint.filter.events.as_ref()?;
    let event_type = endpoint.provider.event_type(delivery);
    // A batch of events has no type of its own.
    let is_unaccepted = !event_type.is_empty() && !endpoint.filter.accepts_type(&event_type);
    is_unaccepted.then_some(event_type)
}
