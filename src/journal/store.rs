//! The journal on disk: one redb file. Opening and writing catch panics, and every record has a
//! checksum of its own, since redb reads some corrupted files without noticing.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use sha2::{Digest, Sha256};

use super::contents::{Contents, JournalChange, JournalOrigin};
use super::event_log::{LogEntry, LogRange, LogUnreadable};
use super::journal_log::LogFile;
use super::log_table;
use crate::flux::{Kind, Target};

/// Where a journal lives. Opened at the start, and again after every failure.
pub trait JournalMedium: Send {
    /// Opens the store; says what it holds.
    ///
    /// # Errors
    /// When it cannot be used.
    fn open(&mut self) -> Result<(Box<dyn JournalStore>, Contents), OpenError>;

    /// Returns the event log that its stores hold, if they hold one.
    fn log_file(&self) -> Option<Arc<LogFile>> {
        None
    }
}

/// A store that can be written. After an error it is not used any more.
pub trait JournalStore: Send {
    /// Makes all changes durable, or none.
    ///
    /// # Errors
    /// When nothing was written.
    fn apply(&mut self, changes: &[JournalChange]) -> Result<Applied, CommitError>;
}

/// A store after a commit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Applied {
    /// Bytes of the store.
    pub size: u64,
    /// The event log, if entries were appended.
    pub log: Option<LogRange>,
}

/// Reads the event log of an open store. Holds nothing open.
#[derive(Clone)]
pub struct LogReader(Weak<Database>);

impl LogReader {
    /// Reads entries from this sequence on.
    ///
    /// # Errors
    /// When the store was closed, or the entries cannot be read.
    pub(super) fn read(&self, from: u64, max_entries: usize) -> Result<Vec<LogEntry>, LogUnreadable> {
        log_table::read(&*self.0.upgrade().ok_or(LogUnreadable::Now)?, from, max_entries)
    }
}

/// Changes cannot be written to a journal.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// redb has panicked.
    #[error("{0} it panics")]
    Panicked(&'static str),
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process; give each flux-recv a --journal of its own", .0.display())]
    Locked(PathBuf),
    /// It was written by a version of flux-recv that this one does not know.
    #[error(
        "{} was written by a newer flux-recv (format {found}, this one knows {FORMAT_VERSION}); start that version, or move the file away",
        .file.display()
    )]
    Newer {
        file: PathBuf,
        /// The format version that the file has.
        found: u64,
    },
    /// It cannot be written.
    #[error("{0}")]
    Unusable(String),
}

/// A folder with the file of a journal.
pub struct JournalFolder {
    folder: PathBuf,
    log_file: Option<Arc<LogFile>>,
}

/// The name of the file.
pub const JOURNAL_FILE: &str = "journal.redb";

/// What the name of the first file that was put aside ends in.
const CORRUPT_EXTENSION: &str = "redb.corrupt-1";

/// The format of the tables below.
const FORMAT_VERSION: u64 = 1;

const META_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const PENDING_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pending");
const DELIVERIES_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("deliveries");
/// A table of its own: versions that do not know it pass it over.
const ALIVE_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("alive");
const LAST_ALIVE_KEY: &str = "last";
/// Entries that wait for an event log elsewhere.
const UNPUBLISHED_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("unpublished");
/// How far each subscription has come; as JSON.
const CURSORS_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cursors");

/// Says in the first table that nobody has caught up yet with what came before the file.
const MISSED_KEY: &str = "missed";
const MISSED_NEW: u64 = 1;
const MISSED_CORRUPT: u64 = 2;
const MISSED_DOWNTIME: u64 = 3;

/// The ID of the event log elsewhere that was reached, in the first table.
const LOG_REACHED_KEY: &str = "event_log_reached";

/// What is pending is small and mostly written; redb's default would be a GiB.
const CACHE_BYTES: usize = 1 << 20;

/// Above this a file is compacted when it is opened.
const MIN_COMPACTED_BYTES: u64 = 8 << 20;

/// Why a file cannot be read.
enum StoreFault {
    Refused(OpenError),
    Corrupt(String),
}

impl JournalFolder {
    /// The journal in this folder, which is made if it is not there.
    pub fn new(folder: &Path) -> JournalFolder {
        JournalFolder { folder: folder.to_owned(), log_file: None }
    }

    /// With the event log of a publisher. Without it, one that the file holds is dropped.
    pub fn with_event_log(self, log_file: Arc<LogFile>) -> JournalFolder {
        JournalFolder { log_file: Some(log_file), ..self }
    }
}

impl JournalMedium for JournalFolder {
    fn log_file(&self) -> Option<Arc<LogFile>> {
        self.log_file.clone()
    }

    fn open(&mut self) -> Result<(Box<dyn JournalStore>, Contents), OpenError> {
        let unusable = |err: &dyn std::fmt::Display| {
            OpenError::Unusable(format!(
                "the journal in {} cannot be written: {err}; give a writable folder with --journal DIR, or --journal none to \
                 do without",
                self.folder.display()
            ))
        };
        std::fs::create_dir_all(&self.folder).map_err(|err| unusable(&err))?;
        let file = self.folder.join(JOURNAL_FILE);
        // A process may have ended between putting a file aside and making a new one.
        let origin = if file.with_extension(CORRUPT_EXTENSION).exists() {
            JournalOrigin::Corrupt
        } else {
            JournalOrigin::New
        };
        if !file.exists() {
            create(&self.folder, &file, origin).map_err(|why| unusable(&why))?;
        }
        match guarded(|| open(&file, origin, self.log_file.as_ref())).and_then(|opened| opened) {
            Ok((store, contents)) => Ok((Box::new(store), contents)),
            Err(StoreFault::Refused(OpenError::Unusable(why))) => Err(unusable(&why)),
            Err(StoreFault::Refused(err)) => Err(err),
            Err(StoreFault::Corrupt(why)) => {
                let aside = put_aside(&file).map_err(|err| unusable(&err))?;
                log::error!(
                    file:% = file.display(), aside:% = aside.display(), why:%;
                    "journal is corrupt and was moved aside; its pending reconcile requests are unknown"
                );
                match guarded(|| open(&file, JournalOrigin::Corrupt, self.log_file.as_ref()))
                    .and_then(|opened| opened)
                {
                    Ok((store, contents)) => Ok((Box::new(store), contents)),
                    Err(StoreFault::Refused(err)) => Err(err),
                    Err(StoreFault::Corrupt(why)) => Err(unusable(&why)),
                }
            }
        }
    }
}

/// redb panics over some corrupted files.
fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, StoreFault> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| StoreFault::Corrupt("reading it panics".to_owned()))
}

fn put_aside(file: &Path) -> io::Result<PathBuf> {
    for number in 1.. {
        let aside = match number {
            1 => file.with_extension(CORRUPT_EXTENSION),
            _ => file.with_extension(format!("redb.corrupt-{number}")),
        };
        if !aside.exists() {
            std::fs::rename(file, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other("too many corrupt files"))
}

/// Creates a file whole or not at all: one that a full disk left half written would look corrupt to the next
/// start. If another process creates it at the same time, that one is kept.
fn create(folder: &Path, file: &Path, origin: JournalOrigin) -> Result<(), CommitError> {
    let unfinished = tempfile::Builder::new().prefix(JOURNAL_FILE).suffix(".new").tempfile_in(folder);
    let unfinished = unfinished?.into_temp_path();
    let created = guarded(|| {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(&unfinished);
        let database = Arc::new(database?);
        let store = RedbStore { database, file: unfinished.to_path_buf(), log_file: None };
        store.begin(origin)
    });
    created.map_err(|_| CommitError::Panicked("creating"))??;
    match unfinished.persist_noclobber(file) {
        Err(err) if err.error.kind() != io::ErrorKind::AlreadyExists => Err(err.error.into()),
        _ => Ok(()),
    }
}

/// Opens the file; one that is made is marked with where it comes from.
fn open(
    file: &Path,
    origin: JournalOrigin,
    log_file: Option<&Arc<LogFile>>,
) -> Result<(RedbStore, Contents), StoreFault> {
    let existed = match std::fs::metadata(file) {
        Ok(metadata) if metadata.len() == 0 => {
            return Err(StoreFault::Corrupt("the file is empty".to_owned()));
        }
        Ok(_) => true,
        Err(err) if err.kind() == io::ErrorKind::NotFound => false,
        Err(err) => return Err(StoreFault::Refused(OpenError::Unusable(err.to_string()))),
    };
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(file);
    let mut database = opened.map_err(|err| database_fault(err, file))?;
    if existed {
        if !database.check_integrity().map_err(|err| database_fault(err, file))? {
            return Err(StoreFault::Corrupt("its checksums do not match".to_owned()));
        }
        let entries = log_table::held_bytes(&database);
        if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > MIN_COMPACTED_BYTES + 3 * entries) {
            database.compact().map_err(|err| StoreFault::Refused(OpenError::Unusable(err.to_string())))?;
        }
    }
    let left = read(&database, file)?;
    let (database, log_file) = (Arc::new(database), log_file.cloned());
    let store = RedbStore { database, file: file.to_owned(), log_file };
    let unusable = |err: redb::Error| StoreFault::Refused(OpenError::Unusable(err.to_string()));
    let left = match left {
        Some(left) => left,
        None => {
            store.begin(origin).map_err(unusable)?;
            Contents { origin, ..Contents::default() }
        }
    };
    // A folder that became read-only is found out now, not with the first delivery.
    store.open_event_log().map_err(unusable)?;
    Ok((store, left))
}

fn database_fault(err: DatabaseError, file: &Path) -> StoreFault {
    match err {
        DatabaseError::DatabaseAlreadyOpen => StoreFault::Refused(OpenError::Locked(file.to_owned())),
        DatabaseError::UpgradeRequired(version) => {
            StoreFault::Refused(OpenError::Newer { file: file.to_owned(), found: u64::from(version) })
        }
        DatabaseError::Storage(err) => storage_fault(err),
        other => StoreFault::Refused(OpenError::Unusable(other.to_string())),
    }
}

fn storage_fault(err: StorageError) -> StoreFault {
    match err {
        StorageError::Corrupted(why) => StoreFault::Corrupt(why),
        StorageError::Io(err)
            if matches!(err.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreFault::Corrupt(err.to_string())
        }
        other => StoreFault::Refused(OpenError::Unusable(other.to_string())),
    }
}

/// What the tables hold; `None` if there are none yet.
fn read(database: &Database, file: &Path) -> Result<Option<Contents>, StoreFault> {
    let corrupt = |err: &dyn std::fmt::Display| StoreFault::Corrupt(err.to_string());
    let transaction = database.begin_read().map_err(|err| corrupt(&err))?;
    let meta = match transaction.open_table(META_TABLE) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(err) => return Err(corrupt(&err)),
    };
    let format = meta.get("format").map_err(|err| corrupt(&err))?.map(|format| format.value());
    match format {
        Some(FORMAT_VERSION) => {}
        Some(found) if found > FORMAT_VERSION => {
            return Err(StoreFault::Refused(OpenError::Newer { file: file.to_owned(), found }));
        }
        _ => return Err(corrupt(&"it names no format")),
    }
    let missed = meta.get(MISSED_KEY).map_err(|err| corrupt(&err))?.map(|missed| missed.value());
    let origin = match missed {
        None => JournalOrigin::Restored,
        Some(MISSED_NEW) => JournalOrigin::New,
        Some(MISSED_DOWNTIME) => JournalOrigin::RestoredAfterDowntime,
        Some(_) => JournalOrigin::Corrupt,
    };
    let reached_log = meta.get(LOG_REACHED_KEY).map_err(|err| corrupt(&err))?.map(|log| log.value());
    let last_alive = match transaction.open_table(ALIVE_TABLE) {
        Ok(alive) => alive.get(LAST_ALIVE_KEY).map_err(|err| corrupt(&err))?.map(|time| time.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(err) => return Err(corrupt(&err)),
    };
    let mut contents = Contents { origin, last_alive, reached_log, ..Contents::default() };
    let mut unknown = 0;
    let pending = transaction.open_table(PENDING_TABLE).map_err(|err| corrupt(&err))?;
    for entry in pending.iter().map_err(|err| corrupt(&err))? {
        let (key, value) = entry.map_err(|err| corrupt(&err))?;
        let (key, value) = (key.value(), value.value());
        let round = unsealed(key.as_bytes(), value).and_then(|bytes| bytes.try_into().ok());
        let Some(round) = round else {
            return Err(corrupt(&"a record of a pending object cannot be read"));
        };
        // A newer version may have written it, and may come back.
        let Some(target) = target_of(key) else {
            unknown += 1;
            continue;
        };
        contents.pending.insert(target, u64::from_le_bytes(round));
    }
    if unknown > 0 {
        log::warn!(records = unknown; "journal has records of kinds that this version does not know; keeping them");
    }
    let deliveries = transaction.open_table(DELIVERIES_TABLE).map_err(|err| corrupt(&err))?;
    for entry in deliveries.iter().map_err(|err| corrupt(&err))? {
        let (key, value) = entry.map_err(|err| corrupt(&err))?;
        let Some(bytes) = unsealed(&key.value().to_le_bytes(), value.value()) else {
            return Err(corrupt(&"a record of a delivery cannot be read"));
        };
        contents.deliveries.insert(key.value(), bytes.to_vec());
    }
    match transaction.open_table(UNPUBLISHED_TABLE) {
        Ok(unpublished) => {
            for entry in unpublished.iter().map_err(|err| corrupt(&err))? {
                let (key, value) = entry.map_err(|err| corrupt(&err))?;
                let Some(bytes) = unsealed(&key.value().to_le_bytes(), value.value()) else {
                    return Err(corrupt(&"an entry that waits to be published cannot be read"));
                };
                contents.unpublished.insert(key.value(), bytes.to_vec());
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(err) => return Err(corrupt(&err)),
    }
    let cursors = match transaction.open_table(CURSORS_TABLE) {
        Ok(cursors) => cursors,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Some(contents)),
        Err(err) => return Err(corrupt(&err)),
    };
    for entry in cursors.iter().map_err(|err| corrupt(&err))? {
        let (key, value) = entry.map_err(|err| corrupt(&err))?;
        let (key, value) = (key.value(), value.value());
        let record = unsealed(key.as_bytes(), value).and_then(|bytes| serde_json::from_slice(bytes).ok());
        // Without its cursor a subscription catches up.
        contents.cursors.insert(key.to_owned(), record.unwrap_or_default());
    }
    Ok(Some(contents))
}

struct RedbStore {
    database: Arc<Database>,
    file: PathBuf,
    log_file: Option<Arc<LogFile>>,
}

impl JournalStore for RedbStore {
    fn apply(&mut self, changes: &[JournalChange]) -> Result<Applied, CommitError> {
        let written = catch_unwind(AssertUnwindSafe(|| self.write(changes)));
        match written {
            Ok(Ok(log)) => {
                let size = std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len());
                Ok(Applied { size, log })
            }
            Ok(Err(err)) => Err(err.into()),
            Err(_) => Err(CommitError::Panicked("writing")),
        }
    }
}

impl RedbStore {
    /// The first transaction of a file.
    fn begin(&self, origin: JournalOrigin) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META_TABLE)?;
            meta.insert("format", FORMAT_VERSION)?;
            let missed = if origin == JournalOrigin::Corrupt { MISSED_CORRUPT } else { MISSED_NEW };
            meta.insert(MISSED_KEY, missed)?;
            transaction.open_table(PENDING_TABLE)?;
            transaction.open_table(DELIVERIES_TABLE)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Makes the tables of the event log, or drops them where there is to be none.
    fn open_event_log(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        let range = match &self.log_file {
            Some(_) => log_table::prepare(&transaction)?,
            None => {
                log_table::drop_tables(&transaction)?;
                LogRange::default()
            }
        };
        transaction.commit()?;
        if let Some(log_file) = &self.log_file {
            log_file.opened(range, LogReader(Arc::downgrade(&self.database)));
        }
        Ok(())
    }

    fn write(&self, changes: &[JournalChange]) -> Result<Option<LogRange>, redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut pending = transaction.open_table(PENDING_TABLE)?;
            let mut deliveries = transaction.open_table(DELIVERIES_TABLE)?;
            for change in changes {
                match change {
                    JournalChange::AddPending(target, round) => {
                        let key = target.to_string();
                        let value = sealed(key.as_bytes(), &round.to_le_bytes());
                        pending.insert(key.as_str(), value.as_slice())?;
                    }
                    JournalChange::RemovePending(target, round) => {
                        let key = target.to_string();
                        let held = pending.get(key.as_str())?.and_then(|held| {
                            let bytes = unsealed(key.as_bytes(), held.value())?;
                            bytes.try_into().ok().map(u64::from_le_bytes)
                        });
                        if held.is_some_and(|held| held <= *round) {
                            pending.remove(key.as_str())?;
                        }
                    }
                    JournalChange::AddDelivery(number, bytes) => {
                        deliveries.insert(number, sealed(&number.to_le_bytes(), bytes).as_slice())?;
                    }
                    JournalChange::RemoveDelivery(number) => drop(deliveries.remove(number)?),
                    JournalChange::AddUnpublished(number, bytes) => {
                        let value = sealed(&number.to_le_bytes(), bytes);
                        transaction.open_table(UNPUBLISHED_TABLE)?.insert(number, value.as_slice())?;
                    }
                    JournalChange::RemoveUnpublished(number) => {
                        drop(transaction.open_table(UNPUBLISHED_TABLE)?.remove(number)?);
                    }
                    JournalChange::LogReached(log) => {
                        drop(transaction.open_table(META_TABLE)?.insert(LOG_REACHED_KEY, log)?);
                    }
                    JournalChange::LogLeft => {
                        drop(transaction.open_table(META_TABLE)?.remove(LOG_REACHED_KEY)?);
                    }
                    JournalChange::DowntimeDetected => {
                        drop(transaction.open_table(META_TABLE)?.insert(MISSED_KEY, MISSED_DOWNTIME)?);
                    }
                    JournalChange::CaughtUp => drop(transaction.open_table(META_TABLE)?.remove(MISSED_KEY)?),
                    JournalChange::Alive(time) => {
                        drop(transaction.open_table(ALIVE_TABLE)?.insert(LAST_ALIVE_KEY, time)?);
                    }
                    // Below, all at once.
                    JournalChange::Append(..) => {}
                    JournalChange::SetCursor(name, record) => {
                        let record = serde_json::to_vec(record).unwrap_or_default();
                        let value = sealed(name.as_bytes(), &record);
                        transaction.open_table(CURSORS_TABLE)?.insert(name.as_str(), value.as_slice())?;
                    }
                    JournalChange::RemoveCursor(name) => {
                        drop(transaction.open_table(CURSORS_TABLE)?.remove(name.as_str())?);
                    }
                }
            }
        }
        let mut entries = changes.iter().filter_map(JournalChange::appended).peekable();
        let log = match (&self.log_file, entries.peek()) {
            (Some(log_file), Some(_)) => Some(log_table::append(&transaction, entries, log_file.limits())?),
            _ => None,
        };
        transaction.commit()?;
        Ok(log)
    }
}

const CHECKSUM_BYTES: usize = 8;

fn checksum(key: &[u8], bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(key).chain_update(bytes).finalize();
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    checksum
}

/// A value with the checksum of its key and itself before it.
pub(super) fn sealed(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut sealed = checksum(key, bytes).to_vec();
    sealed.extend_from_slice(bytes);
    sealed
}

pub(super) fn unsealed<'v>(key: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
    let (sum, bytes) = value.split_at_checked(CHECKSUM_BYTES)?;
    (sum == checksum(key, bytes)).then_some(bytes)
}

fn target_of(key: &str) -> Option<Target> {
    let mut parts = key.splitn(3, '/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = Kind::named(kind)?;
    Some(Target { kind, namespace: namespace.to_owned(), name: name.to_owned() })
}
