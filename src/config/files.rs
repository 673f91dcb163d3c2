//! The files that a config consists of: itself, the keys that it names, and folders of subscribers.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Reads files, and remembers which and with what content.
#[derive(Default)]
pub(super) struct FileReader {
    files: Vec<PathBuf>,
    content: Sha256,
}

impl FileReader {
    pub(super) fn read(&mut self, file: &Path) -> io::Result<Vec<u8>> {
        if file.is_dir() {
            return self.list(file).map(|names| names.join("\n").into_bytes());
        }
        let bytes = std::fs::read(file);
        self.files.push(file.to_owned());
        match &bytes {
            Ok(bytes) => {
                self.content.update((bytes.len() as u64).to_le_bytes());
                self.content.update(bytes);
            }
            Err(_) => self.content.update(b"unreadable"),
        }
        bytes
    }

    /// Returns the names of the files in a folder, sorted; new files change the digest as well.
    pub(super) fn list(&mut self, folder: &Path) -> io::Result<Vec<String>> {
        self.files.push(folder.to_owned());
        let names = std::fs::read_dir(folder).map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names.collect();
            names.sort_unstable();
            names
        });
        match &names {
            Ok(names) => self.content.update(names.join("\n")),
            Err(_) => self.content.update(b"unreadable"),
        }
        names
    }

    pub(super) fn into_parts(self) -> (Vec<PathBuf>, [u8; 32]) {
        (self.files, self.content.finalize().into())
    }
}

/// Returns the digest that reading these files in this order would give now.
pub fn content_digest(files: &[PathBuf]) -> [u8; 32] {
    let mut reader = FileReader::default();
    files.iter().for_each(|file| drop(reader.read(file)));
    reader.into_parts().1
}
