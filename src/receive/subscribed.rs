//! Events of a publisher in another cluster: matched and requested here as deliveries are.

use std::sync::Arc;
use std::time::Duration;

use super::backlog::{BacklogAnswer, BacklogEntry};
use super::catch_up::CATCH_UP_INTERVAL;
use super::evaluation::FilterTask;
use super::{DeliveryHandler, MatchRules, Matches, Sink, has_filters};
use crate::event::Subject;
use crate::event::normal_form::NormalEvent;
use crate::filter_input::FilterInput;
use crate::fleet::options::SubscribedEndpoint;
use crate::fleet::wire::PublishedEvent;
use crate::flux::Target;
use crate::history::{DeliveryRecord, MAX_EVENTS};
use crate::journal::JournalCommit;
use crate::matching::{self, SelectionOf};
use crate::outcome::Outcome;
use crate::queue::PendingCommits;

/// An event of a publisher, and the entry of the config that takes it.
pub struct SubscribedEvent {
    pub endpoint: Arc<SubscribedEndpoint>,
    pub published: PublishedEvent,
}

/// Events cannot be made durable now; the cursor has to stay before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct NotTaken;

/// What a batch of events comes to.
#[derive(Default)]
struct TakenEvents {
    not_before: Duration,
    targets: Vec<Target>,
    /// Commits of the backlog.
    commits: Vec<JournalCommit>,
    /// Requests that were made before the end of the batch.
    requested: Vec<PendingCommits>,
    is_undecided: bool,
}

/// The time between two tries to put an event into a full backlog.
const BACKLOG_RETRY_DELAY: Duration = Duration::from_secs(1);

impl DeliveryHandler {
    /// Matches events, and requests the reconciliation of what they concern, not before this time has passed.
    /// Ends when that is durable; a full backlog is waited for. Returns whether there was one that could not be
    /// decided on, so that everything has to be requested once.
    ///
    /// # Errors
    /// When the journal cannot be written. The objects may be requested all the same.
    pub async fn take_events(
        &self,
        events: Vec<SubscribedEvent>,
        not_before: Duration,
    ) -> Result<bool, NotTaken> {
        let Sink::Flux(objects) = &self.sink else { return Ok(false) };
        let mut taken = TakenEvents { not_before, ..TakenEvents::default() };
        for event in events {
            self.take_event(event, &mut taken).await;
        }
        let TakenEvents { mut targets, commits, requested: earlier, is_undecided, .. } = taken;
        targets.sort_unstable();
        targets.dedup();
        let requested = objects.queue.request_later(&targets, not_before);
        for requested in earlier {
            requested.wait_until_durable().await.map_err(|_| NotTaken)?;
        }
        let all = commits.into_iter().fold(requested, |all, commit| all.and(Some(commit)));
        all.wait_until_durable().await.map_err(|_| NotTaken)?;
        Ok(is_undecided)
    }

    async fn take_event(&self, event: SubscribedEvent, taken: &mut TakenEvents) {
        let Sink::Flux(objects) = &self.sink else { return };
        let SubscribedEvent { endpoint, published } = event;
        let PublishedEvent { event_type, event, forwarded, provider, trace, .. } = published;
        let SubscribedEndpoint { name, filter, selection, .. } = &*endpoint;
        if !event_type.is_empty() && !filter.accepts_type(&event_type) {
            return;
        }
        let Ok(events) = filter.narrow(vec![event]) else { return };
        let remembered = NormalEvent::first_of(&events, MAX_EVENTS);
        if let Some(field) = endpoint.read_fields().find(|field| !forwarded.covers(field)) {
            log::warn!(endpoint:% = name, field; "an event came without a field that a filter reads; catching up");
            taken.is_undecided = true;
            return;
        }
        let condition = filter.condition.as_ref();
        let input = match has_filters(condition, selection) {
            true => FilterInput::from_forwarded(event_type, |variable| forwarded.variable(variable)),
            false => FilterInput::default(),
        };
        let rules = MatchRules { name, condition, selection };
        let id = objects.history.new_delivery(name);
        let outcome = match self.find(rules, events, input).await {
            Matches::None(outcome) => {
                taken.is_undecided |= matches!(outcome, Outcome::Unavailable { .. });
                outcome
            }
            Matches::Complete(events, mut matched) => {
                objects.remember_digests(&events, &matched);
                objects.expect_revisions(&id, &mut matched);
                taken.targets.extend(matched.targets.iter().cloned());
                objects.outcome(&events, matched, SelectionOf { endpoint: name, selection }, false)
            }
            Matches::Incomplete(task, known) => {
                taken.targets.extend(known);
                let FilterTask { events, input, condition, selection, .. } = task;
                let input = input.at_rest(condition.iter().chain(selection.filters()));
                let entry = || BacklogEntry {
                    endpoint: name.to_string(),
                    id: Some(id.clone()),
                    source: provider.clone(),
                    condition: condition.clone(),
                    selection: selection.clone(),
                    events: events.clone(),
                    input: input.clone(),
                    publish: None,
                    size: 0,
                };
                loop {
                    match objects.backlog.keep(entry()) {
                        BacklogAnswer::Waits { event, commit } => {
                            taken.commits.extend(commit);
                            break Outcome::Queued { event };
                        }
                        // Nothing is skipped: the stream waits, and the publisher has the entries.
                        BacklogAnswer::Full => {
                            let found = std::mem::take(&mut taken.targets);
                            if !found.is_empty() {
                                taken.requested.push(objects.queue.request_later(&found, taken.not_before));
                            }
                            tokio::time::sleep(BACKLOG_RETRY_DELAY).await;
                        }
                    }
                }
            }
        };
        let level = match outcome.targets().is_empty() {
            _ if outcome.wants_attention() => log::Level::Warn,
            true => log::Level::Debug,
            false => log::Level::Info,
        };
        log::log!(
            level, endpoint:% = name, source:% = provider, outcome = outcome.label().as_str(), detail:% = outcome.detail(),
            trace:% = trace.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            "event received from the publisher"
        );
        objects.history.remember(DeliveryRecord::from_publisher(id, remembered, trace, outcome));
    }

    /// Requests once the objects that events of these endpoints could concern, as far as they are wanted, spread out
    /// after this time.
    ///
    /// # Errors
    /// When the journal does not hold all of them.
    pub async fn catch_up_subscription(
        &self,
        endpoints: impl Iterator<Item = (&SubscribedEndpoint, Vec<Subject>)>,
        is_wanted: impl Fn(&Target) -> bool,
        not_before: Duration,
    ) -> Result<usize, NotTaken> {
        let Sink::Flux(objects) = &self.sink else { return Ok(0) };
        let mut targets: Vec<Target> = {
            let inventory = objects.inventory.read();
            let all = endpoints.flat_map(|(endpoint, subjects)| {
                matching::all_of(&inventory, &subjects, &endpoint.selection)
            });
            all.filter(is_wanted).collect()
        };
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            return Ok(0);
        }
        let window = CATCH_UP_INTERVAL.saturating_mul(u32::try_from(targets.len()).unwrap_or(u32::MAX));
        let requested = objects.queue.request_within(&targets, not_before, window);
        requested.wait_until_durable().await.map_err(|_| NotTaken)?;
        Ok(targets.len())
    }
}
