//! The way of a delivery through the house: verify → read → match → queue.
//!
//! Knows neither HTTP nor Kubernetes clients. Nothing flows back but the [`Outcome`].

mod backlog;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;

use self::backlog::{Backlog, Kept, Waiting};
use crate::delivery::Delivery;
use crate::endpoint::Endpoint;
use crate::event::Event;
use crate::matching::{self, Inventory};
use crate::outcome::Outcome;
use crate::provider::Parsed;
use crate::queue::Queue;
use crate::verify::{Refusal, Tools, verify};

/// Takes deliveries.
pub struct Receiver {
    tools: Tools,
    sink: Sink,
}

/// Where events go.
pub enum Sink {
    /// To the Flux objects that they concern.
    Flux(FluxObjects),
    /// To fluxd, the daemon of Flux v1.
    FluxV1(Box<dyn Notify>),
}

/// The Flux objects and the way to ask for their reconciliation.
pub struct FluxObjects {
    /// The objects, kept current by whoever watches them.
    pub inventory: Arc<RwLock<Inventory>>,
    /// Asks for reconciliation.
    pub queue: Queue,
    /// Whether there is no cluster behind it: answers say so.
    pub dry_run: bool,
    backlog: Backlog,
}

/// The role that tells Flux v1 of an event.
pub trait Notify: Send + Sync {
    /// Hands the event over; says whether there was anything in it that Flux v1 knows.
    ///
    /// # Errors
    /// Why Flux did not take it.
    fn notify<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<bool, String>>;
}

/// When to send again what could not be taken.
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl FluxObjects {
    /// Objects of which none is known yet: deliveries wait for [`Receiver::open`].
    pub fn new(inventory: Arc<RwLock<Inventory>>, queue: Queue, dry_run: bool) -> FluxObjects {
        FluxObjects { inventory, queue, dry_run, backlog: Backlog::closed() }
    }
}

impl Receiver {
    /// A receiver.
    pub fn new(tools: Tools, sink: Sink) -> Receiver {
        Receiver { tools, sink }
    }

    /// Takes a delivery to an endpoint and says what became of it.
    pub async fn receive(&self, endpoint: &Arc<Endpoint>, delivery: Delivery<'_>) -> Outcome {
        let provider = endpoint.provider;
        let verified = match verify(delivery, provider.proof, &endpoint.credentials, &self.tools).await {
            Ok(verified) => verified,
            Err(refusal) => return refused(refusal),
        };
        let events = match (provider.parse)(&verified, &endpoint.hints()) {
            Ok(Parsed::Events(events)) => events,
            Ok(Parsed::Ping) => return Outcome::Pong,
            Ok(Parsed::Ignored(reason)) => return Outcome::Ignored { reason },
            Err(err) => return Outcome::Unreadable { why: err.to_string() },
        };
        match &self.sink {
            Sink::Flux(objects) => {
                objects.take(Waiting { endpoint: Arc::clone(endpoint), events, size: delivery.body.len() })
            }
            Sink::FluxV1(flux) => forward(&**flux, &events).await,
        }
    }

    /// Waits until no delivery waits for the objects to be known.
    pub async fn matched(&self) {
        if let Sink::Flux(objects) = &self.sink {
            objects.backlog.empty().await;
        }
    }

    /// The deliveries that wait until the objects are known, in a line each.
    pub fn unmatched(&self) -> Vec<String> {
        match &self.sink {
            Sink::Flux(objects) => objects.backlog.summaries(),
            Sink::FluxV1(_) => Vec::new(),
        }
    }

    /// The objects are known now: matches what has waited, and lets nothing wait any more.
    pub fn open(&self) {
        let Sink::Flux(objects) = &self.sink else { return };
        for waiting in objects.backlog.open() {
            let endpoint = Arc::clone(&waiting.endpoint);
            let outcome = objects.match_and_queue(&waiting);
            log::info!(
                endpoint:% = endpoint.name, source = endpoint.provider.name, outcome = outcome.label();
                "queued delivery: {}", outcome.detail()
            );
        }
        objects.backlog.settled();
    }
}

impl FluxObjects {
    fn take(&self, delivery: Waiting) -> Outcome {
        match self.backlog.keep(delivery) {
            Kept::Waits { event } => Outcome::Queued { event },
            Kept::NotNeeded(delivery) => self.match_and_queue(&delivery),
            Kept::Full => Outcome::Unavailable {
                why: "too many deliveries wait until the objects of the cluster are known".to_owned(),
                retry_after: RETRY_AFTER,
            },
        }
    }

    fn match_and_queue(&self, Waiting { endpoint, events, .. }: &Waiting) -> Outcome {
        let matched = {
            let inventory = self.inventory.read().unwrap_or_else(PoisonError::into_inner);
            matching::find(&inventory, events, &endpoint.namespaces)
        };
        if matched.targets.is_empty() {
            if matching::only_deletions(events) && matched.skipped.is_empty() {
                return Outcome::Ignored { reason: format!("{}: no version range cares", summary(events)) };
            }
            let reason = matched.why_nothing(events);
            return Outcome::Unmatched { event: summary(events), reason, skipped: matched.skipped };
        }
        self.queue.want(&matched.targets);
        Outcome::Accepted {
            event: summary(events),
            targets: matched.targets,
            skipped: matched.skipped,
            dry_run: self.dry_run,
        }
    }
}

fn refused(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Unproved(why) => Outcome::Refused { why },
        Refusal::CannotCheck(why) => {
            log::warn!(why:%; "cannot check a proof");
            Outcome::Unavailable {
                why: "the proof cannot be checked now".to_owned(),
                retry_after: RETRY_AFTER,
            }
        }
    }
}

/// Flux v1 is told of pushes only, as far as it knows them.
async fn forward(flux: &dyn Notify, events: &[Event]) -> Outcome {
    if matching::only_deletions(events) {
        return Outcome::Ignored { reason: format!("{}: nothing to fetch", summary(events)) };
    }
    let mut told = false;
    for event in events {
        match flux.notify(event).await {
            Ok(some) => told |= some,
            Err(why) => {
                log::warn!(why:%; "Flux v1 did not take an event");
                let why = "Flux v1 did not take the event".to_owned();
                return Outcome::Unavailable { why, retry_after: RETRY_AFTER };
            }
        }
    }
    if told {
        return Outcome::Forwarded { event: summary(events) };
    }
    Outcome::Ignored { reason: format!("{}: nothing that Flux v1 knows", summary(events)) }
}

fn summary(events: &[Event]) -> String {
    let lines: Vec<String> = events.iter().map(Event::summary).collect();
    lines.join("; ")
}
