//! Reading a body from someone who has proved nothing yet.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;
use crate::outcome::Outcome;

/// A body, and its share of the memory that all bodies together may take.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// The memory that bodies may take together, in units of [`SHARE`].
pub(super) fn shares(limits: &Limits) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits.bodies_in_flight / SHARE))
}

/// Memory is shared out in pieces of this many bytes.
const SHARE: usize = 4096;

/// When there may be memory again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Reads the whole body, byte for byte: decompressing it would break both signatures and limits.
/// The limits hold while reading, whatever Content-Length says.
pub(super) async fn read(
    request: &HttpRequest,
    payload: Payload,
    limits: Limits,
    shares: &Arc<Semaphore>,
) -> Result<Body, Outcome> {
    if is_encoded(request) {
        return Err(Outcome::Encoded);
    }
    let announced = announced_length(request);
    if announced.is_some_and(|length| length > limits.body) {
        return Err(Outcome::TooLarge { limit: limits.body });
    }
    match tokio::time::timeout(limits.body_time, collect(payload, limits.body, shares)).await {
        Ok(body) => body,
        Err(_) => Err(Outcome::Incomplete),
    }
}

async fn collect(mut payload: Payload, limit: usize, shares: &Arc<Semaphore>) -> Result<Body, Outcome> {
    let mut read = Read::Nothing;
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Outcome::Incomplete)?;
        let length = read.len() + chunk.len();
        if length > limit {
            return Err(Outcome::TooLarge { limit });
        }
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(length.div_ceil(SHARE).saturating_sub(held)).unwrap_or(u32::MAX);
        if missing > 0 {
            let more =
                Arc::clone(shares).try_acquire_many_owned(missing).map_err(|_| Outcome::Unavailable {
                    why: "too many bodies at once".to_owned(),
                    retry_after: RETRY_AFTER,
                    proved: false,
                })?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
        read = read.with(chunk);
    }
    Ok(Body { bytes: read.into_bytes(), _share: share })
}

/// What has been read of a body: most come in one chunk, which need not be copied.
enum Read {
    Nothing,
    OneChunk(Bytes),
    Copied(BytesMut),
}

impl Read {
    fn len(&self) -> usize {
        match self {
            Read::Nothing => 0,
            Read::OneChunk(chunk) => chunk.len(),
            Read::Copied(bytes) => bytes.len(),
        }
    }

    fn with(self, chunk: Bytes) -> Read {
        let mut bytes = match self {
            Read::Nothing => return Read::OneChunk(chunk),
            Read::OneChunk(first) => BytesMut::from(first),
            Read::Copied(bytes) => bytes,
        };
        bytes.extend_from_slice(&chunk);
        Read::Copied(bytes)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Read::Nothing => Bytes::new(),
            Read::OneChunk(chunk) => chunk,
            Read::Copied(bytes) => bytes.freeze(),
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
