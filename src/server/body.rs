//! Reading a body from someone who has not been verified.

use std::rc::Rc;
use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::endpoint::Endpoint;
use crate::endpoint::byte_count::ByteCount;
use crate::listener::Connection;
use crate::outcome::Outcome;
use crate::service::Limits;

/// A body, and its share of the memory that all bodies may take together.
pub(super) struct Body<'b> {
    pub(super) bytes: Bytes,
    _share: BodyShare<'b>,
}

/// The memory that bodies take. Small ones have their own, so that large ones, which anyone who knows
/// one hook URL can begin and leave unfinished, never keep out a push.
#[derive(Default)]
pub(super) struct BodyMemory {
    small: ByteCount,
    large: ByteCount,
}

/// One endpoint takes at most this part of the memory for all.
const ENDPOINT_SHARE_DIVISOR: usize = 4;

/// A body is small up to this length, in bytes.
const MAX_SMALL_BODY_BYTES: usize = 64 * 1024;

/// A large body has to bring this many bytes in every [`PACE_WINDOW`].
const MIN_PACE_BYTES: usize = 32 * 1024;
const PACE_WINDOW: Duration = Duration::from_secs(2);

/// The time that the rest of an unwanted body may take to arrive.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The time after which there may be memory again.
const BODY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Reads the whole body, byte for byte: decompressing it would break both signatures and limits.
/// The limits hold while reading, whatever Content-Length says.
pub(super) async fn read<'b>(
    request: &HttpRequest,
    payload: &mut Payload,
    limits: &'b Limits,
    endpoint: &'b Endpoint,
    memory: &'b BodyMemory,
) -> Result<Body<'b>, Outcome> {
    if is_encoded(request) {
        return Err(Outcome::Encoded);
    }
    let max_bytes = endpoint.max_body.unwrap_or(limits.body);
    let announced = announced_length(request);
    if announced.is_some_and(|length| length > max_bytes) {
        return Err(Outcome::TooLarge { limit: max_bytes });
    }
    let connection = request.conn_data::<Rc<Connection>>();
    let began = Instant::now();
    let mut paced_since = began;
    let mut paced_bytes = 0;
    let mut received = BodyChunks::Nothing;
    let is_announced_large = announced.is_some_and(|length| length > MAX_SMALL_BODY_BYTES);
    let mut share = BodyShare { endpoint, memory, max_bytes, limits, is_large: is_announced_large, bytes: 0 };
    loop {
        let deadline = match share.is_large {
            true => (paced_since + PACE_WINDOW).min(began + limits.body_time),
            false => began + limits.small_body_time,
        };
        let chunk = match timeout_at(deadline, payload.next()).await {
            Ok(Some(chunk)) => chunk.map_err(|_| Outcome::Incomplete)?,
            Ok(None) => break,
            Err(_) => return Err(Outcome::Incomplete),
        };
        if let Some(connection) = connection {
            connection.body_progressed();
        }
        paced_bytes += chunk.len();
        if paced_bytes >= MIN_PACE_BYTES {
            (paced_since, paced_bytes) = (Instant::now(), 0);
        }
        let length = received.len() + chunk.len();
        if length > max_bytes {
            return Err(Outcome::TooLarge { limit: max_bytes });
        }
        let capacity = match announced {
            None if received.len() > 0 => step_for(length).min(max_bytes),
            _ => length,
        };
        if !share.grow_to(capacity) {
            let why = "too many bodies at once".into();
            return Err(Outcome::Unavailable { why, retry_after: BODY_RETRY_AFTER, is_verified: false });
        }
        received = received.with(chunk, announced.unwrap_or(capacity));
    }
    if let Some(connection) = connection {
        connection.body_ended();
    }
    Ok(Body { bytes: received.into_bytes(), _share: share })
}

/// Reads what is left of a body that nobody wants, so that the next request can come over the same
/// connection. Says whether it came to its end; a long or slow one does not.
pub(super) async fn discard(request: &HttpRequest, payload: &mut Payload) -> bool {
    let connection = request.conn_data::<Rc<Connection>>();
    if connection.is_some_and(|connection| connection.has_whole_request()) {
        return true;
    }
    if announced_length(request).is_some_and(|length| length > MAX_SMALL_BODY_BYTES) {
        return false;
    }
    let deadline = Instant::now() + DISCARD_TIME;
    let mut discarded = 0;
    while let Ok(next) = timeout_at(deadline, payload.next()).await {
        let Some(chunk) = next else {
            if let Some(connection) = connection {
                connection.body_ended();
            }
            return true;
        };
        let Ok(chunk) = chunk else { return false };
        if let Some(connection) = connection {
            connection.body_progressed();
        }
        discarded += chunk.len();
        if discarded > MAX_SMALL_BODY_BYTES {
            return false;
        }
    }
    false
}

/// The place that is made for a body of unknown length once it has so many bytes. All of it is counted: the
/// kernel may make huge pages of it.
fn step_for(length: usize) -> usize {
    let steps = [4 << 10, 16 << 10, MAX_SMALL_BODY_BYTES, 256 << 10, 1 << 20, 4 << 20];
    steps.into_iter().find(|step| *step >= length).unwrap_or(usize::MAX)
}

/// The share of a body in the memory for all, given back when dropped.
struct BodyShare<'b> {
    endpoint: &'b Endpoint,
    memory: &'b BodyMemory,
    limits: &'b Limits,
    /// The longest body of the endpoint.
    max_bytes: usize,
    is_large: bool,
    bytes: usize,
}

impl BodyShare<'_> {
    /// Takes memory for so many bytes; says whether there is any.
    fn grow_to(&mut self, bytes: usize) -> bool {
        if !self.is_large && bytes > MAX_SMALL_BODY_BYTES {
            self.give_back();
            self.is_large = true;
        }
        let more = bytes - self.bytes;
        let (all, of_endpoint) = self.counts();
        let (max_of_all, max_of_endpoint) = match self.is_large {
            true => {
                let max = self.limits.large_bodies;
                (max, (max / ENDPOINT_SHARE_DIVISOR).max(self.max_bytes))
            }
            false => (self.limits.small_bodies, self.limits.small_bodies / ENDPOINT_SHARE_DIVISOR),
        };
        if !of_endpoint.try_take(more, max_of_endpoint) {
            return false;
        }
        if !all.try_take(more, max_of_all) {
            of_endpoint.give_back(more);
            return false;
        }
        self.bytes = bytes;
        true
    }

    fn give_back(&mut self) {
        let (all, of_endpoint) = self.counts();
        all.give_back(self.bytes);
        of_endpoint.give_back(self.bytes);
        self.bytes = 0;
    }

    fn counts(&self) -> (&ByteCount, &ByteCount) {
        match self.is_large {
            true => (&self.memory.large, &self.endpoint.large_bodies),
            false => (&self.memory.small, &self.endpoint.small_bodies),
        }
    }
}

impl Drop for BodyShare<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The chunks of a body that have arrived: most come in one, which need not be copied.
enum BodyChunks {
    Nothing,
    OneChunk(Bytes),
    Copied(BytesMut),
}

impl BodyChunks {
    fn len(&self) -> usize {
        match self {
            BodyChunks::Nothing => 0,
            BodyChunks::OneChunk(chunk) => chunk.len(),
            BodyChunks::Copied(bytes) => bytes.len(),
        }
    }

    /// Adds a chunk to a body that has so much place. A body that says how long it will be has it all at
    /// once: growing would take up to three times its length.
    fn with(self, chunk: Bytes, capacity: usize) -> BodyChunks {
        let mut bytes = match self {
            BodyChunks::Nothing => return BodyChunks::OneChunk(chunk),
            BodyChunks::OneChunk(first) => {
                let mut bytes = BytesMut::with_capacity(capacity);
                bytes.extend_from_slice(&first);
                bytes
            }
            BodyChunks::Copied(bytes) => bytes,
        };
        if bytes.len() + chunk.len() > bytes.capacity() {
            let mut whole = BytesMut::with_capacity(capacity);
            whole.extend_from_slice(&bytes);
            bytes = whole;
        }
        bytes.extend_from_slice(&chunk);
        BodyChunks::Copied(bytes)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            BodyChunks::Nothing => Bytes::new(),
            BodyChunks::OneChunk(chunk) => chunk,
            BodyChunks::Copied(bytes) => bytes.freeze(),
        }
    }
}

fn is_encoded(request: &HttpRequest) -> bool {
    let values = request.headers().get_all(CONTENT_ENCODING);
    values.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn announced_length(request: &HttpRequest) -> Option<usize> {
    if request.chunked().unwrap_or(false) {
        return None;
    }
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
