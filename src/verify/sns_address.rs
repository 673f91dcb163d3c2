//! Addresses of Amazon SNS, which certificates and confirmations are fetched from and nothing else is.

use std::sync::LazyLock;

use regex::Regex;
use url::Url;

/// The address, if it is one of SNS itself, over TLS.
pub fn parse(url: &str) -> Option<Url> {
    static HOST_PATTERN: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^sns\.[a-zA-Z0-9-]{3,}\.amazonaws\.com(\.cn)?$").expect("the expression is a constant")
    });
    Url::parse(url).ok().filter(|url| {
        url.scheme() == "https"
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.host_str().is_some_and(|host| HOST_PATTERN.is_match(host))
    })
}
