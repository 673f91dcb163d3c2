//! `flux-recv keygen`: a key that cannot be guessed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};

#[derive(Debug, Args)]
pub(super) struct KeygenArgs {
    /// The file to write; an existing one is never overwritten.
    file: PathBuf,
}

/// 20 random bytes: as GitHub suggests, and as long as the path's hash needs.
const KEY_BYTES: usize = 20;

pub(super) fn run(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    write_key(&args.file)?;
    eprintln!("wrote a new key to {}; `flux-recv urls` says what to do with it", args.file.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes 40 hex digits without line break, readable by the owner only.
pub(super) fn write_key(file: &Path) -> anyhow::Result<()> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    let context = || format!("cannot make {}", file.display());
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).with_context(context)?;
    out.write_all(hex::encode(bytes).as_bytes()).with_context(context)
}
