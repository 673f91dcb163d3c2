//! The key files of an endpoint.

use std::path::{Path, PathBuf};

use super::files::FileReader;
use super::section::Section;
use crate::verify::key::Key;

/// Below this a key can be guessed from the path, which is its hash.
const STRONG_KEY_BYTES: usize = 20;

/// The folder of the key files.
pub(super) struct KeyFiles<'r> {
    folder: &'r Path,
    reader: &'r mut FileReader,
}

impl<'r> KeyFiles<'r> {
    pub(super) fn new(folder: &'r Path, reader: &'r mut FileReader) -> KeyFiles<'r> {
        KeyFiles { folder, reader }
    }

    /// Reads a key file, or says what is wrong with it.
    pub(super) fn read(
        &mut self,
        entry: &mut Section<'_>,
        field: &str,
        key_path: &str,
    ) -> Option<(PathBuf, Key)> {
        let file = self.file(key_path);
        let mistake = match self.reader.read(&file) {
            Err(err) => format!("cannot read {}: {err}", file.display()),
            Ok(bytes) => match Key::new(key_path, bytes) {
                Ok(key) => return Some((file, key)),
                Err(err) => format!("{} {err}", file.display()),
            },
        };
        entry.mistake(field, &format!("{mistake}; `flux-recv keygen FILE` makes a key"));
        None
    }

    /// Keys are relative to the config file. flux-recv for Flux v1 joined absolute paths to the folder as
    /// well, so what lies there goes first.
    fn file(&self, key_path: &str) -> PathBuf {
        let joined = self.folder.join(key_path.trim_start_matches('/'));
        if joined.exists() { joined } else { self.folder.join(key_path) }
    }
}

/// Returns a warning about a key that can be guessed.
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
