//! Deliveries that cannot be matched yet: the objects of the cluster are not known, or the filters of
//! their endpoint have used up their CPU time.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::evaluation::FilterTask;
use super::publish::DeliveryFields;
use crate::bounded_text::BoundedText;
use crate::event::Event;
use crate::expression::Expression;
use crate::filter_input::FilterInput;
use crate::flux::needs::InventoryNeeds;
use crate::flux::selection::Selection;
use crate::history::DeliveryId;
use crate::journal::contents::{Contents, JournalChange};
use crate::journal::{Journal, JournalCommit};
use crate::matching::Inventory;
use crate::metrics::Metrics;

/// Keeps events until the kinds that they need are listed.
pub(super) struct Backlog {
    state: Mutex<BacklogState>,
    changed: Notify,
    journal: Journal,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct BacklogState {
    waiting: Vec<(u64, BacklogEntry)>,
    bytes: usize,
    /// Handed out and not settled.
    in_hand: usize,
}

/// Events of one delivery, with the options that they were accepted under.
#[derive(Serialize, Deserialize)]
pub(super) struct BacklogEntry {
    pub(super) endpoint: String,
    /// Which one it is; none if an earlier process has answered it.
    #[serde(skip)]
    pub(super) id: Option<DeliveryId>,
    pub(super) source: String,
    /// The condition on an event, where it was not evaluated yet.
    #[serde(default)]
    pub(super) condition: Option<Expression>,
    pub(super) selection: Selection,
    pub(super) events: Vec<Event>,
    /// What the filters read.
    #[serde(default)]
    pub(super) input: FilterInput,
    /// What is published beside the events, once the condition was evaluated.
    #[serde(default)]
    pub(super) publish: Option<DeliveryFields>,
    /// What it takes in memory, in bytes, as [`Backlog::keep`] has found it.
    #[serde(default)]
    pub(super) size: usize,
}

/// The answer of the backlog.
pub(super) enum BacklogAnswer {
    /// It waits, once this commit is through; this is what happened, in a line.
    Waits { event: BoundedText, commit: Option<JournalCommit> },
    /// No room is left.
    Full,
}

impl BacklogEntry {
    /// Returns its size in memory, in bytes, from its size as JSON. Short filters are shared by most of
    /// what waits; long ones that change with each delivery are not.
    fn size_of(&self, json_bytes: usize) -> usize {
        let filters = self.condition.iter().chain(self.selection.filters());
        let long = filters.map(|filter| filter.text().len().saturating_sub(SHORT_FILTER_BYTES));
        json_bytes * BYTES_PER_JSON_BYTE + long.map(Expression::compiled_bytes).sum::<usize>()
    }

    /// Returns the ID of the delivery.
    pub(super) fn id(&self) -> DeliveryId {
        self.id.clone().unwrap_or_else(|| DeliveryId::from_earlier_process(&self.endpoint))
    }

    /// Returns what is to be evaluated.
    pub(super) fn task(&self, inventory: &Arc<RwLock<Inventory>>) -> FilterTask {
        FilterTask {
            events: self.events.clone(),
            input: self.input.clone(),
            condition: self.condition.clone(),
            selection: self.selection.clone(),
            inventory: Some(Arc::clone(inventory)),
        }
    }
}

/// One endpoint takes at most this part of the backlog.
const ENDPOINT_SHARE_DIVISOR: usize = 4;

/// A first sync takes seconds; in that time no provider posts more.
const MAX_WAITING_DELIVERIES: usize = 4096;
/// Bytes of all waiting deliveries together. In the journal they take half of it.
const MAX_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// A delivery takes more in memory than as JSON text: names are short and each is an allocation.
const BYTES_PER_JSON_BYTE: usize = 2;

/// Bytes of a filter that count as text only.
const SHORT_FILTER_BYTES: usize = 512;

impl Backlog {
    /// A backlog with what an earlier process has left in the journal.
    pub(super) fn new(journal: Journal, left: &Contents, metrics: Arc<Metrics>) -> Backlog {
        let mut state = BacklogState::default();
        for (number, bytes) in &left.deliveries {
            match serde_json::from_slice::<BacklogEntry>(bytes) {
                Ok(waiting) => {
                    let waiting = BacklogEntry { size: waiting.size_of(bytes.len()), ..waiting };
                    state.bytes += waiting.size;
                    state.waiting.push((*number, waiting));
                }
                Err(err) => {
                    log::error!(why:% = err; "journal has a delivery that this version cannot read; keeping it");
                }
            }
        }
        metrics.waiting_deliveries(state.waiting.len());
        Backlog { state: Mutex::new(state), changed: Notify::new(), journal, metrics }
    }

    pub(super) fn keep(&self, delivery: BacklogEntry) -> BacklogAnswer {
        let Ok(bytes) = serde_json::to_vec(&delivery) else { return BacklogAnswer::Full };
        let delivery = BacklogEntry { size: delivery.size_of(bytes.len()), ..delivery };
        let mut state = self.lock();
        if state.waiting.len() >= MAX_WAITING_DELIVERIES || state.bytes + delivery.size > MAX_BACKLOG_BYTES {
            return BacklogAnswer::Full;
        }
        let of_endpoint = state.waiting.iter().filter(|(_, waiting)| waiting.endpoint == delivery.endpoint);
        let (count, bytes_before) =
            of_endpoint.fold((0, 0), |(count, bytes), (_, waiting)| (count + 1, bytes + waiting.size));
        if count >= MAX_WAITING_DELIVERIES / ENDPOINT_SHARE_DIVISOR
            || bytes_before + delivery.size > MAX_BACKLOG_BYTES / ENDPOINT_SHARE_DIVISOR
        {
            return BacklogAnswer::Full;
        }
        let event = super::summary::summary(&delivery.events).into();
        let number = self.journal.new_number();
        // Within the lock, so that the journal sees it come before it sees it go.
        let commit = self.journal.write(vec![JournalChange::AddDelivery(number, bytes)]);
        state.bytes += delivery.size;
        state.waiting.push((number, delivery));
        self.metrics.waiting_deliveries(state.waiting.len());
        BacklogAnswer::Waits { event, commit }
    }

    /// Hands out some of what need not wait any more; the rest goes on waiting.
    pub(super) fn take(
        &self,
        max: usize,
        is_ready: impl Fn(&BacklogEntry) -> bool,
    ) -> Vec<(u64, BacklogEntry)> {
        let mut state = self.lock();
        let all = std::mem::take(&mut state.waiting);
        let mut taken = 0;
        let (ready, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, waiting)| {
            let is_taken = taken < max && is_ready(waiting);
            taken += usize::from(is_taken);
            is_taken
        });
        state.bytes -= ready.iter().map(|(_, waiting)| waiting.size).sum::<usize>();
        state.in_hand += ready.len();
        state.waiting = waiting;
        ready
    }

    /// Settles what `take` has handed out: some need not be remembered, some come back.
    pub(super) fn hand_back(
        &self,
        handed_out: usize,
        numbers: impl Iterator<Item = u64>,
        back: Vec<(u64, BacklogEntry)>,
    ) {
        self.journal.write_later(numbers.map(JournalChange::RemoveDelivery));
        let mut state = self.lock();
        state.in_hand -= handed_out;
        state.bytes += back.iter().map(|(_, waiting)| waiting.size).sum::<usize>();
        state.waiting.extend(back);
        self.metrics.waiting_deliveries(state.waiting.len());
        self.changed.notify_waiters();
    }

    /// Returns what has to be known so that all that waits can be matched.
    pub(super) fn needs(&self) -> InventoryNeeds {
        InventoryNeeds::from_selections(self.lock().waiting.iter().map(|(_, waiting)| &waiting.selection))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Waits until nothing waits or is being taken care of.
    pub(super) async fn wait_until_empty(&self) {
        loop {
            let changed = self.changed.notified();
            let is_done = {
                let state = self.lock();
                state.waiting.is_empty() && state.in_hand == 0
            };
            if is_done {
                return;
            }
            changed.await;
        }
    }

    /// Returns what waits, in a line each.
    pub(super) fn summaries(&self) -> Vec<String> {
        self.lock().waiting.iter().map(|(_, waiting)| super::summary::summary(&waiting.events)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A delivery that says this.
    fn waiting(what: &str) -> BacklogEntry {
        let (endpoint, source) = ("test".to_owned(), "GitHub".to_owned());
        BacklogEntry {
            endpoint,
            id: None,
            source,
            condition: None,
            selection: Selection::default(),
            events: vec![Event::Anything { what: what.to_owned() }],
            input: FilterInput::default(),
            publish: None,
            size: 0,
        }
    }

    fn backlog() -> Backlog {
        Backlog::new(Journal::none(), &Contents::default(), Metrics::new())
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let backlog_by_number = backlog();
        let other = || BacklogEntry { endpoint: "other".to_owned(), ..waiting("a") };
        for _ in 0..MAX_WAITING_DELIVERIES / ENDPOINT_SHARE_DIVISOR {
            assert!(matches!(backlog_by_number.keep(waiting("a")), BacklogAnswer::Waits { .. }));
        }
        assert!(matches!(backlog_by_number.keep(waiting("a")), BacklogAnswer::Full));
        assert!(
            matches!(backlog_by_number.keep(other()), BacklogAnswer::Waits { .. }),
            "another endpoint has room"
        );
        let backlog_by_bytes = backlog();
        let third = "a".repeat(MAX_BACKLOG_BYTES / ENDPOINT_SHARE_DIVISOR / BYTES_PER_JSON_BYTE / 3);
        assert!(matches!(backlog_by_bytes.keep(waiting(&third)), BacklogAnswer::Waits { .. }));
        assert!(matches!(backlog_by_bytes.keep(waiting(&third)), BacklogAnswer::Waits { .. }));
        assert!(
            matches!(backlog_by_bytes.keep(waiting(&third)), BacklogAnswer::Full),
            "with what is around it"
        );
    }

    #[test]
    fn what_is_ready_goes_and_the_rest_waits() {
        let backlog = backlog();
        backlog.keep(waiting("a"));
        backlog.keep(waiting("bb"));
        let says = |waiting: &BacklogEntry, what: &str| waiting.events[0].summary() == what;
        let ready = backlog.take(10, |waiting| says(waiting, "bb"));
        assert_eq!(ready.len(), 1);
        assert!(!backlog.is_empty());
        backlog.hand_back(1, std::iter::empty(), Vec::new());
        assert_eq!(backlog.take(10, |_| true).len(), 1);
        assert!(backlog.is_empty());
        assert_eq!(backlog.lock().bytes, 0);
    }
}
