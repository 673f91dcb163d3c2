//! Arguments → one command → exit code. One file per command.

mod check;
mod complete;
mod completions;
mod convert;
mod deliveries;
mod demo;
mod explain;
mod hook;
mod keygen;
mod output;
mod progress;
mod schema;
mod send;
pub(crate) mod serve;
mod subscribers;
mod table;
mod urls;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cluster::connection::ClusterOptions;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::telemetry::{self, LogFormat};

/// Webhook receiver for Flux: verifies webhooks of Git hosts and registries, finds the Flux objects that they concern, and
/// requests the reconciliation of exactly those.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: serve::ServeArgs,
    /// The format of log lines.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "FLUX_RECV_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the URL of each endpoint, and what to choose in the provider's settings.
    Urls(urls::UrlsArgs),
    /// Create, check and delete an endpoint's webhook at the provider.
    Hook(Box<hook::HookArgs>),
    /// Check the config, the keys and the rights in the cluster.
    Check(check::CheckArgs),
    /// Explain which objects a change would reach, and why not the others.
    Explain(Box<explain::ExplainArgs>),
    /// Write a new key to a file.
    Keygen(keygen::KeygenArgs),
    /// Sign a payload as an endpoint's provider would, and post it to a running flux-recv.
    Send(Box<send::SendArgs>),
    /// Watch real, signed webhooks become reconcile requests, without a cluster.
    Demo(demo::DemoArgs),
    /// Turn Flux's Receivers into a config file that keeps their URLs.
    Convert(convert::ConvertArgs),
    /// Show who follows a running publisher, and whom a running instance follows.
    Subscribers(subscribers::SubscribersArgs),
    /// Show the last deliveries of a running instance, and how far their objects have come.
    Deliveries(deliveries::DeliveriesArgs),
    /// Print the JSON Schema of the config file, for editors and CI.
    Schema,
    /// Print the version.
    Version,
    /// Complete a word, as Flux's command line asks its plugins to.
    #[command(name = "__complete", hide = true)]
    Complete(complete::CompleteArgs),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
}

/// The option that names the config file.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// The config file; keys are looked up beside it.
    #[arg(long, value_name = "FILE", default_value = "fluxrecv.yaml", env = "FLUX_RECV_CONFIG")]
    config: PathBuf,
}

/// The cluster to talk to, as `kubectl` chooses it.
#[derive(Debug, Clone, Args)]
struct ClusterArgs {
    /// A kubeconfig file [default: the environment's, else the Pod's service account].
    #[arg(long, value_name = "FILE", env = "FLUX_RECV_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig.
    #[arg(long, value_name = "NAME", env = "FLUX_RECV_CONTEXT")]
    context: Option<String>,
    /// Look only into these namespaces [default: all].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', env = "FLUX_RECV_NAMESPACES")]
    namespaces: Vec<String>,
}

impl ClusterArgs {
    fn options(&self) -> ClusterOptions {
        ClusterOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            ..ClusterOptions::default()
        }
    }

    /// An empty variable means all namespaces.
    fn namespaces(&self) -> Vec<String> {
        self.namespaces.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    }
}

/// Whether Flux's own Receivers are served.
#[derive(Debug, Clone, Args)]
struct ReceiverArgs {
    /// Serve Flux's Receiver objects as well, at their own paths; only those in these namespaces, if any
    /// are given [default: not].
    #[arg(
        long, value_name = "NAME,…", value_delimiter = ',', num_args = 0.., require_equals = true,
        default_missing_value = "all", env = "FLUX_RECV_RECEIVERS"
    )]
    receivers: Option<Vec<String>>,
    /// Let a Receiver reach objects of other namespaces than its own.
    #[arg(long, env = "FLUX_RECV_CROSS_NAMESPACE_REFS", conflicts_with = "no_cross_namespace_refs")]
    cross_namespace_refs: bool,
    /// Let a Receiver reach objects of its own namespace only: the default, as the option of this name of
    /// Flux's controllers.
    #[arg(long, env = "FLUX_RECV_NO_CROSS_NAMESPACE_REFS")]
    no_cross_namespace_refs: bool,
    /// An issuer that Receivers of type generic-oidc may name although it is not reached over https or is
    /// at a loopback or link-local address.
    #[arg(
        long = "allow-issuer",
        value_name = "URL,…",
        value_delimiter = ',',
        env = "FLUX_RECV_ALLOW_ISSUER"
    )]
    allowed_issuers: Vec<String>,
}

impl ReceiverArgs {
    /// The namespaces whose Receivers are served, none named for all; nothing if none are served.
    fn namespaces(&self) -> Option<Vec<String>> {
        let names: Vec<String> = self.receivers.as_ref()?.iter().map(|name| name.trim().to_owned()).collect();
        match names.iter().all(String::is_empty) || names == ["false"] {
            true => None,
            false if names == ["all"] || names == ["true"] => Some(Vec::new()),
            false => Some(names.into_iter().filter(|name| !name.is_empty()).collect()),
        }
    }
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Every TLS client of this process uses ring; a second call could only repeat this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    telemetry::init(cli.log_format);
    match run(cli) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("{}", error_text(&err));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Urls(args)) => urls::run(&args),
        Some(Command::Hook(args)) => hook::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Keygen(args)) => keygen::run(&args),
        Some(Command::Send(args)) => send::run(&args),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Convert(args)) => convert::run(&args),
        Some(Command::Subscribers(args)) => subscribers::run(&args),
        Some(Command::Deliveries(args)) => deliveries::run(&args),
        Some(Command::Schema) => schema::run(),
        Some(Command::Version) => {
            say(concat!("flux-recv ", env!("CARGO_PKG_VERSION"), "\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Complete(args)) => complete::run(&args),
        Some(Command::Completions(args)) => completions::run(&args),
    }
}

/// The endpoint of this name.
fn endpoint_named<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c Arc<Endpoint>> {
    config.endpoints.named(name).ok_or_else(|| {
        let names: Vec<&str> = config.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        anyhow::anyhow!("no endpoint is called `{name}`; there are {}", names.join(", "))
    })
}

/// Each line of an error marked as one, with its causes.
fn error_text(err: &anyhow::Error) -> String {
    with_causes(err).lines().map(|line| format!("error: {line}")).collect::<Vec<_>>().join("\n")
}

/// An error and its causes; some libraries repeat the cause in what they say themselves.
fn with_causes(err: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in err.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    text
}

/// Writes to stdout. A reader that has gone away, as with `| head`, is not an error.
fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => Err(err.into()),
        _ => Ok(()),
    }
}

/// One thread drives queue and watches; the HTTP workers have their own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Reads `8s`, `1m30s`, `500ms` or a bare number of seconds.
fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let length = read_duration(text)?;
    anyhow::ensure!(length <= MAX_DURATION, "`{text}` is longer than a day");
    Ok(length)
}

/// A length of time, or none for `never`. clap takes a bare `Option` for an argument that may be missing.
type OptionalDuration = std::option::Option<Duration>;

/// Reads a length of time, or `never`.
fn parse_duration_or_never(text: &str) -> anyhow::Result<OptionalDuration> {
    if text == "never" { Ok(None) } else { parse_duration(text).map(Some) }
}

const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

fn read_duration(text: &str) -> anyhow::Result<Duration> {
    let read = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => text.parse().ok().and_then(|length: jiff::SignedDuration| length.try_into().ok()),
    };
    read.ok_or_else(|| anyhow::anyhow!("`{text}` is not a duration; write it like 8s, 500ms or 1m30s"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time_are_read() {
        for (text, millis) in
            [("8s", 8000), ("8", 8000), ("0.5", 500), ("500ms", 500), ("1m30s", 90_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text).ok(), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "8x", "-1", "8s3", "x", "1e19", "25h", "inf"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
