//! Events to notification-controller, in Flux's own form: Alerts take them to chats, pages and tickets.
//! <https://fluxcd.io/flux/components/notification/events/>

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use url::Url;

use crate::bounded_text::BoundedText;
use crate::flux::Target;
use crate::history::History;
use crate::metrics::{EventResultLabel, Metrics};
use crate::object_event::{ObjectEvent, ObjectEventReason, ObjectEvents};

/// Which events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FluxEventSeverity {
    /// What needs someone.
    Error,
    /// Requests as well.
    Info,
}

/// Takes events for notification-controller.
pub struct FluxEventSender {
    queue: mpsc::Sender<ObjectEvent>,
    severity: FluxEventSeverity,
    metrics: Arc<Metrics>,
}

/// Posts what [`FluxEventSender`] takes.
pub struct FluxEventPoster {
    client: reqwest::Client,
    url: Url,
    waiting: mpsc::Receiver<ObjectEvent>,
    metrics: Arc<Metrics>,
    /// When each message was last posted, so that nobody is told the same twice within [`REPEAT_PAUSE`].
    posted: HashMap<(Target, String), Instant>,
    failure_logged: Option<Instant>,
}

/// Events that wait to be posted; beyond that they are dropped and counted.
const MAX_WAITING_EVENTS: usize = 256;

/// How long notification-controller may take.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// notification-controller itself refuses the same message within five minutes.
const REPEAT_PAUSE: Duration = Duration::from_secs(300);

/// Messages that are remembered.
const MAX_POSTED: usize = 1024;

/// The pause between two log lines about a notification-controller that does not answer.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(600);

/// The metadata that Flux's notifications show, and from which its traces are made.
const REVISION_KEY: &str = "source.toolkit.fluxcd.io/revision";

impl FluxEventSender {
    /// A sender, and the poster behind it.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        url: Url,
        severity: FluxEventSeverity,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Arc<FluxEventSender>, FluxEventPoster)> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_EVENTS);
        let client = reqwest::Client::builder()
            .timeout(POST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let sender = Arc::new(FluxEventSender { queue, severity, metrics: Arc::clone(&metrics) });
        let poster =
            FluxEventPoster { client, url, waiting, metrics, posted: HashMap::new(), failure_logged: None };
        Ok((sender, poster))
    }
}

impl ObjectEvents for FluxEventSender {
    fn record(&self, event: ObjectEvent) {
        let is_wanted = is_error(event.reason)
            || (self.severity == FluxEventSeverity::Info
                && event.reason == ObjectEventReason::ReconcileRequested);
        if is_wanted && self.queue.try_send(event).is_err() {
            self.metrics.flux_event(EventResultLabel::Dropped);
        }
    }
}

fn is_error(reason: ObjectEventReason) -> bool {
    match reason {
        ObjectEventReason::RevisionNotObserved
        | ObjectEventReason::RequestForbidden
        | ObjectEventReason::EndpointSilent => true,
        ObjectEventReason::ReconcileRequested | ObjectEventReason::ReconcileSkipped => false,
    }
}

impl FluxEventPoster {
    /// Posts events as they come; never ends while the sender lives.
    pub async fn run(mut self) {
        while let Some(event) = self.waiting.recv().await {
            let key = (event.target.clone(), event.message.clone());
            if self.posted.get(&key).is_some_and(|last| last.elapsed() < REPEAT_PAUSE) {
                continue;
            }
            if self.posted.len() >= MAX_POSTED {
                self.posted.clear();
            }
            self.posted.insert(key, Instant::now());
            let sent = self.client.post(self.url.clone()).json(&body(&event)).send().await;
            let label = match sent.map(|answer| answer.status().as_u16()) {
                Ok(200..300) => EventResultLabel::Success,
                // It has had the same message lately.
                Ok(429) => EventResultLabel::Dropped,
                Ok(status) => self.failed(&format!("it answers {status}")),
                Err(err) => self.failed(&err.without_url().to_string()),
            };
            self.metrics.flux_event(label);
        }
    }

    fn failed(&mut self, why: &str) -> EventResultLabel {
        if self.failure_logged.is_none_or(|last| last.elapsed() >= FAILURE_LOG_INTERVAL) {
            self.failure_logged = Some(Instant::now());
            log::warn!(why:%; "notification-controller does not take events; check --flux-events");
        }
        EventResultLabel::Failure
    }
}

/// The event as `fluxcd/pkg/apis/event/v1beta1` has it.
fn body(event: &ObjectEvent) -> Value {
    let ObjectEvent { target, reason, message, revision, .. } = event;
    let info = target.kind.info();
    let version = info.versions.first().copied().unwrap_or("v1");
    let mut body = json!({
        "involvedObject": {
            "apiVersion": format!("{}/{version}", info.group), "kind": info.name,
            "namespace": target.namespace, "name": target.name,
        },
        "severity": if is_error(*reason) { "error" } else { "info" },
        "timestamp": Timestamp::now().to_string(),
        "message": &*BoundedText::from(message.as_str()),
        "reason": reason.as_str(),
        "reportingController": "flux-recv",
        "reportingInstance": std::env::var("HOSTNAME").unwrap_or_else(|_| "flux-recv".to_owned()),
    });
    if let Some(revision) = revision {
        body["metadata"] = json!({REVISION_KEY: revision});
    }
    body
}

/// The pause between two looks for silent endpoints.
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Objects that are told of one silent endpoint: Alerts select Flux's kinds only.
const MAX_TOLD_OBJECTS: usize = 10;

/// Tells the sources that an endpoint has reached last when it falls silent, once for each silence; never ends.
pub async fn watch_silence(history: Arc<History>, events: Arc<dyn ObjectEvents>) {
    let mut told: HashMap<Arc<str>, Timestamp> = HashMap::new();
    loop {
        tokio::time::sleep(SILENCE_CHECK_INTERVAL).await;
        for silence in history.silent_endpoints(Timestamp::now()) {
            if told.insert(Arc::clone(&silence.endpoint), silence.last) == Some(silence.last) {
                continue;
            }
            log::warn!(endpoint:% = silence.endpoint, last:% = silence.last; "endpoint is silent");
            for target in silence.targets.iter().take(MAX_TOLD_OBJECTS) {
                events.record(ObjectEvent {
                    target: target.clone(),
                    reason: ObjectEventReason::EndpointSilent,
                    message: format!("endpoint {} is silent: {silence}", silence.endpoint),
                    revision: None,
                    trace: None,
                });
            }
        }
    }
}
