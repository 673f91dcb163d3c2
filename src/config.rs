//! The `fluxRecvVersion: 1` file: YAML as written → [`Endpoints`] that can be served.
//!
//! All mistakes of a file are reported together, each with the endpoint, the field and the fix.

mod alias;
mod auth;
mod authentication;
mod differences;
mod entry;
mod expression;
mod files;
mod filter;
mod keys;
mod names;
mod nats;
mod oidc;
mod publish;
mod section;
mod selection;
mod subscribe;
pub mod suggestion;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_yaml::Value;
use url::Url;

use self::entry::EndpointEntry;
use self::files::FileReader;
pub use self::files::content_digest;
use self::keys::KeyFiles;
use self::section::Section;
use crate::endpoint::registry::Endpoints;
use crate::expression::LINE_PREFIX;
use crate::fleet::options::{PublisherOptions, SubscriptionOptions};
use crate::flux::needs::InventoryNeeds;

/// The JSON Schema (draft-07) of the config file: its shape, without what only the files beside it can tell.
pub const SCHEMA: &str = include_str!("config/schema.json");

/// A config that can be served.
pub struct Config {
    /// The API of Flux v1, if events are forwarded to it.
    pub api: Option<Url>,
    pub endpoints: Endpoints,
    /// Proxies whose `X-Forwarded-For` header is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may subscribe to what, if this instance is a publisher.
    pub publish: Option<PublisherOptions>,
    /// The publishers that this instance follows.
    pub subscribe: Vec<SubscriptionOptions>,
    /// Problems that stop nothing.
    pub warnings: Vec<String>,
    /// How serving differs from flux-recv for Flux v1, as far as it concerns this file.
    pub notes: Vec<String>,
    /// Key files that are not there, where that is allowed.
    pub missing_keys: Vec<PathBuf>,
}

impl Config {
    /// Returns what has to be known of the cluster so that deliveries and events of publishers can be matched.
    pub fn needs(&self) -> InventoryNeeds {
        let subscribed = self.subscribe.iter().flat_map(|subscription| &subscription.endpoints);
        let endpoints = self.endpoints.iter().map(|endpoint| &endpoint.selection);
        InventoryNeeds::from_selections(endpoints.chain(subscribed.map(|endpoint| &endpoint.selection)))
    }
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
            // One line each, also when a mistake quotes several; but for what is shown as it is written.
            let mut parts = mistake.split(LINE_PREFIX);
            let said = parts.next().unwrap_or_default();
            write!(f, "{line_break}{file}: {}", said.replace('\n', " "))?;
            parts.try_for_each(|shown| write!(f, "{LINE_PREFIX}{shown}"))?;
        }
        Ok(())
    }
}

/// Options of the command line that hold for every endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Whether objects outside of an endpoint's own namespaces have to consent.
    pub require_opt_in: bool,
    /// Whether Receivers are served, so that the config need not list endpoints.
    pub serves_receivers: bool,
    /// Whether key files may be missing, as where a config is checked without them.
    pub allows_missing_keys: bool,
}

/// A config as it was loaded, and the files that were read for it.
pub struct LoadedConfig {
    /// The config, or all mistakes at once.
    pub config: Result<Config, Mistakes>,
    /// The config file and the key files that it names, whether they could be read or not.
    pub files: Vec<PathBuf>,
    /// The content that was read; see [`content_digest`].
    pub digest: [u8; 32],
}

/// Reads a config file and the keys that it names.
pub fn load(file: &Path, rules: Rules) -> LoadedConfig {
    let mut reader = FileReader::default();
    let config = match reader.read(file).and_then(text) {
        Ok(text) => {
            let folder = file.parent().unwrap_or(Path::new(""));
            parse(&text, KeyFiles::new(folder, &mut reader, rules.allows_missing_keys), rules)
        }
        Err(err) => Err(vec![format!("cannot be read: {err}; name another file with --config")]),
    };
    let config = config.map_err(|list| Mistakes { file: file.to_owned(), list });
    let (files, digest) = reader.into_parts();
    LoadedConfig { config, files, digest }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

/// Reads the text of a config.
fn parse(text: &str, mut keys: KeyFiles<'_>, rules: Rules) -> Result<Config, Vec<String>> {
    let value: Value = serde_yaml::from_str(text).map_err(|err| vec![format!("is not valid YAML: {err}")])?;
    let mut mistakes = Vec::new();
    let mut config = read(without_chart_values(value), &mut keys, rules, &mut mistakes);
    config.missing_keys = keys.into_missing();
    match mistakes.is_empty() {
        true => Ok(config),
        false => Err(mistakes),
    }
}

/// With the chart a config stands in its values. The commands read it there, so that nobody keeps two.
fn without_chart_values(value: Value) -> Value {
    match value.get("config") {
        Some(config) if config.get("fluxRecvVersion").is_some() => config.clone(),
        _ => value,
    }
}

fn read(value: Value, keys: &mut KeyFiles<'_>, rules: Rules, mistakes: &mut Vec<String>) -> Config {
    let mut config = Config {
        api: None,
        endpoints: Endpoints::default(),
        trusted_proxies: Vec::new(),
        publish: None,
        subscribe: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
        missing_keys: Vec::new(),
    };
    let Some(mut file) = Section::new(value, String::new(), mistakes) else { return config };
    check_version(&mut file);
    file.drop_if_empty("api");
    config.api = file.text("api").and_then(|api| parse_api(&mut file, &api));
    config.trusted_proxies = trusted_proxies(&mut file);
    let entries = file.list("endpoints").unwrap_or_default();
    let publish = file.take("publish");
    let subscribe = file.filled_list("subscribe");
    if entries.is_empty() && subscribe.is_empty() && !rules.serves_receivers {
        file.mistake(
            "endpoints",
            "lists no endpoint; give at least one with `source` and `keyPath`, or a publisher in `subscribe`",
        );
    }
    if publish.is_some() && config.api.is_some() {
        file.mistake("publish", "stands beside `api`; events that go to Flux v1 are not published");
    }
    if publish.is_some() && !subscribe.is_empty() {
        file.mistake(
            "publish",
            "stands beside `subscribe`; a subscriber does not publish, run two instances",
        );
    }
    file.finish();

    let written: Vec<Option<EndpointEntry>> = entries
        .into_iter()
        .enumerate()
        .map(|(at, value)| EndpointEntry::read(value, at + 1, keys, mistakes))
        .collect();
    let names = names::assign(&written);
    for (entry, name) in written.into_iter().zip(names) {
        let (Some(entry), Some(name)) = (entry, name) else { continue };
        entry.add_to(name, rules, &mut config, mistakes);
    }
    config.publish = publish.and_then(|value| publish::read(value, keys, &mut config.warnings, mistakes));
    match &config.publish {
        Some(options) => publish::check_names(options, &config.endpoints, mistakes),
        None => config.warnings.extend(forwards_to_nobody(&config.endpoints)),
    }
    config.subscribe = subscribe::read(subscribe, keys, rules, mistakes);
    // A file without `api` is hardly one of Flux v1's; docs/migration.md has the differences.
    if config.api.is_some() {
        config.notes = differences::to_flux_v1(&config.endpoints);
    }
    config
}

fn forwards_to_nobody(endpoints: &Endpoints) -> Vec<String> {
    let forwards = endpoints.iter().filter(|endpoint| !endpoint.forward.is_empty());
    forwards
        .map(|endpoint| format!("endpoint {}: `forward` has no effect without `publish`", endpoint.name))
        .collect()
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
                "is not an http(s) URL; it is the API of fluxd (Flux v1), remove it to use the Kubernetes API",
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

#[cfg(test)]
mod tests;
