//! The tables of the event log in the journal's file.

use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use ring::rand::{SecureRandom, SystemRandom};

use super::event_log::{LogContent, LogEntry, LogLimits, LogRange, LogUnreadable};
use super::log_tail::MAX_READ_BYTES;
use super::store::{sealed, unsealed};

const LOG_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("event_log");
const LOG_META_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("event_log_meta");
const EPOCH_KEY: &str = "epoch";
const NEXT_KEY: &str = "next";
const BYTES_KEY: &str = "bytes";

/// Entries that are trimmed with one commit, so that none takes long.
const MAX_TRIMMED_ENTRIES: usize = 1024;

/// Makes the tables if they are not there, and returns what they hold.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<LogRange, redb::Error> {
    let mut meta = transaction.open_table(LOG_META_TABLE)?;
    let log = transaction.open_table(LOG_TABLE)?;
    if meta.get(EPOCH_KEY)?.is_none() {
        meta.insert(EPOCH_KEY, random_number())?;
        meta.insert(NEXT_KEY, 1)?;
        meta.insert(BYTES_KEY, 0)?;
    }
    range(&meta, &log)
}

/// Drops the log: events were not appended, so nobody may continue it.
pub(super) fn drop_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.delete_table(LOG_META_TABLE)?;
    transaction.delete_table(LOG_TABLE)?;
    Ok(())
}

/// Whether the file holds a log, and how many bytes of entries.
pub(super) fn held_bytes(database: &Database) -> u64 {
    let bytes = || {
        let meta = database.begin_read().ok()?.open_table(LOG_META_TABLE).ok()?;
        Some(meta.get(BYTES_KEY).ok()??.value())
    };
    bytes().unwrap_or(0)
}

/// Appends entries, and trims what exceeds the limits.
pub(super) fn append<'e>(
    transaction: &WriteTransaction,
    entries: impl Iterator<Item = (u64, &'e LogContent)>,
    limits: LogLimits,
) -> Result<LogRange, redb::Error> {
    let mut meta = transaction.open_table(LOG_META_TABLE)?;
    let mut log = transaction.open_table(LOG_TABLE)?;
    let mut now = range(&meta, &log)?;
    let mut latest = 0;
    for (time_millis, content) in entries {
        let value = encode(now.next, time_millis, content);
        log.insert(now.next, value.as_slice())?;
        now.bytes += value.len() as u64;
        now.next += 1;
        latest = time_millis;
    }
    let oldest_allowed = latest.saturating_sub(limits.max_age.as_millis() as u64);
    for _ in 0..MAX_TRIMMED_ENTRIES {
        let Some((sequence, value)) = log.first()? else { break };
        let is_old = time_of(value.value()).is_none_or(|time| time < oldest_allowed);
        let is_too_much = now.next - sequence.value() > limits.max_entries || now.bytes > limits.max_bytes;
        // The last one stays: a subscriber that has it need not catch up.
        if !(is_old || is_too_much) || sequence.value() + 1 == now.next {
            break;
        }
        now.bytes = now.bytes.saturating_sub(value.value().len() as u64);
        drop((sequence, value));
        log.pop_first()?;
    }
    meta.insert(NEXT_KEY, now.next)?;
    meta.insert(BYTES_KEY, now.bytes)?;
    range(&meta, &log)
}

/// Reads entries from this sequence on.
pub(super) fn read(
    database: &Database,
    from: u64,
    max_entries: usize,
) -> Result<Vec<LogEntry>, LogUnreadable> {
    let read = || -> Result<Result<Vec<LogEntry>, LogUnreadable>, redb::Error> {
        let log = match database.begin_read()?.open_table(LOG_TABLE) {
            Ok(log) => log,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Ok(Vec::new())),
            Err(err) => return Err(err.into()),
        };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in log.range(from..)?.take(max_entries) {
            let (sequence, value) = entry?;
            let sequence = sequence.value();
            bytes += value.value().len();
            if bytes > MAX_READ_BYTES && !entries.is_empty() {
                break;
            }
            match decode(sequence, value.value()) {
                Some(entry) => entries.push(entry),
                // Those before it are good.
                None if entries.is_empty() => return Ok(Err(LogUnreadable::Damaged(sequence))),
                None => break,
            }
        }
        Ok(Ok(entries))
    };
    let guarded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    let failed = |why: String| {
        log::error!(why:%; "event log cannot be read");
        // What cannot be read at all is not worth another try by the same subscriber.
        Err(LogUnreadable::Damaged(from))
    };
    match guarded {
        Ok(Ok(entries)) => entries,
        Ok(Err(err)) => failed(err.to_string()),
        Err(_) => failed("reading it panics".to_owned()),
    }
}

fn range(
    meta: &impl ReadableTable<&'static str, u64>,
    log: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<LogRange, redb::Error> {
    let number = |key| meta.get(key).map(|found| found.map_or(0, |found| found.value()));
    let (epoch, next, bytes) = (number(EPOCH_KEY)?, number(NEXT_KEY)?, number(BYTES_KEY)?);
    let first = log.first()?.map_or(next, |(sequence, _)| sequence.value());
    Ok(LogRange { epoch, first, next, bytes })
}

/// Checksum, time, length of the endpoint's name, name, JSON.
fn encode(sequence: u64, time_millis: u64, content: &LogContent) -> Vec<u8> {
    let name = content.endpoint.as_bytes();
    let mut bytes = time_millis.to_le_bytes().to_vec();
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(content.json.as_bytes());
    sealed(&sequence.to_le_bytes(), &bytes)
}

fn decode(sequence: u64, value: &[u8]) -> Option<LogEntry> {
    let bytes = unsealed(&sequence.to_le_bytes(), value)?;
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (name, json) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Arc::from);
    let content = LogContent { endpoint: text(name)?, json: text(json)? };
    Some(LogEntry { sequence, time_millis: u64::from_le_bytes(*time), content })
}

fn time_of(value: &[u8]) -> Option<u64> {
    value.get(8..16)?.try_into().ok().map(u64::from_le_bytes)
}

fn random_number() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => fastrand::u64(..),
    }
}
