//! The last deliveries of each endpoint, and how far their objects have come. Bounded in bytes for all, so that
//! one busy endpoint displaces no other's.

mod record;
mod silence;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use self::record::MAX_OBJECTS;
pub use self::record::{
    AnswerRecord, Arrival, DeliveryId, DeliveryRecord, MAX_EVENTS, StepTimes, TargetRecord, TargetState,
};
pub use self::silence::{length, usual_pause};
use crate::event::normal_form::NormalEvent;
use crate::flux::Target;
use crate::metrics::RevisionCheckLabel;
use crate::outcome::Outcome;
use crate::trace_parent::TraceParent;

/// Remembers the last deliveries.
#[derive(Default)]
pub struct History {
    next: AtomicU64,
    /// Grows with every change, so that viewers know when to look again.
    changes: AtomicU64,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    by_endpoint: BTreeMap<Arc<str>, EndpointRecords>,
    /// The records whose objects have not been handled, by object.
    open: HashMap<Target, Vec<DeliveryId>>,
    /// What became of queued deliveries before they were remembered.
    early_outcomes: VecDeque<(u64, Outcome)>,
    /// The last requests, for deliveries that are remembered only afterwards.
    early_requests: VecDeque<EarlyRequest>,
    /// The requests that Flux has handled last.
    handled: HashMap<Target, u64>,
    bytes: usize,
}

/// A request, with when its patch began and when the API server had taken it.
struct EarlyRequest {
    target: Target,
    began: Timestamp,
    taken: Timestamp,
}

#[derive(Default)]
struct EndpointRecords {
    records: VecDeque<DeliveryRecord>,
    bytes: usize,
}

/// The deliveries that one request was for, as far as they are remembered by then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequestRound {
    pub deliveries: usize,
    /// The endpoint of the last one, and what it was about.
    pub last: Option<(Arc<str>, String)>,
    /// The revision that the last one brought, as Flux writes it.
    pub revision: Option<String>,
    /// The trace that the last one belongs to.
    pub trace: Option<TraceParent>,
}

/// Bytes that all records may take.
const MAX_BYTES: usize = 256 << 10;

/// Deliveries of an endpoint that are remembered.
const MAX_DELIVERIES: usize = 500;

/// Objects whose last handled request is known.
const MAX_HANDLED: usize = 1024;

/// Outcomes and requests that may come before their delivery is remembered.
const MAX_EARLY: usize = 32;

impl History {
    /// A name for a delivery to this endpoint.
    pub fn new_delivery(&self, endpoint: &Arc<str>) -> DeliveryId {
        DeliveryId { endpoint: Arc::clone(endpoint), number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// A number that grows with every change.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn changing(&self) -> MutexGuard<'_, Store> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.store.lock()
    }

    /// Remembers a delivery, and forgets the oldest of the endpoint that takes most.
    pub fn remember(&self, mut entry: DeliveryRecord) {
        entry.outcome.shorten(MAX_OBJECTS);
        entry.events.truncate(MAX_EVENTS);
        let mut store = self.changing();
        if matches!(entry.outcome, Outcome::Queued { .. }) {
            entry.matched = store.take_early_outcome(entry.id.number);
            entry.steps.matched = entry.matched.is_some().then(Timestamp::now);
        }
        store.open_targets(&mut entry);
        let forgotten = store.add(entry);
        drop(store);
        drop(forgotten);
    }

    /// The API server has taken a request whose patch began so long ago. Returns the deliveries that it was for:
    /// those that had come by then.
    pub fn requested(&self, target: &Target, age: Duration) -> RequestRound {
        let now = Timestamp::now();
        let began = now.checked_sub(age).unwrap_or(now);
        let mut store = self.changing();
        let round = store.round(target, began);
        store.update_open(target, |came, record| {
            if came <= began {
                record.requested.get_or_insert(now);
            }
        });
        if store.early_requests.len() == MAX_EARLY {
            store.early_requests.pop_front();
        }
        store.early_requests.push_back(EarlyRequest { target: target.clone(), began, taken: now });
        round
    }

    /// The API server has not taken a request; it is tried again.
    pub fn request_failed(&self, target: &Target, why: &str) {
        self.changing().update_open(target, |_, record| {
            if record.requested.is_none() {
                record.failure = Some(why.into());
            }
        });
    }

    /// An object does not exist any more, so nobody waits for it.
    pub fn gone(&self, target: &Target) {
        let mut store = self.changing();
        store.update_open(target, |_, record| record.is_gone = record.requested.is_none());
        store.open.remove(target);
    }

    /// Flux has handled the request that an object carries, by the hash of its annotation.
    pub fn handled(&self, target: &Target, request: u64) {
        let now = Timestamp::now();
        let mut store = self.store.lock();
        // Of a request that was handled already, as a watch may tell late.
        if !store.open.contains_key(target) || store.handled.get(target) == Some(&request) {
            return;
        }
        if store.handled.len() >= MAX_HANDLED {
            store.handled.clear();
        }
        store.handled.insert(target.clone(), request);
        self.changes.fetch_add(1, Ordering::Relaxed);
        store.update_open(target, |_, record| {
            if record.requested.is_some() {
                record.handled.get_or_insert(now);
            }
        });
        store.close_handled(target);
    }

    /// A push of a delivery was checked to its end.
    pub fn revision_checked(
        &self,
        id: &DeliveryId,
        target: &Target,
        result: RevisionCheckLabel,
        after: Option<Duration>,
    ) {
        self.changing().change(id, |entry| {
            if let Some(record) = entry.targets.iter_mut().find(|record| record.target == *target) {
                record.arrival = Some(Arrival { result, after });
            }
        });
    }

    /// A queued delivery was matched, with this outcome.
    pub fn matched(&self, id: &DeliveryId, mut outcome: Outcome) {
        outcome.shorten(MAX_OBJECTS);
        let mut outcome = Some(outcome);
        let mut store = self.changing();
        let mut targets = Vec::new();
        store.change(id, |entry| {
            entry.matched = outcome.take();
            entry.steps.matched = Some(Timestamp::now());
            targets = add_targets(entry);
        });
        for target in targets {
            store.open.entry(target).or_default().push(id.clone());
        }
        // It may be matched before its answer was sent and remembered.
        if let Some(outcome) = outcome {
            if store.early_outcomes.len() == MAX_EARLY {
                store.early_outcomes.pop_front();
            }
            store.early_outcomes.push_back((id.number, outcome));
        }
    }

    /// Forgets an endpoint.
    pub fn forget(&self, endpoint: &str) {
        let mut store = self.store.lock();
        if let Some(records) = store.by_endpoint.remove(endpoint) {
            store.bytes -= records.bytes;
            for record in &records.records {
                store.close(record);
            }
        }
    }

    /// Reads the records, the latest of each endpoint first.
    pub fn read<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = &DeliveryRecord>) -> T) -> T {
        let store = self.store.lock();
        let mut records = store.by_endpoint.values().flat_map(|endpoint| endpoint.records.iter().rev());
        read(&mut records)
    }

    /// Reads one record, by the text of its identifier.
    pub fn find<T>(&self, id: &str, read: impl FnOnce(&DeliveryRecord) -> T) -> Option<T> {
        let (endpoint, number) = id.rsplit_once('-')?;
        let number: u64 = number.parse().ok()?;
        let store = self.store.lock();
        let records = &store.by_endpoint.get(endpoint)?.records;
        records.iter().find(|record| record.id.number == number).map(read)
    }

    /// All that is remembered by endpoint, the latest first.
    pub fn to_json(&self) -> Value {
        let store = self.store.lock();
        let lists = store.by_endpoint.iter().map(|(endpoint, records)| {
            let list = records.records.iter().rev().map(DeliveryRecord::to_json);
            (endpoint.to_string(), list.collect::<Value>())
        });
        Value::Object(lists.collect())
    }
}

/// Gives a record its objects; returns those that are new.
fn add_targets(entry: &mut DeliveryRecord) -> Vec<Target> {
    let targets = entry.final_outcome().targets().iter().take(MAX_OBJECTS);
    let known = |target: &&Target| entry.targets.iter().any(|record| record.target == **target);
    let new: Vec<Target> = targets.filter(|target| !known(target)).cloned().collect();
    entry.targets.extend(new.iter().cloned().map(TargetRecord::new));
    new
}

impl Store {
    fn take_early_outcome(&mut self, number: u64) -> Option<Outcome> {
        let at = self.early_outcomes.iter().position(|(early, _)| *early == number)?;
        self.early_outcomes.remove(at).map(|(_, outcome)| outcome)
    }

    /// Gives a record its objects, with requests that were faster than its answer.
    fn open_targets(&mut self, entry: &mut DeliveryRecord) {
        let began = entry.began();
        for target in add_targets(entry) {
            let mut early =
                self.early_requests.iter().filter(|early| early.target == target && early.began >= began);
            if let Some(early) = early.next()
                && let Some(record) = entry.targets.iter_mut().find(|record| record.target == target)
            {
                record.requested = Some(early.taken);
            }
            self.open.entry(target).or_default().push(entry.id.clone());
        }
    }

    /// Adds a record; returns those that had to go.
    fn add(&mut self, mut entry: DeliveryRecord) -> Vec<DeliveryRecord> {
        let size = entry.count_bytes();
        let records = self.by_endpoint.entry(Arc::clone(&entry.id.endpoint)).or_default();
        let is_full = records.records.len() == MAX_DELIVERIES;
        let endpoint = is_full.then(|| Arc::clone(&entry.id.endpoint));
        records.bytes += size;
        records.records.push_back(entry);
        self.bytes += size;
        let mut forgotten: Vec<DeliveryRecord> =
            endpoint.and_then(|endpoint| self.forget_oldest_of(&endpoint)).into_iter().collect();
        forgotten.extend(self.forget_what_has_no_room());
        forgotten
    }

    /// Forgets the oldest records of whoever takes most, until the others fit.
    fn forget_what_has_no_room(&mut self) -> Vec<DeliveryRecord> {
        let mut forgotten = Vec::new();
        while self.bytes > MAX_BYTES {
            let largest = self.by_endpoint.iter().max_by_key(|(_, records)| records.bytes);
            let Some(largest) = largest.map(|(endpoint, _)| Arc::clone(endpoint)) else { break };
            let Some(record) = self.forget_oldest_of(&largest) else { break };
            forgotten.push(record);
        }
        forgotten
    }

    fn forget_oldest_of(&mut self, endpoint: &Arc<str>) -> Option<DeliveryRecord> {
        let records = self.by_endpoint.get_mut(endpoint)?;
        let record = records.records.pop_front()?;
        records.bytes -= record.bytes();
        self.bytes -= record.bytes();
        self.close(&record);
        Some(record)
    }

    /// Takes a record out of those that are open.
    fn close(&mut self, record: &DeliveryRecord) {
        for TargetRecord { target, .. } in &record.targets {
            if let Some(ids) = self.open.get_mut(target) {
                ids.retain(|id| *id != record.id);
                if ids.is_empty() {
                    self.open.remove(target);
                }
            }
        }
    }

    /// The open records of an object that no request has been for.
    fn round(&self, target: &Target, began: Timestamp) -> RequestRound {
        let mut round = RequestRound::default();
        for id in self.open.get(target).into_iter().flatten() {
            let records = self.by_endpoint.get(&id.endpoint).map(|records| &records.records);
            let entry = records.and_then(|records| records.iter().rev().find(|entry| entry.id == *id));
            let Some(entry) = entry.filter(|entry| entry.began() <= began) else { continue };
            let is_new = |record: &TargetRecord| record.target == *target && record.requested.is_none();
            if entry.targets.iter().any(is_new) {
                round.deliveries += 1;
                round.trace.clone_from(&entry.trace);
                round.revision = entry.events.first().and_then(NormalEvent::revision);
                if let Outcome::Accepted { event, .. } = entry.final_outcome() {
                    round.last = Some((Arc::clone(&id.endpoint), event.to_string()));
                }
            }
        }
        round
    }

    /// Changes what the open records say about an object; the change is told when the delivery came.
    fn update_open(&mut self, target: &Target, change: impl Fn(Timestamp, &mut TargetRecord)) {
        // A list that is put back, since every record has to be looked up.
        let Some(mut ids) = self.open.remove(target) else { return };
        for id in &ids {
            self.change(id, |entry| {
                let came = entry.began();
                if let Some(record) = entry.targets.iter_mut().find(|record| record.target == *target) {
                    change(came, record);
                }
            });
        }
        // A longer text may have displaced one of them.
        ids.retain(|id| self.holds(id));
        self.open.insert(target.clone(), ids);
    }

    fn holds(&self, id: &DeliveryId) -> bool {
        let records = self.by_endpoint.get(&id.endpoint).map(|records| &records.records);
        records.is_some_and(|records| records.iter().rev().any(|entry| entry.id == *id))
    }

    /// Takes the records out of the open ones whose request Flux has handled.
    fn close_handled(&mut self, target: &Target) {
        let Store { by_endpoint, open, .. } = self;
        let Some(ids) = open.get_mut(target) else { return };
        ids.retain(|id| {
            let records = by_endpoint.get(&id.endpoint).map(|records| &records.records);
            let entry = records.and_then(|records| records.iter().find(|entry| entry.id == *id));
            let record = entry.and_then(|entry| entry.targets.iter().find(|record| record.target == *target));
            record.is_some_and(|record| record.handled.is_none())
        });
        if ids.is_empty() {
            open.remove(target);
        }
    }

    fn change(&mut self, id: &DeliveryId, change: impl FnOnce(&mut DeliveryRecord)) {
        let Some(records) = self.by_endpoint.get_mut(&id.endpoint) else { return };
        // The latest ones change.
        let Some(entry) = records.records.iter_mut().rev().find(|entry| entry.id == *id) else { return };
        let before = entry.bytes();
        change(entry);
        let after = entry.count_bytes();
        records.bytes = records.bytes - before + after;
        self.bytes = self.bytes - before + after;
        self.forget_what_has_no_room();
    }
}

#[cfg(test)]
mod tests;
