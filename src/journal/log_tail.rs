//! The end of an event log in memory, for the subscribers that are connected.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::event_log::{LogContent, LogEntry, LogLimits, LogRange};

/// The end of a log, up to its head. Whoever appends or receives entries adds them.
pub struct LogTail {
    limits: Mutex<LogLimits>,
    state: RwLock<TailState>,
    head: watch::Sender<u64>,
    availability: watch::Sender<Availability>,
}

/// Whether a log can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Availability {
    pub is_available: bool,
    /// How often it could not, until now. Behind a break sequences may stand for other entries.
    pub breaks: u64,
}

#[derive(Default)]
struct TailState {
    range: LogRange,
    /// The last entry that is damaged or missing; nobody can continue before it.
    unreadable: Option<u64>,
    /// The last entries, without a gap up to the head.
    recent: VecDeque<Arc<LogEntry>>,
    recent_bytes: usize,
}

/// Bytes of the last entries in memory. A subscriber that is further behind is served from where the log is kept.
const MAX_RECENT_BYTES: usize = 512 << 10;

/// Entries of one read.
pub const MAX_READ_ENTRIES: usize = 256;

/// Bytes of the entries of one read, unless one has more.
pub const MAX_READ_BYTES: usize = 64 << 10;

impl LogTail {
    /// The tail of a log of which nothing is known yet.
    pub fn new(limits: LogLimits) -> LogTail {
        LogTail {
            limits: Mutex::new(limits),
            state: RwLock::default(),
            head: watch::Sender::new(0),
            availability: watch::Sender::new(Availability { is_available: true, breaks: 0 }),
        }
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

    /// Whether the log can be followed at present, and tells of every change.
    pub fn watch_availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    pub fn is_available(&self) -> bool {
        self.availability.borrow().is_available
    }

    /// Returns how often the log could not be followed.
    pub fn breaks(&self) -> u64 {
        self.availability.borrow().breaks
    }

    /// Says whether the log can be followed at present. Returns whether that is new.
    pub fn set_available(&self, is_available: bool) -> bool {
        self.availability.send_if_modified(|now| {
            let is_new = std::mem::replace(&mut now.is_available, is_available) != is_available;
            now.breaks += u64::from(is_new && !is_available);
            is_new
        })
    }

    /// Returns some entries from this sequence on; none if they have to be read where the log is kept.
    pub fn read(&self, from: u64) -> Option<Vec<Arc<LogEntry>>> {
        let state = self.state.read();
        if from >= state.range.next {
            return Some(Vec::new());
        }
        let first = state.recent.front()?.sequence;
        let skipped = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let fits = |entry: &&Arc<LogEntry>| {
            let is_first = bytes == 0;
            bytes += entry.content.json.len();
            is_first || bytes <= MAX_READ_BYTES
        };
        Some(state.recent.iter().skip(skipped).take(MAX_READ_ENTRIES).take_while(fits).cloned().collect())
    }

    /// Whether this sequence is in memory, or not there yet.
    pub fn is_recent(&self, sequence: u64) -> bool {
        let state = self.state.read();
        sequence >= state.range.next || state.recent.front().is_some_and(|first| sequence >= first.sequence)
    }

    /// Remembers that an entry cannot be read.
    pub fn mark_unreadable(&self, sequence: u64) {
        let mut state = self.state.write();
        state.unreadable = state.unreadable.max(Some(sequence));
    }

    /// Returns the last entry that cannot be read: who is before it has to catch up.
    pub fn unreadable(&self) -> Option<u64> {
        self.state.read().unreadable
    }

    /// The log was opened, or is another one now.
    pub fn opened(&self, range: LogRange) {
        let mut state = self.state.write();
        if state.range.epoch != range.epoch || state.range.next != range.next {
            *state = TailState::default();
        }
        state.range = range;
        drop(state);
        self.head.send_replace(range.head());
    }

    /// The log has come to here, and what was missing before is gone: nobody who is behind it can continue.
    pub fn skip_to(&self, sequence: u64) {
        let mut state = self.state.write();
        if sequence < state.range.next {
            return;
        }
        (state.recent, state.recent_bytes) = (VecDeque::new(), 0);
        state.unreadable = Some(sequence);
        state.range.next = sequence + 1;
        drop(state);
        self.head.send_replace(sequence);
    }

    /// The log was trimmed elsewhere, and has so many bytes now.
    pub fn trimmed(&self, first: u64, bytes: u64) {
        let range = &mut self.state.write().range;
        (range.first, range.bytes) = (first.min(range.next), bytes);
    }

    /// These entries were appended at the end; the log has this range now.
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
            state.push(LogEntry { sequence, time_millis, content });
        }
        drop(state);
        self.head.send_replace(range.head());
    }

    /// An entry has arrived that was appended elsewhere. Where others are missing before it, nobody who is behind
    /// them can continue.
    pub fn arrived(&self, entry: LogEntry) {
        let sequence = entry.sequence;
        let mut state = self.state.write();
        if sequence < state.range.next {
            return;
        }
        if sequence > state.range.next {
            (state.recent, state.recent_bytes) = (VecDeque::new(), 0);
            state.unreadable = Some(sequence - 1);
        }
        state.range.next = sequence + 1;
        state.range.bytes += entry.content.json.len() as u64;
        state.push(entry);
        drop(state);
        self.head.send_replace(sequence);
    }
}

impl TailState {
    fn push(&mut self, entry: LogEntry) {
        self.recent_bytes += entry.content.json.len();
        self.recent.push_back(Arc::new(entry));
        while self.recent_bytes > MAX_RECENT_BYTES && self.recent.len() > 1 {
            let oldest = self.recent.pop_front();
            self.recent_bytes -= oldest.map_or(0, |entry| entry.content.json.len());
        }
    }
}
