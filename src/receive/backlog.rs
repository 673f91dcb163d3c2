//! Events that came before the objects of the cluster were known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::endpoint::Endpoint;
use crate::event::Event;

/// Keeps events until it is opened; after that it keeps nothing.
pub(super) struct Backlog {
    /// `None` once it was opened.
    waiting: Mutex<Option<Vec<Waiting>>>,
    opened: Notify,
}

/// Events of one delivery, and the endpoint whose options they were accepted under.
pub(super) struct Waiting {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) events: Vec<Event>,
    /// How long the body was, in bytes; events hold no more than that of it.
    pub(super) size: usize,
}

/// What the backlog did with a delivery.
pub(super) enum Kept {
    /// It waits; this is what happened, in a line.
    Waits { event: String },
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
    pub(super) fn closed() -> Backlog {
        Backlog { waiting: Mutex::new(Some(Vec::new())), opened: Notify::new() }
    }

    pub(super) fn keep(&self, delivery: Waiting) -> Kept {
        let mut waiting = self.lock();
        let Some(list) = waiting.as_mut() else { return Kept::NotNeeded(delivery) };
        let bytes: usize = list.iter().map(|waiting| waiting.size).sum();
        if list.len() >= MOST_DELIVERIES || bytes + delivery.size > MOST_BYTES {
            return Kept::Full;
        }
        let event = super::summary(&delivery.events);
        list.push(delivery);
        Kept::Waits { event }
    }

    /// Hands out what has waited. Whoever comes from now on need not wait.
    pub(super) fn open(&self) -> Vec<Waiting> {
        self.lock().take().unwrap_or_default()
    }

    /// What `open` has handed out is taken care of.
    pub(super) fn settled(&self) {
        self.opened.notify_waiters();
    }

    /// Waits until nothing waits, opened or empty.
    pub(super) async fn empty(&self) {
        loop {
            let opened = self.opened.notified();
            if self.lock().as_ref().is_none_or(Vec::is_empty) {
                return;
            }
            opened.await;
        }
    }

    /// What waits, in a line each.
    pub(super) fn summaries(&self) -> Vec<String> {
        let waiting = self.lock();
        waiting.iter().flatten().map(|waiting| super::summary(&waiting.events)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::provider::PROVIDERS;
    use crate::verify::Credentials;
    use crate::verify::key::Key;

    fn waiting(size: usize) -> Waiting {
        let key = Key::new(b"test-key".to_vec()).expect("a key");
        let credentials = Credentials { key, google: None, unsigned: false };
        let endpoint = Endpoint::new("test".to_owned(), PROVIDERS[0], PathBuf::new(), credentials, "");
        Waiting { endpoint: Arc::new(endpoint), events: Vec::new(), size }
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let backlog = Backlog::closed();
        for _ in 0..MOST_DELIVERIES {
            assert!(matches!(backlog.keep(waiting(1)), Kept::Waits { .. }));
        }
        assert!(matches!(backlog.keep(waiting(1)), Kept::Full));
        let backlog = Backlog::closed();
        assert!(matches!(backlog.keep(waiting(MOST_BYTES)), Kept::Waits { .. }));
        assert!(matches!(backlog.keep(waiting(1)), Kept::Full));
    }

    #[test]
    fn once_opened_nothing_waits() {
        let backlog = Backlog::closed();
        backlog.keep(waiting(1));
        assert_eq!(backlog.open().len(), 1);
        assert!(matches!(backlog.keep(waiting(1)), Kept::NotNeeded(_)));
        assert!(backlog.open().is_empty());
    }
}
