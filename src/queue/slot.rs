//! The slot of one object: a pure state machine, time handed in.
//!
//! Deliveries for an object whose patch has not started share that round. A delivery that arrives
//! while a patch is in flight may have been too late for it, so it causes one more afterwards.

use std::time::{Duration, Instant};

/// Counts the rounds of an object. A round is over when a patch has succeeded that started after
/// every delivery of the round had arrived.
pub type Round = u64;

/// The state of one object.
#[derive(Debug)]
pub struct Slot {
    state: SlotState,
    requested: Round,
    /// When the first delivery came that no patch covers yet.
    waiting_since: Option<Instant>,
    started: Option<Instant>,
    failures: Failures,
}

/// Failures in a row, and of which sort the last one was; another sort begins a row of its own.
#[derive(Debug, Clone, Copy)]
struct Failures {
    sort: PatchFailure,
    count: u32,
}

/// The sorts of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchFailure {
    /// It may succeed next time.
    Transient,
    /// Refused until someone grants a right or corrects the object; an API server that starts may also
    /// answer 403.
    Blocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    /// No patch is requested.
    Idle,
    /// A patch is requested, not before this time.
    Pending { due: Instant },
    /// A patch is on its way; it covers this round, whose first delivery came then.
    InFlight { covers: Round, since: Option<Instant> },
}

const NO_FAILURE: Failures = Failures { sort: PatchFailure::Transient, count: 0 };

/// The result of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchResult {
    /// The API server has taken it.
    Done,
    /// It failed; try again after this pause.
    Failed {
        pause: Duration,
        /// The sort of failure.
        sort: PatchFailure,
    },
    /// The object is gone.
    Gone,
}

/// The next step for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing; everything up to this round is settled.
    Rest(Round),
    /// Try to start a patch at this time.
    StartAt(Instant),
}

impl Slot {
    /// A slot for which nothing is requested yet, after these rounds of an earlier process.
    pub fn new(requested: Round) -> Slot {
        Slot { state: SlotState::Idle, requested, waiting_since: None, started: None, failures: NO_FAILURE }
    }

    /// A delivery requests the object, by a patch not before `earliest`. Returns the new start time;
    /// none if the planned patch covers the delivery or one is in flight.
    pub fn request(&mut self, now: Instant, earliest: Instant, min_interval: Duration) -> Option<Instant> {
        self.waiting_since.get_or_insert(now);
        match self.state {
            // The patch that is to come covers this delivery too.
            SlotState::Pending { due } if self.failures.count > 0 || due <= earliest => None,
            SlotState::Pending { due } => {
                let sooner = self.pend(now, earliest, min_interval);
                (sooner < due).then_some(sooner)
            }
            SlotState::InFlight { covers, .. } => {
                // One more round, however many deliveries need it.
                self.requested = covers + 1;
                None
            }
            SlotState::Idle => {
                self.requested += 1;
                Some(self.pend(now, earliest, min_interval))
            }
        }
    }

    /// Whether a patch is requested whose time has come.
    pub fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, SlotState::Pending { due } if due <= now)
    }

    /// Starts a patch if one is due; says which round it covers.
    pub fn start(&mut self, now: Instant) -> Option<Round> {
        match self.state {
            SlotState::Pending { due } if due <= now => {
                self.state = SlotState::InFlight { covers: self.requested, since: self.waiting_since.take() };
                self.started = Some(now);
                Some(self.requested)
            }
            _ => None,
        }
    }

    /// The patch in flight has ended.
    pub fn finish(&mut self, now: Instant, ending: PatchResult, min_interval: Duration) -> NextStep {
        let SlotState::InFlight { covers, since } = self.state else {
            return NextStep::Rest(self.requested);
        };
        let requested_again = self.requested > covers;
        match ending {
            PatchResult::Failed { pause, sort } => {
                self.failures = Failures { sort, count: self.failures(sort).saturating_add(1) };
                self.waiting_since = since.or(self.waiting_since);
                NextStep::StartAt(self.pend(now, now + pause, min_interval))
            }
            PatchResult::Done | PatchResult::Gone => {
                self.failures = NO_FAILURE;
                if requested_again {
                    return NextStep::StartAt(self.pend(now, now, min_interval));
                }
                self.state = SlotState::Idle;
                NextStep::Rest(covers)
            }
        }
    }

    /// The round that is requested, on its way or was settled last.
    pub fn round(&self) -> Round {
        self.requested
    }

    /// Returns when the first delivery came that the patch in flight covers.
    pub fn in_flight_since(&self) -> Option<Instant> {
        match self.state {
            SlotState::InFlight { since, .. } => since,
            SlotState::Idle | SlotState::Pending { .. } => None,
        }
    }

    /// Whether a patch is requested that has not started.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, SlotState::Pending { .. })
    }

    /// Returns the number of patches that have failed in a row in this way.
    pub fn failures(&self, sort: PatchFailure) -> u32 {
        if self.failures.sort == sort { self.failures.count } else { 0 }
    }

    /// Whether something is requested or on its way.
    pub fn is_busy(&self) -> bool {
        self.state != SlotState::Idle
    }

    /// The time before which no patch starts, however much it is requested.
    pub fn earliest_start(&self, min_interval: Duration) -> Option<Instant> {
        self.started.map(|started| started + min_interval)
    }

    fn pend(&mut self, now: Instant, earliest: Instant, min_interval: Duration) -> Instant {
        let due = self.earliest_start(min_interval).unwrap_or(now).max(earliest);
        self.state = SlotState::Pending { due };
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
        let mut slot = Slot::new(0);
        assert_eq!(slot.request(now, now, INTERVAL), Some(now));
        assert_eq!(slot.start(now), Some(1));
        assert_eq!(slot.finish(after(now, 100), PatchResult::Done, INTERVAL), NextStep::Rest(1));
        assert_eq!(slot.request(after(now, 200), now, INTERVAL), Some(after(now, 1000)));
        assert_eq!(slot.start(after(now, 999)), None);
        assert_eq!(slot.start(after(now, 1000)), Some(2));
    }

    #[test]
    fn deliveries_before_the_start_share_a_patch() {
        let now = Instant::now();
        let mut slot = Slot::new(0);
        slot.request(now, now, INTERVAL);
        assert_eq!(slot.request(now, now, INTERVAL), None);
        assert_eq!(slot.start(now), Some(1));
        assert_eq!(slot.finish(now, PatchResult::Done, INTERVAL), NextStep::Rest(1));
        assert!(!slot.is_busy());
    }

    #[test]
    fn deliveries_in_flight_cause_exactly_one_more() {
        let now = Instant::now();
        let mut slot = Slot::new(0);
        slot.request(now, now, INTERVAL);
        slot.start(now);
        assert_eq!(slot.request(now, now, INTERVAL), None);
        assert_eq!(slot.request(now, now, INTERVAL), None);
        assert_eq!(slot.finish(now, PatchResult::Done, INTERVAL), NextStep::StartAt(after(now, 1000)));
        assert_eq!(slot.start(after(now, 1000)), Some(2));
        assert_eq!(slot.finish(after(now, 1001), PatchResult::Done, INTERVAL), NextStep::Rest(2));
    }

    #[test]
    fn a_failed_patch_is_tried_again_until_it_is_given_up() {
        let now = Instant::now();
        let pause = Duration::from_secs(5);
        let mut slot = Slot::new(0);
        slot.request(now, now, INTERVAL);
        slot.start(now);
        assert_eq!(
            slot.finish(now, PatchResult::Failed { pause, sort: PatchFailure::Transient }, INTERVAL),
            NextStep::StartAt(now + pause)
        );
        assert_eq!((slot.failures(PatchFailure::Transient), slot.failures(PatchFailure::Blocked)), (1, 0));
        slot.start(now + pause);
        assert_eq!(slot.finish(now + pause, PatchResult::Gone, INTERVAL), NextStep::Rest(1));
        assert_eq!(slot.failures(PatchFailure::Transient), 0);
    }

    #[test]
    fn a_delivery_brings_forward_what_was_spread_out_but_no_retry() {
        let now = Instant::now();
        let mut slot = Slot::new(0);
        assert_eq!(slot.request(now, after(now, 4000), INTERVAL), Some(after(now, 4000)));
        assert_eq!(slot.request(now, after(now, 4500), INTERVAL), None);
        assert_eq!(slot.request(now, now, INTERVAL), Some(now));
        slot.start(now);
        slot.finish(
            now,
            PatchResult::Failed { pause: Duration::from_secs(9), sort: PatchFailure::Blocked },
            INTERVAL,
        );
        assert_eq!(slot.request(now, now, INTERVAL), None);
        assert_eq!(slot.start(after(now, 8999)), None);
    }

    proptest! {
        /// Against a reference that knows only times: whatever the order of events, when the slot
        /// rests the last successful patch started after the last delivery, at most one patch is in
        /// flight, and starts are an interval apart.
        #[test]
        fn nothing_wanted_is_forgotten(steps in prop::collection::vec(prop_oneof![
            (0u64..4000).prop_map(SlotStep::Want), (1u64..1500).prop_map(SlotStep::Wait), (0u8..3).prop_map(SlotStep::Finish)
        ], 1..60)) {
            let mut now = Instant::now();
            let mut slot = Slot::new(7);
            let (mut last_request, mut last_success) = (None, None);
            let mut in_flight: Option<Instant> = None;
            let mut last_start: Option<Instant> = None;
            let mut due: Vec<Instant> = Vec::new();
            let end = std::iter::repeat_n([SlotStep::Wait(60_000), SlotStep::Finish(0)], 3).flatten();
            for step in steps.into_iter().chain(end) {
                // No two things happen at one time, so that before and after are clear.
                now += Duration::from_micros(1);
                match step {
                    SlotStep::Want(spread) => {
                        last_request = Some(now);
                        due.extend(slot.request(now, after(now, spread), INTERVAL));
                    }
                    SlotStep::Wait(millis) => now = after(now, millis),
                    SlotStep::Finish(how) => if let Some(started) = in_flight.take() {
                        let ending = match how {
                            0 | 1 => PatchResult::Done,
                            _ => PatchResult::Failed { pause: Duration::from_millis(300), sort: PatchFailure::Transient },
                        };
                        if ending == PatchResult::Done {
                            last_success = Some(started);
                        }
                        match slot.finish(now, ending, INTERVAL) {
                            NextStep::Rest(_) => prop_assert!(last_success > last_request),
                            NextStep::StartAt(at) => due.push(at),
                        }
                    }
                }
                now += Duration::from_micros(1);
                if due.iter().any(|due| *due <= now) {
                    due.retain(|due| *due > now);
                    if slot.start(now).is_some() {
                        prop_assert!(in_flight.is_none());
                        prop_assert!(last_start.is_none_or(|last| now >= last + INTERVAL));
                        last_start = Some(now);
                        in_flight = Some(now);
                    }
                }
            }
            prop_assert!(last_request.is_none() || last_success > last_request);
            prop_assert!(!slot.is_busy());
        }
    }

    #[derive(Debug, Clone)]
    enum SlotStep {
        Want(u64),
        Wait(u64),
        Finish(u8),
    }
}
