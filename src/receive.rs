//! The way of a delivery: verify → read → match → queue.
//!
//! Knows neither HTTP nor Kubernetes clients. Nothing flows back but the [`Outcome`].

mod backlog;
mod evaluation;
mod filter_thread;
mod gather;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify as Signal;

use self::backlog::{Backlog, BacklogAnswer, QueuedEvents};
use self::evaluation::{Evaluation, FilterTask};
use self::filter_thread::{FilterThread, NotEvaluated};
use crate::delivery::Delivery;
use crate::endpoint::limit::Charge;
use crate::endpoint::{Endpoint, Endpoints};
use crate::event::Event;
use crate::expression::Expression;
use crate::facts::Facts;
use crate::flux::Target;
use crate::flux::needs::InventoryNeeds;
use crate::flux::selection::Selection;
use crate::follow_through::FollowThrough;
use crate::history::{DeliveryId, History};
use crate::journal::contents::Contents;
use crate::journal::{Journal, NotDurable};
use crate::matching::{self, Inventory};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::provider::{Hints, Parsed, changes_a_file};
use crate::queue::Queue;
use crate::verify::{Refusal, Unreadable, Verified, VerifyContext, verify};

/// Takes a delivery from its verification to its outcome.
pub struct Receiver {
    tools: VerifyContext,
    sink: Sink,
    filters: FilterThread,
    metrics: Arc<Metrics>,
}

/// The destination of verified events.
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
    pub queue: Queue,
    /// Follows what was pushed; not without a cluster.
    pub follow_through: Option<FollowThrough>,
    /// Remembers what queued deliveries come to.
    pub history: Arc<History>,
    /// Whether there is no cluster behind it: answers say so.
    pub dry_run: bool,
    backlog: Backlog,
}

/// A delivery that was taken.
pub struct Receipt {
    /// What became of it.
    pub outcome: Outcome,
    /// The file of the key that has proved it, if it is authentic.
    pub key: Option<Arc<str>>,
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
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often to look for deliveries that need not wait any more.
const BACKLOG_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waiting deliveries that are matched before their records go.
const MAX_MATCHED_AT_ONCE: usize = 64;

/// How far apart the objects of a catch-up are asked, on the average.
const CATCH_UP_SPREAD: Duration = Duration::from_millis(20);

impl FluxObjects {
    /// Objects of which none is known yet: deliveries wait for [`Receiver::match_what_waits`], with
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
            history: Arc::default(),
            dry_run: false,
            backlog,
        }
    }
}

impl Receiver {
    pub fn new(tools: VerifyContext, sink: Sink, metrics: Arc<Metrics>) -> Receiver {
        Receiver { tools, sink, filters: FilterThread::default(), metrics }
    }

    /// Drops what was fetched from issuers that no endpoint names any more.
    pub fn retain_issuers(&self, is_named: impl Fn(&str) -> bool) {
        self.tools.retain_issuers(is_named);
    }

    /// Takes a delivery to an endpoint and says what became of it.
    pub async fn receive(&self, endpoint: &Endpoint, id: &DeliveryId, delivery: Delivery<'_>) -> Receipt {
        let provider = endpoint.provider;
        let verified = match verify(delivery, provider.proof, &endpoint.credentials, &self.tools).await {
            Ok(verified) => verified,
            Err(refusal) => return Receipt { outcome: refused(refusal), key: None },
        };
        let key = verified.key.and_then(|key| endpoint.key_names.get(key)).map(Arc::clone);
        self.metrics.authentic(&endpoint.name, key.as_ref());
        let outcome = self.take_all(endpoint, id, &verified).await;
        Receipt { outcome, key }
    }

    /// Takes an authentic delivery, part by part if it has many events.
    async fn take_all(&self, endpoint: &Endpoint, id: &DeliveryId, delivery: &Verified<'_>) -> Outcome {
        let mut whole: Option<Outcome> = None;
        let mut events = Summary::default();
        let mut resume_at = Some(0);
        let mut charge = Charge::new(endpoint.limit.as_ref());
        while let Some(at) = resume_at {
            let hints = Hints { resume_at: at, ..endpoint.hints() };
            let (heard, next) = self.heard(endpoint, delivery, &hints);
            resume_at = next;
            let outcome = match heard {
                ReadEvents::Of(of_part, facts) => {
                    // A delivery of one part says itself what it is about.
                    if whole.is_some() || next.is_some() {
                        events.add(&of_part);
                    }
                    self.take(endpoint, id, MatchInput { events: of_part, facts }, &mut charge).await
                }
                ReadEvents::Confirm(url) => self.confirm(&url).await,
                ReadEvents::Nothing(outcome) => outcome,
            };
            let is_refused = matches!(outcome, Outcome::Unavailable { .. } | Outcome::TooMany { .. });
            whole = Some(match whole {
                Some(before) => before.with(outcome).about(events.to_string()),
                None => outcome,
            });
            if is_refused {
                break;
            }
        }
        whole.unwrap_or(Outcome::Pong)
    }

    /// What an authentic delivery says that the endpoint wants to hear of.
    /// If there is more, says where it begins.
    fn heard(
        &self,
        endpoint: &Endpoint,
        delivery: &Verified<'_>,
        hints: &Hints<'_>,
    ) -> (ReadEvents, Option<usize>) {
        let parsed = endpoint.provider.read(delivery, hints);
        match parsed {
            Ok(Parsed::Part { events, resume_at }) => {
                (self.heard_part(endpoint, delivery, Ok(Parsed::Events(events))), Some(resume_at))
            }
            parsed => (self.heard_part(endpoint, delivery, parsed), None),
        }
    }

    fn heard_part(
        &self,
        endpoint: &Endpoint,
        delivery: &Verified<'_>,
        parsed: Result<Parsed, Unreadable>,
    ) -> ReadEvents {
        let ignored = |reason: String| ReadEvents::Nothing(Outcome::Ignored { reason: reason.into() });
        let events = match parsed {
            Ok(Parsed::Confirm(url)) => return ReadEvents::Confirm(url),
            _ if endpoint.suspended => return ignored("the endpoint is suspended".to_owned()),
            Ok(Parsed::Ping) if !endpoint.selection.matches_all => return ReadEvents::Nothing(Outcome::Pong),
            _ if let Some(name) = unwanted_event(endpoint, delivery) => {
                return ignored(format!("event type `{name}` is not in the endpoint's `events`"));
            }
            Ok(Parsed::Events(events) | Parsed::Part { events, .. }) => events,
            // It concerns all that is listed, whatever it says.
            _ if endpoint.selection.matches_all && (delivery.is_json() || endpoint.takes_any_body) => {
                vec![a_call(endpoint, delivery)]
            }
            Ok(Parsed::Ping) => return ReadEvents::Nothing(Outcome::Pong),
            Ok(Parsed::Ignored(reason)) => return ignored(reason),
            Err(err) => return ReadEvents::Nothing(Outcome::Unreadable { why: err.0.into() }),
        };
        let events = match with_possible_lengths(events) {
            Ok(events) => events,
            Err(reason) => return ignored(reason),
        };
        match Receiver::wanted(endpoint, delivery, events) {
            Ok((events, facts)) => ReadEvents::Of(events, facts),
            Err(reason) => ignored(reason),
        }
    }

    /// Leaves of the events what the endpoint narrows them to without expressions, with what those read;
    /// or says why nothing is left.
    fn wanted(
        endpoint: &Endpoint,
        delivery: &Verified<'_>,
        events: Vec<Event>,
    ) -> Result<(Vec<Event>, Facts), String> {
        let events = endpoint.filter.narrow(events)?;
        if endpoint.filter.paths.is_some()
            && changes_a_file(delivery, |file| endpoint.filter.wants_file(file)) == Some(false)
        {
            return Err(format!("{}: none of the endpoint's `paths` has changed", summary(&events)));
        }
        Ok((events, gather::facts(endpoint, delivery)))
    }

    /// Asks for the address with which the sender wants its subscription confirmed. It holds a token,
    /// so it is not logged.
    async fn confirm(&self, url: &str) -> Outcome {
        match self.tools.fetch.get(url).await {
            Ok(_) => Outcome::Confirmed,
            Err(err) => {
                log::warn!(why:% = err; "subscription could not be confirmed");
                let why = "the address that confirms the subscription does not answer".into();
                Outcome::Unavailable { why, retry_after: OVERLOAD_RETRY_AFTER, proved: true }
            }
        }
    }

    async fn take(
        &self,
        endpoint: &Endpoint,
        id: &DeliveryId,
        happened: MatchInput,
        charge: &mut Charge<'_>,
    ) -> Outcome {
        let inventory = match &self.sink {
            Sink::Flux(objects) => Some(&objects.inventory),
            Sink::FluxV1(_) => None,
        };
        let Evaluation { events, facts, result, failure } =
            match has_filters(endpoint.filter.condition.as_ref(), &endpoint.selection) {
                false => find_without_filters(endpoint, happened, inventory),
                true => match self.evaluate(&endpoint.name, question(endpoint, happened, inventory)).await {
                    Ok(evaluation) => evaluation,
                    Err(NotEvaluated::NoBudget(question)) => return self.defer(endpoint, id, question).await,
                    Err(NotEvaluated::Panicked | NotEvaluated::NoThread) => {
                        return cannot_filter("the filters cannot be evaluated");
                    }
                },
            };
        if let Some(why) = failure {
            self.filter_failed(&endpoint.name, &why);
        }
        let (found, is_all) = match result {
            Ok(found) => found,
            Err(reason) => return Outcome::Ignored { reason: reason.into() },
        };
        match &self.sink {
            Sink::Flux(objects) if is_all => objects.request(id, &events, found, charge).await,
            Sink::Flux(objects) => {
                let happened = MatchInput { events, facts };
                // The endpoint's own filter has let these through.
                let question = FilterTask { condition: None, ..question(endpoint, happened, None) };
                objects.wait(endpoint, id, question, &found.targets).await
            }
            Sink::FluxV1(flux) => forward(&**flux, &events).await,
        }
    }

    /// Keeps a delivery whose filters have used up their CPU time.
    async fn defer(&self, endpoint: &Endpoint, id: &DeliveryId, question: FilterTask) -> Outcome {
        match &self.sink {
            Sink::Flux(objects) => objects.wait(endpoint, id, question, &[]).await,
            Sink::FluxV1(_) => cannot_filter("the filters of the endpoint have used up their CPU time"),
        }
    }

    /// Answers at once where there are no filters, else on their thread.
    async fn evaluate(
        &self,
        endpoint: &Arc<str>,
        question: FilterTask,
    ) -> Result<Evaluation, NotEvaluated<FilterTask>> {
        match has_filters(question.condition.as_ref(), &question.selection) {
            true => self.filters.run(endpoint, question, FilterTask::evaluate).await,
            false => Ok(question.evaluate()),
        }
    }

    /// A filter came to no result, which keeps out what it was asked about.
    fn filter_failed(&self, endpoint: &Arc<str>, why: &str) {
        log::warn!(endpoint:% = endpoint, why:%; "filter failed to evaluate and does not match");
        self.metrics.filter_failed(endpoint);
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

    /// Returns the kinds of which objects may exist that cannot be listed, each with the fix.
    pub fn unlistable(&self) -> Vec<String> {
        let Sink::Flux(objects) = &self.sink else { return Vec::new() };
        let inventory = objects.inventory.read().unwrap_or_else(PoisonError::into_inner);
        inventory.unlistable().map(|unlistable| unlistable.to_string()).collect()
    }

    /// Matches deliveries as the kinds that they ask for become known; never ends.
    pub async fn match_what_waits(&self, became_known: &Signal) {
        loop {
            self.match_what_can_be().await;
            // A delivery may come to wait just as its kinds become known, so there is a tick as well.
            let _ = tokio::time::timeout(BACKLOG_CHECK_INTERVAL, became_known.notified()).await;
        }
    }

    /// Matches the deliveries whose kinds are known by now. Ends when they need not be remembered.
    pub async fn match_what_can_be(&self) {
        while !self.match_some().await {}
    }

    /// Matches some of them; says whether there are no more.
    async fn match_some(&self) -> bool {
        let Sink::Flux(objects) = &self.sink else { return true };
        if objects.backlog.is_empty() {
            return true;
        }
        let ready = {
            let inventory = objects.inventory.read().unwrap_or_else(PoisonError::into_inner);
            objects.backlog.take(MAX_MATCHED_AT_ONCE, |waiting| {
                let has_filters = has_filters(waiting.condition.as_ref(), &waiting.selection);
                matching::can_tell(&inventory, &waiting.events, &waiting.selection)
                    && (!has_filters || self.filters.has_budget(&Arc::from(waiting.endpoint.as_str())))
            })
        };
        let handed_out = ready.len();
        let (mut matched, mut back) = (Vec::new(), Vec::new());
        // Together, so that deliveries without filters wait for no thread, and endpoints for no other.
        let evaluations = ready.into_iter().map(|(number, waiting)| async move {
            let endpoint = Arc::from(waiting.endpoint.as_str());
            let evaluation = self.evaluate(&endpoint, waiting.question(&objects.inventory)).await;
            // The queue and the watches have a turn in between.
            tokio::task::yield_now().await;
            (number, waiting, endpoint, evaluation)
        });
        let mut evaluations: FuturesUnordered<_> = evaluations.collect();
        while let Some((number, waiting, endpoint, evaluation)) = evaluations.next().await {
            let evaluation = match evaluation {
                Ok(evaluation) => evaluation,
                Err(NotEvaluated::NoBudget(_) | NotEvaluated::NoThread) => {
                    back.push((number, waiting));
                    continue;
                }
                Err(NotEvaluated::Panicked) => {
                    log::error!(endpoint:% = endpoint; "filter panicked, delivery dropped; please report this");
                    self.metrics.filter_failed(&endpoint);
                    matched.push((number, waiting, None));
                    continue;
                }
            };
            if let Some(why) = &evaluation.failure {
                self.filter_failed(&endpoint, why);
            }
            let (outcome, promise) = match evaluation.result {
                Ok((mut found, _)) => {
                    objects.remember_digests(&evaluation.events, &found);
                    objects.follow(&waiting.id(), &mut found);
                    let promise = objects.queue.want(&found.targets);
                    (objects.outcome(&evaluation.events, found), Some(promise))
                }
                Err(reason) => (Outcome::Ignored { reason: reason.into() }, None),
            };
            log::info!(
                endpoint:% = waiting.endpoint, source:% = waiting.source, outcome = outcome.label(),
                detail:% = outcome.detail();
                "queued delivery matched"
            );
            objects.history.matched(&waiting.id(), outcome);
            matched.push((number, waiting, promise));
        }
        let mut kept = Vec::new();
        for (number, waiting, promise) in matched {
            let is_durable = match promise {
                Some(promise) => promise.kept().await.is_ok(),
                None => true,
            };
            match is_durable {
                true => kept.push(number),
                // Its objects could not be written down, so it goes on standing for them.
                false => back.push((number, waiting)),
            }
        }
        let is_all = handed_out < MAX_MATCHED_AT_ONCE || kept.is_empty();
        objects.backlog.settled(handed_out, kept.into_iter(), back);
        is_all
    }

    /// Requests once the reconciliation of every object that a delivery to one of these endpoints could
    /// concern, spread out: for a start that does not know what it has missed.
    ///
    /// # Errors
    /// When the journal does not hold all of them.
    pub async fn catch_up(&self, endpoints: impl Iterator<Item = &Arc<Endpoint>>) -> Result<(), NotDurable> {
        self.catch_up_where(endpoints, |_| true).await
    }

    /// The same for some objects: those that were made or changed while nobody watched.
    ///
    /// # Errors
    /// When the journal does not hold all of them.
    pub async fn catch_up_with(
        &self,
        endpoints: &Endpoints,
        missed: &BTreeSet<Target>,
    ) -> Result<(), NotDurable> {
        self.catch_up_where(endpoints.iter(), |target| missed.contains(target)).await
    }

    async fn catch_up_where(
        &self,
        endpoints: impl Iterator<Item = &Arc<Endpoint>>,
        is_wanted: impl Fn(&Target) -> bool,
    ) -> Result<(), NotDurable> {
        let Sink::Flux(objects) = &self.sink else { return Ok(()) };
        let mut targets = BTreeSet::new();
        {
            let inventory = objects.inventory.read().unwrap_or_else(PoisonError::into_inner);
            for endpoint in endpoints {
                targets.extend(matching::all_of(&inventory, endpoint.provider.subjects, &endpoint.selection));
            }
        }
        let targets: Vec<Target> = targets.into_iter().filter(is_wanted).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let window = CATCH_UP_SPREAD.saturating_mul(u32::try_from(targets.len()).unwrap_or(u32::MAX));
        log::info!(objects = targets.len(), within_s = window.as_secs(); "catching up: requesting each object once");
        objects.queue.want_spread(&targets, window).kept().await
    }
}

impl FluxObjects {
    /// What has to be known of the cluster so that what waits can be matched, whatever endpoints there
    /// are by now.
    pub fn needs(&self) -> InventoryNeeds {
        self.backlog.needs()
    }

    /// Takes note of what the events say about tags, also where a limit refuses the delivery.
    fn remember_digests(&self, events: &[Event], found: &matching::MatchResult) {
        if events.iter().any(|event| matches!(event, Event::Image(_))) {
            let inventory = self.inventory.read().unwrap_or_else(PoisonError::into_inner);
            matching::remember_digests(&inventory, events, found);
        }
    }

    /// Begins to follow what was found, before anything can happen to the objects.
    fn follow(&self, id: &DeliveryId, found: &mut matching::MatchResult) {
        let Some(follow_through) = &self.follow_through else { return };
        let inclusions = std::mem::take(&mut found.inclusions);
        follow_through.expect_inclusions(id, inclusions, &found.expected);
        follow_through.expect(id, std::mem::take(&mut found.expected));
    }

    /// Requests what was found.
    async fn request(
        &self,
        id: &DeliveryId,
        events: &[Event],
        mut found: matching::MatchResult,
        charge: &mut Charge<'_>,
    ) -> Outcome {
        self.remember_digests(events, &found);
        if !self.queue.all_pending(&found.targets)
            && let Err(retry_after) = charge.once(Instant::now())
        {
            return Outcome::TooMany { retry_after };
        }
        self.follow(id, &mut found);
        if self.queue.want(&found.targets).kept().await.is_err() {
            return not_kept();
        }
        self.outcome(events, found)
    }

    /// Keeps a delivery until the kinds that it asks for are known and its filters have CPU time. What
    /// is known to match by now is requested at once: one kind may be broken for long.
    async fn wait(
        &self,
        endpoint: &Endpoint,
        id: &DeliveryId,
        question: FilterTask,
        known: &[Target],
    ) -> Outcome {
        let FilterTask { events, facts, condition, selection, .. } = question;
        let facts = facts.at_rest(condition.iter().chain(selection.filters()));
        let delivery = QueuedEvents {
            endpoint: endpoint.name.to_string(),
            id: Some(id.clone()),
            source: endpoint.provider.name.to_owned(),
            condition,
            selection,
            events,
            facts,
            size: 0,
        };
        let (event, commit) = match self.backlog.keep(delivery) {
            BacklogAnswer::Waits { event, commit } => (event, commit),
            BacklogAnswer::Full => {
                let why = "too many deliveries of this endpoint wait to be matched".into();
                return Outcome::Unavailable { why, retry_after: OVERLOAD_RETRY_AFTER, proved: true };
            }
        };
        // The record of the delivery stands for these objects, too.
        drop(self.queue.want(known));
        let kept = match commit {
            Some(commit) => commit.done().await,
            None => Ok(()),
        };
        kept.map_or_else(|_| not_kept(), |()| Outcome::Queued { event })
    }

    fn outcome(&self, events: &[Event], matched: matching::MatchResult) -> Outcome {
        if matched.targets.is_empty() {
            if matching::only_deletions(events) && matched.skipped.is_empty() {
                let reason =
                    format!("{}: no tracked semver range can be affected by this deletion", summary(events));
                return Outcome::Ignored { reason: reason.into() };
            }
            let reason = matched.why_nothing(events).into();
            return Outcome::Unmatched { event: summary(events).into(), reason, skipped: matched.skipped };
        }
        Outcome::Accepted {
            event: summary(events).into(),
            targets: matched.targets,
            skipped: matched.skipped,
            dry_run: self.dry_run,
        }
    }
}

/// What became of the reading of an authentic delivery.
enum ReadEvents {
    /// These events are to be matched.
    Of(Vec<Event>, Facts),
    /// This address has to be asked for.
    Confirm(String),
    /// There is nothing to match.
    Nothing(Outcome),
}

/// What an authentic delivery says, and what filters read of it.
struct MatchInput {
    events: Vec<Event>,
    facts: Facts,
}

/// Whether matching takes expressions, whose cost is bounded by CPU time alone.
fn has_filters(condition: Option<&Expression>, selection: &Selection) -> bool {
    condition.is_some() || selection.filters().next().is_some()
}

/// What is to be found out about a delivery; where there is no inventory, only what its own filter says.
fn question(
    endpoint: &Endpoint,
    happened: MatchInput,
    inventory: Option<&Arc<RwLock<Inventory>>>,
) -> FilterTask {
    let MatchInput { events, facts, .. } = happened;
    FilterTask {
        events,
        facts,
        condition: endpoint.filter.condition.clone(),
        selection: endpoint.selection.clone(),
        inventory: inventory.map(Arc::clone),
    }
}

fn find_without_filters(
    endpoint: &Endpoint,
    happened: MatchInput,
    inventory: Option<&Arc<RwLock<Inventory>>>,
) -> Evaluation {
    let MatchInput { events, facts, .. } = happened;
    let found = inventory.map(|inventory| evaluation::find(inventory, &events, &endpoint.selection, &facts));
    Evaluation {
        events,
        facts,
        result: Ok(found.unwrap_or((matching::MatchResult::default(), true))),
        failure: None,
    }
}

/// Leaves out events with a field that is longer than it can be.
///
/// # Errors
/// When nothing is left; says why.
fn with_possible_lengths(mut events: Vec<Event>) -> Result<Vec<Event>, String> {
    let mut too_long = None;
    events.retain(|event| match event.check_lengths() {
        Ok(()) => true,
        Err(field) => {
            too_long = Some(field);
            false
        }
    });
    match too_long {
        Some(field) if events.is_empty() => Err(format!("the payload names {field} that is too long")),
        _ => Ok(events),
    }
}

/// Something that the sender calls by a name and that concerns all that is listed.
fn a_call(endpoint: &Endpoint, delivery: &Verified<'_>) -> Event {
    let name = endpoint.provider.event_name(delivery);
    let what = if name.is_empty() { "a call".to_owned() } else { format!("event `{name}`") };
    Event::Anything { what }
}

/// The name of the event, if the endpoint does not want to hear of it.
fn unwanted_event(endpoint: &Endpoint, delivery: &Verified<'_>) -> Option<String> {
    endpoint.filter.events.as_ref()?;
    let name = endpoint.provider.event_name(delivery);
    // A batch of events has no name of its own.
    let is_unwanted = !name.is_empty() && !endpoint.filter.wants_event(&name);
    is_unwanted.then_some(name)
}

fn cannot_filter(why: &str) -> Outcome {
    Outcome::Unavailable { why: why.into(), retry_after: OVERLOAD_RETRY_AFTER, proved: true }
}

fn not_kept() -> Outcome {
    Outcome::Unavailable {
        why: "the journal cannot be written now".into(),
        retry_after: OVERLOAD_RETRY_AFTER,
        proved: true,
    }
}

fn refused(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Unproved(why) => Outcome::Refused { why: why.into() },
        Refusal::CannotCheck(why) => {
            Outcome::Unavailable { why: why.into(), retry_after: OVERLOAD_RETRY_AFTER, proved: false }
        }
    }
}

/// Flux v1 is told of pushes only, as far as it knows them.
async fn forward(flux: &dyn Notify, events: &[Event]) -> Outcome {
    if matching::only_deletions(events) {
        return Outcome::Ignored { reason: format!("{}: nothing to fetch", summary(events)).into() };
    }
    let mut told = false;
    for event in events {
        match flux.notify(event).await {
            Ok(some) => told |= some,
            Err(why) => {
                log::warn!(why:%; "Flux v1 rejected an event");
                let why = "Flux v1 did not take the event".into();
                return Outcome::Unavailable { why, retry_after: OVERLOAD_RETRY_AFTER, proved: true };
            }
        }
    }
    if told {
        return Outcome::Forwarded { event: summary(events).into() };
    }
    Outcome::Ignored { reason: format!("{}: nothing that Flux v1 knows", summary(events)).into() }
}

/// How many events a summary names.
const MAX_NAMED_EVENTS: usize = 5;

/// Events in a line: the first few, and how many more there are.
#[derive(Default)]
struct Summary {
    named: Vec<String>,
    more: usize,
}

impl Summary {
    fn add(&mut self, events: &[Event]) {
        let missing = MAX_NAMED_EVENTS - self.named.len();
        self.named.extend(events.iter().take(missing).map(Event::summary));
        self.more += events.len().saturating_sub(missing);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join("; "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

fn summary(events: &[Event]) -> String {
    let mut summary = Summary::default();
    summary.add(events);
    summary.to_string()
}
