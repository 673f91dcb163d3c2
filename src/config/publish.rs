//! `publish`: who may subscribe to what.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_yaml::Value;
use zeroize::Zeroizing;

use super::keys::KeyFiles;
use super::section::Section;
use super::{keys, nats, suggestion};
use crate::endpoint::EndpointOrigin;
use crate::endpoint::registry::Endpoints;
use crate::fleet::options::{
    AutoreconcilerOptions, GrantedEndpoints, PublisherOptions, Retention, SubscriberAuthentication,
    SubscriberOptions, TokenRequirement,
};
use crate::fleet::signature::SigningKey;
use crate::verify::pinned_token::PinnedKeys;

/// Subscribers of a publisher. Ten thousand streams fit into one process.
const MAX_SUBSCRIBERS: usize = 10_000;

/// The longest age of an entry, and the longest stagger.
const MAX_RETENTION_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const MAX_STAGGER: Duration = Duration::from_secs(60 * 60);

/// Limits of `publish.retention`.
const MAX_LOG_BYTES: usize = 16 << 30;

/// Reads the section. The names of endpoints are checked by [`check_names`], once there are any.
pub(super) fn read(
    value: Value,
    files: &mut KeyFiles<'_>,
    warnings: &mut Vec<String>,
    mistakes: &mut Vec<String>,
) -> Option<PublisherOptions> {
    let mut section = Section::new(value, "publish".to_owned(), mistakes)?;
    let retention =
        section.take("retention").map_or_else(Retention::default, |value| retention(&mut section, value));
    let stagger = section.duration("stagger", MAX_STAGGER).unwrap_or_default();
    let signing_keys = signing_keys(&mut section, files);
    let listed = section.filled_list("subscribers");
    let pattern = section.text("subscribersPath");
    let autoreconciler = section.take("autoreconciler");
    let has_clients = autoreconciler.is_some();
    let autoreconciler =
        autoreconciler.and_then(|value| clients(section.within("autoreconciler", value)?, files, warnings));
    let nats = section.take("nats").and_then(|value| nats::read(section.within("nats", value)?, files));
    if listed.is_empty() && pattern.is_none() && !has_clients {
        section.mistake(
            "subscribers",
            "is missing; list who may subscribe, each with `name`, `endpoints` and `keyPath` or `oidc`",
        );
    }
    let mut entries: Vec<(String, Value)> = listed
        .into_iter()
        .enumerate()
        .map(|(at, value)| (format!("publish: subscribers: {}", at + 1), value))
        .collect();
    if let Some(pattern) = pattern {
        entries.extend(from_files(&mut section, files, &pattern));
    }
    if entries.len() > MAX_SUBSCRIBERS {
        section.mistake(
            "subscribers",
            &format!("lists more than {MAX_SUBSCRIBERS} subscribers; start another publisher"),
        );
    }
    section.finish();
    let mut subscribers: Vec<SubscriberOptions> = Vec::new();
    for (place, value) in entries {
        let Some(subscriber) = subscriber(value, place.clone(), files, warnings, mistakes) else { continue };
        if subscribers.iter().any(|other| other.name == subscriber.name) {
            mistakes.push(format!(
                "{place}: name: `{}` is the name of another subscriber too; give each its own",
                subscriber.name
            ));
        }
        subscribers.push(subscriber);
    }
    same_keys(&subscribers, autoreconciler.as_ref(), mistakes);
    Some(PublisherOptions { retention, signing_keys, stagger, subscribers, autoreconciler, nats })
}

/// Reports names of endpoints that the config does not have, and a secret of clients that opens an endpoint.
pub(super) fn check_names(options: &PublisherOptions, endpoints: &Endpoints, mistakes: &mut Vec<String>) {
    let known: Vec<&str> = endpoints
        .iter()
        .filter(|endpoint| endpoint.origin == EndpointOrigin::Config)
        .map(|endpoint| &*endpoint.name)
        .collect();
    let of_subscribers =
        options.subscribers.iter().map(|one| (format!("subscriber {}", one.name), &one.endpoints));
    let of_clients = options.autoreconciler.iter().map(|one| ("autoreconciler".to_owned(), &one.endpoints));
    if let Some(AutoreconcilerOptions { secret, .. }) = &options.autoreconciler {
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.has_key(secret)) {
            mistakes.push(format!(
                "publish: autoreconciler: secretKeyPath: the secret is the key of endpoint `{}`, and stands in the URLs \
                 of clients; make another key for the endpoint with `flux-recv keygen`",
                endpoint.name
            ));
        }
    }
    for (place, granted) in of_subscribers.chain(of_clients) {
        let GrantedEndpoints::Named(names) = granted else { continue };
        for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
            let fix = suggestion::fix(name, &known);
            mistakes.push(format!(
                "publish: {place}: endpoints: `{name}` is not an endpoint of this config; {fix}"
            ));
        }
    }
}

fn retention(section: &mut Section<'_>, value: Value) -> Retention {
    let default = Retention::default();
    let Some(mut fields) = section.within("retention", value) else { return default };
    let retention = Retention {
        max_entries: fields.count("entries").map_or(default.max_entries, u64::from),
        max_bytes: fields.bytes("bytes", MAX_LOG_BYTES).map_or(default.max_bytes, |bytes| bytes as u64),
        max_age: fields.duration("age", MAX_RETENTION_AGE).unwrap_or(default.max_age),
    };
    fields.finish();
    retention
}

fn signing_keys(section: &mut Section<'_>, files: &mut KeyFiles<'_>) -> Vec<SigningKey> {
    let paths = section.texts("signingKeyPaths");
    if paths.is_empty() {
        section
            .mistake("signingKeyPaths", "is missing; `flux-recv keygen --ed25519 FILE` makes a signing key");
    }
    let mut signing_keys = Vec::new();
    for path in paths {
        let Some(pem) = files.read_file(section, "signingKeyPaths", &path) else { continue };
        match SigningKey::from_pem(&Zeroizing::new(pem)) {
            Ok(key) => signing_keys.push(key),
            Err(err) => section.mistake(
                "signingKeyPaths",
                &format!("{path} {err}; `flux-recv keygen --ed25519 FILE` makes one"),
            ),
        }
    }
    signing_keys
}

/// The subscribers in files, each file one mapping.
fn from_files(section: &mut Section<'_>, files: &mut KeyFiles<'_>, pattern: &str) -> Vec<(String, Value)> {
    let mut entries = Vec::new();
    match files.matching(pattern) {
        Ok(found) if found.is_empty() => {
            section.mistake("subscribersPath", &format!("`{pattern}` matches no file"));
        }
        Ok(found) => {
            for path in found {
                let Some(bytes) = files.read_file(section, "subscribersPath", &path) else { continue };
                match serde_yaml::from_slice::<Value>(&bytes) {
                    Ok(value) => entries.push((format!("publish: {path}"), value)),
                    Err(err) => {
                        section.mistake("subscribersPath", &format!("{path} is not valid YAML: {err}"))
                    }
                }
            }
        }
        Err(why) => section.mistake("subscribersPath", &why),
    }
    entries
}

fn subscriber(
    value: Value,
    place: String,
    files: &mut KeyFiles<'_>,
    warnings: &mut Vec<String>,
    mistakes: &mut Vec<String>,
) -> Option<SubscriberOptions> {
    let mut fields = Section::new(value, place, mistakes)?;
    let name = fields.required_text("name");
    let endpoints = granted(&mut fields);
    let key_path = fields.text("keyPath");
    let oidc = fields.take("oidc");
    fields.finish();
    let authentication = match (key_path, oidc) {
        (Some(key_path), None) => {
            let (file, key) = files.read(&mut fields, "keyPath", &key_path)?;
            warnings.extend(keys::weakness(
                &format!("of subscriber {}", name.as_deref().unwrap_or("?")),
                &file,
                &key,
            ));
            SubscriberAuthentication::Key(Zeroizing::new(key.without_newline().to_vec()))
        }
        (None, Some(oidc)) => SubscriberAuthentication::Token(token(&mut fields, files, oidc)?),
        (None, None) => {
            fields.mistake("keyPath", "is missing; give `keyPath`, or `oidc` for a token of its cluster");
            return None;
        }
        (Some(_), Some(_)) => {
            fields.mistake("oidc", "stands beside `keyPath`; a subscriber authenticates in one way");
            return None;
        }
    };
    Some(SubscriberOptions { name: name?.into(), endpoints: endpoints?, authentication })
}

/// Reads which endpoints a subscriber gets. They are always written out.
fn granted(fields: &mut Section<'_>) -> Option<GrantedEndpoints> {
    let endpoints = fields.texts("endpoints");
    if endpoints.is_empty() {
        fields.mistake(
            "endpoints",
            "is missing; list the endpoints that it gets, or write '*' for all of them",
        );
    }
    match endpoints.iter().any(|name| name == "*") {
        true if endpoints.len() > 1 => {
            fields.mistake("endpoints", "lists '*' beside names; write one or the other");
            None
        }
        true => Some(GrantedEndpoints::All),
        false => Some(GrantedEndpoints::Named(endpoints)),
    }
}

/// Reads what clients of flux-webhook-autoreconciler get.
fn clients(
    mut fields: Section<'_>,
    files: &mut KeyFiles<'_>,
    warnings: &mut Vec<String>,
) -> Option<AutoreconcilerOptions> {
    let endpoints = granted(&mut fields);
    let secret_path = fields.required_text("secretKeyPath");
    fields.finish();
    let (file, secret) = files.read(&mut fields, "secretKeyPath", &secret_path?)?;
    if secret.strength() < keys::STRONG_KEY_BYTES {
        warnings.push(format!(
            "publish: autoreconciler: the secret in {} has {} bytes; it can be guessed, and whoever does reads which images \
             are published",
            file.display(),
            secret.strength()
        ));
    }
    let secret = Zeroizing::new(secret.without_newline().to_vec());
    Some(AutoreconcilerOptions { secret, endpoints: endpoints? })
}

fn token(fields: &mut Section<'_>, files: &mut KeyFiles<'_>, value: Value) -> Option<TokenRequirement> {
    let mut fields = fields.within("oidc", value)?;
    let issuer = fields.required_text("issuerURL");
    let audience = fields.required_text("audience");
    let subject = fields.text("subject");
    let mut claims = BTreeMap::new();
    match fields.take("claims") {
        None => {}
        Some(Value::Mapping(written)) => {
            for (name, value) in written {
                match (name, value) {
                    (Value::String(name), Value::String(value)) => drop(claims.insert(name, value)),
                    _ => fields.mistake("claims", "has a value that is not a string; put it in quotes"),
                }
            }
        }
        Some(_) => fields.mistake("claims", "is not a mapping; write `claim: value` lines"),
    }
    claims.extend(subject.map(|subject| ("sub".to_owned(), subject)));
    if claims.is_empty() {
        fields.mistake(
            "subject",
            "is missing; name the ServiceAccount, like system:serviceaccount:flux-system:flux-recv, since every Pod of the \
             cluster can get a token",
        );
    }
    let jwks_path = fields.required_text("jwksPath");
    fields.finish();
    let jwks = jwks_path.and_then(|path| {
        let jwks = files.read_file(&mut fields, "jwksPath", &path)?;
        if PinnedKeys::from_json(&jwks).is_ok() {
            return Some(jwks);
        }
        fields.mistake(
            "jwksPath",
            &format!("{path} is not a JSON Web Key Set; `kubectl get --raw /openid/v1/jwks` in the cluster prints it"),
        );
        None
    });
    Some(TokenRequirement { issuer: issuer?, audience: audience?, claims, jwks: jwks? })
}

/// Two subscribers with one key, or for one token, could not be told apart; and the secret of clients stands in
/// URLs, so it may open nothing else.
fn same_keys(
    subscribers: &[SubscriberOptions],
    clients: Option<&AutoreconcilerOptions>,
    mistakes: &mut Vec<String>,
) {
    let mut tokens = BTreeMap::new();
    for subscriber in subscribers {
        let SubscriberAuthentication::Token(TokenRequirement { issuer, audience, claims, jwks }) =
            &subscriber.authentication
        else {
            continue;
        };
        if let Some(other) = tokens.insert((issuer, audience, claims, jwks), &subscriber.name) {
            let place = format!("publish: subscriber {}", subscriber.name);
            mistakes.push(format!("{place}: oidc: is the same as that of subscriber `{other}`; give it another audience or subject"));
        }
    }
    let mut seen: BTreeMap<&[u8], &str> = BTreeMap::new();
    for subscriber in subscribers {
        let SubscriberAuthentication::Key(key) = &subscriber.authentication else { continue };
        if clients.is_some_and(|clients| clients.secret == *key) {
            mistakes.push(format!(
                "publish: autoreconciler: secretKeyPath: the secret is the key of subscriber `{}`; give that one its own \
                 with `flux-recv keygen`",
                subscriber.name
            ));
        }
        if let Some(other) = seen.insert(key, &subscriber.name) {
            let place = format!("publish: subscriber {}", subscriber.name);
            mistakes.push(format!("{place}: keyPath: the key is that of subscriber `{other}`; make one for each with `flux-recv keygen`"));
        }
    }
}
