//! What every answer of the details has to pass: `kubectl port-forward` makes them reachable as localhost, and any
//! web page may talk to localhost.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// Headers of every answer.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri \
             'none'; frame-ancestors 'none'",
        ),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Adds the headers that keep browsers from framing, caching and loading from elsewhere.
pub(super) fn add_headers(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
}

/// Whether the `Host` of a request is `localhost` or an address. Any other name may be one that somebody has
/// pointed here, so that pages of that name read this one.
fn is_host_allowed(headers: &HeaderMap) -> bool {
    is_local(host_without_port(text(headers, HOST).unwrap_or_default()))
}

/// The answer to a request that is refused, if it is.
pub(super) fn refusal(headers: &HeaderMap) -> Option<HttpResponse> {
    if !is_host_allowed(headers) {
        return Some(HttpResponse::MisdirectedRequest().body("use localhost or the address\n"));
    }
    is_from_elsewhere(headers)
        .then(|| HttpResponse::Forbidden().body("the request comes from another site\n"))
}

/// Whether a form comes from this very page, and not from one of another site. Without a referrer browsers send the
/// origin `null`; those that do say whether the site is the same.
pub(super) fn is_same_origin(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let host = text(headers, HOST).unwrap_or_default();
    match (text(headers, ORIGIN), text(headers, SEC_FETCH_SITE)) {
        (Some("null"), Some("same-origin")) => true,
        (Some(origin), site) => {
            origin == format!("http://{host}") && site.is_none_or(|site| site == "same-origin")
        }
        (None, _) => false,
    }
}

/// Whether another site's page has made the browser read this. Following a link from there is fine.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let host = text(headers, HOST).unwrap_or_default();
    let is_other_site =
        text(headers, SEC_FETCH_SITE).is_some_and(|site| matches!(site, "cross-site" | "same-site"));
    let is_navigation = text(headers, SEC_FETCH_MODE) == Some("navigate");
    let is_other_origin =
        text(headers, ORIGIN).is_some_and(|origin| origin != "null" && origin != format!("http://{host}"));
    is_other_origin || (is_other_site && !is_navigation)
}

/// <https://www.w3.org/TR/fetch-metadata/>
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn host_without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_rebound_are_refused() {
        for host in
            ["localhost", "localhost:8082", "127.0.0.1:9", "[::1]:8082", "10.1.2.3:8082", "LOCALHOST:1"]
        {
            assert!(is_local(host_without_port(host)), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.nip.io:8082",
            "[evil]:1",
            "flux-recv:8082",
        ] {
            assert!(!is_local(host_without_port(host)), "{host}");
        }
    }
}
