//! The way of a delivery: verify → read → match → queue.
//!
//! Knows neither HTTP nor Kubernetes clients. Nothing flows back but the [`Outcome`].

mod backlog;
mod catch_up;
mod evaluation;
mod explain;
mod filter_thread;
mod flux_objects;
mod forward;
mod gather;
mod match_backlog;
mod part_outcomes;
mod publish;
mod read_part;
mod subscribed;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::evaluation::{Evaluation, FilterTask, InventoryMatch};
pub use self::explain::{ExplainQuery, ExplainReport, ExplainRules, explain};
use self::filter_thread::{FilterThread, NotEvaluated};
pub use self::flux_objects::FluxObjects;
pub use self::forward::Notify;
use self::part_outcomes::PartOutcomes;
use self::publish::DeliveryFields;
pub use self::publish::EventPublisher;
use self::read_part::{PartContent, read_part};
pub use self::subscribed::{NotTaken, SubscribedEvent};
use crate::bounded_text::BoundedText;
use crate::delivery::Delivery;
use crate::endpoint::Endpoint;
use crate::endpoint::limit::Charge;
use crate::event::Event;
use crate::event::normal_form::NormalEvent;
use crate::expression::Expression;
use crate::filter_input::FilterInput;
use crate::flux::Target;
use crate::flux::selection::Selection;
use crate::history::{DeliveryId, MAX_EVENTS, StepTimes};
use crate::matching::{MatchResult, SelectionOf};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::trace_parent::TraceParent;
use crate::verify::test_mark;
use crate::verify::{Refusal, Verified, VerifyContext, verify};

/// Takes a delivery from its verification to its outcome.
pub struct DeliveryHandler {
    verify_context: VerifyContext,
    sink: Sink,
    filters: FilterThread,
    metrics: Arc<Metrics>,
}

/// The destination of verified events.
pub enum Sink {
    /// The Flux objects that they concern.
    Flux(FluxObjects),
    /// Flux v1.
    FluxV1(Box<dyn Notify>),
}

/// A delivery that was taken.
pub struct Receipt {
    pub outcome: Outcome,
    /// The file of the key that verified it, if a key did.
    pub key: Option<Arc<str>>,
    /// What it was about, as far as it was read.
    pub events: Vec<NormalEvent>,
    /// What the provider calls the delivery.
    pub provider_id: Option<BoundedText>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    pub steps: StepTimes,
}

impl Receipt {
    /// A delivery that was not read.
    pub fn unread(outcome: Outcome) -> Receipt {
        Receipt {
            outcome,
            key: None,
            events: Vec::new(),
            provider_id: None,
            trace: None,
            steps: StepTimes::default(),
        }
    }
}

/// What the events of a part concern.
enum Matches {
    /// Nothing, for a reason that the outcome tells.
    None(Outcome),
    /// These objects and no others.
    Complete(Vec<Event>, MatchResult),
    /// These objects, and perhaps others that are not known yet or that no filter has decided on.
    Incomplete(FilterTask, Vec<Target>),
}

/// The rules of an endpoint that decide which objects an event concerns.
#[derive(Clone, Copy)]
struct MatchRules<'r> {
    /// The endpoint.
    name: &'r Arc<str>,
    condition: Option<&'r Expression>,
    selection: &'r Selection,
}

impl<'r> MatchRules<'r> {
    fn new(endpoint: &'r Endpoint) -> MatchRules<'r> {
        let condition = endpoint.filter.condition.as_ref();
        MatchRules { name: &endpoint.name, condition, selection: &endpoint.selection }
    }
}

/// The `Retry-After` of a 503.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(10);

impl DeliveryHandler {
    pub fn new(verify_context: VerifyContext, sink: Sink, metrics: Arc<Metrics>) -> DeliveryHandler {
        DeliveryHandler { verify_context, sink, filters: FilterThread::default(), metrics }
    }

    /// Takes a delivery to an endpoint, part by part if it has many events.
    pub async fn receive(&self, endpoint: &Endpoint, id: &DeliveryId, delivery: Delivery<'_>) -> Receipt {
        let scheme = endpoint.provider.authentication;
        let verified = match verify(delivery, scheme, &endpoint.credentials, &self.verify_context).await {
            Ok(verified) => verified,
            Err(refusal) => return Receipt::unread(refused(refusal)),
        };
        let mut steps = StepTimes { verified: Some(Timestamp::now()), matched: None };
        self.metrics.verified(&endpoint.name, verified.key.as_ref());
        let is_test = test_mark::is_test(&verified, &endpoint.credentials);
        let mut outcomes = PartOutcomes::default();
        let mut remembered: Vec<NormalEvent> = Vec::new();
        let mut charge = Charge::new(endpoint.limit.as_ref());
        while let Some(resume_at) = outcomes.next_part() {
            let part = read_part(endpoint, &verified, resume_at);
            let outcome = match part.content {
                PartContent::Nothing(outcome) => outcome,
                PartContent::Confirm(url) => self.confirm(&url).await,
                PartContent::Events(mut events) => {
                    if is_test {
                        // Its commits do not exist, so nobody waits for them, here or in another cluster.
                        events.iter_mut().for_each(Event::forget_commits);
                    }
                    outcomes.name(&events, part.resume_at);
                    remembered.extend(NormalEvent::first_of(&events, MAX_EVENTS - remembered.len()));
                    let fields = self.published_fields(endpoint, &verified);
                    let input = gather::filter_input(endpoint, &verified);
                    let matches = self.find(MatchRules::new(endpoint), events, input).await;
                    if matches!(matches, Matches::Complete(..)) {
                        steps.matched = Some(Timestamp::now());
                    }
                    match matches {
                        Matches::None(outcome) => outcome,
                        Matches::Complete(events, matched) => {
                            let of = SelectionOf { endpoint: &endpoint.name, selection: &endpoint.selection };
                            self.request(id, of, &events, fields, matched, &mut charge).await
                        }
                        Matches::Incomplete(task, targets) => {
                            self.defer(endpoint, id, fields, task, &targets).await
                        }
                    }
                }
            };
            outcomes.add(outcome, part.resume_at);
        }
        Receipt {
            outcome: outcomes.into_outcome(),
            provider_id: endpoint.provider.delivery_id(&verified),
            trace: verified.trace(),
            steps,
            key: verified.key,
            events: remembered,
        }
    }

    /// Returns what a publisher says of the delivery beside its events; none if it does not publish them.
    fn published_fields(&self, endpoint: &Endpoint, delivery: &Verified<'_>) -> Option<DeliveryFields> {
        match &self.sink {
            Sink::Flux(objects) => objects.publisher.as_ref()?.fields(endpoint, delivery),
            Sink::FluxV1(_) => None,
        }
    }

    /// Fetches the URL with which the provider wants its subscription confirmed. It holds a token, so it
    /// is not logged.
    async fn confirm(&self, url: &str) -> Outcome {
        match self.verify_context.fetch.get(url).await {
            Ok(_) => Outcome::Confirmed,
            Err(err) => {
                log::warn!(why:% = err; "subscription could not be confirmed");
                unavailable("the URL that confirms the subscription does not answer")
            }
        }
    }

    /// Finds the objects that the events concern. Filters are evaluated on a thread of their own.
    async fn find(&self, rules: MatchRules<'_>, events: Vec<Event>, input: FilterInput) -> Matches {
        let MatchRules { name, condition, selection } = rules;
        let inventory = match &self.sink {
            Sink::Flux(objects) => Some(&objects.inventory),
            Sink::FluxV1(_) => None,
        };
        if !has_filters(condition, selection) {
            let found = match inventory {
                Some(inventory) => evaluation::find(inventory, &events, selection, &input),
                None => InventoryMatch::everything(),
            };
            return matches(selection, events, input, found);
        }
        let task = FilterTask {
            events,
            input,
            condition: condition.cloned(),
            selection: selection.clone(),
            inventory: inventory.map(Arc::clone),
        };
        let Evaluation { events, input, result, failure } =
            match self.filters.run(name, task, FilterTask::evaluate).await {
                Ok(evaluation) => evaluation,
                Err(NotEvaluated::NoCapacity(task)) => return Matches::Incomplete(task, Vec::new()),
                Err(NotEvaluated::Panicked | NotEvaluated::NoThread) => {
                    return Matches::None(unavailable("the filters cannot be evaluated"));
                }
            };
        if let Some(why) = failure {
            self.filter_failed(name, &why);
        }
        match result {
            Ok(found) => matches(selection, events, input, found),
            Err(none_left) => Matches::None(Outcome::ignored(none_left.to_string())),
        }
    }

    /// Requests the reconciliation of what was found, or forwards the events to Flux v1.
    async fn request(
        &self,
        id: &DeliveryId,
        of: SelectionOf<'_>,
        events: &[Event],
        fields: Option<DeliveryFields>,
        matched: MatchResult,
        charge: &mut Charge<'_>,
    ) -> Outcome {
        match &self.sink {
            Sink::Flux(objects) => objects.request(id, of, events, fields.as_ref(), matched, charge).await,
            Sink::FluxV1(flux_v1) => forward::forward(&**flux_v1, events).await,
        }
    }

    /// Puts a delivery that cannot be matched completely yet into the backlog.
    async fn defer(
        &self,
        endpoint: &Endpoint,
        id: &DeliveryId,
        fields: Option<DeliveryFields>,
        task: FilterTask,
        known: &[Target],
    ) -> Outcome {
        match &self.sink {
            Sink::Flux(objects) => objects.defer(endpoint, id, fields, task, known).await,
            Sink::FluxV1(_) => unavailable(
                "the filters cannot be evaluated now: no CPU time is left or too many deliveries wait",
            ),
        }
    }

    /// Reports a filter that came to no result, which keeps out what it was to decide on.
    fn filter_failed(&self, endpoint: &Arc<str>, why: &str) {
        log::warn!(endpoint:% = endpoint, why:%; "filter failed to evaluate and does not match");
        self.metrics.filter_failed(endpoint);
    }

    /// Drops what was fetched from issuers that no endpoint names any more.
    pub fn retain_issuers(&self, is_named: impl Fn(&str) -> bool) {
        self.verify_context.retain_issuers(is_named);
    }

    /// The objects that wait for a patch or its end.
    pub fn pending_targets(&self) -> Vec<Target> {
        match &self.sink {
            Sink::Flux(objects) => objects.queue.pending_targets(),
            Sink::FluxV1(_) => Vec::new(),
        }
    }

    /// Requests the reconciliation of objects for an operator. Ends when that is durable.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn request_again(&self, targets: &[Target]) -> Result<(), NotTaken> {
        let Sink::Flux(objects) = &self.sink else { return Ok(()) };
        objects.queue.request(targets).wait_until_durable().await.map_err(|_| NotTaken)
    }

    /// Explains what events would come to. Nothing is requested.
    pub fn explain(&self, rules: ExplainRules<'_>, events: &[NormalEvent]) -> Option<ExplainReport> {
        let Sink::Flux(objects) = &self.sink else { return None };
        Some(explain(rules, &objects.inventory, events))
    }

    /// Returns the kinds of which objects may exist that cannot be listed, each with the fix.
    pub fn unlistable(&self) -> Vec<String> {
        let Sink::Flux(objects) = &self.sink else { return Vec::new() };
        let inventory = objects.inventory.read();
        inventory.unlistable().map(|unlistable| unlistable.to_string()).collect()
    }
}

/// Whether matching takes expressions, whose cost is bounded by CPU time alone.
fn has_filters(condition: Option<&Expression>, selection: &Selection) -> bool {
    condition.is_some() || selection.filters().next().is_some()
}

fn matches(selection: &Selection, events: Vec<Event>, input: FilterInput, found: InventoryMatch) -> Matches {
    if found.is_complete {
        return Matches::Complete(events, found.matched);
    }
    // The endpoint's own filter has let these events through.
    let selection = selection.clone();
    let task = FilterTask { events, input, condition: None, selection, inventory: None };
    Matches::Incomplete(task, found.matched.targets)
}

fn unavailable(why: &str) -> Outcome {
    Outcome::Unavailable { why: why.into(), retry_after: UNAVAILABLE_RETRY_AFTER, is_verified: true }
}

fn refused(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Unauthenticated(why) => Outcome::Refused { why: why.into() },
        Refusal::CannotCheck(why) => {
            Outcome::Unavailable { why: why.into(), retry_after: UNAVAILABLE_RETRY_AFTER, is_verified: false }
        }
    }
}
