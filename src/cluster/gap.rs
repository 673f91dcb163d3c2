//! Objects that were made or changed while nobody watched: a delivery about them may have been answered
//! `unmatched`, and is never looked at again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::flux::Target;

/// A watch that is opened brings what has happened before at once. What it brings within this time
/// counts as that.
const REPLAY_TIME: Duration = Duration::from_secs(5);

/// The replay time where nobody watched for less than this, as when the API server ends a watch after some
/// minutes: an object that is made just then is mostly not requested for it.
const SHORT_REPLAY_TIME: Duration = Duration::from_millis(500);

/// Objects that may have been missed, until someone takes them.
#[derive(Default)]
pub(super) struct MissedChanges {
    targets: Mutex<BTreeSet<Target>>,
    added: Notify,
}

impl MissedChanges {
    /// Adds an object that may have changed while nobody watched.
    pub(super) fn add(&self, target: Target) {
        self.targets.lock().insert(target);
        self.added.notify_one();
    }

    /// Waits until there are some, and takes all.
    pub(super) async fn take(&self) -> BTreeSet<Target> {
        loop {
            let added = self.added.notified();
            let taken = std::mem::take(&mut *self.targets.lock());
            if !taken.is_empty() {
                return taken;
            }
            added.await;
        }
    }
}

/// Tells which changes a watch shows may have happened while nobody watched: between two streams of
/// a watch, however the first one ended, and while a list was read.
#[derive(Default)]
pub(super) struct Gap {
    lists_again: bool,
    replays_until: Option<Instant>,
}

impl Gap {
    /// A list begins; `again` if there was one before. Deliveries wait for the first one.
    pub(super) fn listing(&mut self, again: bool) {
        self.lists_again = again;
    }

    /// A watch was opened after nobody watched for this long. It begins with what has changed meanwhile.
    pub(super) fn opened(&mut self, unwatched: Duration, now: Instant) {
        let replay = if unwatched < SHORT_REPLAY_TIME { SHORT_REPLAY_TIME } else { REPLAY_TIME };
        *self = Gap { lists_again: false, replays_until: Some(now + replay) };
    }

    /// Whether a change that is seen now may have been missed.
    pub(super) fn covers(&self, now: Instant) -> bool {
        self.lists_again || self.replays_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_watch_begins_with_and_a_second_list_may_have_been_missed() {
        let (mut gap, start) = (Gap::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        gap.listing(false);
        assert!(!gap.covers(start), "the first list: deliveries wait for it");
        gap.opened(Duration::from_secs(2), start);
        assert!(gap.covers(after(4)), "changed while the list was read");
        assert!(!gap.covers(after(6)), "an undisturbed watch");
        gap.opened(Duration::from_secs(9), after(60));
        assert!(gap.covers(after(64)), "changed before the watch was opened again");
        assert!(!gap.covers(after(66)));
        gap.opened(Duration::from_millis(20), after(70));
        assert!(gap.covers(after(70)), "changed just then");
        assert!(!gap.covers(after(71)));
        gap.listing(true);
        assert!(gap.covers(after(600)), "a list after an interruption");
        gap.opened(Duration::from_secs(90), after(700));
        assert!(!gap.covers(after(706)));
    }
}
