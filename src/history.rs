//! The last deliveries of each endpoint, for the admin page. Bounded in number and in size.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::flux::Target;
use crate::metrics::RevisionCheckLabel;
use crate::outcome::Outcome;

/// Remembers the last deliveries of each endpoint.
#[derive(Default)]
pub struct History {
    next: AtomicU64,
    by_endpoint: Mutex<BTreeMap<Arc<str>, VecDeque<DeliveryRecord>>>,
    /// What became of queued deliveries before they were remembered.
    early: Mutex<VecDeque<(u64, Outcome)>>,
}

/// A delivery, as long as it is remembered.
#[derive(Debug, Clone)]
pub struct DeliveryId {
    /// The name of the endpoint.
    pub endpoint: Arc<str>,
    number: u64,
}

/// What is remembered of a delivery.
pub struct DeliveryRecord {
    pub id: DeliveryId,
    pub received: jiff::Timestamp,
    /// Who sent it, as far as the proxies that are trusted say.
    pub from: Option<IpAddr>,
    /// The file of the key that proved it.
    pub key: Option<Arc<str>>,
    /// What became of it.
    pub outcome: Outcome,
    /// What it came to later, if it was queued.
    pub matched: Option<Outcome>,
    /// The status that it was answered with; 0 for an event of a publisher.
    pub status: u16,
    /// How long the answer took.
    pub took: Duration,
    /// What became of the pushes whose fetching is checked.
    pub revision_checks: Vec<FollowThroughRecord>,
}

/// A push whose fetching was checked to its end.
pub struct FollowThroughRecord {
    target: Target,
    result: RevisionCheckLabel,
    after: Option<Duration>,
}

/// How many deliveries of an endpoint are remembered.
const MAX_DELIVERIES: usize = 20;

/// How many objects of a delivery are remembered.
const MAX_OBJECTS: usize = 20;

impl DeliveryId {
    /// A delivery to this endpoint that an earlier process has answered: nothing is remembered of it.
    pub fn from_earlier_process(endpoint: &str) -> DeliveryId {
        DeliveryId { endpoint: endpoint.into(), number: u64::MAX }
    }
}

impl History {
    /// A name for a delivery to this endpoint.
    pub fn new_delivery(&self, endpoint: &Arc<str>) -> DeliveryId {
        DeliveryId { endpoint: Arc::clone(endpoint), number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Remembers a delivery, and forgets the oldest of its endpoint.
    pub fn remember(&self, mut entry: DeliveryRecord) {
        entry.outcome.shorten(MAX_OBJECTS);
        if matches!(entry.outcome, Outcome::Queued { .. }) {
            entry.matched = self.take_early(entry.id.number);
        }
        let mut by_endpoint = self.lock();
        if !by_endpoint.contains_key(&entry.id.endpoint) {
            by_endpoint.insert(Arc::clone(&entry.id.endpoint), VecDeque::with_capacity(MAX_DELIVERIES));
        }
        let Some(entries) = by_endpoint.get_mut(&entry.id.endpoint) else { return };
        let oldest = (entries.len() == MAX_DELIVERIES).then(|| entries.pop_front());
        entries.push_back(entry);
        drop(by_endpoint);
        drop(oldest);
    }

    /// A push of a delivery was checked to its end.
    pub fn revision_checked(
        &self,
        id: &DeliveryId,
        target: &Target,
        result: RevisionCheckLabel,
        after: Option<Duration>,
    ) {
        self.change(id, |entry| {
            if entry.revision_checks.len() < MAX_OBJECTS {
                entry.revision_checks.push(FollowThroughRecord { target: target.clone(), result, after });
            }
        });
    }

    /// A queued delivery was matched, with this outcome.
    pub fn matched(&self, id: &DeliveryId, mut outcome: Outcome) {
        outcome.shorten(MAX_OBJECTS);
        let mut outcome = Some(outcome);
        self.change(id, |entry| entry.matched = outcome.take());
        // It may be matched before its answer was sent and remembered.
        if let Some(outcome) = outcome {
            let mut early = self.early.lock();
            if early.len() == MAX_DELIVERIES {
                early.pop_front();
            }
            early.push_back((id.number, outcome));
        }
    }

    fn take_early(&self, number: u64) -> Option<Outcome> {
        let mut early = self.early.lock();
        let at = early.iter().position(|(early, _)| *early == number)?;
        early.remove(at).map(|(_, outcome)| outcome)
    }

    fn change(&self, id: &DeliveryId, change: impl FnOnce(&mut DeliveryRecord)) {
        let mut by_endpoint = self.lock();
        let entries = by_endpoint.get_mut(&id.endpoint);
        let entry = entries.and_then(|entries| entries.iter_mut().find(|entry| entry.id.number == id.number));
        if let Some(entry) = entry {
            change(entry);
        }
    }

    /// Forgets an endpoint.
    pub fn forget(&self, endpoint: &str) {
        self.lock().remove(endpoint);
    }

    /// All that is remembered, the latest first.
    pub fn to_json(&self) -> Value {
        let by_endpoint = self.lock();
        let lists = by_endpoint.iter().map(|(endpoint, entries)| {
            (endpoint.to_string(), entries.iter().rev().map(DeliveryRecord::to_json).collect::<Value>())
        });
        Value::Object(lists.collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, VecDeque<DeliveryRecord>>> {
        self.by_endpoint.lock()
    }
}

impl DeliveryRecord {
    /// A record of an event that came from a publisher: nobody was answered.
    pub fn from_publisher(id: DeliveryId, outcome: Outcome) -> DeliveryRecord {
        DeliveryRecord {
            id,
            received: jiff::Timestamp::now(),
            from: None,
            key: None,
            outcome,
            matched: None,
            status: 0,
            took: Duration::ZERO,
            revision_checks: Vec::new(),
        }
    }

    fn to_json(&self) -> Value {
        let mut line = json!({
            "received": self.received.to_string(),
            "outcome": self.outcome.label().as_str(),
            "detail": self.outcome.detail(),
        });
        if self.status != 0 {
            line["status"] = json!(self.status);
            line["tookMicros"] = json!(self.took.as_micros() as u64);
        }
        if let Some(from) = self.from {
            line["from"] = json!(from.to_string());
        }
        if let Some(key) = &self.key {
            line["key"] = json!(&**key);
        }
        let targets = self.outcome.targets();
        if !targets.is_empty() {
            line["targets"] = targets.iter().map(ToString::to_string).collect();
        }
        if let Some(matched) = &self.matched {
            line["matched"] = json!({"outcome": matched.label().as_str(), "detail": matched.detail()});
            if !matched.targets().is_empty() {
                line["matched"]["targets"] = matched.targets().iter().map(ToString::to_string).collect();
            }
        }
        if !self.revision_checks.is_empty() {
            line["followThrough"] = self.revision_checks.iter().map(FollowThroughRecord::to_json).collect();
        }
        line
    }
}

impl FollowThroughRecord {
    fn to_json(&self) -> Value {
        let mut line = json!({"target": self.target.to_string(), "result": self.result.as_str()});
        if let Some(after) = self.after {
            line["afterMillis"] = json!(after.as_millis() as u64);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded() {
        let history = History::default();
        let endpoint = Arc::from("github");
        for _ in 0..50 {
            history.remember(DeliveryRecord {
                id: history.new_delivery(&endpoint),
                received: jiff::Timestamp::UNIX_EPOCH,
                from: None,
                key: None,
                outcome: Outcome::Pong,
                matched: None,
                status: 200,
                took: Duration::ZERO,
                revision_checks: Vec::new(),
            });
        }
        assert_eq!(history.to_json()["github"].as_array().map(Vec::len), Some(MAX_DELIVERIES));
    }

    #[test]
    fn a_queued_delivery_shows_what_it_came_to_whichever_comes_first() {
        let history = History::default();
        let endpoint = Arc::from("github");
        let queued = |id: DeliveryId| DeliveryRecord {
            id,
            received: jiff::Timestamp::UNIX_EPOCH,
            from: None,
            key: None,
            outcome: Outcome::Queued { event: "a push".into() },
            matched: None,
            status: 202,
            took: Duration::ZERO,
            revision_checks: Vec::new(),
        };
        let unmatched =
            || Outcome::Unmatched { event: "a push".into(), reason: "nothing".into(), skipped: Vec::new() };
        let (first, second) = (history.new_delivery(&endpoint), history.new_delivery(&endpoint));
        history.remember(queued(first.clone()));
        history.matched(&first, unmatched());
        history.matched(&second, unmatched());
        history.remember(queued(second));
        let list = history.to_json();
        for at in [0, 1] {
            assert_eq!(list["github"][at]["outcome"], "queued");
            assert_eq!(list["github"][at]["matched"]["outcome"], "unmatched");
        }
    }
}
