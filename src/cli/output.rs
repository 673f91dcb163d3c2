//! The formats of what a command prints: text for people, JSON and YAML for scripts.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::say;

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// The format of the output.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
    Yaml,
}

impl OutputArgs {
    /// Prints a value on stdout, for people as `text` describes it.
    ///
    /// # Errors
    /// When `text` fails, or stdout cannot be written.
    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Text => say(&text(value)?),
            OutputFormat::Json => say(&format!("{}\n", serde_json::to_string_pretty(value)?)),
            OutputFormat::Yaml => say(&serde_yaml::to_string(value)?),
        }
    }
}
