//! The `fluxRecvVersion: 1` file: YAML as written → [`Endpoints`] that cannot be wrong.
//!
//! All mistakes of a file are reported together, each with the endpoint, the field and the mend.

mod auth;
mod differences;
mod filter;
mod names;
mod section;
mod selection;
mod suggestion;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use serde_yaml::Value;
use url::Url;

use self::section::Section;
use crate::endpoint::limit::RateLimit;
use crate::endpoint::{Conflict, Endpoint, Endpoints};
use crate::event::Subject;
use crate::filter::Filter;
use crate::flux::selection::Selection;
use crate::provider::{PROVIDERS, Provider};
use crate::verify::auth::Auth;
use crate::verify::key::Key;
use crate::verify::{Credentials, GoogleAccount, Proof};

/// A config that can be served.
pub struct Config {
    /// Flux v1's API, if deliveries are handed to it instead of the Kubernetes API.
    pub api: Option<Url>,
    /// What is served.
    pub endpoints: Endpoints,
    /// Whose word about the address of a sender is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// What the operator should know, though it stops nothing.
    pub warnings: Vec<String>,
    /// What is other than with flux-recv for Flux v1, as far as it concerns this file.
    pub notes: Vec<String>,
}

/// Everything that is wrong with a config.
#[derive(Debug)]
pub struct Mistakes {
    file: PathBuf,
    list: Vec<String>,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (at, mistake) in self.list.iter().enumerate() {
            let line_break = if at == 0 { "" } else { "\n" };
            // One line each, also when a mistake quotes several.
            write!(f, "{line_break}{file}: {}", mistake.replace('\n', " "))?;
        }
        Ok(())
    }
}

/// Below this a key can be guessed from the path, which is its hash.
const STRONG_KEY_BYTES: usize = 20;

/// Reads a config file and the keys that it names.
///
/// # Errors
/// All mistakes at once.
pub fn load(file: &Path) -> Result<Config, Mistakes> {
    let give_up = |mistake: String| Mistakes { file: file.to_owned(), list: vec![mistake] };
    let text = std::fs::read_to_string(file)
        .map_err(|err| give_up(format!("cannot be read: {err}; name another file with --config")))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    parse(&text, folder).map_err(|list| Mistakes { file: file.to_owned(), list })
}

/// The files that a config consists of, whether it is good or not: itself and the keys it names.
pub fn files(file: &Path) -> Vec<PathBuf> {
    let mut files = vec![file.to_owned()];
    let folder = file.parent().unwrap_or(Path::new(""));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let value = serde_yaml::from_str::<Value>(&text).unwrap_or_default();
    let endpoints = value.get("endpoints").and_then(Value::as_sequence).into_iter().flatten();
    for field in endpoints
        .flat_map(|entry| ["keyPath", "acceptKeyPaths", "pathKeyPath"].map(|field| entry.get(field)))
        .flatten()
    {
        let one = field.as_str().into_iter();
        let several = field.as_sequence().into_iter().flatten().filter_map(Value::as_str);
        files.extend(one.chain(several).map(|key_path| key_file(folder, key_path)));
    }
    files
}

/// Reads the text of a config; keys are looked up from `folder`.
fn parse(text: &str, folder: &Path) -> Result<Config, Vec<String>> {
    let value: Value = serde_yaml::from_str(text).map_err(|err| vec![format!("is no YAML: {err}")])?;
    let mut mistakes = Vec::new();
    let config = read(value, folder, &mut mistakes);
    match mistakes.is_empty() {
        true => Ok(config),
        false => Err(mistakes),
    }
}

fn read(value: Value, folder: &Path, mistakes: &mut Vec<String>) -> Config {
    let mut config = Config {
        api: None,
        endpoints: Endpoints::default(),
        trusted_proxies: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
    };
    let Some(mut file) = Section::new(value, String::new(), mistakes) else { return config };
    check_version(&mut file);
    file.drop_if_empty("api");
    config.api = file.text("api").and_then(|api| parse_api(&mut file, &api));
    config.trusted_proxies = trusted_proxies(&mut file);
    let entries = file.list("endpoints").unwrap_or_default();
    if entries.is_empty() {
        file.mistake("endpoints", "lists no endpoint; give at least one with `source` and `keyPath`");
    }
    file.finish(&["fluxRecvVersion", "api", "trustedProxies", "endpoints"]);

    let written: Vec<Option<Entry>> = entries
        .into_iter()
        .enumerate()
        .map(|(at, value)| Entry::read(value, at + 1, folder, mistakes))
        .collect();
    let names = names::assign(&written);
    for (entry, name) in written.into_iter().zip(names) {
        let (Some(entry), Some(name)) = (entry, name) else { continue };
        entry.add_to(name, &mut config, mistakes);
    }
    config.notes = differences::to_flux_v1(&config.endpoints);
    config
}

fn check_version(file: &mut Section<'_>) {
    match file.take("fluxRecvVersion") {
        Some(Value::Number(version)) if version.as_u64() == Some(1) => {}
        Some(other) => {
            let written = serde_yaml::to_string(&other).unwrap_or_default();
            file.mistake(
                "fluxRecvVersion",
                &format!("is `{}`, this flux-recv reads version 1", written.trim()),
            );
        }
        None => file.mistake("fluxRecvVersion", "is missing; write `fluxRecvVersion: 1`"),
    }
}

fn parse_api(file: &mut Section<'_>, api: &str) -> Option<Url> {
    match Url::parse(api) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(url),
        _ => {
            file.mistake(
                "api",
                "is no http(s) URL; it means the API of fluxd (Flux v1), leave it out to ask the Kubernetes API",
            );
            None
        }
    }
}

/// Networks, or single addresses.
fn trusted_proxies(file: &mut Section<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in file.texts("trustedProxies") {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => {
                file.mistake(
                    "trustedProxies",
                    &format!("`{text}` is neither an address nor a network; write it like 10.0.0.0/8"),
                );
            }
        }
    }
    networks
}

/// An entry of `endpoints` whose fields are good one by one.
struct Entry {
    /// `endpoint 2 (nexus.key)`, for messages.
    place: String,
    provider: &'static Provider,
    /// As written.
    key_path: String,
    key_file: PathBuf,
    key: Key,
    accepted: Vec<(String, PathBuf, Key)>,
    name: Option<String>,
    registry_hosts: Vec<String>,
    path_key: Option<Key>,
    path_salt: Option<String>,
    selection: Selection,
    filter: Filter,
    max_body: Option<usize>,
    max_per_minute: Option<u32>,
    google: Option<GoogleAccount>,
    auth: Option<Auth>,
    unsigned: bool,
}

const ENTRY_FIELDS: [&str; 18] = [
    "source",
    "keyPath",
    "acceptKeyPaths",
    "registryHost",
    "gcr",
    "name",
    "namespaces",
    "resources",
    "match",
    "events",
    "refs",
    "images",
    "auth",
    "pathSalt",
    "pathKeyPath",
    "unsigned",
    "maxBody",
    "maxPerMinute",
];

/// All bodies that are read at a time have this much room.
const LONGEST_BODY: usize = 32 << 20;

impl Entry {
    fn read(value: Value, number: usize, folder: &Path, mistakes: &mut Vec<String>) -> Option<Entry> {
        let key_path = value.get("keyPath").and_then(Value::as_str).map(|key_path| format!(" ({key_path})"));
        let place = format!("endpoint {number}{}", key_path.unwrap_or_default());
        let mut entry = Section::new(value, place.clone(), mistakes)?;
        let source = entry.required_text("source");
        let key_path = entry.required_text("keyPath");
        let name = entry.text("name");
        entry.drop_if_empty("registryHost");
        let registry_hosts = entry.texts("registryHost");
        let path_salt = entry.text("pathSalt");
        let path_key_path = entry.text("pathKeyPath");
        let (says_resources, says_auth) = (entry.has("resources"), entry.has("auth"));
        let selection = selection::read(&mut entry);
        let filter = filter::read(&mut entry);
        let auth = auth::read(&mut entry);
        let unsigned = entry.flag("unsigned");
        let max_body = entry.bytes("maxBody", LONGEST_BODY);
        let max_per_minute = entry.count("maxPerMinute");
        let accept_key_paths = entry.texts("acceptKeyPaths");
        let account = entry.take("gcr");
        entry.finish(&ENTRY_FIELDS);
        let provider = source.and_then(|source| find_provider(&mut entry, &source));
        let key = key_path.as_deref().and_then(|key_path| read_key(&mut entry, "keyPath", folder, key_path));
        let path_key = path_key_path
            .and_then(|key_path| read_key(&mut entry, "pathKeyPath", folder, &key_path))
            .map(|(_, key)| key);
        let mut accepted = Vec::new();
        for key_path in accept_key_paths {
            let key = read_key(&mut entry, "acceptKeyPaths", folder, &key_path);
            accepted.extend(key.map(|(file, key)| (key_path, file, key)));
        }
        if let Some(provider) = provider {
            check_proof(&mut entry, provider, says_auth, unsigned, !accepted.is_empty());
            filter::check(&mut entry, provider, &filter);
            if provider.subjects.contains(&Subject::Listed) && !says_resources {
                entry.mistake(
                    "resources",
                    &format!(
                        "is missing; {} does not say what it is about, so list what to ask",
                        provider.name
                    ),
                );
            }
        }
        let google = match (provider.map(|provider| provider.proof), account) {
            (Some(Proof::GoogleIdentity), account) => google_account(account, &place, mistakes),
            (Some(_), Some(_)) => {
                entry.mistake("gcr", "is only for GoogleContainerRegistry; remove it");
                None
            }
            _ => None,
        };
        let (key_file, key) = key?;
        Some(Entry {
            place,
            provider: provider?,
            key_path: key_path?,
            key_file,
            key,
            accepted,
            name,
            registry_hosts,
            path_key,
            path_salt,
            selection,
            filter,
            max_body,
            max_per_minute,
            google,
            auth,
            unsigned,
        })
    }

    fn add_to(self, name: String, config: &mut Config, mistakes: &mut Vec<String>) {
        let Entry {
            place,
            provider,
            key_path,
            key_file,
            key,
            accepted,
            registry_hosts,
            path_key,
            path_salt,
            selection,
            filter,
            max_body,
            max_per_minute,
            google,
            auth,
            unsigned,
            ..
        } = self;
        config.warnings.extend(warnings(&name, provider, &key_file, &key, &registry_hosts, unsigned));
        let salt = path_salt.as_deref().or(registry_hosts.first().map(String::as_str)).unwrap_or_default();
        let digest = path_key.as_ref().unwrap_or(&key).digest(salt);
        let mut key_names: Vec<Arc<str>> = vec![key_path.into()];
        let mut accepted_keys = Vec::new();
        for (written, file, key) in accepted {
            config.warnings.extend(weakness(&name, &file, &key));
            key_names.push(written.into());
            accepted_keys.push(key);
        }
        let credentials = Credentials { key, accepted: accepted_keys, google, auth, unsigned };
        let mut endpoint = Endpoint::new(name, provider, key_file, credentials, digest);
        endpoint.registry_hosts = registry_hosts;
        endpoint.selection = selection;
        endpoint.filter = filter;
        endpoint.key_names = key_names;
        endpoint.max_body = max_body;
        endpoint.limit = max_per_minute.map(RateLimit::new);
        mistakes.extend(config.endpoints.add(endpoint).err().map(|conflict| match conflict {
            Conflict::Path(other) => format!(
                "{place}: keyPath: the key is that of endpoint `{}`, so both would have one path; make a key of its own \
                 with `flux-recv keygen`, or set `pathSalt` on one of them",
                other.name,
            ),
            Conflict::Name(other) => format!(
                "{place}: name: `{}` is the name of the endpoint with key {} too; set `name` on one of them",
                other.name,
                other.key_file.display(),
            ),
        }));
    }
}

/// Whether the ways to prove a delivery fit the sender and each other.
fn check_proof(
    entry: &mut Section<'_>,
    provider: &Provider,
    says_auth: bool,
    unsigned: bool,
    accepts_more_keys: bool,
) {
    let is_chosen = matches!(provider.proof, Proof::Chosen);
    let holds_no_key = match provider.proof {
        Proof::PathOnly | Proof::GoogleIdentity => true,
        Proof::Chosen => unsigned,
        _ => false,
    };
    if accepts_more_keys && holds_no_key {
        entry.mistake(
            "acceptKeyPaths",
            "is only for senders that sign with the key; here it makes only the URL, remove it",
        );
    }
    match (is_chosen, says_auth, unsigned) {
        (false, true, _) => {
            let why = format!("is only for senders that cannot sign, and {} proves itself in its own way; remove it", provider.name);
            entry.mistake("auth", &why);
        }
        (true, true, true) => entry.mistake("unsigned", "contradicts `auth`; remove one of them"),
        (true, false, false) => entry.mistake(
            "auth",
            &format!(
                "is missing; {} cannot sign, so say which header holds the key (`auth: bearer`, `auth: basic`, \
                 `auth: {{header: NAME}}`), or `unsigned: true` to believe whoever knows the URL",
                provider.name,
            ),
        ),
        (false, false, true) if !provider.may_come_unsigned => entry.mistake(
            "unsigned",
            "is only for senders that cannot sign, or could not until lately (BitbucketCloud); remove it",
        ),
        _ => {}
    }
}

fn find_provider(entry: &mut Section<'_>, source: &str) -> Option<&'static Provider> {
    let found = Provider::named(source);
    if found.is_none() {
        let known = PROVIDERS.map(|provider| provider.name);
        let mend = suggestion::mend(source, &known);
        entry.mistake("source", &format!("`{source}` is unknown; {mend}"));
    }
    found
}

/// Keys are relative to the config file. flux-recv for Flux v1 joined absolute paths to the folder
/// as well, so what lies there goes first.
fn key_file(folder: &Path, key_path: &str) -> PathBuf {
    let joined = folder.join(key_path.trim_start_matches('/'));
    if joined.exists() { joined } else { folder.join(key_path) }
}

fn read_key(entry: &mut Section<'_>, field: &str, folder: &Path, key_path: &str) -> Option<(PathBuf, Key)> {
    let file = key_file(folder, key_path);
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(err) => {
            entry.mistake(
                field,
                &format!("cannot read {}: {err}; `flux-recv keygen FILE` makes a key", file.display()),
            );
            return None;
        }
    };
    match Key::new(bytes) {
        Ok(key) => Some((file, key)),
        Err(err) => {
            entry.mistake(field, &format!("{} {err}; `flux-recv keygen FILE` makes a key", file.display()));
            None
        }
    }
}

fn google_account(value: Option<Value>, place: &str, mistakes: &mut Vec<String>) -> Option<GoogleAccount> {
    let place = format!("{place}: gcr");
    let Some(value) = value else {
        mistakes.push(format!(
            "{place}: is missing; set `audience` and `email` of the subscription's token, without them anyone could post here"
        ));
        return None;
    };
    let mut account = Section::new(value, place, mistakes)?;
    let audience = account.required_text("audience");
    let email = account.required_text("email");
    account.finish(&["audience", "email"]);
    Some(GoogleAccount { audience: audience?, email: email? })
}

fn weakness(name: &str, key_file: &Path, key: &Key) -> Option<String> {
    (key.strength() < STRONG_KEY_BYTES).then(|| {
        format!(
            "endpoint {name}: the key in {} has {} bytes; the URL is its hash, so a short key can be guessed from the \
             URL; use {STRONG_KEY_BYTES} or more, as `flux-recv keygen` does",
            key_file.display(),
            key.strength(),
        )
    })
}

fn warnings(
    name: &str,
    provider: &Provider,
    key_file: &Path,
    key: &Key,
    registry_hosts: &[String],
    unsigned: bool,
) -> Vec<String> {
    let file = key_file.display();
    let mut warnings: Vec<String> = weakness(name, key_file, key).into_iter().collect();
    if key.ends_in_newline() {
        warnings.push(format!(
            "endpoint {name}: the key in {file} ends in a line break; at the sender paste the key without it (with it \
             works too)"
        ));
    }
    if provider.needs_registry_host && registry_hosts.is_empty() {
        warnings.push(format!(
            "endpoint {name}: {} does not say where its registry is; without `registryHost` only images written without a \
             host can match",
            provider.name,
        ));
    }
    if unsigned {
        warnings.push(format!(
            "endpoint {name}: unsigned deliveries are accepted; whoever knows the URL is believed"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
