//! The event log of a publisher: entries in the order of their commits, on disk, with the latest ones in
//! memory for the subscribers that are connected.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::store::LogReader;

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

/// The log as its readers see it; the thread of the journal writes it.
pub struct EventLog {
    limits: Mutex<LogLimits>,
    state: RwLock<LogState>,
    head: watch::Sender<u64>,
}

#[derive(Default)]
struct LogState {
    range: LogRange,
    reader: Option<LogReader>,
    /// The last entry on disk that is damaged; nobody can continue before it.
    unreadable: Option<u64>,
    /// The last entries, without a gap up to the head.
    recent: VecDeque<Arc<LogEntry>>,
    recent_bytes: usize,
}

/// The log cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogUnreadable {
    /// The store is being opened anew.
    #[error("the event log cannot be read now")]
    Now,
    /// What is on disk of this entry is damaged.
    #[error("entry {0} of the event log is damaged")]
    Damaged(u64),
}

/// Bytes of the last entries in memory. A subscriber that is further behind is served from disk.
const MAX_RECENT_BYTES: usize = 512 << 10;

/// Entries of one read.
const MAX_READ_ENTRIES: usize = 256;

/// Bytes of the entries of one read, unless one has more.
pub(super) const MAX_READ_BYTES: usize = 64 << 10;

impl EventLog {
    /// A log with these limits, before the store is opened.
    pub fn new(limits: LogLimits) -> Arc<EventLog> {
        let (head, _) = watch::channel(0);
        Arc::new(EventLog { limits: Mutex::new(limits), state: RwLock::default(), head })
    }

    pub fn limits(&self) -> LogLimits {
        *self.limits.lock()
    }

    /// Changes the limits; they hold from the next entry on.
    pub fn set_limits(&self, limits: LogLimits) {
        *self.limits.lock() = limits;
    }

    pub fn range(&self) -> LogRange {
        self.state.read().range
    }

    /// Returns the sequence of the last entry, and tells of every change.
    pub fn watch_head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Reads some entries from this sequence on; empty at the end of the log.
    ///
    /// # Errors
    /// When the store is being opened anew, or what is on disk cannot be read.
    pub fn read(&self, from: u64) -> Result<Vec<Arc<LogEntry>>, LogUnreadable> {
        let reader = {
            let state = self.state.read();
            if from >= state.range.next {
                return Ok(Vec::new());
            }
            let first_recent = state.recent.front().map_or(u64::MAX, |entry| entry.sequence);
            if from >= first_recent {
                let from_recent = state.recent.iter().skip((from - first_recent) as usize);
                let mut bytes = 0;
                let fits = |entry: &&Arc<LogEntry>| {
                    let is_first = bytes == 0;
                    bytes += entry.content.json.len();
                    is_first || bytes <= MAX_READ_BYTES
                };
                return Ok(from_recent.take(MAX_READ_ENTRIES).take_while(fits).cloned().collect());
            }
            state.reader.clone()
        };
        match reader.ok_or(LogUnreadable::Now)?.read(from, MAX_READ_ENTRIES) {
            Ok(entries) => Ok(entries.into_iter().map(Arc::new).collect()),
            Err(err) => {
                if let LogUnreadable::Damaged(sequence) = err {
                    let mut state = self.state.write();
                    state.unreadable = state.unreadable.max(Some(sequence));
                }
                Err(err)
            }
        }
    }

    /// Returns the last entry that was found to be damaged: who is before it has to catch up.
    pub fn unreadable(&self) -> Option<u64> {
        self.state.read().unreadable
    }

    /// Whether this sequence is served from memory.
    pub fn is_recent(&self, sequence: u64) -> bool {
        let state = self.state.read();
        sequence >= state.range.next || state.recent.front().is_some_and(|first| sequence >= first.sequence)
    }

    /// The store was opened.
    pub(super) fn opened(&self, range: LogRange, reader: LogReader) {
        let mut state = self.state.write();
        if state.range.epoch != range.epoch || state.range.next != range.next {
            (state.recent, state.recent_bytes, state.unreadable) = (VecDeque::new(), 0, None);
        }
        (state.range, state.reader) = (range, Some(reader));
        drop(state);
        self.head.send_replace(range.head());
    }

    /// These entries were appended; the log has this range now.
    pub(super) fn appended(
        &self,
        range: LogRange,
        entries: impl ExactSizeIterator<Item = (u64, LogContent)>,
    ) {
        if entries.len() == 0 {
            return;
        }
        let first = range.next.saturating_sub(entries.len() as u64);
        let mut state = self.state.write();
        state.range = range;
        for (sequence, (time_millis, content)) in (first..).zip(entries) {
            state.recent_bytes += content.json.len();
            state.recent.push_back(Arc::new(LogEntry { sequence, time_millis, content }));
        }
        while state.recent_bytes > MAX_RECENT_BYTES && state.recent.len() > 1 {
            let oldest = state.recent.pop_front();
            state.recent_bytes -= oldest.map_or(0, |entry| entry.content.json.len());
        }
        drop(state);
        self.head.send_replace(range.head());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::contents::JournalChange;
    use crate::journal::store::JournalFolder;
    use crate::journal::{Contents, Journal};
    use crate::metrics::Metrics;

    const LIMITS: LogLimits =
        LogLimits { max_entries: 100, max_bytes: 1 << 20, max_age: Duration::from_secs(60) };

    fn open(folder: &std::path::Path, limits: LogLimits) -> (Journal, Contents) {
        let medium = JournalFolder::new(folder).with_event_log(EventLog::new(limits));
        Journal::open(Box::new(medium), Metrics::new()).expect("a journal")
    }

    fn entry(number: u64, time_millis: u64) -> JournalChange {
        let json = format!("{{\"number\":{number},\"filler\":\"{}\"}}", "x".repeat(2000));
        JournalChange::Append(time_millis, LogContent { endpoint: "github".into(), json: json.into() })
    }

    async fn append(journal: &Journal, entries: Vec<JournalChange>) {
        journal.write(entries).expect("a journal on disk").wait_until_durable().await.expect("durable");
    }

    fn all_from(log: &EventLog, mut from: u64) -> Vec<u64> {
        let mut sequences = Vec::new();
        loop {
            let entries = log.read(from).expect("entries");
            let Some(last) = entries.last() else { return sequences };
            from = last.sequence + 1;
            sequences.extend(entries.iter().map(|entry| entry.sequence));
        }
    }

    #[tokio::test]
    async fn entries_are_dense_and_read_from_memory_and_disk_alike() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = LogLimits { max_entries: 10_000, max_bytes: 64 << 20, ..LIMITS };
        let (journal, _) = open(folder.path(), limits);
        let log = Arc::clone(journal.event_log().expect("a log"));
        let head = log.watch_head();
        for batch in 0..10 {
            append(&journal, (0..100).map(|number| entry(batch * 100 + number, 1)).collect()).await;
        }
        assert_eq!((log.range().first, log.range().next, *head.borrow()), (1, 1001, 1000));
        assert!(!log.is_recent(1) && log.is_recent(1000) && log.is_recent(1001));
        let expect: Vec<u64> = (1..=1000).collect();
        assert_eq!(all_from(&log, 1), expect);
        let epoch = log.range().epoch;
        journal.close().await;
        let (journal, _) = open(folder.path(), limits);
        let log = journal.event_log().expect("a log");
        assert_eq!(log.range().epoch, epoch);
        assert_eq!(all_from(log, 1), expect, "another process continues it");
        append(&journal, vec![entry(1001, 2)]).await;
        assert_eq!(all_from(log, 1000), [1000, 1001]);
        assert_eq!(log.read(1001).expect("an entry")[0].time_millis, 2);
        journal.close().await;
    }

    #[tokio::test]
    async fn the_log_is_trimmed_by_number_size_and_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path(), LIMITS);
        let log = journal.event_log().expect("a log");
        append(&journal, (0..150).map(|number| entry(number, 1000)).collect()).await;
        assert_eq!((log.range().first, log.range().entries()), (51, 100));
        log.set_limits(LogLimits { max_bytes: 10_000, ..LIMITS });
        append(&journal, vec![entry(150, 1000)]).await;
        assert_eq!((log.range().next, log.range().entries()), (152, 4));
        append(&journal, vec![entry(151, 100_000)]).await;
        assert_eq!(log.range().entries(), 1, "the others are older than a minute");
        journal.close().await;
    }

    // Who continued a log that had missed events would miss them too.
    #[tokio::test]
    async fn a_log_that_was_not_written_for_a_while_is_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path(), LIMITS);
        append(&journal, vec![entry(1, 1)]).await;
        let epoch = journal.event_log().expect("a log").range().epoch;
        journal.close().await;
        let (journal, _) =
            Journal::open(Box::new(JournalFolder::new(folder.path())), Metrics::new()).expect("a journal");
        journal.close().await;
        let (journal, _) = open(folder.path(), LIMITS);
        let range = journal.event_log().expect("a log").range();
        assert!(range.epoch != epoch && range.next == 1);
        journal.close().await;
    }

    #[tokio::test]
    async fn cursors_survive_and_go_with_their_subscription() {
        use crate::fleet::cursor::Cursor;
        use crate::journal::contents::SubscriptionRecord;
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path(), LIMITS);
        let record =
            SubscriptionRecord { cursor: Some(Cursor { epoch: 9, sequence: 4 }), must_catch_up: true };
        let set = |name: &str| JournalChange::SetCursor(name.to_owned(), record);
        append(&journal, vec![set("a"), set("b"), JournalChange::RemoveCursor("b".to_owned())]).await;
        journal.close().await;
        let (journal, left) = open(folder.path(), LIMITS);
        assert_eq!(left.cursors.into_iter().collect::<Vec<_>>(), [("a".to_owned(), record)]);
        journal.close().await;
    }
}
