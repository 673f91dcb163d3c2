//! The event log in the journal's file: entries in the order of their commits. One process has it.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::contents::JournalChange;
use super::event_log::{EventLog, LogContent, LogEntry, LogLimits, LogRange, LogUnreadable, NewEntry};
use super::log_tail::{LogTail, MAX_READ_ENTRIES};
use super::store::LogReader;
use super::{Journal, JournalCommit};

/// The part of the log that the journal's thread writes.
pub struct LogFile {
    pub(super) tail: LogTail,
    /// None before the store is opened.
    reader: Mutex<Option<LogReader>>,
}

/// The event log in a journal.
pub struct JournalLog {
    journal: Journal,
    file: Arc<LogFile>,
}

impl LogFile {
    /// A log with these limits, before the store is opened.
    pub fn new(limits: LogLimits) -> Arc<LogFile> {
        Arc::new(LogFile { tail: LogTail::new(limits), reader: Mutex::default() })
    }

    pub fn limits(&self) -> LogLimits {
        self.tail.limits()
    }

    /// The store was opened.
    pub(super) fn opened(&self, range: LogRange, reader: LogReader) {
        *self.reader.lock() = Some(reader);
        self.tail.opened(range);
    }

    /// These entries were appended; the log has this range now.
    pub(super) fn appended(
        &self,
        range: LogRange,
        entries: impl ExactSizeIterator<Item = (u64, LogContent)>,
    ) {
        self.tail.appended(range, entries);
    }
}

impl JournalLog {
    /// The event log that the journal holds; none if it was opened without one.
    pub fn of(journal: &Journal) -> Option<Arc<JournalLog>> {
        let file = Arc::clone(journal.log_file()?);
        Some(Arc::new(JournalLog { journal: journal.clone(), file }))
    }
}

impl EventLog for JournalLog {
    fn append(&self, entries: Vec<NewEntry>) -> JournalCommit {
        let append = |entry: NewEntry| JournalChange::Append(entry.time_millis, entry.content);
        let commit = self.journal.write(entries.into_iter().map(append).collect());
        // A journal that holds a log has storage.
        commit.unwrap_or_else(|| JournalCommit::ended(false))
    }

    fn tail(&self) -> &LogTail {
        &self.file.tail
    }

    fn read_older(&self, from: u64) -> BoxFuture<'_, Result<Vec<LogEntry>, LogUnreadable>> {
        let reader = self.file.reader.lock().clone();
        let entries = reader.ok_or(LogUnreadable::Now).and_then(|reader| reader.read(from, MAX_READ_ENTRIES));
        Box::pin(std::future::ready(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::cursor::Cursor;
    use crate::journal::contents::Contents;
    use crate::journal::log_follower::LogFollower;
    use crate::journal::store::JournalFolder;
    use crate::metrics::Metrics;

    const LIMITS: LogLimits =
        LogLimits { max_entries: 100, max_bytes: 1 << 20, max_age: Duration::from_secs(60) };

    fn open(folder: &std::path::Path, limits: LogLimits) -> (Journal, Contents) {
        let medium = JournalFolder::new(folder).with_event_log(LogFile::new(limits));
        Journal::open(Box::new(medium), Metrics::new()).expect("a journal")
    }

    fn log_of(journal: &Journal) -> Arc<dyn EventLog> {
        JournalLog::of(journal).expect("a log")
    }

    fn entry(number: u64, time_millis: u64) -> NewEntry {
        let json = format!("{{\"number\":{number},\"filler\":\"{}\"}}", "x".repeat(2000));
        let content = LogContent { endpoint: "github".into(), json: json.into() };
        NewEntry { id: number.to_string(), time_millis, content }
    }

    async fn append(log: &Arc<dyn EventLog>, entries: Vec<NewEntry>) {
        log.append(entries).wait_until_durable().await.expect("durable");
    }

    async fn all_from(log: &Arc<dyn EventLog>, from: u64) -> Vec<u64> {
        let mut follower = LogFollower::at_head(Arc::clone(log));
        let cursor = Cursor { epoch: log.tail().range().epoch, sequence: from - 1 };
        assert_eq!(follower.resume(Some(cursor)).await, None);
        let mut sequences = Vec::new();
        loop {
            let entries = follower.read().await.expect("entries");
            if entries.is_empty() {
                return sequences;
            }
            sequences.extend(entries.iter().map(|entry| entry.sequence));
        }
    }

    #[tokio::test]
    async fn another_process_continues_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = LogLimits { max_entries: 10_000, max_bytes: 64 << 20, ..LIMITS };
        let (journal, _) = open(folder.path(), limits);
        let log = log_of(&journal);
        append(&log, (0..1000).map(|number| entry(number, 1)).collect()).await;
        let epoch = log.tail().range().epoch;
        drop(log);
        journal.close().await;
        let (journal, _) = open(folder.path(), limits);
        let log = log_of(&journal);
        assert_eq!(log.tail().range().epoch, epoch);
        assert_eq!(all_from(&log, 1).await, (1..=1000).collect::<Vec<u64>>());
        append(&log, vec![entry(1001, 2)]).await;
        assert_eq!(all_from(&log, 1000).await, [1000, 1001]);
        assert_eq!(log.tail().read(1001).expect("in memory")[0].time_millis, 2);
        journal.close().await;
    }

    #[tokio::test]
    async fn the_log_is_trimmed_by_number_size_and_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path(), LIMITS);
        let log = log_of(&journal);
        let range = || log.tail().range();
        append(&log, (0..150).map(|number| entry(number, 1000)).collect()).await;
        assert_eq!((range().first, range().entries()), (51, 100));
        log.tail().set_limits(LogLimits { max_bytes: 10_000, ..LIMITS });
        append(&log, vec![entry(150, 1000)]).await;
        assert_eq!((range().next, range().entries()), (152, 4));
        append(&log, vec![entry(151, 100_000)]).await;
        assert_eq!(range().entries(), 1, "the others are older than a minute");
        journal.close().await;
    }

    // Who continued a log that had missed events would miss them too.
    #[tokio::test]
    async fn a_log_that_was_not_written_for_a_while_is_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path(), LIMITS);
        let log = log_of(&journal);
        append(&log, vec![entry(1, 1)]).await;
        let epoch = log.tail().range().epoch;
        journal.close().await;
        let (journal, _) =
            Journal::open(Box::new(JournalFolder::new(folder.path())), Metrics::new()).expect("a journal");
        journal.close().await;
        let (journal, _) = open(folder.path(), LIMITS);
        let range = log_of(&journal).tail().range();
        assert!(range.epoch != epoch && range.next == 1);
        journal.close().await;
    }

    #[tokio::test]
    async fn cursors_survive_and_go_with_their_subscription() {
        use crate::journal::contents::SubscriptionRecord;
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path(), LIMITS);
        let record =
            SubscriptionRecord { cursor: Some(Cursor { epoch: 9, sequence: 4 }), must_catch_up: true };
        let set = |name: &str| JournalChange::SetCursor(name.to_owned(), record);
        let changes = vec![set("a"), set("b"), JournalChange::RemoveCursor("b".to_owned())];
        journal.write(changes).expect("a journal").wait_until_durable().await.expect("durable");
        journal.close().await;
        let (journal, left) = open(folder.path(), LIMITS);
        assert_eq!(left.cursors.into_iter().collect::<Vec<_>>(), [("a".to_owned(), record)]);
        journal.close().await;
    }
}
