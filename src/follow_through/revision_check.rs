//! Decides whether Flux has fetched what a push brought, and whether to request again: pure, time handed in.
//!
//! A webhook can be quicker than the Git host itself: Flux fetches, is shown the old commit, and is
//! content until its interval is over. So an object that has handled the request and still shows
//! the revision that it had when the delivery came is requested again, a few times.

use std::time::{Duration, Instant};

use crate::flux::Progress;

/// A push that an object should show.
#[derive(Debug, Clone)]
pub struct RevisionCheck {
    /// The commit ID or digest that the push brings, in hex.
    wanted: Box<str>,
    /// What the object showed when the delivery came.
    had: Option<Box<str>>,
    /// The last request whose handling has been seen, or that was there when the delivery came: its hash.
    handled: u64,
    since: Instant,
    repeats: u32,
    repeat_at: Option<Instant>,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The object shows it, after so long.
    Seen(Duration),
    /// The object shows something else that is new, after so long.
    MovedOn(Duration),
    /// The object has not moved in all the time that there is.
    GivenUp,
    /// The object was suspended or is gone.
    Dropped,
    /// A later push is checked in its place.
    Superseded,
}

/// What is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueStep {
    Wait,
    /// Request reconciliation again.
    RequestAgain,
    End(Verdict),
}

/// How long a push is checked.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(120);

/// The first pause before another request; it doubles with every further one.
const FIRST_REPEAT_DELAY: Duration = Duration::from_secs(1);

impl RevisionCheck {
    /// Begins to follow a push; `None` if the object shows it already.
    pub fn new(wanted: &str, at_delivery: &Progress, now: Instant) -> Option<RevisionCheck> {
        if at_delivery.revision.as_deref() == Some(wanted) {
            return None;
        }
        Some(RevisionCheck {
            wanted: wanted.into(),
            had: at_delivery.revision.clone(),
            handled: at_delivery.requested,
            since: now,
            repeats: 0,
            repeat_at: None,
        })
    }

    /// Whether it is about this commit ID or digest.
    pub fn wants(&self, revision: &str) -> bool {
        *self.wanted == *revision
    }

    /// The object was seen like this.
    pub fn observe(&mut self, progress: &Progress, suspended: bool, now: Instant) -> Option<Verdict> {
        if suspended {
            return Some(Verdict::Dropped);
        }
        let after = now.saturating_duration_since(self.since);
        if progress.revision != self.had {
            let seen = progress.revision.as_deref() == Some(&*self.wanted);
            return Some(if seen { Verdict::Seen(after) } else { Verdict::MovedOn(after) });
        }
        if progress.handled && progress.requested != self.handled {
            self.handled = progress.requested;
            let pause =
                FIRST_REPEAT_DELAY.saturating_mul(1_u32.checked_shl(self.repeats).unwrap_or(u32::MAX));
            self.repeat_at.get_or_insert(now + pause);
        }
        None
    }

    /// Returns what is due; a request counts as sent.
    pub fn step(&mut self, now: Instant) -> DueStep {
        if now >= self.ends() {
            return DueStep::End(Verdict::GivenUp);
        }
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat_at = None;
            self.repeats += 1;
            return DueStep::RequestAgain;
        }
        DueStep::Wait
    }

    /// When to look at [`RevisionCheck::step`] again.
    pub fn due(&self) -> Instant {
        self.repeat_at.map_or(self.ends(), |at| at.min(self.ends()))
    }

    /// The number of requests after the first.
    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    fn ends(&self) -> Instant {
        self.since + FOLLOW_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(requested: &str, handled: &str, revision: &str) -> Progress {
        Progress::new(Some(requested), Some(handled), Some(revision))
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_push_that_arrives_is_seen() {
        let now = Instant::now();
        let mut pursuit =
            RevisionCheck::new("new", &progress("1", "1", "main@sha1:old"), now).expect("a pursuit");
        assert_eq!(pursuit.observe(&progress("2", "1", "main@sha1:old"), false, at(now, 10)), None);
        let seen = pursuit.observe(&progress("2", "2", "main@sha1:new"), false, at(now, 900));
        assert_eq!(seen, Some(Verdict::Seen(Duration::from_millis(900))));
    }

    #[test]
    fn nothing_is_followed_that_is_there_already() {
        let there = progress("1", "1", "main@sha1:new");
        assert!(RevisionCheck::new("new", &there, Instant::now()).is_none());
    }

    #[test]
    fn an_object_that_still_shows_the_old_revision_is_requested_again_with_growing_pauses() {
        let now = Instant::now();
        let mut pursuit =
            RevisionCheck::new("new", &progress("1", "1", "main@sha1:old"), now).expect("a pursuit");
        // The request of before the delivery says nothing.
        assert_eq!(pursuit.observe(&progress("1", "1", "main@sha1:old"), false, now), None);
        assert_eq!(pursuit.step(at(now, 5000)), DueStep::Wait);

        let mut requested = Vec::new();
        let mut request = 1;
        let mut time = 0;
        let end = loop {
            request += 1;
            let text = request.to_string();
            assert_eq!(pursuit.observe(&progress(&text, &text, "main@sha1:old"), false, at(now, time)), None);
            // A second look at the same request changes nothing.
            assert_eq!(pursuit.observe(&progress(&text, &text, "main@sha1:old"), false, at(now, time)), None);
            let due = pursuit.due();
            time = due.duration_since(now).as_millis() as u64;
            match pursuit.step(due) {
                DueStep::RequestAgain => requested.push(time),
                DueStep::End(verdict) => break verdict,
                DueStep::Wait => panic!("something was due"),
            }
        };
        assert_eq!(requested, [1000, 3000, 7000, 15_000, 31_000, 63_000]);
        assert_eq!((end, time), (Verdict::GivenUp, 120_000));
    }

    #[test]
    fn another_new_revision_is_no_reason_to_ask() {
        let now = Instant::now();
        let mut pursuit =
            RevisionCheck::new("new", &progress("1", "1", "main@sha1:old"), now).expect("a pursuit");
        let moved = pursuit.observe(&progress("2", "2", "main@sha1:newer"), false, at(now, 5));
        assert_eq!(moved, Some(Verdict::MovedOn(Duration::from_millis(5))));
    }

    #[test]
    fn suspended_objects_are_left_alone() {
        let now = Instant::now();
        let mut pursuit =
            RevisionCheck::new("new", &progress("1", "1", "main@sha1:old"), now).expect("a pursuit");
        assert_eq!(pursuit.observe(&progress("2", "2", "main@sha1:old"), true, now), Some(Verdict::Dropped));
    }

    #[test]
    fn an_object_that_never_fetched_anything_is_followed_too() {
        let now = Instant::now();
        let nothing = Progress::new(None, None, None);
        let mut pursuit = RevisionCheck::new("new", &nothing, now).expect("a pursuit");
        assert_eq!(pursuit.observe(&Progress::new(Some("2"), Some("2"), None), false, now), None);
        assert_eq!(pursuit.step(at(now, 1000)), DueStep::RequestAgain);
    }
}
