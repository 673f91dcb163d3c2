//! The event log of a publisher: what it holds, and what can be done with it, wherever it is kept.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::JournalCommit;
use super::log_tail::LogTail;
use crate::fleet::wire::Entry;

/// The event log of a publisher: it is appended to, and followed from a cursor on with a
/// [`LogFollower`](super::log_follower::LogFollower).
pub trait EventLog: Send + Sync {
    /// Appends entries. They are in the log, or will come to be by themselves, once the commit ends.
    fn append(&self, entries: Vec<NewEntry>) -> JournalCommit;

    /// Returns the log's end, as it is known here.
    fn tail(&self) -> &LogTail;

    /// Reads some entries from this sequence on, which the tail does not hold any more.
    fn read_older(&self, from: u64) -> BoxFuture<'_, Result<Vec<LogEntry>, LogUnreadable>>;

    /// Waits until the tail has come to this sequence, if the log has: a cursor may come from another replica.
    fn reach(&self, _sequence: u64) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether this process can take the place of another one that ends: the journal of that one may go with it.
    fn is_ready(&self) -> bool {
        true
    }

    /// Waits until the log was reached for the first time, and was told of what it may have missed before.
    fn wait_until_reached(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Returns the number of entries that are durable here alone.
    fn unpublished(&self) -> usize {
        0
    }

    /// Says why entries cannot be appended, once they could not.
    fn refusal(&self) -> &'static str {
        "the journal cannot be written now"
    }

    /// Waits until what was appended is in the log.
    fn wait_until_appended(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Whether events may be missing in a log that is elsewhere and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissedEvents {
    None,
    /// Deliveries were refused, if no other replica was there.
    UnlessOthers,
    /// Deliveries were accepted into another log, or into none.
    Some,
}

/// An entry that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// One that no other entry has.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    pub time_millis: u64,
    pub content: LogContent,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry<'e> {
    id: Cow<'e, str>,
    time_millis: u64,
    endpoint: Cow<'e, str>,
    json: Cow<'e, str>,
}

impl NewEntry {
    /// An entry that is made now, of an endpoint or for all subscribers.
    pub fn new(endpoint: &str, entry: &Entry) -> NewEntry {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{:032x}", fastrand::u128(..));
        let json = entry.to_json(&id, jiff::Timestamp::now()).into();
        let content = LogContent { endpoint: endpoint.into(), json };
        NewEntry { id, time_millis: now.as_millis() as u64, content }
    }

    /// Writes the entry for the journal.
    pub fn to_bytes(&self) -> Vec<u8> {
        let NewEntry { id, time_millis, content: LogContent { endpoint, json } } = self;
        let (id, endpoint, json) = (id.into(), Cow::from(&**endpoint), Cow::from(&**json));
        // Texts and a number.
        serde_json::to_vec(&StoredEntry { id, time_millis: *time_millis, endpoint, json }).unwrap_or_default()
    }

    /// Reads an entry from the journal; none if it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<NewEntry> {
        let StoredEntry { id, time_millis, endpoint, json } = serde_json::from_slice(bytes).ok()?;
        let content = LogContent { endpoint: endpoint.into(), json: json.into() };
        Some(NewEntry { id: id.into_owned(), time_millis, content })
    }
}

/// An entry of an event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position; the first entry of a log has 1.
    pub sequence: u64,
    /// When it was appended, in milliseconds since 1970.
    pub time_millis: u64,
    pub content: LogContent,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogContent {
    /// The endpoint whose event it is; empty where it is for all subscribers.
    pub endpoint: Arc<str>,
    /// The entry as it is sent.
    pub json: Arc<str>,
}

/// The first and last entries of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Tells this log from others.
    pub epoch: u64,
    /// The sequence of the first entry that the log has.
    pub first: u64,
    /// The sequence of the next entry.
    pub next: u64,
    /// Bytes of all entries.
    pub bytes: u64,
}

impl LogRange {
    /// Returns the sequence of the last entry that was appended; 0 if there was none.
    pub fn head(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the number of entries that the log has.
    pub fn entries(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }
}

/// Limits of a log; what exceeds them is trimmed from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    pub max_entries: u64,
    pub max_bytes: u64,
    pub max_age: Duration,
}

/// The log cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogUnreadable {
    /// The store is being opened anew.
    #[error("the event log cannot be read now")]
    Now,
    /// What is stored of this entry is damaged, or not there.
    #[error("entry {0} of the event log is damaged")]
    Damaged(u64),
}
