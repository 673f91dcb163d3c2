//! `flux-recv keygen`: a key that cannot be guessed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::say;
use crate::fleet::signature::{PublicKey, SigningKey};

#[derive(Debug, Args)]
pub(super) struct KeygenArgs {
    /// The file to write; an existing one is never overwritten.
    file: PathBuf,
    /// Make the signing key of a publisher instead, and print the public key that subscribers pin.
    #[arg(long)]
    ed25519: bool,
}

/// 20 random bytes: as GitHub suggests, and as long as the path's hash needs.
const KEY_BYTES: usize = 20;

pub(super) fn run(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    if args.ed25519 {
        let public_key = write_signing_key(&args.file)?;
        eprintln!("wrote a new signing key to {}; subscribers pin this public key:", args.file.display());
        say(&format!("{public_key}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    write_key(&args.file)?;
    eprintln!("wrote a new key to {}; `flux-recv urls` says what to do with it", args.file.display());
    Ok(ExitCode::SUCCESS)
}

/// 40 hex digits that cannot be guessed.
///
/// # Errors
/// When the system has no random numbers.
pub(super) fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| no_random_numbers())?;
    Ok(hex::encode(bytes))
}

/// Writes 40 hex digits without line break, readable by the owner only.
pub(super) fn write_key(file: &Path) -> anyhow::Result<()> {
    write(file, random_hex()?.as_bytes())
}

/// Writes an Ed25519 key as PKCS#8 in PEM (RFC 8410), readable by the owner only. Returns its public key.
pub(super) fn write_signing_key(file: &Path) -> anyhow::Result<PublicKey> {
    let mut der = ED25519_PKCS8_PREFIX.to_vec();
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut *seed).map_err(|_| no_random_numbers())?;
    der.extend_from_slice(&*seed);
    let der = Zeroizing::new(der);
    let pem = Zeroizing::new(format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(&*der)
    ));
    let key = SigningKey::from_pem(pem.as_bytes())?;
    write(file, pem.as_bytes())?;
    Ok(key.public_key())
}

/// The DER of a `PrivateKeyInfo` for Ed25519, up to the seed.
/// <https://www.rfc-editor.org/rfc/rfc8410#section-7>
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

fn no_random_numbers() -> anyhow::Error {
    anyhow::anyhow!("the system has no random numbers")
}

fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let context = || format!("cannot make {}", file.display());
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).with_context(context)?;
    out.write_all(content).with_context(context)
}
