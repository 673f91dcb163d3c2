//! The files that a config consists of: itself and the keys that it names.

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
