//! Kubernetes Events about Flux objects. core/v1, since Flux's own ClusterRole grants those and events.k8s.io
//! limits notes to 1,024 characters.
//!
//! Limited per object and reason as client-go limits them: 25 at once, then one in five minutes.
//! <https://github.com/kubernetes/client-go/blob/v0.33.0/tools/record/events_cache.go>

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::access;
use super::connection::ApiConnection;
use super::{describe, status_code};
use crate::flux::Target;
use crate::metrics::{EventResultLabel, Metrics};
use crate::object_event::{ObjectEvent, ObjectEventReason, ObjectEvents};
use crate::trace_parent::TraceParent;

/// Takes events, and writes them one after the other.
pub struct EventRecorder {
    queue: mpsc::Sender<ObjectEvent>,
    /// The UIDs of objects, as answers to patches have told them: Events without one are not shown by `kubectl
    /// describe`.
    identities: Mutex<HashMap<Target, Identity>>,
    metrics: Arc<Metrics>,
}

/// What an Event has to name of its object beside the name.
#[derive(Clone)]
struct Identity {
    api_version: String,
    uid: String,
}

/// Writes what [`EventRecorder`] takes; never ends.
pub struct EventWriter {
    connection: ApiConnection,
    recorder: Arc<EventRecorder>,
    waiting: mpsc::Receiver<ObjectEvent>,
    written: HashMap<(Target, ObjectEventReason), WrittenEvent>,
    budgets: HashMap<(Target, ObjectEventReason), EventBudget>,
    /// When the missing right was last logged.
    forbidden_logged: Option<Instant>,
}

struct WrittenEvent {
    name: String,
    count: i32,
    last: Instant,
    /// What came since, and is written once [`REPEAT_INTERVAL`] has passed.
    repeated: Option<Repetition>,
}

/// Repetitions that are not written yet.
struct Repetition {
    count: i32,
    message: String,
    trace: Option<TraceParent>,
}

/// How many Events of one reason an object may have yet.
struct EventBudget {
    left: f64,
    refilled: Instant,
}

/// Events that wait to be written; beyond that they are dropped and counted.
const MAX_WAITING_EVENTS: usize = 512;

/// Objects whose state is held; beyond that it begins anew.
const MAX_KNOWN_OBJECTS: usize = 4096;

const MAX_EVENTS_AT_ONCE: f64 = 25.0;
const EVENT_REFILL_INTERVAL: Duration = Duration::from_secs(300);

/// An Event that is younger is counted up instead of another one being made.
const REPEAT_WINDOW: Duration = Duration::from_secs(600);

/// The least time between two writes of one Event: many requests in a row count it up once.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The pause between two log lines about a missing right.
const FORBIDDEN_LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// Bytes of a message. <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>
const MAX_MESSAGE_CHARS: usize = 1000;

/// The annotation that holds the delivery's `traceparent`.
const TRACE_ANNOTATION: &str = "flux-recv.fluxcd.io/traceparent";

const COMPONENT: &str = "flux-recv";

impl EventRecorder {
    /// A recorder, and the writer behind it.
    pub fn new(connection: ApiConnection, metrics: Arc<Metrics>) -> (Arc<EventRecorder>, EventWriter) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_EVENTS);
        let recorder = Arc::new(EventRecorder { queue, identities: Mutex::default(), metrics });
        let writer = EventWriter {
            connection,
            recorder: Arc::clone(&recorder),
            waiting,
            written: HashMap::new(),
            budgets: HashMap::new(),
            forbidden_logged: None,
        };
        (recorder, writer)
    }

    /// Takes note of an object as the answer to a patch shows it.
    pub(super) fn saw(&self, target: &Target, api_version: &str, object: &Value) {
        let Some(uid) = object["metadata"]["uid"].as_str() else { return };
        let mut identities = self.identities.lock();
        if identities.len() >= MAX_KNOWN_OBJECTS && !identities.contains_key(target) {
            identities.clear();
        }
        let identity = Identity { api_version: api_version.to_owned(), uid: uid.to_owned() };
        identities.insert(target.clone(), identity);
    }
}

impl ObjectEvents for EventRecorder {
    fn record(&self, event: ObjectEvent) {
        // A silent endpoint is nothing that an object does, and who may not patch it may rarely write about it.
        if matches!(event.reason, ObjectEventReason::EndpointSilent | ObjectEventReason::RequestForbidden) {
            return;
        }
        if self.queue.try_send(event).is_err() {
            self.metrics.kubernetes_event(EventResultLabel::Dropped);
        }
    }
}

impl EventWriter {
    /// Writes Events as they come; never ends while the recorder lives.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(REPEAT_INTERVAL / 4);
        loop {
            tokio::select! {
                event = self.waiting.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => return,
                },
                _ = tick.tick() => self.write_repetitions().await,
            }
        }
    }

    async fn take(&mut self, event: ObjectEvent) {
        let ObjectEvent { target, reason, message, .. } = &event;
        let written = self.written.get_mut(&(target.clone(), *reason));
        if let Some(written) = written.filter(|written| written.last.elapsed() < REPEAT_INTERVAL) {
            let repeated =
                written.repeated.get_or_insert(Repetition { count: 0, message: String::new(), trace: None });
            repeated.count += 1;
            repeated.message.clone_from(message);
            repeated.trace.clone_from(&event.trace);
            return;
        }
        let put_off =
            self.written.get_mut(&(target.clone(), *reason)).and_then(|written| written.repeated.take());
        let times = 1 + put_off.map_or(0, |repeated| repeated.count);
        let result = match self.is_within_budget(target, *reason) {
            false => Ok(EventResultLabel::Dropped),
            true => self.write(&event, times).await,
        };
        self.account_for(target, result);
    }

    /// Writes what was put off and is due.
    async fn write_repetitions(&mut self) {
        let is_due =
            |written: &WrittenEvent| written.repeated.is_some() && written.last.elapsed() >= REPEAT_INTERVAL;
        let due = self.written.iter().filter(|(_, written)| is_due(written)).map(|(key, _)| key.clone());
        for key in due.collect::<Vec<_>>() {
            let Some(repeated) = self.written.get_mut(&key).and_then(|written| written.repeated.take())
            else {
                continue;
            };
            let (target, reason) = key;
            if self.is_within_budget(&target, reason) {
                let event = ObjectEvent {
                    target,
                    reason,
                    message: repeated.message,
                    revision: None,
                    trace: repeated.trace,
                };
                let result = self.write(&event, repeated.count).await;
                self.account_for(&event.target, result);
            }
        }
    }

    fn account_for(&mut self, target: &Target, result: Result<EventResultLabel, kube::Error>) {
        let label = match result {
            Ok(label) => label,
            Err(err) if status_code(&err) == Some(403) => {
                self.log_forbidden(&err);
                EventResultLabel::Forbidden
            }
            Err(err) => {
                log::debug!(object:% = target, why:% = describe(&err); "Kubernetes Event not written");
                EventResultLabel::Failure
            }
        };
        self.recorder.metrics.kubernetes_event(label);
    }

    fn is_within_budget(&mut self, target: &Target, reason: ObjectEventReason) -> bool {
        let now = Instant::now();
        if self.budgets.len() >= MAX_KNOWN_OBJECTS {
            self.budgets.clear();
        }
        let full = EventBudget { left: MAX_EVENTS_AT_ONCE, refilled: now };
        let budget = self.budgets.entry((target.clone(), reason)).or_insert(full);
        let refill = (now - budget.refilled).as_secs_f64() / EVENT_REFILL_INTERVAL.as_secs_f64();
        budget.left = (budget.left + refill).min(MAX_EVENTS_AT_ONCE);
        budget.refilled = now;
        let is_within = budget.left >= 1.0;
        if is_within {
            budget.left -= 1.0;
        }
        is_within
    }

    /// Makes an Event, or counts up the one that is there.
    async fn write(&mut self, event: &ObjectEvent, times: i32) -> Result<EventResultLabel, kube::Error> {
        let ObjectEvent { target, reason, message, .. } = event;
        let Some((identity, message)) = self.complete(target, *reason, message).await else {
            return Ok(EventResultLabel::Failure);
        };
        let api: Api<Event> = Api::namespaced(self.connection.client(), &target.namespace);
        let now = Timestamp::now();
        let key = (target.clone(), *reason);
        if let Some(written) =
            self.written.get_mut(&key).filter(|written| written.last.elapsed() < REPEAT_WINDOW)
        {
            let count = written.count + times;
            // Null takes away the one of a delivery before.
            let trace = event.trace.as_ref().map(ToString::to_string);
            let patch = json!({
                "metadata": {"annotations": {TRACE_ANNOTATION: trace}},
                "count": count, "lastTimestamp": Time(now), "message": message,
            });
            match api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    (written.count, written.last) = (count, Instant::now());
                    return Ok(EventResultLabel::Success);
                }
                // It has expired, or somebody has deleted it.
                Err(err) if status_code(&err) == Some(404) => {}
                Err(err) => return Err(err),
            }
        }
        let name = format!("{}.{:016x}", target.name, fastrand::u64(..));
        let made = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(target.namespace.clone()),
                annotations: event
                    .trace
                    .as_ref()
                    .map(|trace| BTreeMap::from([(TRACE_ANNOTATION.to_owned(), trace.to_string())])),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(identity.api_version),
                kind: Some(target.kind.to_string()),
                namespace: Some(target.namespace.clone()),
                name: Some(target.name.clone()),
                uid: Some(identity.uid),
                ..ObjectReference::default()
            },
            reason: Some(reason.as_str().to_owned()),
            type_: Some(reason.severity().to_owned()),
            message: Some(message),
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(std::env::var("HOSTNAME").unwrap_or_else(|_| COMPONENT.to_owned())),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(times),
            ..Event::default()
        };
        api.create(&PostParams::default(), &made).await?;
        if self.written.len() >= MAX_KNOWN_OBJECTS {
            self.written.clear();
        }
        self.written.insert(key, WrittenEvent { name, count: times, last: Instant::now(), repeated: None });
        Ok(EventResultLabel::Success)
    }

    /// Finds what the Event has to name; a warning repeats what Flux itself says of the object.
    async fn complete(
        &self,
        target: &Target,
        reason: ObjectEventReason,
        message: &str,
    ) -> Option<(Identity, String)> {
        let known = self.recorder.identities.lock().get(target).cloned();
        let wants_condition = reason == ObjectEventReason::RevisionNotObserved;
        let (identity, mut message) = match known {
            Some(identity) if !wants_condition => (identity, message.to_owned()),
            _ => {
                let object = access::object(&self.connection, target).await.ok()?;
                let api_version = object["apiVersion"].as_str().unwrap_or_default();
                self.recorder.saw(target, api_version, &object);
                let identity = self.recorder.identities.lock().get(target).cloned()?;
                let condition = ready_message(&object).filter(|_| wants_condition);
                let condition = condition.map(|text| format!("; Flux says: {text}")).unwrap_or_default();
                (identity, format!("{message}{condition}"))
            }
        };
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        Some((identity, message))
    }

    fn log_forbidden(&mut self, err: &kube::Error) {
        if self.forbidden_logged.is_some_and(|last| last.elapsed() < FORBIDDEN_LOG_INTERVAL) {
            return;
        }
        self.forbidden_logged = Some(Instant::now());
        log::warn!(
            why:% = describe(err);
            "Kubernetes Events may not be written; list kustomization/components/events, which grants it"
        );
    }
}

/// The message of the condition `Ready`.
fn ready_message(object: &Value) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    ready["message"].as_str().map(str::to_owned)
}
