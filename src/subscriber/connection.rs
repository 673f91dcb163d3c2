//! The connection to a publisher, up to its `hello`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ACCEPT, AUTHORIZATION, DATE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::bounded_text::BoundedText;
use crate::fleet::cursor::Cursor;
use crate::fleet::frame::{Frame, FrameError, FrameReader, FrameType};
use crate::fleet::hello::{Hello, SubscribeRefusal};
use crate::fleet::options::SubscriptionOptions;
use crate::fleet::wire::WIRE_VERSION;
use crate::fleet::{NONCE_HEADER, SUBSCRIBE_PATH};

/// A publisher cannot be followed now.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("{0}")]
    Token(String),
    #[error("cannot make an HTTPS client: {0}")]
    Client(String),
    #[error("the publisher cannot be reached: {0}")]
    Unreachable(String),
    #[error("the publisher does not know the token; {0}")]
    Unknown(String),
    #[error("the publisher refuses: {0}")]
    Refused(String),
    #[error("the URL answers with a redirect, which is not followed: set `url` to where the publisher is")]
    Redirect,
    #[error("the URL answers with {0} instead of a stream; is it the publisher's listener for subscribers?")]
    Status(u16),
    #[error(
        "the answer began, and no `hello` came within {} s: a proxy on the way holds streams back; switch its buffering \
         off and its timeouts up for {SUBSCRIBE_PATH}",
        HELLO_TIMEOUT.as_secs()
    )]
    Buffered,
    #[error(
        "the publisher needs wire version {0}, this flux-recv reads {WIRE_VERSION}; upgrade this instance"
    )]
    TooOld(u32),
    #[error("the answer is not to this request: somebody has replayed an older one")]
    Replayed,
    #[error(
        "endpoint {0} is not offered to this subscriber; add it to `endpoints` of the subscriber at the publisher"
    )]
    NotOffered(String),
    #[error(
        "endpoint {endpoint}: a filter reads {field}, which the publisher does not forward; add it to `forward` of its \
         endpoint"
    )]
    NotForwarded { endpoint: String, field: String },
    #[error(
        "the publisher is starting or ending, cannot follow its event log, or this subscriber has too many streams"
    )]
    Busy {
        /// The pause of `Retry-After`.
        retry_after: Option<Duration>,
    },
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("nothing came for {} s", READ_TIMEOUT.as_secs())]
    Silent,
    #[error("the stream has ended")]
    Ended,
    #[error("the journal cannot be written")]
    NotDurable,
}

impl SubscribeError {
    /// Whether this is how streams end: the publisher restarts, or a proxy limits their age.
    pub(super) fn is_end_of_stream(&self) -> bool {
        matches!(self, SubscribeError::Ended | SubscribeError::Busy { .. })
    }

    /// Returns the pause of the publisher's `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            SubscribeError::Busy { retry_after } => *retry_after,
            _ => None,
        }
    }
}

/// A stream after its `hello`.
pub struct Connected {
    pub hello: Hello,
    pub(super) cursor: Cursor,
    pub(super) frames: FrameStream,
}

/// Frames as they arrive.
pub(super) struct FrameStream {
    response: Response,
    reader: FrameReader,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer may take to begin, and its first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Three heartbeats.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// Bytes of a token file.
const MAX_TOKEN_BYTES: u64 = 8 << 10;

/// Clocks that differ by more make tokens look expired.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Connects to a publisher, and reads its `hello`.
///
/// # Errors
/// Why it cannot be followed, for people.
pub async fn connect(
    options: &SubscriptionOptions,
    cursor: Option<Cursor>,
) -> Result<Connected, SubscribeError> {
    let token = token(options)?;
    let nonce = format!("{:032x}", fastrand::u128(..));
    let path = format!("{}{SUBSCRIBE_PATH}", options.url.path().trim_end_matches('/'));
    let mut url = options.url.clone();
    url.set_path(&path);
    let mut request = client(options)?
        .get(url)
        .header(ACCEPT, "text/event-stream")
        .header(AUTHORIZATION, format!("Bearer {}", *token))
        .header(NONCE_HEADER, &nonce);
    if let Some(cursor) = cursor {
        request = request.header("last-event-id", cursor.to_string());
    }
    let answered = tokio::time::timeout(CONNECT_TIMEOUT + HELLO_TIMEOUT, request.send()).await;
    let response = answered
        .map_err(|_| SubscribeError::Unreachable("no answer in time".to_owned()))?
        .map_err(|err| SubscribeError::Unreachable(with_cause(&err.without_url())))?;
    let response = accepted(response, &token).await?;
    let mut frames = FrameStream { response, reader: FrameReader::default() };
    let first =
        tokio::time::timeout(HELLO_TIMEOUT, frames.next()).await.map_err(|_| SubscribeError::Buffered)??;
    if first.frame_type != FrameType::Hello {
        return Err(FrameError::Format.into());
    }
    let json = first.verified(&options.public_keys)?;
    let hello: Hello = serde_json::from_str(json).map_err(|_| FrameError::Format)?;
    if hello.nonce != nonce {
        return Err(SubscribeError::Replayed);
    }
    if hello.wire_version > WIRE_VERSION {
        return Err(SubscribeError::TooOld(hello.wire_version));
    }
    Ok(Connected { hello, cursor: first.cursor, frames })
}

impl FrameStream {
    /// Waits for the next frame.
    pub(super) async fn next(&mut self) -> Result<Frame, SubscribeError> {
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return Ok(frame);
            }
            let chunk = self.response.chunk().await.map_err(|_| SubscribeError::Ended)?;
            self.reader.push(&chunk.ok_or(SubscribeError::Ended)?);
        }
    }

    /// Returns a frame that has arrived already.
    pub(super) fn arrived(&mut self) -> Result<Option<Frame>, SubscribeError> {
        Ok(self.reader.next_frame()?)
    }
}

fn token(options: &SubscriptionOptions) -> Result<Zeroizing<String>, SubscribeError> {
    let file = options.token_file.display();
    let unreadable = |why: String| SubscribeError::Token(format!("cannot read the token in {file}: {why}"));
    let length = std::fs::metadata(&options.token_file).map_err(|err| unreadable(err.to_string()))?.len();
    if length > MAX_TOKEN_BYTES {
        return Err(unreadable(format!("it has more than {MAX_TOKEN_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(&options.token_file).map_err(|err| unreadable(err.to_string()))?;
    let token = Zeroizing::new(text.trim().to_owned());
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then_some(token).ok_or_else(|| unreadable("it is empty or not on one line".to_owned()))
}

fn client(options: &SubscriptionOptions) -> Result<Client, SubscribeError> {
    let failed = |err: reqwest::Error| SubscribeError::Client(with_cause(&err));
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("flux-recv/", env!("CARGO_PKG_VERSION")));
    if options.url.scheme() == "http" {
        // On loopback: a proxy would get the token in clear.
        builder = builder.no_proxy();
    }
    if let Some(ca) = &options.ca {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(ca).map_err(failed)?);
    }
    builder.build().map_err(failed)
}

async fn accepted(response: Response, token: &str) -> Result<Response, SubscribeError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::UNAUTHORIZED => Err(SubscribeError::Unknown(hint(token, response.headers()))),
        StatusCode::FORBIDDEN => {
            let clock = clock_hint(response.headers()).unwrap_or_default();
            let refusal = tokio::time::timeout(HELLO_TIMEOUT, refusal(response)).await.ok().flatten();
            let reason = refusal
                .map_or_else(|| "without a reason".into(), |refusal| BoundedText::from(refusal.reason));
            Err(SubscribeError::Refused(format!("{reason}{clock}")))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let seconds =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(SubscribeError::Busy { retry_after: seconds.map(Duration::from_secs) })
        }
        status if status.is_redirection() => Err(SubscribeError::Redirect),
        status => Err(SubscribeError::Status(status.as_u16())),
    }
}

/// Reads why somebody who is known is refused. Nothing is signed yet, so little of it is read.
async fn refusal(mut response: Response) -> Option<SubscribeRefusal> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_REFUSAL_BYTES {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

/// Bytes of a refusal.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

/// What is wrong with a token, as far as it can be told from here.
fn hint(token: &str, headers: &HeaderMap) -> String {
    let Some(claims) = unverified_claims(token) else {
        return "compare the key with `keyPath` of this subscriber at the publisher".to_owned();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if claims.get("exp").and_then(Value::as_u64).is_some_and(|expires| expires < now) {
        return "the token has expired; is its file still renewed?".to_owned();
    }
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or("no issuer");
    let audience = claims.get("aud").map(ToString::to_string).unwrap_or_default();
    format!(
        "it is of {issuer} for {audience}: compare `issuerURL`, `audience` and the keys in `jwksPath` of this subscriber at the \
         publisher{}",
        clock_hint(headers).unwrap_or_default()
    )
}

fn unverified_claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

fn clock_hint(headers: &HeaderMap) -> Option<String> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let there = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let difference = there.duration_since(jiff::Timestamp::now()).unsigned_abs();
    (difference > MAX_CLOCK_DIFFERENCE)
        .then(|| format!("; the clocks of both sides differ by {} s", difference.as_secs()))
}

/// An error with its innermost cause, which says what the outer ones do not.
fn with_cause(err: &dyn std::error::Error) -> String {
    let mut innermost = err;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    match (err.to_string(), innermost.to_string()) {
        (outer, inner) if outer == inner => outer,
        (outer, inner) => format!("{outer}: {inner}"),
    }
}
