//! The slots of all objects, and what the journal holds of each: pure, time and commits handed in.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::slot::{NextStep, PatchResult, Round, Slot};
use crate::flux::{Kind, Target};

/// The time that the journal still holds an object after its patch. An object that is requested again in
/// that time costs the journal no write; after a crash in that time it is requested once too often.
pub(super) const RECORD_LINGER_TIME: Duration = Duration::from_secs(2);

/// The time between two looks at a slot that rests while the journal still writes.
const RECORD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A commit of the journal that is on its way.
pub(super) trait CommitStatus: Clone {
    /// Whether it went through; `None` as long as nobody knows.
    fn is_durable(&self) -> Option<bool>;
}

/// The slots of all targets, and the journal records that they need.
pub(super) struct Slots<C> {
    pub(super) entries: HashMap<Target, SlotEntry<C>>,
    /// When to look at which slot again: to start a patch, or to forget a slot that has rested.
    due: BTreeSet<(Instant, Target)>,
    busy: usize,
    min_interval: Duration,
    /// How many patches of one kind may be in flight.
    max_per_kind: usize,
    in_flight: HashMap<Kind, usize>,
    /// Entries of slots that could start but for their kind, which has all its patches in flight.
    parked: HashMap<Kind, BTreeSet<(Instant, Target)>>,
}

pub(super) struct SlotEntry<C> {
    slot: Slot,
    record: JournalRecord<C>,
}

/// The journal record of an object.
enum JournalRecord<C> {
    /// The journal has no record of the target.
    None,
    /// A commit with this record is on its way.
    Writing(C),
    /// The object is recorded as pending. Which round does not matter: the record goes when no round is left.
    Durable,
}

/// The commits that a request needs before it can be answered.
pub(super) struct RequestPlan<C> {
    pub(super) write: Vec<(Target, Round)>,
    /// Commits on their way that cover the rest.
    pub(super) await_commits: Vec<C>,
    /// Whether something is due sooner than all that was due before.
    pub(super) is_sooner: bool,
}

/// The work that is due at one time.
pub(super) struct DueWork {
    pub(super) start: Vec<Target>,
    /// When to look again.
    pub(super) next: Option<Instant>,
}

impl<C: CommitStatus> JournalRecord<C> {
    /// Takes note of a commit that has ended.
    fn update(&mut self) {
        if let JournalRecord::Writing(commit) = self
            && let Some(is_durable) = commit.is_durable()
        {
            *self = if is_durable { JournalRecord::Durable } else { JournalRecord::None };
        }
    }
}

impl<C: CommitStatus> Slots<C> {
    pub(super) fn new(min_interval: Duration, max_per_kind: usize) -> Slots<C> {
        Slots {
            entries: HashMap::new(),
            due: BTreeSet::new(),
            busy: 0,
            min_interval,
            max_per_kind,
            in_flight: HashMap::new(),
            parked: HashMap::new(),
        }
    }

    /// Restores what is pending since an earlier process, and in the journal. Each is requested at its
    /// time.
    pub(super) fn restore(
        &mut self,
        pending: impl Iterator<Item = (Target, Round)>,
        now: Instant,
        mut when: impl FnMut() -> Instant,
    ) {
        for (target, round) in pending {
            let mut slot = Slot::new(round);
            self.due.extend(slot.request(now, when(), self.min_interval).map(|due| (due, target.clone())));
            self.entries.insert(target, SlotEntry { slot, record: JournalRecord::Durable });
            self.busy += 1;
        }
    }

    /// The objects are requested, each by a patch not before its time.
    pub(super) fn request<'t>(
        &mut self,
        requested: impl Iterator<Item = (&'t Target, Instant)>,
        now: Instant,
    ) -> RequestPlan<C> {
        let mut result = RequestPlan { write: Vec::new(), await_commits: Vec::new(), is_sooner: false };
        let next = self.due.first().map(|(due, _)| *due);
        for (target, earliest) in requested {
            if !self.entries.contains_key(target) {
                self.entries
                    .insert(target.clone(), SlotEntry { slot: Slot::new(0), record: JournalRecord::None });
            }
            let Some(SlotEntry { slot, record }) = self.entries.get_mut(target) else { continue };
            self.busy += usize::from(!slot.is_busy());
            if let Some(due) = slot.request(now, earliest, self.min_interval) {
                self.due.insert((due, target.clone()));
                result.is_sooner |= next.is_none_or(|next| due < next);
            }
            record.update();
            match record {
                JournalRecord::None => result.write.push((target.clone(), slot.round())),
                JournalRecord::Writing(commit) => result.await_commits.push(commit.clone()),
                JournalRecord::Durable => {}
            }
        }
        result
    }

    /// The records of [`RequestPlan::write`] are in this commit.
    pub(super) fn writing(&mut self, records: &[(Target, Round)], commit: &C) {
        for (target, _) in records {
            if let Some(entry) = self.entries.get_mut(target) {
                entry.record = JournalRecord::Writing(commit.clone());
            }
        }
    }

    /// Starts what is due, as far as there is room, and forgets what has rested; gives the records of
    /// these, which the journal need not hold any more.
    pub(super) fn take_due(&mut self, now: Instant, room: usize) -> (DueWork, Vec<(Target, Round)>) {
        let (mut start, mut forget) = (Vec::new(), Vec::new());
        while start.len() < room {
            let Some((due, target)) = self.pop_due(now) else { break };
            let Some(SlotEntry { slot, record }) = self.entries.get_mut(&target) else { continue };
            let in_flight = self.in_flight.entry(target.kind).or_default();
            if slot.is_due(now) && *in_flight >= self.max_per_kind {
                self.parked.entry(target.kind).or_default().insert((due, target));
                continue;
            }
            if slot.start(now).is_some() {
                *in_flight += 1;
                start.push(target);
                continue;
            }
            // An entry of a slot that has moved on since; its own entry is still to come.
            if slot.is_busy() || slot.earliest_start(self.min_interval).is_some_and(|until| until > now) {
                continue;
            }
            record.update();
            match record {
                JournalRecord::Writing(_) => {
                    self.due.insert((now + RECORD_CHECK_INTERVAL, target));
                }
                JournalRecord::None => drop(self.entries.remove(&target)),
                JournalRecord::Durable => {
                    forget.push((target.clone(), slot.round()));
                    self.entries.remove(&target);
                }
            }
        }
        (DueWork { start, next: self.due.first().map(|(due, _)| *due) }, forget)
    }

    /// Removes the next entry whose time has come: a parked one if its kind has room again, else the
    /// one that has been due for longest. When this returns `None`, every kind with parked entries has
    /// all its patches in flight, so the end of one of them is what wakes the driver.
    fn pop_due(&mut self, now: Instant) -> Option<(Instant, Target)> {
        let has_room = |kind| self.in_flight.get(kind).is_none_or(|count| *count < self.max_per_kind);
        let parked = self.parked.iter_mut().filter(|(kind, _)| has_room(kind));
        if let Some(entry) = parked.filter_map(|(_, entries)| entries.pop_first()).next() {
            return Some(entry);
        }
        self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.pop_first()
    }

    /// The patch of an object has ended.
    pub(super) fn finish(&mut self, target: &Target, now: Instant, ending: PatchResult) {
        if let Some(in_flight) = self.in_flight.get_mut(&target.kind) {
            *in_flight = in_flight.saturating_sub(1);
        }
        let Some(SlotEntry { slot, record }) = self.entries.get_mut(target) else { return };
        let look_again = match slot.finish(now, ending, self.min_interval) {
            NextStep::StartAt(due) => due,
            NextStep::Rest(_) => {
                self.busy -= 1;
                let linger =
                    if matches!(record, JournalRecord::None) { now } else { now + RECORD_LINGER_TIME };
                slot.earliest_start(self.min_interval).unwrap_or(now).max(linger)
            }
        };
        self.due.insert((look_again, target.clone()));
    }

    /// The records of slots that rest, which a process that ends need not leave behind. A later
    /// request for these objects writes a new record.
    pub(super) fn forget_rested(&mut self) -> Vec<(Target, Round)> {
        let mut forgotten = Vec::new();
        for (target, SlotEntry { slot, record }) in &mut self.entries {
            if !slot.is_busy() && !matches!(record, JournalRecord::None) {
                *record = JournalRecord::None;
                forgotten.push((target.clone(), slot.round()));
            }
        }
        forgotten
    }

    pub(super) fn slot(&self, target: &Target) -> Option<&Slot> {
        self.entries.get(target).map(|entry| &entry.slot)
    }

    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    pub(super) fn busy_targets(&self) -> Vec<Target> {
        let busy = self.entries.iter().filter(|(_, entry)| entry.slot.is_busy());
        let mut targets: Vec<Target> = busy.map(|(target, _)| target.clone()).collect();
        targets.sort();
        targets
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn bucket(name: &str) -> Target {
        Target { kind: Kind::Bucket, namespace: "apps".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn only_what_could_start_waits_for_its_kind() {
        let mut slots: Slots<Arc<OnceLock<bool>>> = Slots::new(INTERVAL, 1);
        let now = Instant::now();
        let (first, second) = (bucket("first"), bucket("second"));
        // Brought forward, so that a stale entry stays behind.
        slots.request([(&first, now + INTERVAL)].into_iter(), now);
        slots.request([(&first, now)].into_iter(), now);
        assert_eq!(slots.take_due(now, 9).0.start, std::slice::from_ref(&first));
        let later = now + 2 * INTERVAL;
        slots.request([(&second, later)].into_iter(), later);
        // The stale entry of the first is due, and so is the second, which has to wait.
        assert!(slots.take_due(later, 9).0.start.is_empty());
        slots.finish(&first, later, PatchResult::Done);
        assert_eq!(slots.take_due(later, 9).0.start, std::slice::from_ref(&second));
        slots.finish(&second, later, PatchResult::Done);
        let forgotten = later + RECORD_LINGER_TIME + INTERVAL;
        slots.take_due(forgotten, 9);
        assert!(slots.entries.is_empty() && slots.parked.values().all(BTreeSet::is_empty));
    }
}
