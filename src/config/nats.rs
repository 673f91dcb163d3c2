//! `publish.nats`: the stream that holds a publisher's event log.

use url::Url;
use zeroize::Zeroizing;

use super::keys::KeyFiles;
use super::section::Section;
use crate::fleet::options::{NatsCredentials, NatsOptions};

/// What a stream is called where the config does not say.
const DEFAULT_STREAM: &str = "flux-recv";

/// Copies of the stream where the config does not say. One server may be gone, and its log is whole.
const DEFAULT_REPLICAS: u32 = 3;

/// The most that JetStream takes.
const MAX_REPLICAS: u32 = 5;

/// Bytes of a stream's name; it stands in subjects.
const MAX_STREAM_BYTES: usize = 64;

/// Reads the section.
pub(super) fn read(mut section: Section<'_>, files: &mut KeyFiles<'_>) -> Option<NatsOptions> {
    let urls = section.texts("urls");
    let stream = section.text("stream").unwrap_or_else(|| DEFAULT_STREAM.to_owned());
    let (credentials_path, nkey_path) = (section.text("credentialsPath"), section.text("nkeyPath"));
    let ca_path = section.text("caPath");
    let replicas = section.count("replicas").unwrap_or(DEFAULT_REPLICAS);
    section.finish();
    if urls.is_empty() {
        section.mistake("urls", "is missing; list the servers, like nats://nats.nats:4222");
    }
    for url in &urls {
        if let Err(why) = check_url(url) {
            section.mistake("urls", &why);
        }
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if stream.is_empty() || stream.len() > MAX_STREAM_BYTES || !stream.bytes().all(is_name) {
        section.mistake("stream", &format!("`{stream}` is not a name of letters, digits, `-` and `_`"));
    }
    if !(1..=MAX_REPLICAS).contains(&replicas) {
        section.mistake("replicas", &format!("is {replicas}; a stream has 1 to {MAX_REPLICAS}"));
    }
    // Read again for each connection; a file that is not there is found now.
    let mut found = |section: &mut Section<'_>, field: &str, path: &str| {
        files.read_file(section, field, path).map(|bytes| (Zeroizing::new(bytes), files.path(path)))
    };
    let credentials = match (credentials_path, nkey_path) {
        (None, None) => None,
        (Some(path), None) => Some(NatsCredentials::File(found(&mut section, "credentialsPath", &path)?.1)),
        (None, Some(path)) => {
            let (seed, file) = found(&mut section, "nkeyPath", &path)?;
            if !seed.starts_with(b"SU") {
                section.mistake(
                    "nkeyPath",
                    &format!("{path} is not the seed of a user, which begins with SU; `nsc generate nkey --user` makes one"),
                );
            }
            Some(NatsCredentials::NKey(file))
        }
        (Some(_), Some(_)) => {
            section
                .mistake("nkeyPath", "stands beside `credentialsPath`; a publisher authenticates in one way");
            return None;
        }
    };
    let ca = match ca_path {
        Some(path) => Some(found(&mut section, "caPath", &path)?.1),
        None => None,
    };
    Some(NatsOptions { urls, stream, credentials, ca, replicas: replicas as usize })
}

fn check_url(text: &str) -> Result<(), String> {
    // It may hold a password.
    let Ok(url) = Url::parse(text) else {
        return Err("has a text that is not a URL; write it like nats://nats.nats:4222".to_owned());
    };
    if !matches!(url.scheme(), "nats" | "tls") || url.host_str().is_none_or(str::is_empty) {
        return Err("has a URL with another scheme than nats:// or tls://, or without a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a URL with a name or password; use `credentialsPath` or `nkeyPath`".to_owned());
    }
    Ok(())
}
