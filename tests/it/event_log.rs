//! The suite of event logs, over the journal.

use std::sync::Arc;

use flux_recv::internals::event_log::{EventLog, JournalFolder, JournalLog, LogFile};
use flux_recv::internals::{Journal, Metrics};

use super::common::event_log_suite::{self, LIMITS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_the_journal_passes_the_suite_of_event_logs() {
    let folder = tempfile::tempdir().expect("a folder");
    let medium = JournalFolder::new(folder.path()).with_event_log(LogFile::new(LIMITS));
    let (journal, _) = Journal::open(Box::new(medium), Metrics::new()).expect("a journal");
    let log: Arc<dyn EventLog> = JournalLog::of(&journal).expect("a log");
    event_log_suite::run(log).await;
    journal.close().await;
}
