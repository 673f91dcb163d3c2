//! Follows an event log from a cursor on.

use std::sync::Arc;

use tokio::sync::watch;

use super::event_log::{EventLog, LogEntry, LogUnreadable};
use crate::fleet::cursor::Cursor;

/// Reads an event log from its own position, so that one that is slow delays nobody.
pub struct LogFollower {
    log: Arc<dyn EventLog>,
    epoch: u64,
    /// The sequence to read next.
    next: u64,
    head: watch::Receiver<u64>,
}

/// A log cannot be followed any more from where the follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Unreadable(#[from] LogUnreadable),
    /// What comes next was trimmed, or the log is another one.
    #[error("the event log cannot be continued")]
    Discontinued,
}

/// Whoever would have to read more entries than this catches up instead, which is one request for each object.
const MAX_REPLAYED_ENTRIES: u64 = 10_000;

impl LogFollower {
    /// A follower of what comes after the head.
    pub fn at_head(log: Arc<dyn EventLog>) -> LogFollower {
        // In this order, so that what comes in between is told of.
        let head = log.tail().watch_head();
        let range = log.tail().range();
        LogFollower { log, epoch: range.epoch, next: range.next, head }
    }

    /// Goes to where a cursor is. Returns why the log cannot be continued there, if so; it is at the head then.
    pub async fn resume(&mut self, cursor: Option<Cursor>) -> Option<&'static str> {
        if let Some(cursor) = cursor.filter(|cursor| cursor.epoch == self.epoch) {
            self.log.reach(cursor.sequence).await;
        }
        let range = self.log.tail().range();
        (self.epoch, self.next) = (range.epoch, range.next);
        let Some(cursor) = cursor else { return Some("first connection") };
        if cursor.epoch != range.epoch {
            return Some("the event log is another one");
        }
        if cursor.sequence > range.head() {
            return Some("the cursor is beyond the event log");
        }
        if cursor.sequence + 1 < range.first {
            return Some("the event log does not go back that far");
        }
        if self.log.tail().unreadable().is_some_and(|unreadable| cursor.sequence < unreadable) {
            return Some("an entry of the event log cannot be read");
        }
        if range.head() - cursor.sequence > MAX_REPLAYED_ENTRIES {
            return Some("there are too many entries since the cursor");
        }
        self.next = cursor.sequence + 1;
        None
    }

    /// Returns the position: the last entry that was read or passed over.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, sequence: self.next.saturating_sub(1) }
    }

    /// Whether what comes next is in memory.
    pub fn is_recent(&self) -> bool {
        self.log.tail().is_recent(self.next)
    }

    /// Reads what comes next; empty at the head.
    ///
    /// # Errors
    /// When it cannot be read now, or never.
    pub async fn read(&mut self) -> Result<Vec<Arc<LogEntry>>, FollowError> {
        let tail = self.log.tail();
        let entries = match tail.read(self.next) {
            Some(entries) => entries,
            None => match self.log.read_older(self.next).await {
                Ok(entries) => entries.into_iter().map(Arc::new).collect(),
                Err(err) => {
                    if let LogUnreadable::Damaged(sequence) = err {
                        tail.mark_unreadable(sequence);
                    }
                    return Err(err.into());
                }
            },
        };
        // What was trimmed meanwhile is caught up with after the next connection.
        let is_next = entries.first().is_none_or(|entry| entry.sequence == self.next);
        if !is_next || tail.range().epoch != self.epoch {
            return Err(FollowError::Discontinued);
        }
        if let Some(last) = entries.last() {
            self.next = last.sequence + 1;
        }
        Ok(entries)
    }

    /// Waits until there may be more to read. Returns false when the log has gone.
    pub async fn wait(&mut self) -> bool {
        self.head.changed().await.is_ok()
    }
}
