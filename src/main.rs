//! The `flux-recv` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    flux_recv::cli::main()
}
