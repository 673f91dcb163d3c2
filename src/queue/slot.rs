//! What is to be done about one object: a pure state machine, time handed in.
//!
//! Deliveries for an object whose patch has not started share that patch. A delivery that arrives
//! while a patch is in flight may have been too late for it, so it causes one more afterwards.

use std::time::{Duration, Instant};

/// Counts the deliveries that wanted an object. A patch covers every generation up to the one that
/// it started with, and none after.
pub type Generation = u64;

/// The state of one object.
#[derive(Debug)]
pub struct Slot {
    state: State,
    wanted: Generation,
    started: Option<Instant>,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is wanted.
    Idle,
    /// A patch is wanted, not before this time.
    Pending { due: Instant },
    /// A patch is on its way; it covers this generation.
    InFlight { covers: Generation },
}

/// How a patch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The API server has taken it.
    Done,
    /// It failed; try again after this pause.
    Failed {
        /// The pause.
        pause: Duration,
    },
    /// The API server will never take it, or the object is gone.
    GivenUp,
}

/// What to do next about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing; everything up to this generation is settled.
    Rest(Generation),
    /// Try to start a patch at this time.
    StartAt(Instant),
}

impl Slot {
    /// A slot for which nothing is wanted yet.
    #[expect(clippy::new_without_default, reason = "a slot is made for an object, never by default")]
    pub fn new() -> Slot {
        Slot { state: State::Idle, wanted: 0, started: None, failures: 0 }
    }

    /// A delivery wants the object. Says when to start, if that was not settled already.
    pub fn want(&mut self, now: Instant, min_interval: Duration) -> Option<Instant> {
        self.wanted += 1;
        match self.state {
            State::Pending { .. } | State::InFlight { .. } => None,
            State::Idle => Some(self.pend(now, now, min_interval)),
        }
    }

    /// Starts a patch if one is due; says which generation it covers.
    pub fn start(&mut self, now: Instant) -> Option<Generation> {
        match self.state {
            State::Pending { due } if due <= now => {
                self.state = State::InFlight { covers: self.wanted };
                self.started = Some(now);
                Some(self.wanted)
            }
            _ => None,
        }
    }

    /// The patch in flight has ended.
    pub fn finish(&mut self, now: Instant, ending: Ending, min_interval: Duration) -> Next {
        let State::InFlight { covers } = self.state else {
            return Next::Rest(self.wanted);
        };
        let wanted_again = self.wanted > covers;
        match ending {
            Ending::Failed { pause } => {
                self.failures = self.failures.saturating_add(1);
                Next::StartAt(self.pend(now, now + pause, min_interval))
            }
            Ending::Done | Ending::GivenUp => {
                self.failures = 0;
                if wanted_again {
                    return Next::StartAt(self.pend(now, now, min_interval));
                }
                self.state = State::Idle;
                Next::Rest(covers)
            }
        }
    }

    /// How many patches have failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether something is wanted or on its way.
    pub fn is_busy(&self) -> bool {
        self.state != State::Idle
    }

    /// The time before which no patch starts, however much it is wanted.
    pub fn rests_until(&self, min_interval: Duration) -> Option<Instant> {
        self.started.map(|started| started + min_interval)
    }

    fn pend(&mut self, now: Instant, earliest: Instant, min_interval: Duration) -> Instant {
        let due = self.rests_until(min_interval).unwrap_or(now).max(earliest);
        self.state = State::Pending { due };
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_patch_starts_at_once_and_later_ones_are_spaced() {
        let now = Instant::now();
        let mut slot = Slot::new();
        assert_eq!(slot.want(now, INTERVAL), Some(now));
        assert_eq!(slot.start(now), Some(1));
        assert_eq!(slot.finish(after(now, 100), Ending::Done, INTERVAL), Next::Rest(1));
        assert_eq!(slot.want(after(now, 200), INTERVAL), Some(after(now, 1000)));
        assert_eq!(slot.start(after(now, 999)), None);
        assert_eq!(slot.start(after(now, 1000)), Some(2));
    }

    #[test]
    fn deliveries_before_the_start_share_a_patch() {
        let now = Instant::now();
        let mut slot = Slot::new();
        slot.want(now, INTERVAL);
        assert_eq!(slot.want(now, INTERVAL), None);
        assert_eq!(slot.start(now), Some(2));
        assert_eq!(slot.finish(now, Ending::Done, INTERVAL), Next::Rest(2));
        assert!(!slot.is_busy());
    }

    #[test]
    fn deliveries_in_flight_cause_exactly_one_more() {
        let now = Instant::now();
        let mut slot = Slot::new();
        slot.want(now, INTERVAL);
        slot.start(now);
        assert_eq!(slot.want(now, INTERVAL), None);
        assert_eq!(slot.want(now, INTERVAL), None);
        assert_eq!(slot.finish(now, Ending::Done, INTERVAL), Next::StartAt(after(now, 1000)));
        assert_eq!(slot.start(after(now, 1000)), Some(3));
        assert_eq!(slot.finish(after(now, 1001), Ending::Done, INTERVAL), Next::Rest(3));
    }

    #[test]
    fn a_failed_patch_is_tried_again_until_it_is_given_up() {
        let now = Instant::now();
        let pause = Duration::from_secs(5);
        let mut slot = Slot::new();
        slot.want(now, INTERVAL);
        slot.start(now);
        assert_eq!(slot.finish(now, Ending::Failed { pause }, INTERVAL), Next::StartAt(now + pause));
        assert_eq!(slot.failures(), 1);
        slot.start(now + pause);
        assert_eq!(slot.finish(now + pause, Ending::GivenUp, INTERVAL), Next::Rest(1));
        assert_eq!(slot.failures(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Want,
        Wait(u64),
        Finish(u8),
    }

    proptest! {
        /// Against a reference that only counts: whatever the order of events, when the slot rests
        /// every generation is covered by a patch that started after it was wanted, at most one
        /// patch is in flight, and starts are an interval apart.
        #[test]
        fn nothing_wanted_is_forgotten(steps in prop::collection::vec(prop_oneof![
            Just(Step::Want), (0u64..1500).prop_map(Step::Wait), (0u8..3).prop_map(Step::Finish)
        ], 1..60)) {
            let mut now = Instant::now();
            let mut slot = Slot::new();
            let mut wanted = 0;
            let mut settled = 0;
            let mut in_flight: Option<Generation> = None;
            let mut last_start: Option<Instant> = None;
            let mut due: Option<Instant> = None;
            let end = std::iter::repeat_n([Step::Wait(60_000), Step::Finish(0)], 3).flatten();
            for step in steps.into_iter().chain(end) {
                match step {
                    Step::Want => {
                        wanted += 1;
                        due = slot.want(now, INTERVAL).or(due);
                    }
                    Step::Wait(millis) => now = after(now, millis),
                    Step::Finish(how) if in_flight.is_some() => {
                        let ending = match how {
                            0 => Ending::Done,
                            1 => Ending::Failed { pause: Duration::from_millis(300) },
                            _ => Ending::GivenUp,
                        };
                        let covers = in_flight.take().expect("just looked");
                        if !matches!(ending, Ending::Failed { .. }) {
                            settled = covers;
                        }
                        match slot.finish(now, ending, INTERVAL) {
                            Next::Rest(generation) => prop_assert_eq!(generation, wanted),
                            Next::StartAt(at) => due = Some(at),
                        }
                    }
                    Step::Finish(_) => {}
                }
                if due.is_some_and(|due| due <= now) {
                    if let Some(covers) = slot.start(now) {
                        prop_assert!(in_flight.is_none());
                        prop_assert_eq!(covers, wanted);
                        prop_assert!(last_start.is_none_or(|last| now >= last + INTERVAL));
                        last_start = Some(now);
                        in_flight = Some(covers);
                    }
                    due = None;
                }
            }
            prop_assert_eq!(settled, wanted);
            prop_assert!(!slot.is_busy());
        }
    }
}
