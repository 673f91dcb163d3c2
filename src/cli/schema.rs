//! `flux-recv schema`: the JSON Schema of the config file, for editors and CI.

use std::process::ExitCode;

use super::say;
use crate::config::SCHEMA;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    say(SCHEMA)?;
    Ok(ExitCode::SUCCESS)
}
