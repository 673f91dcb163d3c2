//! What is remembered of one delivery. No payload, no header, no key.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bounded_text::BoundedText;
use crate::event::normal_form::NormalEvent;
use crate::flux::Target;
use crate::metrics::RevisionCheckLabel;
use crate::outcome::Outcome;
use crate::trace_parent::TraceParent;

/// A delivery, as long as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryId {
    /// The name of the endpoint.
    pub endpoint: Arc<str>,
    pub(super) number: u64,
}

impl DeliveryId {
    /// A delivery to this endpoint that an earlier process has answered: nothing is remembered of it.
    pub fn from_earlier_process(endpoint: &str) -> DeliveryId {
        DeliveryId { endpoint: endpoint.into(), number: u64::MAX }
    }
}

/// `github-17`: the endpoint, and a number within this process.
impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.endpoint, self.number)
    }
}

/// What is remembered of a delivery.
pub struct DeliveryRecord {
    pub id: DeliveryId,
    /// When its answer was ready.
    pub received: Timestamp,
    /// What the provider calls the delivery on its own pages, if it says.
    pub provider_id: Option<BoundedText>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// Who sent it, as far as the proxies that are trusted say.
    pub from: Option<IpAddr>,
    /// The file of the key that proved it.
    pub key: Option<Arc<str>>,
    /// When it was proved, and when its objects were known.
    pub steps: StepTimes,
    /// What it was about.
    pub events: Vec<NormalEvent>,
    /// What became of it.
    pub outcome: Outcome,
    /// What it came to later, if it was queued.
    pub matched: Option<Outcome>,
    /// The status that it was answered with; 0 for an event of a publisher.
    pub status: u16,
    /// How long the answer took.
    pub took: Duration,
    /// How far its objects have come.
    pub targets: Vec<TargetRecord>,
    /// What it was last counted with.
    pub(super) bytes: usize,
}

/// Who sent a delivery, and how it was answered.
#[derive(Default)]
pub struct AnswerRecord {
    pub received: Timestamp,
    pub provider_id: Option<BoundedText>,
    pub trace: Option<TraceParent>,
    pub from: Option<IpAddr>,
    pub key: Option<Arc<str>>,
    pub steps: StepTimes,
    pub status: u16,
    pub took: Duration,
}

/// The times of a delivery between its arrival and its requests; none for a step that it did not come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// Its endpoint took its proof, or needs none.
    pub verified: Option<Timestamp>,
    /// It had been compared with all objects.
    pub matched: Option<Timestamp>,
}

/// An object of a delivery, and how far it has come.
pub struct TargetRecord {
    pub target: Target,
    /// When the API server took the request.
    pub requested: Option<Timestamp>,
    /// Why it has not taken it yet.
    pub failure: Option<BoundedText>,
    /// When Flux had handled the request.
    pub handled: Option<Timestamp>,
    /// Whether the pushed commit or digest has arrived, where that is checked.
    pub arrival: Option<Arrival>,
    /// It was deleted before the API server took the request.
    pub is_gone: bool,
}

/// The end of a check whether what was pushed has arrived.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub result: RevisionCheckLabel,
    pub after: Option<Duration>,
}

/// How far an object has come, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    Pending,
    Failing,
    Requested,
    Handled,
    /// The object was deleted.
    Gone,
}

impl TargetState {
    pub fn as_str(self) -> &'static str {
        match self {
            TargetState::Pending => "pending",
            TargetState::Failing => "failing",
            TargetState::Requested => "requested",
            TargetState::Handled => "handled",
            TargetState::Gone => "gone",
        }
    }
}

/// Objects of a delivery that are remembered.
pub(super) const MAX_OBJECTS: usize = 20;

/// Bytes of an entry in the index of what is open, without names.
const OPEN_ENTRY_BYTES: usize = size_of::<Target>() + size_of::<DeliveryId>() + 64;

/// Events of a delivery that are remembered.
pub const MAX_EVENTS: usize = 4;

impl DeliveryRecord {
    /// A record of an event that came from a publisher: nobody was answered.
    pub fn from_publisher(
        id: DeliveryId,
        events: Vec<NormalEvent>,
        trace: Option<TraceParent>,
        outcome: Outcome,
    ) -> DeliveryRecord {
        let answer = AnswerRecord { received: Timestamp::now(), trace, ..AnswerRecord::default() };
        DeliveryRecord::answered(id, events, outcome, answer)
    }

    /// A record of a delivery that was answered.
    pub fn answered(
        id: DeliveryId,
        events: Vec<NormalEvent>,
        outcome: Outcome,
        answer: AnswerRecord,
    ) -> DeliveryRecord {
        let AnswerRecord { received, provider_id, trace, from, key, steps, status, took } = answer;
        DeliveryRecord {
            id,
            received,
            provider_id,
            trace,
            from,
            key,
            steps,
            events,
            outcome,
            matched: None,
            status,
            took,
            targets: Vec::new(),
            bytes: 0,
        }
    }

    /// When its first byte was there.
    pub fn began(&self) -> Timestamp {
        self.received.checked_sub(self.took).unwrap_or(self.received)
    }

    /// What it came to in the end, as far as that is known.
    pub fn final_outcome(&self) -> &Outcome {
        self.matched.as_ref().unwrap_or(&self.outcome)
    }

    /// Bytes that it takes in memory, as last counted.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts the bytes that it takes in memory, about.
    pub(super) fn count_bytes(&mut self) -> usize {
        self.bytes = self.size();
        self.bytes
    }

    fn size(&self) -> usize {
        let target = |record: &TargetRecord| {
            let failure = record.failure.as_ref().map_or(0, |failure| failure.len());
            let names = record.target.name.len() + record.target.namespace.len();
            // The index of what is open holds the names as well.
            size_of::<TargetRecord>() + 2 * names + failure + OPEN_ENTRY_BYTES
        };
        let outcome = |outcome: &Outcome| {
            let target = |target: &Target| size_of::<Target>() + target.name.len() + target.namespace.len();
            let skipped = outcome.skipped().iter().map(|skipped| target(&skipped.target) + 16);
            outcome.text_bytes()
                + outcome.targets().iter().map(target).sum::<usize>()
                + skipped.sum::<usize>()
        };
        size_of::<DeliveryRecord>()
            + self.provider_id.as_ref().map_or(0, |id| id.len())
            + self.trace.as_ref().map_or(0, |_| TraceParent::LENGTH)
            + self.events.iter().map(NormalEvent::size).sum::<usize>()
            + self.targets.iter().map(target).sum::<usize>()
            + outcome(&self.outcome)
            + self.matched.as_ref().map_or(0, outcome)
    }

    pub fn to_json(&self) -> Value {
        let mut line = json!({
            "id": self.id.to_string(),
            "endpoint": *self.id.endpoint,
            "received": self.began().to_string(),
            "outcome": self.outcome.label().as_str(),
            "detail": self.outcome.detail(),
        });
        if self.status != 0 {
            line["status"] = json!(self.status);
            line["tookMicros"] = json!(self.took.as_micros() as u64);
        }
        if let Some(id) = &self.provider_id {
            line["providerId"] = json!(&**id);
        }
        if let Some(trace) = &self.trace {
            line["traceparent"] = json!(trace.to_string());
        }
        if let Some(from) = self.from {
            line["from"] = json!(from.to_string());
        }
        if let Some(key) = &self.key {
            line["key"] = json!(&**key);
        }
        for (step, at) in [("verifiedAt", self.steps.verified), ("matchedAt", self.steps.matched)] {
            if let Some(at) = at {
                line[step] = json!(at.to_string());
            }
        }
        if !self.events.is_empty() {
            line["events"] = json!(self.events);
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
        if !self.targets.is_empty() {
            line["objects"] = self.targets.iter().map(TargetRecord::to_json).collect();
        }
        line
    }
}

impl TargetRecord {
    pub(super) fn new(target: Target) -> TargetRecord {
        TargetRecord { target, requested: None, failure: None, handled: None, arrival: None, is_gone: false }
    }

    pub fn state(&self) -> TargetState {
        if self.is_gone {
            return TargetState::Gone;
        }
        match (self.handled, self.requested, &self.failure) {
            (Some(_), _, _) => TargetState::Handled,
            (None, Some(_), _) => TargetState::Requested,
            (None, None, Some(_)) => TargetState::Failing,
            (None, None, None) => TargetState::Pending,
        }
    }

    fn to_json(&self) -> Value {
        let mut line = json!({"object": self.target.to_string(), "state": self.state().as_str()});
        for (field, time) in [("requested", self.requested), ("handled", self.handled)] {
            if let Some(time) = time {
                line[field] = json!(time.to_string());
            }
        }
        if let Some(failure) = self.failure.as_ref().filter(|_| self.state() == TargetState::Failing) {
            line["failure"] = json!(&**failure);
        }
        if let Some(Arrival { result, after }) = self.arrival {
            line["revision"] = json!({"result": result.as_str()});
            if let Some(after) = after {
                line["revision"]["afterMillis"] = json!(after.as_millis() as u64);
            }
        }
        line
    }
}
