//! `flux-recv hook`: the webhook at the provider, through the provider's API.

mod api_client;
mod change;
mod hook_urls;
mod missing;
mod redeliver;
mod session;
mod status;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::output::OutputArgs;
use super::urls::HookSettings;
use super::{ClusterArgs, ConfigArgs, progress, runtime};
use crate::webhook_api::WebhookScope;
use session::Session;

#[derive(Debug, Args)]
pub(super) struct HookArgs {
    #[command(subcommand)]
    command: HookCommand,
}

#[derive(Debug, Subcommand)]
enum HookCommand {
    /// Create the endpoint's webhook, or change the one that is there to what it should be.
    Create(CreateArgs),
    /// List the webhooks that are there.
    List(ReadArgs),
    /// Show whether the endpoint's webhook exists and works.
    Status(StatusArgs),
    /// Make the provider send a test.
    Test(ReadArgs),
    /// Make the provider send again what has failed (GitHub, GitLab).
    Redeliver(RedeliverArgs),
    /// Delete the endpoint's webhook.
    Delete(DeleteArgs),
}

/// Whose webhooks, and how to reach them.
#[derive(Debug, Args)]
struct SessionArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint, by its name.
    #[arg(long, value_name = "NAME")]
    endpoint: String,
    /// How the receiver is reached from outside.
    #[arg(long, value_name = "URL", env = "FLUX_RECV_BASE")]
    base: String,
    /// The provider's API [default: the one of its own service].
    #[arg(long, value_name = "URL", env = "FLUX_RECV_API")]
    api: Option<String>,
    /// A file that holds the token for the API [default: the provider's usual variable, such as GITHUB_TOKEN].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Where the webhook is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScopeArgs {
    /// A repository, as OWNER/NAME.
    #[arg(long, value_name = "O/R")]
    repo: Option<String>,
    /// An organization, group or workspace.
    #[arg(long, value_name = "O")]
    org: Option<String>,
    /// Everything that the provider's instance hosts.
    #[arg(long)]
    instance: bool,
}

/// Where the webhook is, or should be.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScopeOrMissingArgs {
    /// A repository, as OWNER/NAME.
    #[arg(long, value_name = "O/R")]
    repo: Option<String>,
    /// An organization, group or workspace.
    #[arg(long, value_name = "O")]
    org: Option<String>,
    /// Everything that the provider's instance hosts.
    #[arg(long)]
    instance: bool,
    /// The repositories of the cluster's GitRepositories that no webhook of this endpoint covers.
    #[arg(long)]
    missing: bool,
}

/// Whether something is changed.
#[derive(Debug, Args)]
struct ConfirmArgs {
    /// Do it without asking.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Print the plan only.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    scope: ScopeOrMissingArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Also for objects that track a pull or merge request.
    #[arg(long)]
    pull_requests: bool,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct ReadArgs {
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    scope: ScopeOrMissingArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct RedeliverArgs {
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How far to look back, a week at most.
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = parse_since)]
    since: Duration,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &HookArgs) -> anyhow::Result<ExitCode> {
    let (session_args, output) = match &args.command {
        HookCommand::Create(args) => (&args.session, &args.output),
        HookCommand::List(args) | HookCommand::Test(args) => (&args.session, &args.output),
        HookCommand::Status(args) => (&args.session, &args.output),
        HookCommand::Redeliver(args) => (&args.session, &args.output),
        HookCommand::Delete(args) => (&args.session, &args.output),
    };
    let (config, endpoint) = session::endpoint(session_args)?;
    let Some(api) = endpoint.provider.webhook_api else {
        progress::failure(&format!(
            "flux-recv does not manage webhooks of {}; enter this on its page",
            endpoint.provider.name
        ));
        let settings = HookSettings::new(&endpoint, &session_args.base);
        output.print(&settings, |settings| Ok(settings.describe()))?;
        let only_shows = matches!(args.command, HookCommand::Create(_));
        return Ok(if only_shows { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let session = Session::open(session_args, &config, endpoint, api)?;
    runtime()?.block_on(async {
        match &args.command {
            HookCommand::Create(args) => change::create(&session, args).await,
            HookCommand::List(args) => status::list(&session, args).await,
            HookCommand::Status(args) => status::status(&session, args).await,
            HookCommand::Test(args) => test::test(&session, args).await,
            HookCommand::Redeliver(args) => redeliver::redeliver(&session, args).await,
            HookCommand::Delete(args) => change::delete(&session, args).await,
        }
    })
}

impl ScopeArgs {
    fn scope(&self) -> anyhow::Result<WebhookScope> {
        scope(self.repo.as_deref(), self.org.as_deref())
    }
}

impl ScopeOrMissingArgs {
    fn scope(&self) -> anyhow::Result<WebhookScope> {
        scope(self.repo.as_deref(), self.org.as_deref())
    }
}

fn scope(repository: Option<&str>, organization: Option<&str>) -> anyhow::Result<WebhookScope> {
    Ok(match (repository, organization) {
        (Some(name), _) => WebhookScope::Repository(checked_path(name, true).context("--repo")?),
        (None, Some(name)) => WebhookScope::Organization(checked_path(name, false).context("--org")?),
        (None, None) => WebhookScope::Instance,
    })
}

/// As far back as providers remember deliveries: GitHub three days, GitLab seven.
const MAX_SINCE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn parse_since(text: &str) -> anyhow::Result<Duration> {
    let length = super::read_duration(text)?;
    anyhow::ensure!(length <= MAX_SINCE, "`{text}` is longer than a week, and providers remember no more");
    Ok(length)
}

/// Names become part of the API's paths, so they may hold nothing that means something there.
fn checked_path(name: &str, is_repository: bool) -> anyhow::Result<String> {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))
    };
    let name = name.trim_end_matches(".git");
    let is_name = name.split('/').all(is_segment) && (!is_repository || name.contains('/'));
    let form = if is_repository { "OWNER/NAME" } else { "NAME" };
    anyhow::ensure!(is_name, "`{name}` is not a name at a provider; write it like {form}, without host");
    Ok(name.to_owned())
}

/// Asks before something is changed. Returns whether to go on.
fn may_go_on(args: &ConfirmArgs) -> anyhow::Result<bool> {
    if args.dry_run {
        progress::success("nothing was changed (--dry-run)");
        return Ok(false);
    }
    if args.yes || progress::confirm("Continue?")? {
        return Ok(true);
    }
    progress::failure("nothing was changed");
    Ok(false)
}
