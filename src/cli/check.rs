//! `flux-recv check`: would it work, and if not, why.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{ClusterArgs, ConfigArgs, runtime};
use crate::cluster::access::{self, Access, VERBS};
use crate::cluster::connection::Connection;
use crate::config::{self, Config};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Check the config and the keys only.
    #[arg(long)]
    no_cluster: bool,
}

/// How long a cluster may take to answer before it counts as out of reach.
const TIME_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = config::load(&args.config.config)?;
    report_endpoints(&config);
    let mut good = report_warnings(&config);
    if args.no_cluster {
        println!("\ncluster: not asked");
    } else if let Some(api) = &config.api {
        println!("\ncluster: not needed, events go to fluxd at {}", api.host_str().unwrap_or_default());
    } else {
        good &= report_cluster(&args.cluster)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report_endpoints(config: &Config) {
    println!("endpoints:");
    for endpoint in config.endpoints.iter() {
        let proof = match endpoint.proves_the_sender() {
            true => "proves its sender",
            false => "rests on the secret path alone",
        };
        println!("  {} ({}): {proof}", endpoint.name, endpoint.provider.name);
    }
}

/// Warnings make the check fail: not all is well.
fn report_warnings(config: &Config) -> bool {
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    config.warnings.is_empty()
}

fn report_cluster(args: &ClusterArgs) -> anyhow::Result<bool> {
    runtime()?.block_on(async {
        let connection = match Connection::open(args.options()).await {
            Ok(connection) => connection,
            Err(err) => {
                println!("\ncluster: {err:#}");
                return Ok(false);
            }
        };
        let namespaces = args.namespaces();
        match tokio::time::timeout(TIME_LIMIT, access::examine(&connection, &namespaces)).await {
            Err(_) => {
                println!("\ncluster: no answer within {} s", TIME_LIMIT.as_secs());
                Ok(false)
            }
            Ok(Err(err)) => {
                println!("\ncluster: {err:#}");
                Ok(false)
            }
            Ok(Ok(found)) => {
                println!("\ncluster:");
                for access in &found {
                    println!("  {}", describe(access));
                }
                Ok(found.iter().all(is_good))
            }
        }
    })
}

/// A kind that the cluster does not have is no mistake: not everyone runs every controller.
fn is_good(access: &Access) -> bool {
    access.version.is_none() || access.missing.is_empty()
}

fn describe(access: &Access) -> String {
    let Access { kind, namespace, version, missing, objects } = access;
    let place = namespace.as_ref().map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    let Some(version) = version else {
        return format!("{kind}{place}: the cluster has no such kind");
    };
    let rights = match missing.as_slice() {
        [] => format!("may {}", VERBS.join(", ")),
        missing => format!("MAY NOT {}", missing.join(", ")),
    };
    let objects = objects.map(|count| format!(", {count} objects")).unwrap_or_default();
    format!("{kind} ({version}){place}: {rights}{objects}")
}
