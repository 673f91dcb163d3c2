//! What a journal holds, and how that changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event_log::LogContent;
use crate::fleet::cursor::Cursor;
use crate::flux::Target;

/// What a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The objects that wait for a patch, each with the round that waits.
    pub pending: BTreeMap<Target, u64>,
    /// Deliveries that wait for the first look at the cluster, as JSON, written by the backlog.
    pub deliveries: BTreeMap<u64, Vec<u8>>,
    /// Entries of an event log elsewhere that has not acknowledged them, as [`NewEntry`] writes them.
    ///
    /// [`NewEntry`]: super::event_log::NewEntry
    pub unpublished: BTreeMap<u64, Vec<u8>>,
    /// The event log elsewhere that the last process with this journal has reached, by its ID.
    pub reached_log: Option<u64>,
    /// When the process was last there to accept deliveries, in seconds since 1970.
    pub last_alive: Option<u64>,
    /// Whether it is a new one that does not know what was pending before. Remembered until someone
    /// has caught up.
    pub origin: JournalOrigin,
    /// How far each subscription has come, by name.
    pub cursors: BTreeMap<String, SubscriptionRecord>,
}

/// How far a subscription has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// None before the first connection.
    pub cursor: Option<Cursor>,
    /// Whether every object has to be requested once, since events were missed.
    pub must_catch_up: bool,
}

/// Where the contents of a journal come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JournalOrigin {
    /// There was none before.
    #[default]
    New,
    /// An earlier process has left them.
    Restored,
    /// What an earlier process has left cannot be read.
    Corrupt,
    /// An earlier process left them, flux-recv was then down for long, and no process has caught up since.
    RestoredAfterDowntime,
}

/// A change of what the journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalChange {
    /// The object waits for a patch in this round.
    AddPending(Target, u64),
    /// The object waits no more, unless in a later round than this one.
    RemovePending(Target, u64),
    /// A delivery that waits to be matched.
    AddDelivery(u64, Vec<u8>),
    /// A delivery waits no more.
    RemoveDelivery(u64),
    /// An entry that an event log elsewhere has not acknowledged.
    AddUnpublished(u64, Vec<u8>),
    /// It has.
    RemoveUnpublished(u64),
    /// The event log elsewhere that has this ID was reached, and is told of what was missed until then.
    LogReached(u64),
    /// There is no event log elsewhere any more: it does not get what is accepted.
    LogLeft,
    /// Nobody was there for long before this start: what was refused meanwhile has to be caught up with.
    DowntimeDetected,
    /// What an earlier journal may have held, or what was refused in an absence, was requested, or nobody
    /// wants that.
    CaughtUp,
    /// The process is there to accept deliveries, at this time in seconds since 1970.
    Alive(u64),
    /// A publisher's event log gets this entry, at this time in milliseconds since 1970. The log is on disk
    /// alone.
    Append(u64, LogContent),
    /// A subscription has come this far.
    SetCursor(String, SubscriptionRecord),
    /// The config has no such subscription any more.
    RemoveCursor(String),
}

impl JournalChange {
    /// Whether it holds although a commit of it has failed, and is written with the next one: nobody
    /// waits for it, and it stays true.
    pub fn outlives_failure(&self) -> bool {
        match self {
            JournalChange::RemovePending(..)
            | JournalChange::RemoveDelivery(_)
            | JournalChange::RemoveUnpublished(_)
            | JournalChange::LogReached(_)
            | JournalChange::LogLeft
            | JournalChange::CaughtUp
            | JournalChange::DowntimeDetected
            | JournalChange::RemoveCursor(_) => true,
            JournalChange::AddPending(..)
            | JournalChange::AddDelivery(..)
            | JournalChange::AddUnpublished(..)
            | JournalChange::Alive(_)
            | JournalChange::Append(..)
            | JournalChange::SetCursor(..) => false,
        }
    }
}

impl JournalChange {
    /// Returns the entry that the event log gets, with its time.
    pub(super) fn appended(&self) -> Option<(u64, &LogContent)> {
        match self {
            JournalChange::Append(time, content) => Some((*time, content)),
            _ => None,
        }
    }
}

impl Contents {
    pub fn apply(&mut self, change: JournalChange) {
        match change {
            JournalChange::AddPending(target, round) => drop(self.pending.insert(target, round)),
            JournalChange::RemovePending(target, round) => {
                if self.pending.get(&target).is_some_and(|held| *held <= round) {
                    self.pending.remove(&target);
                }
            }
            JournalChange::AddDelivery(number, bytes) => drop(self.deliveries.insert(number, bytes)),
            JournalChange::RemoveDelivery(number) => drop(self.deliveries.remove(&number)),
            JournalChange::AddUnpublished(number, bytes) => drop(self.unpublished.insert(number, bytes)),
            JournalChange::RemoveUnpublished(number) => drop(self.unpublished.remove(&number)),
            JournalChange::LogReached(log) => self.reached_log = Some(log),
            JournalChange::LogLeft => self.reached_log = None,
            JournalChange::CaughtUp => self.origin = JournalOrigin::Restored,
            JournalChange::DowntimeDetected => self.origin = JournalOrigin::RestoredAfterDowntime,
            JournalChange::Alive(time) => self.last_alive = Some(time),
            JournalChange::Append(..) => {}
            JournalChange::SetCursor(name, record) => drop(self.cursors.insert(name, record)),
            JournalChange::RemoveCursor(name) => drop(self.cursors.remove(&name)),
        }
    }

    /// The changes that make these contents those.
    pub(super) fn changes_to(&self, wanted: &Contents) -> Vec<JournalChange> {
        let mut changes = Vec::new();
        for (target, round) in &self.pending {
            if !wanted.pending.contains_key(target) {
                changes.push(JournalChange::RemovePending(target.clone(), *round));
            }
        }
        for (target, round) in &wanted.pending {
            if self.pending.get(target) != Some(round) {
                changes.push(JournalChange::AddPending(target.clone(), *round));
            }
        }
        let surplus = self.deliveries.keys().filter(|number| !wanted.deliveries.contains_key(number));
        changes.extend(surplus.map(|number| JournalChange::RemoveDelivery(*number)));
        let missing = wanted.deliveries.iter().filter(|(number, _)| !self.deliveries.contains_key(number));
        changes.extend(missing.map(|(number, bytes)| JournalChange::AddDelivery(*number, bytes.clone())));
        let surplus = self.unpublished.keys().filter(|number| !wanted.unpublished.contains_key(number));
        changes.extend(surplus.map(|number| JournalChange::RemoveUnpublished(*number)));
        let missing = wanted.unpublished.iter().filter(|(number, _)| !self.unpublished.contains_key(number));
        changes.extend(missing.map(|(number, bytes)| JournalChange::AddUnpublished(*number, bytes.clone())));
        if wanted.origin == JournalOrigin::Restored && self.origin != JournalOrigin::Restored {
            changes.push(JournalChange::CaughtUp);
        }
        if wanted.origin == JournalOrigin::RestoredAfterDowntime && self.origin == JournalOrigin::Restored {
            changes.push(JournalChange::DowntimeDetected);
        }
        if wanted.reached_log != self.reached_log {
            changes.push(wanted.reached_log.map_or(JournalChange::LogLeft, JournalChange::LogReached));
        }
        if wanted.last_alive != self.last_alive {
            changes.extend(wanted.last_alive.map(JournalChange::Alive));
        }
        let surplus = self.cursors.keys().filter(|name| !wanted.cursors.contains_key(*name));
        changes.extend(surplus.map(|name| JournalChange::RemoveCursor(name.clone())));
        let differs = wanted.cursors.iter().filter(|(name, record)| self.cursors.get(*name) != Some(record));
        changes.extend(differs.map(|(name, record)| JournalChange::SetCursor(name.clone(), *record)));
        changes
    }
}
