//! The public listener: HTTP in, [`Outcome`] out as HTTP. Serves `/hook/…` and `/health`, nothing
//! else.

mod answer;
mod body;
mod client_address;
mod log_throttle;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::HeaderMap;
use actix_web::http::{ConnectionType, Method};
use actix_web::{App, HttpRequest, HttpResponse, web};

use self::answer::{answer, plain};
use self::body::BodyMemory;
use self::log_throttle::LogThrottle;
use crate::delivery::{Delivery, Headers};
use crate::endpoint::{Endpoint, HEALTH_PATH, HOOK_PREFIX};
use crate::history::{AnswerRecord, DeliveryRecord};
use crate::listener::{self, ConnectionCounters, ListenerOptions, RunningServer};
use crate::metrics::EndedConnectionLabel;
use crate::outcome::Outcome;
use crate::receive::Receipt;
use crate::service::Service;

/// More would not help: the work per delivery is some 20 µs.
const MAX_WORKERS: usize = 4;

/// Serves on a bound listener. Has to be called within a Tokio runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(listener: TcpListener, service: Arc<Service>) -> io::Result<RunningServer> {
    let limits = service.limits;
    let options = ListenerOptions {
        workers: std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
        max_connections: limits.max_connections,
        max_without_stream: limits.max_connections,
        deadlines: limits.deadlines,
        peer_timeout: None,
        stop_timeout: limits.body_time,
    };
    let memory = web::Data::new(BodyMemory::default());
    let service = web::Data::from(service);
    let log_throttle = web::Data::new(LogThrottle::default());
    let ended = |reason| service.metrics.ended_connections(reason);
    let counters = ConnectionCounters {
        late: ended(EndedConnectionLabel::Late),
        displaced: ended(EndedConnectionLabel::Displaced),
        refused: ended(EndedConnectionLabel::Refused),
        head_too_long: ended(EndedConnectionLabel::HeadTooLong),
    };
    listener::serve(listener, options, counters, move || {
        let app =
            App::new().app_data(service.clone()).app_data(memory.clone()).app_data(log_throttle.clone());
        app.default_service(web::to(handle))
    })
}

async fn handle(
    request: HttpRequest,
    mut payload: web::Payload,
    service: web::Data<Service>,
    memory: web::Data<BodyMemory>,
    log_throttle: web::Data<LogThrottle>,
) -> HttpResponse {
    let mut response = respond(&request, &mut payload, &service, &memory, &log_throttle).await;
    // What is left of a body would be read as the next request.
    if !body::discard(&request, &mut payload).await || service.is_shutting_down() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

async fn respond(
    request: &HttpRequest,
    payload: &mut web::Payload,
    service: &Service,
    memory: &BodyMemory,
    log_throttle: &LogThrottle,
) -> HttpResponse {
    let received = Instant::now();
    let path = request.uri().path();
    if path == HEALTH_PATH {
        return plain("OK");
    }
    let mut serving = service.registry.get();
    if !service.registry.knows_all()
        && serving.endpoints.at_path(path).is_none()
        && path.starts_with(HOOK_PREFIX)
    {
        // Just after the start it may be one that is not known yet.
        if !service.registry.wait_until_known(RECEIVERS_TIMEOUT).await {
            return answer(&not_known_yet());
        }
        serving = service.registry.get();
    }
    let Some(endpoint) = serving.endpoints.at_path(path) else {
        if path.starts_with(HOOK_PREFIX)
            && let Some(suppressed) = log_throttle.admit_unknown_path(received)
        {
            let from = client_address::resolve(request, &serving.trusted_proxies);
            let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
            log::warn!(from:%, suppressed; "no endpoint has this hook path");
        }
        service.metrics.unknown_path();
        return answer(&Outcome::UnknownPath);
    };
    let id = service.history.new_delivery(&endpoint.name);
    let taken = match *request.method() {
        Method::OPTIONS if let Some(origin) = asking_origin(request, endpoint) => {
            Receipt::unread(Outcome::Handshake { origin: origin.into() })
        }
        _ if endpoint.takes_any_method || *request.method() == Method::POST => {
            match body::read(request, payload, &service.limits, endpoint, memory).await {
                Ok(body) => {
                    let delivery = Delivery { headers: request.headers(), body: &body.bytes };
                    // Boxed, so that the future of a request to an unknown path stays small.
                    Box::pin(service.handler.receive(endpoint, &id, delivery)).await
                }
                Err(outcome) => Receipt::unread(outcome),
            }
        }
        _ => Receipt::unread(Outcome::WrongMethod),
    };
    let response = answer(&taken.outcome);
    let answered = AnswerRecord {
        received: jiff::Timestamp::now(),
        provider_id: taken.provider_id,
        trace: taken.trace,
        from: client_address::resolve(request, &serving.trusted_proxies),
        key: taken.key,
        steps: taken.steps,
        status: response.status().as_u16(),
        took: received.elapsed(),
    };
    let entry = DeliveryRecord::answered(id, taken.events, taken.outcome, answered);
    // An alias can be guessed: what strangers send there displaces no record and hides no silence.
    let is_remembered = path.starts_with(HOOK_PREFIX) || !entry.outcome.strangers_cause_it();
    count_and_log(service, endpoint, &entry, log_throttle);
    if is_remembered {
        service.history.remember(entry);
    }
    response
}

/// The time that a delivery waits for its endpoint to become known; providers wait longer.
const RECEIVERS_TIMEOUT: Duration = Duration::from_secs(4);

/// There may be such an endpoint, but the cluster has not told yet.
fn not_known_yet() -> Outcome {
    let why = "the Receivers of the cluster are not known yet".into();
    Outcome::Unavailable { why, retry_after: RECEIVERS_TIMEOUT, is_verified: false }
}

/// Returns the origin of a CloudEvents validation request, if it is one.
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#41-validation-request>
fn asking_origin(request: &HttpRequest, endpoint: &Endpoint) -> Option<String> {
    let origin = request.headers().get("WebHook-Request-Origin")?.to_str().ok()?;
    endpoint.provider.takes_cloud_events.then(|| origin.to_owned())
}

fn count_and_log(service: &Service, endpoint: &Endpoint, entry: &DeliveryRecord, log_throttle: &LogThrottle) {
    let DeliveryRecord { outcome, took, .. } = entry;
    service.metrics.delivery(&endpoint.name, endpoint.provider.name, outcome.label(), *took);
    if !outcome.strangers_cause_it() {
        log_delivery(endpoint, entry);
    } else if let Some(suppressed) = log_throttle.admit(&endpoint.name, Instant::now()) {
        if suppressed > 0 {
            log::warn!(endpoint:% = endpoint.name, suppressed; "suppressed repeated log lines for refused deliveries");
        }
        log_delivery(endpoint, entry);
    }
}

fn log_delivery(endpoint: &Endpoint, entry: &DeliveryRecord) {
    let level = if entry.outcome.wants_attention() { log::Level::Warn } else { log::Level::Info };
    let from = entry.from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
    let trace = entry.trace.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    log::log!(
        level,
        endpoint = &*endpoint.name,
        source = endpoint.provider.name,
        outcome = entry.outcome.label().as_str(),
        status = entry.status,
        from = from.as_str(),
        key = entry.key.as_deref().unwrap_or("none"),
        delivery = entry.provider_id.as_deref().unwrap_or("unnamed"),
        trace = trace.as_str(),
        micros = entry.took.as_micros() as u64,
        detail = entry.outcome.detail().as_str();
        "{}", entry.outcome.message()
    );
}

impl Headers for HeaderMap {
    fn visit<'h>(&'h self, name: &str, visit: &mut dyn FnMut(&'h [u8])) {
        for value in self.get_all(name) {
            visit(value.as_bytes());
        }
    }

    fn visit_all<'h>(&'h self, visit: &mut dyn FnMut(&'h str, &'h [u8])) {
        self.iter().for_each(|(name, value)| visit(name.as_str(), value.as_bytes()));
    }
}
