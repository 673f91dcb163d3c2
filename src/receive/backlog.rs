//! Events that came before the objects of the cluster were known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::event::Event;
use crate::journal::contents::{Change, Contents};
use crate::journal::{Commit, Journal};
use crate::metrics::Metrics;

/// Keeps events until it is opened; after that it keeps nothing.
pub(super) struct Backlog {
    state: Mutex<State>,
    /// Only set under the lock.
    is_open: AtomicBool,
    opened: Notify,
    journal: Journal,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    waiting: Vec<(u64, Waiting)>,
    bytes: usize,
}

/// Events of one delivery, with the options that they were accepted under.
#[derive(Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) endpoint: String,
    pub(super) source: String,
    pub(super) namespaces: Vec<String>,
    pub(super) events: Vec<Event>,
    /// How long the body was, in bytes; events hold no more than that of it.
    pub(super) size: usize,
}

/// What the backlog did with a delivery.
pub(super) enum Kept {
    /// It waits, once this commit is through; this is what happened, in a line.
    Waits { event: String, commit: Option<Commit> },
    /// There is no need to wait any more; here it is back.
    NotNeeded(Waiting),
    /// No room is left.
    Full,
}

/// A first sync takes seconds; in that time no sender posts more.
const MOST_DELIVERIES: usize = 4096;
/// The bodies that the waiting events came from, together, in bytes.
const MOST_BYTES: usize = 16 * 1024 * 1024;

impl Backlog {
    /// A closed backlog, with what an earlier process has left in the journal.
    pub(super) fn closed(journal: Journal, left: &Contents, metrics: Arc<Metrics>) -> Backlog {
        let mut state = State::default();
        for (number, bytes) in &left.deliveries {
            match serde_json::from_slice::<Waiting>(bytes) {
                Ok(waiting) => {
                    state.bytes += waiting.size;
                    state.waiting.push((*number, waiting));
                }
                Err(err) => {
                    log::error!(why:% = err; "a delivery in the journal cannot be read by this version; it stays there");
                }
            }
        }
        metrics.waiting_deliveries(state.waiting.len());
        let is_open = AtomicBool::new(false);
        Backlog { state: Mutex::new(state), is_open, opened: Notify::new(), journal, metrics }
    }

    /// Whether nothing waits any more.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub(super) fn keep(&self, delivery: Waiting) -> Kept {
        let mut state = self.lock();
        if self.is_open() {
            return Kept::NotNeeded(delivery);
        }
        if state.waiting.len() >= MOST_DELIVERIES || state.bytes + delivery.size > MOST_BYTES {
            return Kept::Full;
        }
        let event = super::summary(&delivery.events);
        let number = self.journal.new_delivery_number();
        // Within the lock, so that the journal sees it come before it sees it go.
        let commit = serde_json::to_vec(&delivery)
            .ok()
            .and_then(|bytes| self.journal.write(vec![Change::Keep(number, bytes)]));
        state.bytes += delivery.size;
        state.waiting.push((number, delivery));
        self.metrics.waiting_deliveries(state.waiting.len());
        Kept::Waits { event, commit }
    }

    /// Hands out what has waited. Whoever comes from now on need not wait.
    pub(super) fn open(&self) -> Vec<(u64, Waiting)> {
        let mut state = self.lock();
        self.is_open.store(true, Ordering::Release);
        std::mem::take(&mut state.waiting)
    }

    /// What `open` has handed out is taken care of.
    pub(super) fn settled(&self, numbers: impl Iterator<Item = u64>) {
        self.journal.write_later(numbers.map(Change::Drop));
        self.metrics.waiting_deliveries(0);
        self.opened.notify_waiters();
    }

    /// Waits until nothing waits, opened or empty.
    pub(super) async fn empty(&self) {
        loop {
            let opened = self.opened.notified();
            if self.lock().waiting.is_empty() {
                return;
            }
            opened.await;
        }
    }

    /// What waits, in a line each.
    pub(super) fn summaries(&self) -> Vec<String> {
        self.lock().waiting.iter().map(|(_, waiting)| super::summary(&waiting.events)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(size: usize) -> Waiting {
        let (endpoint, source) = ("test".to_owned(), "GitHub".to_owned());
        Waiting { endpoint, source, namespaces: Vec::new(), events: Vec::new(), size }
    }

    fn backlog() -> Backlog {
        Backlog::closed(Journal::none(), &Contents::default(), Metrics::new())
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let backlog_by_number = backlog();
        for _ in 0..MOST_DELIVERIES {
            assert!(matches!(backlog_by_number.keep(waiting(1)), Kept::Waits { .. }));
        }
        assert!(matches!(backlog_by_number.keep(waiting(1)), Kept::Full));
        let backlog_by_bytes = backlog();
        assert!(matches!(backlog_by_bytes.keep(waiting(MOST_BYTES)), Kept::Waits { .. }));
        assert!(matches!(backlog_by_bytes.keep(waiting(1)), Kept::Full));
    }

    #[test]
    fn once_opened_nothing_waits() {
        let backlog = backlog();
        backlog.keep(waiting(1));
        assert_eq!(backlog.open().len(), 1);
        assert!(matches!(backlog.keep(waiting(1)), Kept::NotNeeded(_)));
        assert!(backlog.open().is_empty());
    }
}
