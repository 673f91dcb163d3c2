//! Signatures of frames: Ed25519 (RFC 8032).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

/// The private key of a publisher. Has no `Debug`; ring does not give it out.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// The public key of a publisher, as subscribers pin it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

/// A file cannot be used as a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an Ed25519 private key in PEM (PKCS#8)")]
pub struct NotASigningKey;

/// A text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the base64 of an Ed25519 public key (44 characters)")]
pub struct NotAPublicKey;

const PUBLIC_KEY_BYTES: usize = 32;

impl SigningKey {
    /// Reads a private key in PEM, as `flux-recv keygen --ed25519` and
    /// `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    /// When it is another kind of key or none.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, NotASigningKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| NotASigningKey)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        Ok(SigningKey { pair: pair.map_err(|_| NotASigningKey)? })
    }

    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs a text; gives the signature in base64url.
    pub fn sign(&self, text: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(text))
    }
}

impl PublicKey {
    /// Reads the base64 of the 32 bytes.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<PublicKey, NotAPublicKey> {
        let bytes = STANDARD.decode(text).map_err(|_| NotAPublicKey)?;
        bytes.try_into().map(PublicKey).map_err(|_| NotAPublicKey)
    }

    /// Whether the signature, in base64url, is of this key over this text.
    pub fn has_signed(&self, text: &[u8], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}
