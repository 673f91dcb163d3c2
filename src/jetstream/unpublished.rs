//! Entries that JetStream has not acknowledged. They are in the journal, and in memory to be published again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::journal::contents::{Contents, JournalChange};
use crate::journal::event_log::NewEntry;
use crate::journal::{Journal, NotDurable};
use crate::metrics::Metrics;

/// The entries that wait, in the order in which they came.
pub(super) struct Unpublished {
    journal: Journal,
    waiting: Mutex<WaitingEntries>,
    /// Told when one comes or goes.
    changed: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct WaitingEntries {
    entries: BTreeMap<u64, NewEntry>,
    bytes: usize,
}

/// Bytes of all entries that wait: some 30,000. Beyond that deliveries are refused, and providers send them again.
const MAX_WAITING_BYTES: usize = 16 << 20;

impl Unpublished {
    /// With what an earlier process has left in the journal.
    pub(super) fn new(journal: Journal, left: &Contents, metrics: Arc<Metrics>) -> Unpublished {
        let mut waiting = WaitingEntries::default();
        for (number, bytes) in &left.unpublished {
            match NewEntry::from_bytes(bytes) {
                Some(entry) => waiting.add(*number, entry),
                None => log::error!("journal has an entry that this version cannot read; keeping it"),
            }
        }
        metrics.unpublished_entries(waiting.entries.len());
        Unpublished { journal, waiting: Mutex::new(waiting), changed: Notify::new(), metrics }
    }

    /// Takes entries, which are durable then.
    ///
    /// # Errors
    /// When there is no journal, it cannot be written, or too much waits.
    pub(super) async fn keep(&self, entries: Vec<NewEntry>) -> Result<(), NotDurable> {
        let (mut numbers, mut changes) = (Vec::new(), Vec::new());
        let commit = {
            let mut waiting = self.waiting.lock();
            let bytes: usize = entries.iter().map(size).sum();
            if !self.journal.is_persistent() || waiting.bytes + bytes > MAX_WAITING_BYTES {
                return Err(NotDurable);
            }
            for entry in entries {
                let number = self.journal.new_number();
                changes.push(JournalChange::AddUnpublished(number, entry.to_bytes()));
                numbers.push(number);
                waiting.add(number, entry);
            }
            self.metrics.unpublished_entries(waiting.entries.len());
            // Within the lock, so that the journal sees them come before it sees them go.
            self.journal.write(changes).ok_or(NotDurable)?
        };
        if let Err(err) = commit.wait_until_durable().await {
            // The delivery is refused, and comes again.
            self.remove(&numbers);
            return Err(err);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Returns some entries with their numbers, from this place on.
    pub(super) fn some(&self, place: usize, most: usize) -> Vec<(u64, NewEntry)> {
        let waiting = self.waiting.lock();
        let place = place % waiting.entries.len().max(1);
        waiting
            .entries
            .iter()
            .skip(place)
            .take(most)
            .map(|(number, entry)| (*number, entry.clone()))
            .collect()
    }

    /// Forgets entries.
    pub(super) fn remove(&self, numbers: &[u64]) {
        let mut waiting = self.waiting.lock();
        for number in numbers {
            if let Some(entry) = waiting.entries.remove(number) {
                waiting.bytes -= size(&entry);
            }
        }
        self.metrics.unpublished_entries(waiting.entries.len());
        // Within the lock, as above.
        self.journal.write_later(numbers.iter().map(|number| JournalChange::RemoveUnpublished(*number)));
        drop(waiting);
        self.changed.notify_waiters();
    }

    /// Remembers that the event log was reached.
    pub(super) fn log_reached(&self, log: u64) {
        self.journal.write_later([JournalChange::LogReached(log)]);
    }

    /// Whether entries may wait here.
    pub(super) fn is_persistent(&self) -> bool {
        self.journal.is_persistent()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().entries.len()
    }

    /// Waits until one has come or gone.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) async fn wait_until_empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

impl WaitingEntries {
    fn add(&mut self, number: u64, entry: NewEntry) {
        self.bytes += size(&entry);
        self.entries.insert(number, entry);
    }
}

/// Bytes of an entry in memory, beside those of the journal.
fn size(entry: &NewEntry) -> usize {
    entry.id.len() + entry.content.endpoint.len() + entry.content.json.len()
}
