//! The Flux objects of a cluster as the destination of events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::backlog::{Backlog, BacklogAnswer, BacklogEntry};
use super::evaluation::FilterTask;
use super::publish::{DeliveryFields, EventPublisher};
use super::summary::summary;
use super::unavailable;
use crate::endpoint::Endpoint;
use crate::endpoint::limit::Charge;
use crate::event::Event;
use crate::flux::Target;
use crate::flux::needs::InventoryNeeds;
use crate::follow_through::FollowThrough;
use crate::history::{DeliveryId, History, RequestRound};
use crate::journal::contents::Contents;
use crate::journal::{Journal, JournalCommit};
use crate::matching::{self, Inventory, MatchResult, SelectionOf};
use crate::metrics::Metrics;
use crate::object_event::{ObjectEvent, ObjectEventReason, ObjectEvents};
use crate::outcome::{Outcome, SkippedTarget};
use crate::queue::{PendingCommits, Queue, RequestObserver, WriteError};

/// Remembers what becomes of requests.
struct RememberRequests {
    history: Arc<History>,
    events: Option<Arc<dyn ObjectEvents>>,
}

impl RequestObserver for RememberRequests {
    fn requested(&self, target: &Target, age: Duration) {
        let round = self.history.requested(target, age);
        // A repetition for a push that is late says nothing new.
        if let Some(events) = self.events.as_ref().filter(|_| round.deliveries > 0) {
            events.record(ObjectEvent {
                target: target.clone(),
                reason: ObjectEventReason::ReconcileRequested,
                message: describe_round(&round),
                revision: round.revision,
                trace: round.trace,
            });
        }
    }

    fn gone(&self, target: &Target) {
        self.history.gone(target);
    }

    fn failed(&self, target: &Target, error: &WriteError) {
        self.history.request_failed(target, &error.to_string());
        if let (Some(events), WriteError::Forbidden(why)) = (&self.events, error) {
            events.record(ObjectEvent {
                target: target.clone(),
                reason: ObjectEventReason::RequestForbidden,
                message: format!("flux-recv may not request the reconciliation: {why}"),
                revision: None,
                trace: None,
            });
        }
    }
}

/// Who pushed what, and how many deliveries the request was for.
fn describe_round(round: &RequestRound) -> String {
    let Some((endpoint, event)) = &round.last else { return "a delivery".to_owned() };
    match round.deliveries {
        1 => format!("{event}, at endpoint {endpoint}"),
        many => format!("{event}, at endpoint {endpoint}, and {} more deliveries", many - 1),
    }
}

/// The Flux objects of a cluster, and the queue of requests for their reconciliation.
pub struct FluxObjects {
    /// The objects, updated by the watches or from manifest files.
    pub inventory: Arc<RwLock<Inventory>>,
    pub queue: Queue,
    /// Checks whether Flux fetches what was pushed; none without a cluster.
    pub follow_through: Option<FollowThrough>,
    /// Remembers what queued deliveries come to.
    pub history: Arc<History>,
    /// Publishes events to other clusters; none if this is not a publisher.
    pub publisher: Option<Arc<EventPublisher>>,
    /// Tells objects of what concerns them, where an operator wants Kubernetes Events.
    events: Option<Arc<dyn ObjectEvents>>,
    /// There is no cluster behind it: answers say so.
    pub dry_run: bool,
    pub(super) backlog: Backlog,
}

impl FluxObjects {
    /// Creates it for objects of which none is known yet. Deliveries wait until they can be matched, with
    /// those that an earlier process has left in the journal.
    pub fn new(
        inventory: Arc<RwLock<Inventory>>,
        queue: Queue,
        journal: Journal,
        left: &Contents,
        metrics: Arc<Metrics>,
    ) -> FluxObjects {
        let backlog = Backlog::new(journal, left, metrics);
        FluxObjects {
            inventory,
            queue,
            follow_through: None,
            publisher: None,
            history: Arc::default(),
            events: None,
            dry_run: false,
            backlog,
        }
    }

    /// Remembers in this history what queued deliveries and requests come to.
    pub fn remember_in(&mut self, history: Arc<History>, events: Option<Arc<dyn ObjectEvents>>) {
        let observer = RememberRequests { history: Arc::clone(&history), events: events.clone() };
        self.queue.observe(Arc::new(observer));
        (self.history, self.events) = (history, events);
    }

    /// Returns what has to be known of the cluster so that the deliveries that wait can be matched,
    /// whatever endpoints there are by now.
    pub fn needs(&self) -> InventoryNeeds {
        self.backlog.needs()
    }

    /// Requests the reconciliation of what matched, and publishes the events if they are to be.
    pub(super) async fn request(
        &self,
        id: &DeliveryId,
        of: SelectionOf<'_>,
        events: &[Event],
        fields: Option<&DeliveryFields>,
        mut matched: MatchResult,
        charge: &mut Charge<'_>,
    ) -> Outcome {
        self.remember_digests(events, &matched);
        if (fields.is_some() || !self.queue.all_pending(&matched.targets))
            && let Err(retry_after) = charge.once(Instant::now())
        {
            return Outcome::TooMany { retry_after };
        }
        self.expect_revisions(id, &mut matched);
        let published = self.publish(fields, events);
        if self.queue.request(&matched.targets).and(published).wait_until_durable().await.is_err() {
            return self.not_durable();
        }
        self.outcome(events, matched, of, fields.is_some())
    }

    fn not_durable(&self) -> Outcome {
        let of_log = self.publisher.as_ref().map(|publisher| publisher.refusal());
        unavailable(of_log.unwrap_or("the journal cannot be written now"))
    }

    /// Appends the events to the event log, if they are to be published.
    pub(super) fn publish(&self, fields: Option<&DeliveryFields>, events: &[Event]) -> Option<JournalCommit> {
        Some(self.publisher.as_ref()?.append(fields?, events))
    }

    /// Puts a delivery into the backlog until its kinds are known and its filters have CPU time. What is known to match is
    /// requested at once: one kind may be broken for long.
    pub(super) async fn defer(
        &self,
        endpoint: &Endpoint,
        id: &DeliveryId,
        fields: Option<DeliveryFields>,
        task: FilterTask,
        known: &[Target],
    ) -> Outcome {
        let FilterTask { events, input, condition, selection, .. } = task;
        let input = input.at_rest(condition.iter().chain(selection.filters()));
        // What its own filter has let through is published at once, whatever this cluster makes of it.
        let (published, publish) = match &condition {
            None => (self.publish(fields.as_ref(), &events), None),
            Some(_) => (None, fields),
        };
        let delivery = BacklogEntry {
            endpoint: endpoint.name.to_string(),
            id: Some(id.clone()),
            source: endpoint.provider.name.to_owned(),
            condition,
            selection,
            events,
            input,
            publish,
            size: 0,
        };
        let (event, commit) = match self.backlog.keep(delivery) {
            BacklogAnswer::Waits { event, commit } => (event, commit),
            BacklogAnswer::Full => {
                return unavailable("too many deliveries of this endpoint wait to be matched");
            }
        };
        // The record of the delivery stands for these objects, too.
        drop(self.queue.request(known));
        let committed = PendingCommits::default().and(commit).and(published).wait_until_durable().await;
        committed.map_or_else(|_| self.not_durable(), |()| Outcome::Queued { event })
    }

    /// Takes note of what the events say about tags, also where a limit refuses the delivery.
    pub(super) fn remember_digests(&self, events: &[Event], matched: &MatchResult) {
        if events.iter().any(|event| matches!(event, Event::Image(_))) {
            let inventory = self.inventory.read();
            matching::remember_digests(&inventory, events, matched);
        }
    }

    /// Begins to check the revisions of what matched, before anything can happen to the objects.
    pub(super) fn expect_revisions(&self, id: &DeliveryId, matched: &mut MatchResult) {
        let Some(follow_through) = &self.follow_through else { return };
        let inclusions = std::mem::take(&mut matched.inclusions);
        follow_through.expect_inclusions(id, inclusions, &matched.expected);
        follow_through.expect(id, std::mem::take(&mut matched.expected));
    }

    pub(super) fn outcome(
        &self,
        events: &[Event],
        matched: MatchResult,
        of: SelectionOf<'_>,
        is_published: bool,
    ) -> Outcome {
        if let Some(recorder) = &self.events {
            for SkippedTarget { target, .. } in &matched.skipped {
                recorder.record(ObjectEvent {
                    target: target.clone(),
                    reason: ObjectEventReason::ReconcileSkipped,
                    revision: None,
                    trace: None,
                    message: format!(
                        "{}, at endpoint {}; the object is suspended",
                        summary(events),
                        of.endpoint
                    ),
                });
            }
        }
        if !matched.targets.is_empty() || is_published {
            return Outcome::Accepted {
                event: summary(events).into(),
                targets: matched.targets,
                skipped: matched.skipped,
                dry_run: self.dry_run,
                is_published,
            };
        }
        if matching::only_deletions(events) && matched.skipped.is_empty() {
            let reason = "no tracked semver range can be affected by this deletion";
            return Outcome::ignored(format!("{}: {reason}", summary(events)));
        }
        let reason = matched.why_nothing(events, of).into();
        Outcome::Unmatched { event: summary(events).into(), reason, skipped: matched.skipped }
    }
}
