//! Events that came before the objects of the cluster were known.

use std::sync::{Arc, Mutex, PoisonError};

use crate::endpoint::Endpoint;
use crate::event::Event;

/// Keeps events until it is opened; after that it keeps nothing.
pub(super) struct Backlog {
    /// `None` once it was opened.
    waiting: Mutex<Option<Vec<Waiting>>>,
}

/// Events of one delivery, and the endpoint whose options they were accepted under.
pub(super) struct Waiting {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) events: Vec<Event>,
}

/// What the backlog did with a delivery.
pub(super) enum Kept {
    /// It waits.
    Waits,
    /// There is no need to wait any more; here it is back.
    NotNeeded(Waiting),
    /// No room is left.
    Full,
}

/// A first sync takes seconds; in that time no sender posts more. Some 1 KiB each at most.
const LIMIT: usize = 4096;

impl Backlog {
    pub(super) fn closed() -> Backlog {
        Backlog { waiting: Mutex::new(Some(Vec::new())) }
    }

    pub(super) fn keep(&self, delivery: Waiting) -> Kept {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.as_mut() {
            None => Kept::NotNeeded(delivery),
            Some(list) if list.len() >= LIMIT => Kept::Full,
            Some(list) => {
                list.push(delivery);
                Kept::Waits
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Vec::len)
    }

    /// Hands out what has waited. Whoever comes from now on need not wait.
    pub(super) fn open(&self) -> Vec<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}
