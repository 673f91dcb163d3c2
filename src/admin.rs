//! The listeners for operators: probes and metrics for the cluster, and on loopback the pages that show
//! what is served and delivered. None of them holds a secret, but the pages name the repositories of all
//! tenants: Kubernetes' own rights decide who may forward a port to them.

mod explain;
mod guard;
mod page;
mod text;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Service as _, ServiceResponse};
use actix_web::{App, HttpResponse, web};
use futures::TryFutureExt;
use futures::future::Either;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::page::Viewers;
use crate::endpoint::Endpoint;
use crate::endpoint::registry::Serving;
use crate::expression::Expression;
use crate::filter::Globs;
use crate::journal::Journal;
use crate::listener::{self, ConnectionCounters, Deadlines, ListenerOptions, RunningServer};
use crate::publisher::Publisher;
use crate::service::Service;
use crate::subscriber::Subscriptions;

/// The state that the admin listeners show.
pub struct AdminState {
    pub service: Arc<Service>,
    /// The journal whose state decides `/readyz`.
    pub journal: Journal,
    /// The publisher, if this is one.
    pub publisher: Option<Arc<Publisher>>,
    /// The publishers that are followed.
    pub subscriptions: Arc<Subscriptions>,
    /// The options of the command line that are in force.
    pub options: Value,
    /// The name of this replica.
    pub replica: String,
    pub started: Timestamp,
    /// What a form has to show so that deliveries may be requested again; none if they may not.
    pub form_token: Option<String>,
    /// Who looks at the page.
    pub viewers: Viewers,
}

/// Serves on a bound listener. Has to be called within a Tokio runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(listener: TcpListener, state: Arc<AdminState>) -> io::Result<RunningServer> {
    let state = web::Data::from(state);
    listener::serve(listener, ADMIN_LISTENER_OPTIONS, ConnectionCounters::default(), move || {
        App::new()
            .app_data(state.clone())
            .route("/livez", web::get().to(async || "ok\n"))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(metrics))
    })
}

/// Serves the pages with details on a bound listener; the caller has seen to it that it is on loopback or
/// that the operator has named another address.
///
/// # Errors
/// When the listener cannot be used.
pub fn start_debug(listener: TcpListener, state: Arc<AdminState>) -> io::Result<RunningServer> {
    let state = web::Data::from(state);
    listener::serve(listener, ADMIN_LISTENER_OPTIONS, ConnectionCounters::default(), move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::FormConfig::default().limit(MAX_FORM_BYTES))
            .wrap_fn(|request, service| {
                let answer = match guard::refusal(request.headers()) {
                    Some(refusal) => Either::Left(std::future::ready(Ok(request.into_response(refusal)))),
                    None => Either::Right(service.call(request)),
                };
                answer.map_ok(|mut answer: ServiceResponse| {
                    guard::add_headers(answer.headers_mut());
                    answer
                })
            })
            .configure(page::routes)
            .route("/config", web::get().to(config))
            .route("/deliveries", web::get().to(deliveries))
            .route("/explain", web::get().to(explain::explain))
            .route("/subscribers", web::get().to(subscribers))
    })
}

/// Bytes of a form: it holds a token.
const MAX_FORM_BYTES: usize = 1024;

/// Clients of this port are in the cluster, and may be hostile.
const ADMIN_LISTENER_OPTIONS: ListenerOptions = ListenerOptions {
    workers: 1,
    max_connections: 64,
    max_without_stream: 64,
    deadlines: Deadlines::DEFAULT,
    peer_timeout: None,
    stop_timeout: Duration::from_secs(1),
};

/// Ready means: can accept and keep. What Flux or the API server are doing is reported by the
/// metrics, and by lines behind `ok`, and gates nothing: an outage there must not take the receiver out of
/// its Service.
async fn ready(state: web::Data<AdminState>) -> HttpResponse {
    if state.service.is_shutting_down() {
        return HttpResponse::ServiceUnavailable().body("shutting down\n");
    }
    if state.publisher.as_ref().is_some_and(|publisher| !publisher.is_ready()) {
        // So that a rollout waits, and no replica ends whose journal holds what NATS has not taken.
        return HttpResponse::ServiceUnavailable()
            .body("the event log in NATS has not been reached since the start\n");
    }
    match state.journal.is_writable() {
        true => {
            let disconnected = state.subscriptions.statuses().into_iter().filter_map(|status| {
                let why = status.failure.unwrap_or_else(|| "connecting".to_owned());
                status.connected.is_none().then(|| format!("publisher {}: not connected: {why}", status.name))
            });
            let of_log = state.publisher.iter().flat_map(|publisher| publisher.problems());
            let problems = state.service.handler.unlistable().into_iter().chain(disconnected).chain(of_log);
            let lines: String = problems.map(|problem| format!("{problem}\n")).collect();
            HttpResponse::Ok().body(format!("ok\n{lines}"))
        }
        false => HttpResponse::ServiceUnavailable().body("the journal cannot be written\n"),
    }
}

async fn metrics(state: web::Data<AdminState>) -> HttpResponse {
    if let Some(publisher) = &state.publisher {
        publisher.show(&state.service.metrics);
    }
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(state.service.metrics.encode())
}

async fn deliveries(state: web::Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok().json(state.service.history.to_json())
}

/// Who follows this publisher, and whom this instance follows.
async fn subscribers(state: web::Data<AdminState>) -> HttpResponse {
    let publisher = state.publisher.as_ref().map(|publisher| publisher.to_json());
    HttpResponse::Ok().json(json!({"publisher": publisher, "publishers": state.subscriptions.statuses()}))
}

async fn config(state: web::Data<AdminState>) -> HttpResponse {
    let serving = state.service.registry.get();
    HttpResponse::Ok().json(describe(&serving, &state.options))
}

/// The config in force, without hook paths and keys.
fn describe(serving: &Serving, options: &Value) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "options": options,
        "trustedProxies": serving.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "endpoints": serving.endpoints.iter().map(|endpoint| describe_endpoint(endpoint)).collect::<Vec<_>>(),
    })
}

fn globs(globs: &Option<Globs>) -> &[String] {
    globs.as_ref().map(Globs::written).unwrap_or_default()
}

fn describe_endpoint(endpoint: &Endpoint) -> Value {
    let mut key_names = endpoint.key_names().map(ToString::to_string);
    let (own, accepted) = (key_names.next(), key_names.collect::<Vec<_>>());
    json!({
        "name": *endpoint.name,
        "source": endpoint.provider.name,
        "keyPath": own,
        "acceptKeyPaths": accepted,
        "registryHost": endpoint.registry_hosts,
        "gitHosts": endpoint.git_hosts,
        "namespaces": endpoint.selection.namespaces,
        "resources": endpoint.selection.resources.len(),
        "events": globs(&endpoint.filter.events),
        "refs": globs(&endpoint.filter.refs),
        "images": globs(&endpoint.filter.images),
        "paths": globs(&endpoint.filter.paths),
        "filter": endpoint.filter.condition.as_ref().map(Expression::text),
        "provesItsSender": endpoint.is_authenticated(),
        "alias": endpoint.alias,
        "maxBody": endpoint.max_body,
        "maxPerMinute": endpoint.limit.as_ref().map(|limit| limit.per_minute()),
    })
}
