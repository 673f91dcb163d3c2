//! Credentials of NATS: an NKey that signs what the server asks, with or without a JWT that names it.
//! <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth>

use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;
use zeroize::Zeroizing;

use crate::fleet::options::NatsCredentials;

/// Credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {}: {why}", .file.display())]
    Unreadable { file: PathBuf, why: std::io::Error },
    #[error("credentialsPath: {} is not a credentials file, as `nsc generate creds` writes it", .0.display())]
    NoCredentials(PathBuf),
    #[error("nkeyPath: {} is not the seed of a user, which begins with SU", .0.display())]
    NoSeed(PathBuf),
}

/// Bytes of a file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Reads the file, and signs what the server asks.
pub(super) fn authenticate(credentials: &NatsCredentials, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let mut auth = Auth::new();
    let key = match credentials {
        NatsCredentials::NKey(file) => {
            let key = key_pair(&read(file)?).ok_or_else(|| CredentialsError::NoSeed(file.clone()))?;
            auth.nkey = Some(key.public_key());
            key
        }
        NatsCredentials::File(file) => {
            let text = read(file)?;
            let parts = between(&text, "NATS USER JWT").zip(between(&text, "USER NKEY SEED"));
            let parts = parts.and_then(|(jwt, seed)| Some((jwt.to_owned(), key_pair(seed)?)));
            let (jwt, key) = parts.ok_or_else(|| CredentialsError::NoCredentials(file.clone()))?;
            auth.jwt = Some(jwt);
            key
        }
    };
    auth.signature = key.sign(nonce).ok();
    Ok(auth)
}

fn read(file: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    let unreadable = |why| CredentialsError::Unreadable { file: file.to_owned(), why };
    if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(unreadable(std::io::Error::other("it is too long")));
    }
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(unreadable)
}

fn key_pair(seed: &str) -> Option<KeyPair> {
    let seed = seed.trim();
    KeyPair::from_seed(seed).ok().filter(|_| seed.starts_with("SU"))
}

/// Returns the line between `-----BEGIN LABEL-----` and the dashes of its end.
fn between<'t>(text: &'t str, label: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("BEGIN {label}"))?;
    let line = rest.lines().nth(1)?.trim();
    (!line.is_empty() && !line.starts_with('-')).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("a write");
        file.into_temp_path()
    }

    #[test]
    fn seeds_and_credentials_files_sign_and_nothing_else_does() {
        let key = KeyPair::new_user();
        let seed = key.seed().expect("a seed");
        let verifies =
            |auth: &Auth| key.verify(b"nonce", auth.signature.as_ref().expect("a signature")).is_ok();
        let file = written(&format!("{seed}\n"));
        let auth = authenticate(&NatsCredentials::NKey(file.to_path_buf()), b"nonce").expect("a seed");
        assert!(verifies(&auth) && auth.nkey == Some(key.public_key()) && auth.jwt.is_none());
        let file = written(&format!(
            "-----BEGIN NATS USER JWT-----\r\nabc.def.ghi\r\n------END NATS USER JWT------\r\n\r\n*** IMPORTANT ***\r\n\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
        ));
        let auth = authenticate(&NatsCredentials::File(file.to_path_buf()), b"nonce").expect("a file");
        assert!(verifies(&auth) && auth.jwt.as_deref() == Some("abc.def.ghi"));
        let account = KeyPair::new_account().seed().expect("a seed");
        for text in ["", "SU", "-----BEGIN NATS USER JWT-----", &account, "\0"] {
            let file = written(text).to_path_buf();
            for credentials in [NatsCredentials::NKey(file.clone()), NatsCredentials::File(file)] {
                let why = authenticate(&credentials, b"").err().expect("a refusal").to_string();
                assert!(text.len() < 3 || !why.contains(text), "{why}");
            }
        }
    }
}
