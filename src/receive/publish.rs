//! Appends what endpoints let through to the event log of a publisher.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::gather;
use crate::endpoint::{Endpoint, EndpointOrigin};
use crate::event::Event;
use crate::expression::VariableName;
use crate::fleet::forward::ForwardedFields;
use crate::fleet::options::{GrantedEndpoints, PublisherOptions};
use crate::fleet::wire::{Entry, PublishedEvent};
use crate::journal::event_log::{EventLog, NewEntry};
use crate::journal::{JournalCommit, NotDurable};
use crate::trace_parent::TraceParent;
use crate::verify::Verified;

/// Appends events to the event log.
pub struct EventPublisher {
    log: Arc<dyn EventLog>,
    granted: RwLock<GrantedNames>,
}

/// The endpoints that some subscriber gets; events of others would reach nobody.
enum GrantedNames {
    All,
    Named(HashSet<String>),
}

/// What an entry says of a delivery beside its event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeliveryFields {
    endpoint: String,
    provider: String,
    event_type: String,
    forwarded: ForwardedFields,
    #[serde(default)]
    trace: Option<TraceParent>,
}

/// Bytes of an event type; providers choose among short names.
const MAX_EVENT_TYPE_BYTES: usize = 256;

impl EventPublisher {
    /// A publisher that appends to this log.
    pub fn new(log: Arc<dyn EventLog>, options: &PublisherOptions) -> EventPublisher {
        EventPublisher { log, granted: RwLock::new(GrantedNames::new(options)) }
    }

    /// Takes changed options in force.
    pub fn replace(&self, options: &PublisherOptions) {
        *self.granted.write() = GrantedNames::new(options);
    }

    /// Makes every subscriber catch up: deliveries may have been refused.
    ///
    /// # Errors
    /// When the log cannot be written; subscribers are not told then.
    pub async fn request_catch_up(&self) -> Result<(), NotDurable> {
        self.log.append(vec![NewEntry::new("", &Entry::CatchUp)]).wait_until_durable().await
    }

    /// Returns what is published of a delivery beside its events; none if they are not published.
    pub(super) fn fields(&self, endpoint: &Endpoint, delivery: &Verified<'_>) -> Option<DeliveryFields> {
        let is_granted = match &*self.granted.read() {
            GrantedNames::All => true,
            GrantedNames::Named(names) => names.contains(&*endpoint.name),
        };
        // A Receiver belongs to a tenant, and its name is not in the config that grants.
        (is_granted && endpoint.origin == EndpointOrigin::Config).then(|| {
            let mut event_type = endpoint.provider.event_type(delivery);
            if event_type.len() > MAX_EVENT_TYPE_BYTES {
                event_type.clear();
            }
            DeliveryFields {
                endpoint: endpoint.name.to_string(),
                provider: endpoint.provider.name.to_owned(),
                event_type,
                forwarded: forwarded(endpoint, delivery),
                trace: delivery.trace(),
            }
        })
    }

    /// Says why events cannot be appended, once they could not.
    pub(super) fn refusal(&self) -> &'static str {
        self.log.refusal()
    }

    /// Appends events.
    pub(super) fn append(&self, fields: &DeliveryFields, events: &[Event]) -> JournalCommit {
        let entries = events.iter().map(|event| {
            let DeliveryFields { endpoint, provider, event_type, forwarded, trace } = fields.clone();
            let event = event.clone();
            let published = PublishedEvent { endpoint, provider, event_type, event, forwarded, trace };
            NewEntry::new(&fields.endpoint, &Entry::Event(Box::new(published)))
        });
        self.log.append(entries.collect())
    }
}

impl GrantedNames {
    fn new(options: &PublisherOptions) -> GrantedNames {
        let mut names = HashSet::new();
        for granted in options.granted() {
            match granted {
                GrantedEndpoints::All => return GrantedNames::All,
                GrantedEndpoints::Named(granted) => names.extend(granted.iter().cloned()),
            }
        }
        GrantedNames::Named(names)
    }
}

/// Takes the fields that the endpoint names out of the delivery, and no others.
fn forwarded(endpoint: &Endpoint, delivery: &Verified<'_>) -> ForwardedFields {
    let paths = endpoint.forward.iter().map(ToString::to_string).collect();
    let mut fields = ForwardedFields { paths, ..ForwardedFields::default() };
    let of = |variable| endpoint.forward.iter().filter(move |path| path.variable() == variable);
    if of(VariableName::Req).next().is_some() {
        match gather::body(endpoint, delivery) {
            Ok(body) => of(VariableName::Req).for_each(|path| fields.take(path, &body)),
            Err(_) => fields.too_long.extend(of(VariableName::Req).map(ToString::to_string)),
        }
    }
    if of(VariableName::Headers).next().is_some() {
        let headers = serde_json::json!(gather::headers(endpoint, delivery)).to_string();
        of(VariableName::Headers).for_each(|path| fields.take(path, &headers));
    }
    if let Some(claims) = &delivery.claims {
        let claims = claims.to_string();
        of(VariableName::Claims).for_each(|path| fields.take(path, &claims));
    }
    fields
}
