//! Objects that were made or changed while nobody watched: a delivery about them may have been answered
//! `unmatched`, and is never looked at again.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lock;
use crate::flux::Target;

/// A watch that goes on after an interruption brings what has happened meanwhile at once; so long what it
/// brings counts as that.
const REPLAY: Duration = Duration::from_secs(5);

/// What was found after gaps and has not been looked at.
#[derive(Default)]
pub(super) struct MissedChanges {
    targets: Mutex<BTreeSet<Target>>,
    added: Notify,
}

impl MissedChanges {
    /// Adds an object.
    pub(super) fn add(&self, target: Target) {
        lock(&self.targets).insert(target);
        self.added.notify_one();
    }

    /// Waits until there are some, and takes all.
    pub(super) async fn take(&self) -> BTreeSet<Target> {
        loop {
            let added = self.added.notified();
            let taken = std::mem::take(&mut *lock(&self.targets));
            if !taken.is_empty() {
                return taken;
            }
            added.await;
        }
    }
}

/// Whether what a watch shows may have happened while it was interrupted.
#[derive(Default)]
pub(super) struct Gap {
    lists_again: bool,
    is_interrupted: bool,
    replays_until: Option<Instant>,
}

impl Gap {
    /// The watch was interrupted.
    pub(super) fn interrupted(&mut self) {
        self.is_interrupted = true;
    }

    /// A list begins; `again` if there was one before.
    pub(super) fn lists(&mut self, again: bool) {
        self.lists_again = again;
    }

    /// The list is complete.
    pub(super) fn listed(&mut self) {
        *self = Gap::default();
    }

    /// Whether a change that is seen now may have been missed.
    pub(super) fn covers(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.is_interrupted) {
            self.replays_until = Some(now + REPLAY);
        }
        self.lists_again || self.replays_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_after_an_interruption_was_missed() {
        let (mut gap, now) = (Gap::default(), Instant::now());
        assert!(!gap.covers(now), "an undisturbed watch");
        gap.lists(false);
        assert!(!gap.covers(now), "the first list: deliveries wait for it");
        gap.listed();
        gap.interrupted();
        assert!(gap.covers(now));
        assert!(gap.covers(now + Duration::from_secs(4)));
        assert!(!gap.covers(now + Duration::from_secs(6)));
        gap.lists(true);
        assert!(gap.covers(now + Duration::from_secs(60)));
        gap.listed();
        assert!(!gap.covers(now + Duration::from_secs(60)));
    }
}
