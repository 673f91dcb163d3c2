//! The key files of an endpoint.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::FileReader;
use super::section::Section;
use crate::verify::key::Key;

/// Below this a key can be guessed from the path, which is its hash.
pub(super) const STRONG_KEY_BYTES: usize = 20;

/// The folder of the key files.
pub(super) struct KeyFiles<'r> {
    folder: &'r Path,
    reader: &'r mut FileReader,
    /// Key files that are not there, if they need not be.
    missing: Option<Vec<PathBuf>>,
}

impl<'r> KeyFiles<'r> {
    pub(super) fn new(folder: &'r Path, reader: &'r mut FileReader, may_be_missing: bool) -> KeyFiles<'r> {
        KeyFiles { folder, reader, missing: may_be_missing.then(Vec::new) }
    }

    /// The key files that were not there.
    pub(super) fn into_missing(self) -> Vec<PathBuf> {
        self.missing.unwrap_or_default()
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
            Err(err) if err.kind() == ErrorKind::NotFound && self.missing.is_some() => {
                let key = Key::new(key_path, placeholder()).ok()?;
                self.missing.iter_mut().for_each(|missing| missing.push(file.clone()));
                return Some((file, key));
            }
            Err(err) => format!("cannot read {}: {err}", file.display()),
            Ok(bytes) => match Key::new(key_path, bytes) {
                Ok(key) => return Some((file, key)),
                Err(err) => format!("{} {err}", file.display()),
            },
        };
        entry.mistake(field, &format!("{mistake}; `flux-recv keygen FILE` makes a key"));
        None
    }

    /// Reads a file that is not a key of an endpoint, or says that it cannot be read.
    pub(super) fn read_file(
        &mut self,
        section: &mut Section<'_>,
        field: &str,
        path: &str,
    ) -> Option<Vec<u8>> {
        let file = self.path(path);
        let read = self.reader.read(&file);
        read.map_err(|err| section.mistake(field, &format!("cannot read {}: {err}", file.display()))).ok()
    }

    /// Returns where a file is: beside the config file, if the path is relative.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Returns the files of a folder that match a pattern such as `subscribers/*.yaml`, in their order by name.
    ///
    /// # Errors
    /// When the pattern is another one, or the folder cannot be read.
    pub(super) fn matching(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
        let (before, after) = name.split_once('*').filter(|(_, after)| !after.contains('*')).ok_or_else(|| {
            format!("`{pattern}` is not a pattern; write it like subscribers/*.yaml, with one `*` in the file name")
        })?;
        if folder.contains('*') {
            return Err(format!("`{pattern}` has a `*` in the folder; it stands in the file name only"));
        }
        let names =
            self.reader.list(&self.path(folder)).map_err(|err| format!("cannot read {folder}: {err}"))?;
        let is_wanted = |name: &&String| {
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
                // Kubernetes links `..data` into mounted folders.
                && !name.starts_with('.')
        };
        Ok(names.iter().filter(is_wanted).map(|name| format!("{folder}/{name}")).collect())
    }

    /// Keys are relative to the config file. flux-recv for Flux v1 joined absolute paths to the folder as
    /// well, so what lies there goes first.
    fn file(&self, key_path: &str) -> PathBuf {
        let joined = self.folder.join(key_path.trim_start_matches('/'));
        if joined.exists() { joined } else { self.folder.join(key_path) }
    }
}

/// A key that no two files have, in place of one that is not there. It authenticates nothing.
fn placeholder() -> Vec<u8> {
    format!("{:032x}", fastrand::u128(..)).into_bytes()
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
