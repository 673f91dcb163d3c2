//! An endpoint's key: the bytes of its key file.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A shared secret. Has no `Debug` and is wiped when dropped.
pub struct Key {
    /// Its file as the config names it; no secret.
    name: Arc<str>,
    bytes: Zeroizing<Vec<u8>>,
}

/// The bytes cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There are none, or nothing but line breaks.
    #[error("is empty")]
    Empty,
    /// An editor put a byte order mark before the key; no provider would send it.
    #[error("starts with a UTF-8 byte order mark; save it without one")]
    ByteOrderMark,
}

impl Key {
    /// Takes the bytes of a key file as they are.
    ///
    /// # Errors
    /// When the file cannot have been meant as a key.
    pub fn new(name: &str, bytes: Vec<u8>) -> Result<Key, BadKey> {
        let key = Key { name: name.into(), bytes: Zeroizing::new(bytes) };
        if key.without_newline().is_empty() {
            return Err(BadKey::Empty);
        }
        if key.bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(BadKey::ByteOrderMark);
        }
        Ok(key)
    }

    /// Returns the name of its file, as the config has it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The key as people paste it: without line breaks at its end.
    pub fn without_newline(&self) -> &[u8] {
        let end =
            self.bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        &self.bytes[..end]
    }

    /// Whether the file ends in a line break.
    pub fn ends_in_newline(&self) -> bool {
        self.without_newline().len() != self.bytes.len()
    }

    /// Returns the number of bytes of the key without line breaks at its end.
    pub fn strength(&self) -> usize {
        self.without_newline().len()
    }

    /// The forms in which a provider may hold the key: as people paste it, and as the file has it.
    pub(super) fn forms(&self) -> impl Iterator<Item = &[u8]> {
        let raw = self.ends_in_newline().then_some(self.bytes.as_slice());
        std::iter::once(self.without_newline()).chain(raw)
    }

    /// sha256 over the raw bytes of the file and the salt, in hex: what makes the hook path, as in
    /// flux-recv for Flux v1.
    pub fn digest(&self, salt: &str) -> String {
        digest_of(&self.bytes, salt)
    }
}

/// The digest of bytes that need not be a key: a Receiver without a Secret has none in its path.
pub fn digest_of(bytes: &[u8], salt: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.update(salt.as_bytes());
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_the_first_flux_recv() {
        let key = Key::new("test.key", b"s3cr3t-bench-key".to_vec()).expect("a key");
        assert_eq!(key.digest(""), "44e942089b94cba356e3cde725a1e4ec483c16717f7e79e7e90f0ed788fa2c3d");
    }

    // Incident 16.
    #[test]
    fn a_newline_counts_for_the_path_and_not_for_the_proof() {
        let with = Key::new("test.key", b"key\r\n".to_vec()).expect("a key");
        let without = Key::new("test.key", b"key".to_vec()).expect("a key");
        assert_ne!(with.digest(""), without.digest(""));
        assert_eq!(with.forms().collect::<Vec<_>>(), [&b"key"[..], b"key\r\n"]);
        assert_eq!(without.forms().collect::<Vec<_>>(), [b"key"]);
    }

    // Incident 11.
    #[test]
    fn empty_keys_are_refused() {
        for bytes in [&b""[..], b"\n", b"\r\n\n"] {
            assert_eq!(Key::new("test.key", bytes.to_vec()).err(), Some(BadKey::Empty));
        }
        assert_eq!(Key::new("test.key", b"\xef\xbb\xbfkey".to_vec()).err(), Some(BadKey::ByteOrderMark));
    }
}
