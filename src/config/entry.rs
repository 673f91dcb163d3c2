//! One entry of `endpoints`: read field by field, then made an [`Endpoint`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_yaml::Value;

use super::keys::KeyFiles;
use super::section::Section;
use super::{Config, Rules, alias, authentication, filter, keys, selection, suggestion};
use crate::endpoint::registry::Conflict;
use crate::endpoint::{Endpoint, EndpointOptions};
use crate::event::Subject;
use crate::event::repository_url::RepositoryUrl;
use crate::filter::Filter;
use crate::fleet::forward::{ForwardPath, MAX_FORWARDED_FIELDS};
use crate::flux::selection::Selection;
use crate::provider::{PROVIDERS, Provider};
use crate::verify::key::Key;
use crate::verify::{Credentials, Requirement};

/// An entry of `endpoints` whose fields are good one by one.
pub(super) struct EndpointEntry {
    /// `endpoint 2 (nexus.key)`, for messages.
    place: String,
    provider: &'static Provider,
    /// The path of the key file as written in the config.
    pub(super) key_path: String,
    key_file: PathBuf,
    key: Key,
    accepted: Vec<(PathBuf, Key)>,
    pub(super) name: Option<String>,
    pub(super) registry_hosts: Vec<String>,
    git_hosts: Vec<String>,
    path_key: Option<Key>,
    path_salt: Option<String>,
    selection: Selection,
    filter: Filter,
    max_body: Option<usize>,
    max_per_minute: Option<u32>,
    suspended: bool,
    alias: Option<String>,
    forward: Vec<ForwardPath>,
    expects: Requirement,
    unsigned: bool,
}

/// All bodies that are read at a time have this much room.
const MAX_BODY_BYTES: usize = 32 << 20;

impl EndpointEntry {
    pub(super) fn read(
        value: Value,
        number: usize,
        keys: &mut KeyFiles<'_>,
        mistakes: &mut Vec<String>,
    ) -> Option<EndpointEntry> {
        let key_path = value.get("keyPath").and_then(Value::as_str).map(|key_path| format!(" ({key_path})"));
        let place = format!("endpoint {number}{}", key_path.unwrap_or_default());
        let mut entry = Section::new(value, place.clone(), mistakes)?;
        let source = entry.required_text("source");
        let key_path = entry.required_text("keyPath");
        let name = entry.text("name");
        entry.drop_if_empty("registryHost");
        let registry_hosts = entry.texts("registryHost");
        let git_hosts = entry.texts("gitHosts");
        let path_salt = entry.text("pathSalt");
        let path_key_path = entry.text("pathKeyPath");
        let says_resources = entry.has("resources");
        let selection = selection::read(&mut entry);
        let filter = filter::read(&mut entry);
        let authentication = authentication::read(&mut entry);
        let unsigned = authentication.unsigned;
        let max_body = entry.bytes("maxBody", MAX_BODY_BYTES);
        let max_per_minute = entry.count("maxPerMinute");
        let suspended = entry.flag("suspend");
        let alias = alias::read(&mut entry);
        let forward = forward(&mut entry);
        let accept_key_paths = entry.texts("acceptKeyPaths");
        entry.finish();
        let provider = source.and_then(|source| find_provider(&mut entry, &source));
        let key = key_path.as_deref().and_then(|key_path| keys.read(&mut entry, "keyPath", key_path));
        let path_key = path_key_path
            .and_then(|key_path| keys.read(&mut entry, "pathKeyPath", &key_path))
            .map(|(_, key)| key);
        let mut accepted = Vec::new();
        for key_path in accept_key_paths {
            accepted.extend(keys.read(&mut entry, "acceptKeyPaths", &key_path));
        }
        let git_hosts = read_git_hosts(&mut entry, provider, &git_hosts);
        if let Some(provider) = provider {
            filter::check(&mut entry, provider, &filter);
            let names_listed = provider.subjects.contains(&Subject::Selection);
            if let Some(kind) = selection.named_kinds().next()
                && !selection.matches_all
                && !names_listed
            {
                entry.mistake(
                    "resources",
                    &format!(
                        "lists a {kind}, and no payload of {} is about one; set `match: all`",
                        provider.name
                    ),
                );
            }
            if names_listed && !says_resources {
                entry.mistake(
                    "resources",
                    &format!(
                        "is missing; {} does not say what it is about, so list the objects to request",
                        provider.name
                    ),
                );
            }
        }
        let expects = provider.map(|provider| {
            authentication::check(&mut entry, provider, authentication, !accepted.is_empty())
        });
        let (key_file, key) = key?;
        Some(EndpointEntry {
            place,
            provider: provider?,
            key_path: key_path?,
            key_file,
            key,
            accepted,
            name,
            registry_hosts,
            git_hosts,
            path_key,
            path_salt,
            selection,
            filter,
            max_body,
            max_per_minute,
            suspended,
            alias,
            forward,
            expects: expects?,
            unsigned,
        })
    }

    pub(super) fn add_to(self, name: String, rules: Rules, config: &mut Config, mistakes: &mut Vec<String>) {
        let EndpointEntry {
            place,
            provider,
            key_file,
            key,
            accepted,
            registry_hosts,
            git_hosts,
            path_key,
            path_salt,
            selection,
            filter,
            max_body,
            max_per_minute,
            suspended,
            alias,
            forward,
            expects,
            unsigned,
            ..
        } = self;
        config.warnings.extend(warnings(&name, provider, &key_file, &key, &registry_hosts, unsigned));
        config.warnings.extend(filter::warnings(&name, provider, &filter));
        let salt = path_salt.as_deref().or(registry_hosts.first().map(String::as_str)).unwrap_or_default();
        let digest = path_key.as_ref().unwrap_or(&key).digest(salt);
        let former_digests = accepted.iter().map(|(_, key)| key).chain([&key]).map(|key| key.digest(salt));
        let former_digests = former_digests.filter(|former| *former != digest).collect();
        let mut keys = vec![key];
        for (file, key) in accepted {
            config.warnings.extend(keys::weakness(&name, &file, &key));
            keys.push(key);
        }
        let credentials = Credentials { keys, expects, unsigned };
        let selection = match rules.require_opt_in {
            true => {
                let own_namespaces = selection.namespaces.clone();
                selection.with_consent(&name, own_namespaces)
            }
            false => selection,
        };
        let options = EndpointOptions {
            registry_hosts,
            git_hosts,
            selection,
            filter,
            max_body,
            max_per_minute,
            suspended,
            alias,
            forward,
            former_digests,
            ..EndpointOptions::default()
        };
        let endpoint = Endpoint::new(name, provider, key_file, credentials, digest, options);
        if endpoint.alias.is_some() && !endpoint.is_authenticated() {
            mistakes.push(format!(
                "{place}: alias: can be guessed, and nothing but the hook path authenticates deliveries of {}; remove it",
                endpoint.provider.name
            ));
        }
        mistakes.extend(config.endpoints.add(Arc::new(endpoint)).err().map(|conflict| match conflict {
            Conflict::Path(other) | Conflict::OtherPath(other) => format!(
                "{place}: keyPath: the key is that of endpoint `{}`, so both would have one path; make a key of its own \
                 with `flux-recv keygen`, or set `pathSalt` on one of them",
                other.name,
            ),
            Conflict::Alias(other) => {
                format!("{place}: alias: is the alias of endpoint `{}` too; give each its own", other.name)
            }
            Conflict::Name(other) => format!(
                "{place}: name: `{}` is the name of the endpoint with key {} too; set `name` on one of them",
                other.name,
                other.key_file.display(),
            ),
        }));
    }
}

fn forward(entry: &mut Section<'_>) -> Vec<ForwardPath> {
    let texts = entry.texts("forward");
    if texts.len() > MAX_FORWARDED_FIELDS {
        entry.mistake("forward", &format!("lists more than {MAX_FORWARDED_FIELDS} fields"));
    }
    let mut paths = Vec::new();
    for text in texts {
        match ForwardPath::parse(&text) {
            Ok(path) => paths.push(path),
            Err(err) => entry.mistake("forward", &err.to_string()),
        }
    }
    paths
}

/// Hosts that an event is compared at; each takes a comparison with every delivery.
const MAX_GIT_HOSTS: usize = 16;

fn read_git_hosts(entry: &mut Section<'_>, provider: Option<&Provider>, written: &[String]) -> Vec<String> {
    if let Some(provider) = provider
        && !written.is_empty()
        && !provider.subjects.contains(&Subject::Git)
    {
        entry.mistake("gitHosts", &format!("has no effect, {} sends no pushes; remove it", provider.name));
    }
    if written.len() > MAX_GIT_HOSTS {
        entry.mistake("gitHosts", &format!("lists more than {MAX_GIT_HOSTS} hosts"));
    }
    let mut hosts = Vec::new();
    for text in written {
        match RepositoryUrl::parse_host(text) {
            Some(host) => hosts.push(host),
            None => entry.mistake(
                "gitHosts",
                &format!(
                    "`{text}` is not a host; write it like gitea-http.gitea.svc, without scheme and path"
                ),
            ),
        }
    }
    hosts
}

fn find_provider(entry: &mut Section<'_>, source: &str) -> Option<&'static Provider> {
    let found = Provider::named(source);
    if found.is_none() {
        let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
        let fix = match Provider::sources_for_service(source) {
            Some(sources) => format!("its events come through {sources}"),
            None => suggestion::fix(source, &known),
        };
        entry.mistake("source", &format!("`{source}` is unknown; {fix}"));
    }
    found
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
    let mut warnings: Vec<String> = keys::weakness(name, key_file, key).into_iter().collect();
    if key.ends_in_newline() {
        warnings.push(format!(
            "endpoint {name}: the key in {file} ends in a line break; at the provider paste the key without it (with it \
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
            "endpoint {name}: unsigned deliveries are accepted; anyone who knows the URL can send them"
        ));
    }
    warnings
}
