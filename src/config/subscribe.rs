//! `subscribe`: the publishers that this instance follows, and what it takes from them.

use std::sync::Arc;

use serde_yaml::{Mapping, Value};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::keys::KeyFiles;
use super::section::Section;
use super::{Rules, filter, selection};
use crate::fleet::options::{SubscribedEndpoint, SubscriptionOptions};
use crate::fleet::signature::PublicKey;

/// Publishers that an instance follows. Each is a connection.
const MAX_SUBSCRIPTIONS: usize = 16;

/// Reads the section.
pub(super) fn read(
    list: Vec<Value>,
    files: &mut KeyFiles<'_>,
    rules: Rules,
    mistakes: &mut Vec<String>,
) -> Vec<SubscriptionOptions> {
    let mut subscriptions: Vec<SubscriptionOptions> = Vec::new();
    if list.len() > MAX_SUBSCRIPTIONS {
        mistakes.push(format!("subscribe: lists more than {MAX_SUBSCRIPTIONS} publishers"));
    }
    for (at, value) in list.into_iter().enumerate() {
        let place = format!("subscribe: {}", at + 1);
        let Some(subscription) = subscription(value, place.clone(), files, rules, mistakes) else { continue };
        if subscriptions.iter().any(|other| other.name == subscription.name) {
            mistakes.push(format!(
                "{place}: name: `{}` is the name of another one too; give each its own",
                subscription.name
            ));
        }
        subscriptions.push(subscription);
    }
    subscriptions
}

fn subscription(
    value: Value,
    place: String,
    files: &mut KeyFiles<'_>,
    rules: Rules,
    mistakes: &mut Vec<String>,
) -> Option<SubscriptionOptions> {
    let mut digest = Sha256::new();
    digest.update(serde_yaml::to_string(&value).unwrap_or_default());
    let mut fields = Section::new(value, place, mistakes)?;
    let name = fields.required_text("name");
    let url = fields.required_text("url").and_then(|url| parse_url(&mut fields, &url));
    let token_path = fields.required_text("tokenPath");
    let written_keys = fields.texts("publicKeys");
    if written_keys.is_empty() {
        fields.mistake("publicKeys", "is missing; `flux-recv check` at the publisher prints them");
    }
    let mut public_keys = Vec::new();
    for text in written_keys {
        match PublicKey::parse(&text) {
            Ok(key) => public_keys.push(key),
            Err(err) => fields.mistake("publicKeys", &format!("`{text}` {err}")),
        }
    }
    let ca_path = fields.text("caPath");
    let ca = ca_path.and_then(|path| files.read_file(&mut fields, "caPath", &path));
    digest.update(ca.as_deref().unwrap_or_default());
    let endpoints = match fields.take("endpoints") {
        Some(Value::Mapping(endpoints)) if !endpoints.is_empty() => endpoints,
        _ => {
            fields.mistake(
                "endpoints",
                "is missing; name the publisher's endpoints whose events this instance takes, like `endpoints: {github: {}}`",
            );
            Mapping::new()
        }
    };
    fields.finish();
    let name = name.filter(|name| {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            fields.mistake("name", "has other characters than letters, digits, `-`, `_` and `.`");
        }
        is_name
    })?;
    let endpoints =
        endpoints.into_iter().filter_map(|(key, value)| endpoint(&mut fields, &name, key, value, rules));
    let endpoints: Vec<Arc<SubscribedEndpoint>> = endpoints.map(Arc::new).collect();
    let token_file = files.path(&token_path?);
    Some(SubscriptionOptions {
        name: name.into(),
        url: url?,
        token_file,
        public_keys,
        ca,
        endpoints,
        digest: digest.finalize().into(),
    })
}

fn endpoint(
    fields: &mut Section<'_>,
    subscription: &str,
    key: Value,
    value: Value,
    rules: Rules,
) -> Option<SubscribedEndpoint> {
    let Value::String(endpoint) = key else {
        fields.mistake("endpoints", "has a name that is not a string; put it in quotes");
        return None;
    };
    // `github:` with nothing behind it takes everything.
    let value = if value.is_null() { Value::Mapping(Mapping::new()) } else { value };
    let mut entry = fields.within(&format!("endpoints: {endpoint}"), value)?;
    let selection = selection::read(&mut entry);
    let filter = filter::read(&mut entry);
    entry.finish();
    let name = format!("{subscription}/{endpoint}");
    let selection = match rules.require_opt_in {
        true => {
            let own_namespaces = selection.namespaces.clone();
            selection.with_consent(&name, own_namespaces)
        }
        false => selection,
    };
    Some(SubscribedEndpoint { name: name.into(), endpoint: endpoint.into(), selection, filter })
}

/// The token goes over this connection, so it has to be TLS unless it stays on this machine.
fn parse_url(fields: &mut Section<'_>, text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| url.host().is_some());
    let Some(url) = url else {
        fields.mistake("url", &format!("`{text}` is not a URL; write it like https://flux-recv.example.com"));
        return None;
    };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let fix = match url.scheme() {
        "https" => None,
        "http" if is_loopback => None,
        _ => Some("has to be https, since the token goes over it; http is for loopback only"),
    };
    let has_more = !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some();
    let fix =
        fix.or(has_more.then_some("has a user, a query or a fragment; give the scheme, host and path alone"));
    match fix {
        Some(fix) => {
            fields.mistake("url", fix);
            None
        }
        None => Some(url),
    }
}
