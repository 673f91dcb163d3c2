//! The key files of an endpoint.

use std::path::{Path, PathBuf};

use super::section::Section;
use crate::verify::key::Key;

/// Below this a key can be guessed from the path, which is its hash.
const STRONG_KEY_BYTES: usize = 20;

/// Keys are relative to the config file. flux-recv for Flux v1 joined absolute paths to the folder
/// as well, so what lies there goes first.
pub(super) fn file(folder: &Path, key_path: &str) -> PathBuf {
    let joined = folder.join(key_path.trim_start_matches('/'));
    if joined.exists() { joined } else { folder.join(key_path) }
}

/// Reads a key file, or says what is wrong with it.
pub(super) fn read(
    entry: &mut Section<'_>,
    field: &str,
    folder: &Path,
    key_path: &str,
) -> Option<(PathBuf, Key)> {
    let file = self::file(folder, key_path);
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

/// What is wrong with a key that can be guessed.
pub(super) fn weakness(name: &str, key_file: &Path, key: &Key) -> Option<String> {
    (key.strength() < STRONG_KEY_BYTES).then(|| {
        format!(
            "endpoint {name}: the key in {} has {} bytes; the URL is its hash, so a short key can be guessed from the \
             URL; use {STRONG_KEY_BYTES} or more, as `flux-recv keygen` does",
            key_file.display(),
            key.strength(),
        )
    })
}
