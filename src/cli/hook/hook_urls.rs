//! Recognises webhooks that post to an endpoint, by host and hook path.

use std::sync::Arc;

use url::Url;

use crate::config::Config;
use crate::endpoint::{Endpoint, HOOK_PREFIX};

/// The hook URLs of an endpoint, present and former.
pub(super) struct HookUrls {
    base: Url,
    endpoint: Arc<Endpoint>,
    others: Vec<Arc<Endpoint>>,
}

/// Where a webhook posts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WebhookTarget {
    /// The endpoint's hook URL.
    Present,
    /// The endpoint, at its alias.
    Alias,
    /// The endpoint, by a path or a scheme that it should no longer use.
    Former,
    /// The host and a path of the endpoint, but another port or another path before it.
    OtherPlace,
    /// Another endpoint of the config.
    OtherEndpoint(String),
    /// A hook path at the receiver's host that belongs to no endpoint of the config.
    UnknownPath,
    /// Something else.
    Elsewhere,
}

impl HookUrls {
    pub(super) fn new(base: Url, endpoint: Arc<Endpoint>, config: &Config) -> HookUrls {
        let others =
            config.endpoints.iter().filter(|other| other.id() != endpoint.id()).cloned().collect::<Vec<_>>();
        HookUrls { base, endpoint, others }
    }

    /// The endpoint's hook URL. A secret.
    pub(super) fn present(&self) -> String {
        format!("{}{}", self.base.as_str().trim_end_matches('/'), self.endpoint.path())
    }

    pub(super) fn classify(&self, url: &str) -> WebhookTarget {
        let Ok(parsed) = Url::parse(url) else { return WebhookTarget::Elsewhere };
        if let Some(target) = self.at_alias(&parsed) {
            return target;
        }
        let digest = parsed.path().rsplit_once(HOOK_PREFIX).map(|(_, digest)| digest.trim_end_matches('/'));
        let Some(digest) = digest.filter(|_| parsed.host() == self.base.host()) else {
            return WebhookTarget::Elsewhere;
        };
        // The present path of another endpoint may be made of a key that this one accepts as well.
        let is_present_of = |other: &&Arc<Endpoint>| other.digest() == digest;
        if let Some(other) = self.others.iter().find(is_present_of)
            && self.endpoint.digest() != digest
        {
            return WebhookTarget::OtherEndpoint(other.name.to_string());
        }
        if self.endpoint.has_or_had_digest(digest) {
            return match url {
                url if url == self.present() => WebhookTarget::Present,
                _ if self.is_same_place(&parsed) => WebhookTarget::Former,
                _ => WebhookTarget::OtherPlace,
            };
        }
        match self.others.iter().find(|other| other.has_or_had_digest(digest)) {
            Some(other) => WebhookTarget::OtherEndpoint(other.name.to_string()),
            None => WebhookTarget::UnknownPath,
        }
    }

    /// What a URL with the alias of an endpoint stands for.
    fn at_alias(&self, url: &Url) -> Option<WebhookTarget> {
        let path = url.path().strip_prefix(self.base.path().trim_end_matches('/'))?;
        if url.host() != self.base.host() || url.port() != self.base.port() {
            return None;
        }
        let has_it = |endpoint: &&Arc<Endpoint>| endpoint.alias.as_deref() == Some(path);
        if has_it(&&self.endpoint) {
            return Some(WebhookTarget::Alias);
        }
        let other = self.others.iter().find(has_it)?;
        Some(WebhookTarget::OtherEndpoint(other.name.to_string()))
    }

    /// Whether two URLs differ in nothing but the scheme and the hook path. The default ports are one: a
    /// webhook that was http may be https by now.
    fn is_same_place(&self, other: &Url) -> bool {
        let before = |url: &Url| {
            let path = url.path();
            path.rsplit_once(HOOK_PREFIX).map_or(path, |(before, _)| before).trim_end_matches('/').to_owned()
        };
        let base_path = self.base.path().trim_end_matches('/');
        other.port() == self.base.port() && before(other) == base_path
    }

    /// Whether the webhook carries a URL of the endpoint.
    pub(super) fn is_ours(&self, url: &str) -> bool {
        matches!(self.classify(url), WebhookTarget::Present | WebhookTarget::Alias | WebhookTarget::Former)
    }

    /// The digests of all endpoints, which no message may repeat.
    pub(super) fn digests(&self) -> Vec<String> {
        self.others.iter().chain([&self.endpoint]).map(|endpoint| endpoint.digest().to_owned()).collect()
    }
}

/// Characters of a digest that are shown: enough to compare with `flux-recv urls`, too few to post there.
const SHOWN_DIGEST_CHARS: usize = 8;

/// Shows a URL without what is secret in it.
pub(super) fn masked(url: &str) -> String {
    let Ok(parsed) = Url::parse(url) else { return "…".to_owned() };
    let host = parsed.host_str().unwrap_or_default();
    let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let path = match parsed.path().rsplit_once(HOOK_PREFIX).filter(|(_, digest)| is_digest(digest)) {
        Some((prefix, digest)) => format!("{prefix}{HOOK_PREFIX}{}…", &digest[..SHOWN_DIGEST_CHARS]),
        None if parsed.path() == "/" && parsed.query().is_none() => String::new(),
        None => "/…".to_owned(),
    };
    format!("{}://{host}{port}{path}", parsed.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Rules, load};

    #[test]
    fn a_webhook_at_the_alias_is_the_endpoints() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.key"), "a-key-that-is-long-enough-to-be-one").expect("a key");
        std::fs::write(folder.path().join("b.key"), "b-key-that-is-long-enough-to-be-one").expect("a key");
        let text = "fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: a.key, alias: /webhook}
- {source: GitHub, keyPath: b.key, alias: /other}
";
        let file = folder.path().join("fluxrecv.yaml");
        std::fs::write(&file, text).expect("a config");
        let config = load(&file, Rules::default()).config.expect("a config");
        let endpoint = config.endpoints.named("a").expect("an endpoint").clone();
        let base = Url::parse("https://recv.example.com/flux").expect("a URL");
        let urls = HookUrls::new(base, endpoint, &config);
        for (url, target) in [
            ("https://recv.example.com/flux/webhook", WebhookTarget::Alias),
            ("https://recv.example.com/flux/other", WebhookTarget::OtherEndpoint("b".to_owned())),
            ("https://recv.example.com/webhook", WebhookTarget::Elsewhere),
            ("https://chat.example.com/flux/webhook", WebhookTarget::Elsewhere),
        ] {
            assert_eq!(urls.classify(url), target, "{url}");
        }
    }

    #[test]
    fn urls_are_shown_without_their_secrets() {
        let digest = "0123456789abcdef".repeat(4);
        for (url, shown) in [
            (&*format!("https://recv.example.com/hook/{digest}"), "https://recv.example.com/hook/01234567…"),
            (
                &format!("https://example.com:8443/x/hook/{digest}?a=b"),
                "https://example.com:8443/x/hook/01234567…",
            ),
            ("https://chat.example.com/hook/SECRET", "https://chat.example.com/…"),
            ("https://user:password@chat.example.com/services/T0/SECRET", "https://chat.example.com/…"),
            ("https://ci.example.com/?token=SECRET", "https://ci.example.com/…"),
            ("https://ci.example.com", "https://ci.example.com"),
            ("not a URL", "…"),
        ] {
            assert_eq!(masked(url), shown);
        }
    }
}
