//! Reading a body from someone who has proved nothing yet.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures::StreamExt;

use super::Limits;
use crate::outcome::Outcome;

/// Reads the whole body, byte for byte: decompressing it would break both signatures and limits.
/// The limit holds while reading, whatever Content-Length says.
pub(super) async fn read(request: &HttpRequest, payload: Payload, limits: Limits) -> Result<Bytes, Outcome> {
    if is_encoded(request) {
        return Err(Outcome::Encoded);
    }
    let announced = announced_length(request);
    if announced.is_some_and(|length| length > limits.body) {
        return Err(Outcome::TooLarge { limit: limits.body });
    }
    match tokio::time::timeout(limits.body_time, collect(payload, limits.body)).await {
        Ok(body) => body,
        Err(_) => Err(Outcome::Incomplete),
    }
}

async fn collect(mut payload: Payload, limit: usize) -> Result<Bytes, Outcome> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Outcome::Incomplete)?;
        if body.len() + chunk.len() > limit {
            return Err(Outcome::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
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
