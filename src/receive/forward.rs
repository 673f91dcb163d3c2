//! Hands events to Flux v1, which matches them itself.

use futures::future::BoxFuture;

use super::summary::summary;
use super::unavailable;
use crate::event::Event;
use crate::matching;
use crate::outcome::Outcome;

/// The role that tells Flux v1 of an event.
pub trait Notify: Send + Sync {
    /// Hands the event over; says whether there was anything in it that Flux v1 knows.
    ///
    /// # Errors
    /// The reason why Flux v1 did not take it.
    fn notify<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, anyhow::Result<bool>>;
}

/// Forwards pushes, as far as Flux v1 knows them.
pub(super) async fn forward(flux_v1: &dyn Notify, events: &[Event]) -> Outcome {
    if matching::only_deletions(events) {
        return Outcome::ignored(format!("{}: nothing to fetch", summary(events)));
    }
    let mut is_known = false;
    for event in events {
        match flux_v1.notify(event).await {
            Ok(is_event_known) => is_known |= is_event_known,
            Err(err) => {
                log::warn!(why:% = format!("{err:#}"); "Flux v1 rejected an event");
                return unavailable("Flux v1 did not take the event");
            }
        }
    }
    match is_known {
        true => Outcome::Forwarded { event: summary(events).into() },
        false => Outcome::ignored(format!("{}: nothing that Flux v1 knows", summary(events))),
    }
}
