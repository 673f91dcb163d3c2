//! The one place where an outcome becomes a status.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER};

use crate::outcome::Outcome;

/// Makes the HTTP response of an outcome.
pub(super) fn answer(outcome: &Outcome) -> HttpResponse {
    let mut response = HttpResponse::build(status(outcome));
    match outcome {
        Outcome::Unavailable { retry_after, .. } => {
            response.insert_header((RETRY_AFTER, retry_after.as_secs().to_string()));
        }
        Outcome::TooMany { retry_after } => {
            response.insert_header((RETRY_AFTER, retry_after.as_secs().max(1).to_string()));
        }
        Outcome::Handshake { origin } => {
            response.insert_header(("WebHook-Allowed-Rate", "*")).insert_header((ALLOW, "POST"));
            if let Ok(origin) = HeaderValue::from_str(origin) {
                response.insert_header((HeaderName::from_static("webhook-allowed-origin"), origin));
            }
        }
        Outcome::WrongMethod => {
            response.insert_header((ALLOW, "POST"));
        }
        // A client that has sent this much, or this little, is not worth waiting for.
        Outcome::TooLarge { .. } | Outcome::Incomplete => {
            response.force_close();
        }
        _ => {}
    }
    match outcome.answer() {
        Some(body) => response.content_type("application/json").body(body),
        None => response.finish(),
    }
}

/// The answer of `/health`, as flux-recv always gave it.
pub(super) fn plain(text: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text)
}

fn status(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::Accepted { .. } | Outcome::Queued { .. } => StatusCode::ACCEPTED,
        Outcome::Forwarded { .. }
        | Outcome::Pong
        | Outcome::Confirmed
        | Outcome::Handshake { .. }
        | Outcome::Ignored { .. }
        | Outcome::Unmatched { .. } => StatusCode::OK,
        Outcome::UnknownPath => StatusCode::NOT_FOUND,
        Outcome::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        Outcome::Refused { .. } => StatusCode::UNAUTHORIZED,
        Outcome::Unreadable { .. } => StatusCode::BAD_REQUEST,
        Outcome::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Outcome::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Outcome::Incomplete => StatusCode::REQUEST_TIMEOUT,
        Outcome::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        Outcome::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}
