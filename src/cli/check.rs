//! `flux-recv check`: would it work, and if not, why.

mod cluster;
mod fleet;
mod never;
mod report;

use std::process::ExitCode;

use clap::Args;

use self::report::{CheckReport, ClusterReport, EndpointRow};
use super::output::OutputArgs;
use super::subscribers::InstanceArgs;
use super::{ClusterArgs, ConfigArgs, ReceiverArgs, runtime};
use crate::config::{self, Config, Rules};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Check the rights of this user [default: your own], as in
    /// `--as=system:serviceaccount:flux-system:flux-recv`.
    #[arg(long = "as", value_name = "USER", conflicts_with = "no_cluster")]
    impersonate: Option<String>,
    #[command(flatten)]
    receivers: ReceiverArgs,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Check the config and the keys only, as in the CI of a repository.
    #[arg(long, visible_alias = "offline")]
    no_cluster: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let serves_receivers = args.receivers.namespaces().is_some();
    let rules = Rules { serves_receivers, allows_missing_keys: args.no_cluster, ..Rules::default() };
    let config = config::load(&args.config.config, rules).config?;
    let report = runtime()?.block_on(report(args, &config));
    args.output.print(&report, |report| Ok(report.describe()))?;
    Ok(if report.good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn report(args: &CheckArgs, config: &Config) -> CheckReport {
    let fleet = fleet::examine(config, &args.instance, args.no_cluster).await;
    let cluster = match &config.api {
        _ if args.no_cluster => None,
        Some(api) => Some(ClusterReport::not_needed(api.host_str().unwrap_or_default())),
        None => Some(cluster::examine(args, config).await),
    };
    let endpoints = config.endpoints.iter().map(|endpoint| EndpointRow {
        name: endpoint.name.to_string(),
        provider: endpoint.provider.name,
        authenticated: endpoint.is_authenticated(),
    });
    // A warning is not a mistake, but not all is well with it either.
    let good =
        fleet.is_good() && cluster.as_ref().is_none_or(ClusterReport::is_good) && config.warnings.is_empty();
    let missing = config.missing_keys.iter();
    CheckReport {
        good,
        endpoints: endpoints.collect(),
        warnings: config.warnings.clone(),
        missing_keys: missing.map(|file| file.display().to_string()).collect(),
        fleet,
        cluster,
    }
}
