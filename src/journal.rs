//! Makes durable what was accepted and is not done: the objects that wait for a patch, and
//! the deliveries that wait for the first look at the cluster.
//!
//! Changes are gathered while a commit is on its way and go to disk together with the next one, on a
//! thread of their own. A commit that fails is reported to everyone who waits for it; the store is
//! then opened anew until it works again, and brought to what it should hold.

pub mod contents;
pub mod event_log;
pub mod journal_log;
pub mod log_follower;
mod log_table;
pub mod log_tail;
pub mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use self::contents::{Contents, JournalChange};
use self::journal_log::LogFile;
use self::store::{Applied, CommitError, JournalMedium, JournalStore, OpenError};
use crate::metrics::Metrics;

/// The journal; clones share it.
#[derive(Clone)]
pub struct Journal {
    /// `None` for a journal without storage.
    shared: Option<Arc<SharedJournal>>,
}

struct SharedJournal {
    gathering: Mutex<PendingBatch>,
    wake: Condvar,
    writable: AtomicBool,
    /// When the commit that is on its way began, in milliseconds since the start of the process.
    began: AtomicU64,
    next_number: AtomicU64,
    /// Ends when the thread does.
    ended: JournalCommit,
    metrics: Arc<Metrics>,
    log_file: Option<Arc<LogFile>>,
}

/// What goes to disk with the next commit.
#[derive(Default)]
struct PendingBatch {
    changes: Vec<JournalChange>,
    /// The commit that someone waits for.
    awaited: Option<JournalCommit>,
    closing: bool,
}

/// A commit that is on its way; clones share it.
#[derive(Clone)]
pub struct JournalCommit {
    state: Arc<CommitState>,
}

#[derive(Default)]
struct CommitState {
    durable: OnceLock<bool>,
    ended: Notify,
}

/// The journal could not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct NotDurable;

/// How long a commit may take; providers wait for it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// No commit is on its way.
const NO_COMMIT: u64 = u64::MAX;

fn since_start() -> u64 {
    static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);
    PROCESS_START.elapsed().as_millis() as u64
}

/// The time that changes wait when no answer depends on them.
const UNAWAITED_COMMIT_DELAY: Duration = Duration::from_secs(1);

impl Journal {
    /// A journal without storage: what is pending ends with the process.
    pub fn none() -> Journal {
        Journal { shared: None }
    }

    /// Opens the journal on a medium; says what an earlier process has left in it.
    ///
    /// # Errors
    /// When it cannot be used; what is corrupt is put aside instead.
    pub fn open(
        mut medium: Box<dyn JournalMedium>,
        metrics: Arc<Metrics>,
    ) -> Result<(Journal, Contents), OpenError> {
        let log_file = medium.log_file();
        let (store, contents) = medium.open()?;
        let last = |numbers: &BTreeMap<u64, Vec<u8>>| numbers.keys().next_back().map_or(0, |last| last + 1);
        let next_number = last(&contents.deliveries).max(last(&contents.unpublished));
        let shared = Arc::new(SharedJournal {
            gathering: Mutex::default(),
            wake: Condvar::new(),
            writable: AtomicBool::new(true),
            began: AtomicU64::new(NO_COMMIT),
            next_number: AtomicU64::new(next_number),
            ended: JournalCommit::new(),
            metrics,
            log_file,
        });
        let writer =
            JournalWriter { medium, store: Some(store), held: contents.clone(), shared: Arc::clone(&shared) };
        let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
        spawned.map_err(|err| OpenError::Unusable(format!("no thread for the journal: {err}")))?;
        Ok((Journal { shared: Some(shared) }, contents))
    }

    /// Writes changes with the next commit, in the order of the calls. A journal without
    /// storage has nothing to wait for.
    pub fn write(&self, changes: Vec<JournalChange>) -> Option<JournalCommit> {
        let shared = self.shared.as_ref()?;
        let mut gathering = shared.lock();
        gathering.changes.extend(changes);
        let commit = gathering.awaited.get_or_insert_with(JournalCommit::new).clone();
        drop(gathering);
        shared.wake.notify_one();
        Some(commit)
    }

    /// Writes changes when there is a commit anyway, or after a while.
    pub fn write_later(&self, changes: impl IntoIterator<Item = JournalChange>) {
        if let Some(shared) = &self.shared {
            shared.lock().changes.extend(changes);
        }
    }

    /// A number for a record that no other one has.
    pub fn new_number(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether what is accepted outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether the last commit went through, or would.
    pub fn is_writable(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let began = shared.began.load(Ordering::Relaxed);
        let hangs =
            began != NO_COMMIT && since_start().saturating_sub(began) > COMMIT_TIMEOUT.as_millis() as u64;
        shared.writable.load(Ordering::Relaxed) && !hangs
    }

    /// Writes what has been gathered, and ends; says whether it did so in time.
    pub async fn close(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        shared.lock().closing = true;
        shared.wake.notify_one();
        shared.ended.wait_until_durable().await.is_ok()
    }

    /// Returns the event log's part in the journal, if it holds that of a publisher.
    fn log_file(&self) -> Option<&Arc<LogFile>> {
        self.shared.as_ref()?.log_file.as_ref()
    }

    /// Ends when the journal does. One without storage never ends.
    pub async fn wait_until_ended(&self) {
        let Some(shared) = &self.shared else { return std::future::pending().await };
        let _ = shared.ended.wait_for_end().await;
    }
}

impl JournalCommit {
    /// A commit that has not ended.
    pub fn new() -> JournalCommit {
        JournalCommit { state: Arc::default() }
    }

    /// A commit that has ended.
    pub fn ended(is_durable: bool) -> JournalCommit {
        let commit = JournalCommit::new();
        commit.end(is_durable);
        commit
    }

    /// Whether it went through; `None` as long as nobody knows.
    pub fn is_durable(&self) -> Option<bool> {
        self.state.durable.get().copied()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When nothing was written, or nobody knows for too long: a disk can also hang.
    pub async fn wait_until_durable(&self) -> Result<(), NotDurable> {
        tokio::time::timeout(COMMIT_TIMEOUT, self.wait_for_end()).await.unwrap_or(Err(NotDurable))
    }

    async fn wait_for_end(&self) -> Result<(), NotDurable> {
        loop {
            let ended = self.state.ended.notified();
            match self.is_durable() {
                Some(true) => return Ok(()),
                Some(false) => return Err(NotDurable),
                None => ended.await,
            }
        }
    }

    /// Says how it has ended.
    pub fn end(&self, is_durable: bool) {
        let _ = self.state.durable.set(is_durable);
        self.state.ended.notify_waiters();
    }
}

impl SharedJournal {
    fn lock(&self) -> MutexGuard<'_, PendingBatch> {
        self.gathering.lock()
    }
}

/// The thread that writes.
struct JournalWriter {
    medium: Box<dyn JournalMedium>,
    /// `None` after a failure, until it could be opened again.
    store: Option<Box<dyn JournalStore>>,
    /// What the store should hold.
    held: Contents,
    shared: Arc<SharedJournal>,
}

impl JournalWriter {
    fn run(self) {
        let _ends = ThreadEndGuard(Arc::clone(&self.shared));
        // Moved in behind it, so that the file is closed before anyone is told of the end.
        let mut writer = self;
        writer.work();
    }

    fn work(&mut self) {
        loop {
            let PendingBatch { changes, awaited, closing } = self.wait_for_work();
            // A store that could not be opened is tried again, also with nothing to write.
            if !changes.is_empty() || self.store.is_none() {
                self.write(changes);
            }
            if let Some(commit) = awaited {
                commit.end(self.shared.writable.load(Ordering::Relaxed));
            }
            if closing {
                return;
            }
        }
    }

    fn write(&mut self, changes: Vec<JournalChange>) {
        self.shared.began.store(since_start(), Ordering::Relaxed);
        let result = self.commit(&changes);
        self.shared.began.store(NO_COMMIT, Ordering::Relaxed);
        self.report(&result);
        let holds = changes.into_iter().filter(|change| result.is_ok() || change.outlives_failure());
        holds.for_each(|change| self.held.apply(change));
    }

    fn wait_for_work(&self) -> PendingBatch {
        let mut gathering = self.shared.lock();
        let idle = |gathering: &mut PendingBatch| gathering.awaited.is_none() && !gathering.closing;
        self.shared.wake.wait_while_for(&mut gathering, idle, UNAWAITED_COMMIT_DELAY);
        let closing = gathering.closing;
        PendingBatch { closing, ..std::mem::take(&mut *gathering) }
    }

    /// Writes the changes, after what a store that had to be opened anew lacks.
    fn commit(&mut self, changes: &[JournalChange]) -> Result<(), CommitError> {
        let mut all = Vec::new();
        let mut store = match self.store.take() {
            Some(store) => store,
            None => {
                let (store, found) = self.medium.open()?;
                all = found.changes_to(&self.held);
                store
            }
        };
        all.extend_from_slice(changes);
        let Applied { size, log } = store.apply(&all)?;
        self.shared.metrics.journal_size(size);
        self.store = Some(store);
        if let (Some(log_file), Some(range)) = (&self.shared.log_file, log) {
            let entries: Vec<_> = changes.iter().filter_map(JournalChange::appended).collect();
            log_file.appended(range, entries.into_iter().map(|(time, content)| (time, content.clone())));
        }
        Ok(())
    }

    fn report(&self, result: &Result<(), CommitError>) {
        let was_writable = self.shared.writable.swap(result.is_ok(), Ordering::Relaxed);
        self.shared.metrics.journal_commit(result.is_ok());
        match result {
            Err(why) if was_writable => {
                log::error!(why:%; "journal cannot be written; answering 503 until it can")
            }
            Err(why) => log::debug!(why:%; "journal still cannot be written"),
            Ok(()) if !was_writable => log::info!("journal can be written again"),
            Ok(()) => {}
        }
    }
}

/// Says that the thread has ended, however it did.
struct ThreadEndGuard(Arc<SharedJournal>);

impl Drop for ThreadEndGuard {
    fn drop(&mut self) {
        self.0.ended.end(true);
        if let Some(commit) = self.0.lock().awaited.take() {
            commit.end(false);
        }
    }
}

#[cfg(test)]
mod tests;
