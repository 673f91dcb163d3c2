//! `flux-recv completions`: for the user's shell.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell to write completions for
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "flux-recv", &mut script);
    super::say(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
