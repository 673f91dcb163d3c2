//! `flux-recv check`: would it work, and if not, why.

mod fleet;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::subscribers::InstanceArgs;
use super::{ClusterArgs, ConfigArgs, ReceiverArgs, runtime, say, with_causes};
use crate::cluster::access::{self, KindAccess, REQUIRED_VERBS};
use crate::cluster::connection::ApiConnection;
use crate::cluster::receivers;
use crate::config::{self, Config, Rules};
use crate::endpoint::Endpoint;
use crate::event::Subject;
use crate::event::repository_url::RepositoryUrl;
use crate::flux::{Kind, Target};
use crate::flux_receiver;
use crate::matching::{self, OtherHost};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    receivers: ReceiverArgs,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Check the config and the keys only, as in the CI of a repository.
    #[arg(long, visible_alias = "offline")]
    no_cluster: bool,
}

/// A cluster that does not answer within this time counts as out of reach.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let serves_receivers = args.receivers.namespaces().is_some();
    let rules = Rules { serves_receivers, ..Rules::default() };
    let config = config::load(&args.config.config, rules).config?;
    say(&describe_config(&config))?;
    let (lines, fleet_in_order) =
        runtime()?.block_on(fleet::examine(&config, &args.instance, args.no_cluster));
    say(&lines)?;
    let in_order = match &config.api {
        _ if args.no_cluster => true,
        Some(api) => {
            say(&format!(
                "\ncluster: not needed, events go to fluxd at {}\n",
                api.host_str().unwrap_or_default()
            ))?;
            true
        }
        None => match examine(args, &config.needs().kinds) {
            Ok(ClusterReport { kinds, receivers, repositories }) => {
                let lines: String = kinds.iter().map(|access| format!("  {}\n", describe(access))).collect();
                say(&format!("\ncluster:\n{lines}"))?;
                let (lines, all_are_served) = receivers.unwrap_or_else(|| (Vec::new(), true));
                lines.iter().try_for_each(|line| say(&format!("  {line}\n")))?;
                say(&describe_hosts(&config, &repositories))?;
                all_are_served
                    && kinds.iter().all(is_good)
                    && kinds.iter().any(|access| access.version.is_some())
            }
            Err(err) => {
                say(&format!("\ncluster: {}\n", with_causes(&err)))?;
                false
            }
        },
    };
    // A warning is not a mistake, but not all is well with it either.
    Ok(if in_order && fleet_in_order && config.warnings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe_config(config: &Config) -> String {
    let mut text = "endpoints:\n".to_owned();
    for endpoint in config.endpoints.iter() {
        let authentication = match endpoint.is_authenticated() {
            true => "deliveries are authenticated",
            false => "protected by the secret path alone",
        };
        text.push_str(&format!("  {} ({}): {authentication}\n", endpoint.name, endpoint.provider.name));
    }
    for warning in &config.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// The result of checking a cluster.
struct ClusterReport {
    kinds: Vec<KindAccess>,
    /// A line for each Receiver, and whether all of them are served; none if Receivers are not checked.
    receivers: Option<(Vec<String>, bool)>,
    repositories: Vec<(Target, RepositoryUrl)>,
}

fn examine(args: &CheckArgs, kinds: &BTreeSet<Kind>) -> anyhow::Result<ClusterReport> {
    let examining = async {
        let connection = ApiConnection::open(args.cluster.options()).await?;
        let mut kinds = kinds.clone();
        let receivers = match args.receivers.namespaces() {
            None => None,
            Some(namespaces) => {
                let namespaces = if namespaces.is_empty() { args.cluster.namespaces() } else { namespaces };
                let rules = flux_receiver::ReceiverDefaults {
                    cross_namespace_refs: args.receivers.cross_namespace_refs,
                    allowed_issuers: &args.receivers.allowed_issuers,
                    ..flux_receiver::ReceiverDefaults::default()
                };
                let found = receivers::examine(&connection, &namespaces, rules).await;
                let found =
                    found.context("the Receivers (kustomization/components/receivers gives the rights)");
                match found {
                    Ok(found) => {
                        kinds.extend(found.kinds);
                        Some((found.lines, found.is_good))
                    }
                    Err(err) => Some((vec![with_causes(&err)], false)),
                }
            }
        };
        let cannot_examine = || format!("cannot examine {}", connection.server());
        let namespaces = args.cluster.namespaces();
        let kinds = access::examine(&connection, &kinds, &namespaces).await.with_context(cannot_examine)?;
        let repositories =
            access::git_repositories(&connection, &namespaces).await.with_context(cannot_examine)?;
        Ok(ClusterReport { kinds, receivers, repositories })
    };
    runtime()?.block_on(async {
        let found = tokio::time::timeout(CHECK_TIMEOUT, examining).await;
        found.with_context(|| format!("no answer within {} s", CHECK_TIMEOUT.as_secs()))?
    })
}

/// Objects that are named; the others are counted.
const MAX_SHOWN_OBJECTS: usize = 10;

/// Objects that a provider may know under another host, with the line to add.
fn describe_hosts(config: &Config, repositories: &[(Target, RepositoryUrl)]) -> String {
    let is_about_git = |endpoint: &&Arc<Endpoint>| endpoint.provider.subjects.contains(&Subject::Git);
    let endpoints: Vec<&str> =
        config.endpoints.iter().filter(is_about_git).map(|endpoint| &*endpoint.name).collect();
    if endpoints.is_empty() {
        return String::new();
    }
    let listed = config.endpoints.iter().flat_map(|endpoint| endpoint.git_hosts.iter().cloned()).collect();
    let found = matching::at_other_hosts(repositories, &listed);
    let mut text = String::new();
    for OtherHost { target, path, host, other } in found.iter().take(MAX_SHOWN_OBJECTS) {
        let seen = match other {
            Some((other, other_host)) => format!("{other} has it at {other_host}; if both are one forge,"),
            None => "only the cluster knows this host; if its payloads name another one,".to_owned(),
        };
        text.push_str(&format!(
            "hint: {target} references {path} at {host}, {seen} add `gitHosts: [{host}]` to its endpoint ({})\n",
            endpoints.join(" or "),
        ));
    }
    if let Some(more @ 1..) = found.len().checked_sub(MAX_SHOWN_OBJECTS) {
        text.push_str(&format!("hint: and {more} more objects like these\n"));
    }
    text
}

/// A kind that the cluster does not have is not a mistake: not everyone runs every controller. (No kind
/// at all is one.)
fn is_good(access: &KindAccess) -> bool {
    access.version.is_none() || access.missing.is_empty()
}

fn describe(access: &KindAccess) -> String {
    let KindAccess { kind, namespace, version, missing, objects } = access;
    let place = namespace.as_ref().map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    let Some(version) = version else {
        return format!("{kind}{place}: the cluster has no such kind");
    };
    let rights = match missing.as_slice() {
        [] => format!("may {}", REQUIRED_VERBS.join(", ")),
        missing if kind.is_of_payloads() => format!("MAY NOT {}", missing.join(", ")),
        // The base has no rights on kinds that few endpoints name.
        missing => {
            format!("MAY NOT {} (kustomization/components/more-kinds gives the right)", missing.join(", "))
        }
    };
    let objects = objects.map(|count| format!(", {count} objects")).unwrap_or_default();
    format!("{kind} ({version}){place}: {rights}{objects}")
}
