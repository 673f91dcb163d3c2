//! What a journal holds, and how that changes.

use std::collections::BTreeMap;

use crate::flux::Target;

/// What a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The objects that wait for a patch, each with the round that waits.
    pub pending: BTreeMap<Target, u64>,
    /// Deliveries that wait for the first look at the cluster, as the receiver wrote them.
    pub deliveries: BTreeMap<u64, Vec<u8>>,
    /// When the process was last there to accept deliveries, in seconds since 1970.
    pub last_alive: Option<u64>,
    /// Whether it is a new one that does not know what was pending before. Remembered until someone
    /// has caught up.
    pub origin: JournalOrigin,
}

/// Where the contents of a journal come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JournalOrigin {
    /// There was none before.
    #[default]
    New,
    /// An earlier process has left them.
    Kept,
    /// What an earlier process has left cannot be read.
    Corrupt,
    /// An earlier process has left them, and nobody was there for long since; or that was so, and the one
    /// that came then has not caught up.
    KeptAfterAbsence,
}

/// A change of what the journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalChange {
    /// The object waits for a patch in this round.
    Pend(Target, u64),
    /// The object waits no more, unless in a later round than this one.
    Settle(Target, u64),
    /// A delivery that waits to be matched.
    Keep(u64, Vec<u8>),
    /// A delivery waits no more.
    Drop(u64),
    /// Nobody was there for long before this start: what was refused meanwhile has to be caught up with.
    WasAbsent,
    /// What an earlier journal may have held, or what was refused in an absence, was requested, or nobody
    /// wants that.
    CaughtUp,
    /// The process is there to accept deliveries, at this time in seconds since 1970.
    Alive(u64),
}

impl JournalChange {
    /// Whether it holds although a commit of it has failed, and is written with the next one: nobody
    /// waits for it, and it stays true.
    pub fn outlives_failure(&self) -> bool {
        match self {
            JournalChange::Settle(..)
            | JournalChange::Drop(_)
            | JournalChange::CaughtUp
            | JournalChange::WasAbsent => true,
            JournalChange::Pend(..) | JournalChange::Keep(..) | JournalChange::Alive(_) => false,
        }
    }
}

impl Contents {
    pub fn apply(&mut self, change: JournalChange) {
        match change {
            JournalChange::Pend(target, generation) => drop(self.pending.insert(target, generation)),
            JournalChange::Settle(target, generation) => {
                if self.pending.get(&target).is_some_and(|held| *held <= generation) {
                    self.pending.remove(&target);
                }
            }
            JournalChange::Keep(number, bytes) => drop(self.deliveries.insert(number, bytes)),
            JournalChange::Drop(number) => drop(self.deliveries.remove(&number)),
            JournalChange::CaughtUp => self.origin = JournalOrigin::Kept,
            JournalChange::WasAbsent => self.origin = JournalOrigin::KeptAfterAbsence,
            JournalChange::Alive(time) => self.last_alive = Some(time),
        }
    }

    /// The changes that make these contents those.
    pub(super) fn changes_to(&self, wanted: &Contents) -> Vec<JournalChange> {
        let mut changes = Vec::new();
        for (target, generation) in &self.pending {
            if !wanted.pending.contains_key(target) {
                changes.push(JournalChange::Settle(target.clone(), *generation));
            }
        }
        for (target, generation) in &wanted.pending {
            if self.pending.get(target) != Some(generation) {
                changes.push(JournalChange::Pend(target.clone(), *generation));
            }
        }
        let surplus = self.deliveries.keys().filter(|number| !wanted.deliveries.contains_key(number));
        changes.extend(surplus.map(|number| JournalChange::Drop(*number)));
        let missing = wanted.deliveries.iter().filter(|(number, _)| !self.deliveries.contains_key(number));
        changes.extend(missing.map(|(number, bytes)| JournalChange::Keep(*number, bytes.clone())));
        if wanted.origin == JournalOrigin::Kept && self.origin != JournalOrigin::Kept {
            changes.push(JournalChange::CaughtUp);
        }
        if wanted.origin == JournalOrigin::KeptAfterAbsence && self.origin == JournalOrigin::Kept {
            changes.push(JournalChange::WasAbsent);
        }
        if wanted.last_alive != self.last_alive {
            changes.extend(wanted.last_alive.map(JournalChange::Alive));
        }
        changes
    }
}
