//! The listener for subscribers: `GET /subscribe`, and nothing else.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::{App, Error, HttpRequest, HttpResponse, web};

use super::Publisher;
use super::authentication::Refused;
use super::autoreconciler;
use super::stream::SubscriberStream;
use crate::fleet::cursor::Cursor;
use crate::fleet::hello::SubscribeRefusal;
use crate::fleet::{NONCE_HEADER, SUBSCRIBE_PATH};
use crate::listener::{self, Connection, ConnectionCounters, Deadlines, ListenerOptions, RunningServer};

/// Connections at a time. Each stream is one; strangers end with their answer.
pub const MAX_STREAM_CONNECTIONS: usize = 12_000;

/// Connections that have not authenticated yet.
const MAX_STRANGER_CONNECTIONS: usize = 512;

/// Signing and reading take some 50 µs for each entry, whatever the number of subscribers.
const WORKERS: usize = 2;

/// A socket that takes nothing for this long is closed.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the nonce of a subscriber, and of its token.
const MAX_NONCE_BYTES: usize = 64;
const MAX_BEARER_BYTES: usize = 8 << 10;

/// Serves on a bound listener. Has to be called within a Tokio runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(
    listener: TcpListener,
    publisher: Arc<Publisher>,
    max_connections: usize,
) -> io::Result<RunningServer> {
    let options = ListenerOptions {
        workers: WORKERS,
        max_connections,
        max_without_stream: MAX_STRANGER_CONNECTIONS,
        deadlines: Deadlines { answer: UNREAD_TIMEOUT, ..Deadlines::DEFAULT },
        peer_timeout: Some(UNREAD_TIMEOUT),
        stop_timeout: Duration::from_secs(1),
    };
    let publisher = web::Data::from(publisher);
    listener::serve(listener, options, ConnectionCounters::default(), move || {
        App::new().app_data(publisher.clone()).route(SUBSCRIBE_PATH, web::get().to(answer))
    })
}

/// Answers subscribers, and clients of flux-webhook-autoreconciler, which request a WebSocket.
async fn answer(
    request: HttpRequest,
    body: web::Payload,
    publisher: web::Data<Publisher>,
) -> Result<HttpResponse, Error> {
    match header(request.headers(), "upgrade") {
        Some(protocol) if protocol.eq_ignore_ascii_case("websocket") && publisher.takes_streams() => {
            autoreconciler::serve(request, body, publisher).await
        }
        _ => Ok(subscribe(request, publisher)),
    }
}

fn subscribe(request: HttpRequest, publisher: web::Data<Publisher>) -> HttpResponse {
    if !publisher.takes_streams() {
        let after = publisher.retry_after().as_secs();
        return HttpResponse::ServiceUnavailable().insert_header((RETRY_AFTER, after)).finish();
    }
    let Some(bearer) = bearer(request.headers()) else { return stranger(&publisher) };
    let table = Arc::clone(&publisher.table.read());
    let authenticated = match table.authenticate(bearer) {
        Ok(authenticated) => authenticated,
        Err(Refused::Stranger) => return stranger(&publisher),
        Err(Refused::Known { name, reason }) => {
            if publisher.statuses.refuse(&name, &reason) {
                log::warn!(subscriber:% = name, why:% = reason; "subscriber refused");
            }
            return HttpResponse::Forbidden().json(SubscribeRefusal { reason });
        }
    };
    let nonce = header(request.headers(), NONCE_HEADER).unwrap_or_default();
    if nonce.len() > MAX_NONCE_BYTES {
        return HttpResponse::BadRequest()
            .json(SubscribeRefusal { reason: "the nonce is too long".to_owned() });
    }
    // One that cannot be read is none: the subscriber catches up.
    let cursor = header(request.headers(), "last-event-id").and_then(|id| id.parse::<Cursor>().ok());
    let Some(stream) = SubscriberStream::new(&publisher, authenticated, nonce.to_owned(), cursor) else {
        return HttpResponse::TooManyRequests().insert_header((RETRY_AFTER, "30")).finish();
    };
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.begin_stream();
        let (end, gone) = stream.end();
        actix_web::rt::spawn(end.close_in_time(gone, Rc::clone(connection)));
    }
    let frames = futures::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next_bytes().await?;
        Some((Ok::<_, Error>(bytes), stream))
    });
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Nothing else is expected on a connection that was a stream.
        .force_close()
        // nginx would hold frames back.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(frames)
}

/// The answer to someone whom nobody knows.
pub(super) fn stranger(publisher: &Publisher) -> HttpResponse {
    publisher.statuses.refuse_stranger();
    HttpResponse::Unauthorized().insert_header((WWW_AUTHENTICATE, "Bearer")).finish()
}

/// Returns the bearer key or token; none if it is missing, empty, repeated or too long.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION);
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, bearer) = value.to_str().ok()?.split_once(' ')?;
    let bearer = bearer.trim();
    let is_good =
        scheme.eq_ignore_ascii_case("Bearer") && !bearer.is_empty() && bearer.len() <= MAX_BEARER_BYTES;
    is_good.then_some(bearer)
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
