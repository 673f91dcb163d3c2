//! The part of `flux-recv check` that is about the cluster: served kinds, rights, objects and Receivers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::report::{ClusterReport, KindRow};
use super::{CheckArgs, never};
use crate::cli::with_causes;
use crate::cluster::access::{self, KindAccess};
use crate::cluster::connection::{ApiConnection, ClusterOptions};
use crate::cluster::receivers;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::event::Subject;
use crate::event::repository_url::RepositoryUrl;
use crate::flux::Target;
use crate::flux_receiver::ReceiverDefaults;
use crate::matching::{self, OtherHost};

/// A cluster that does not answer within this time counts as out of reach.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// Finds out what serving would meet.
pub(super) async fn examine(args: &CheckArgs, config: &Config) -> ClusterReport {
    let found = tokio::time::timeout(CHECK_TIMEOUT, look(args, config)).await;
    let found = found.with_context(|| format!("no answer within {} s", CHECK_TIMEOUT.as_secs()));
    found.flatten().unwrap_or_else(|err| ClusterReport::failed(with_causes(&err)))
}

async fn look(args: &CheckArgs, config: &Config) -> anyhow::Result<ClusterReport> {
    let options = ClusterOptions { impersonate: args.impersonate.clone(), ..args.cluster.options() };
    let connection = ApiConnection::open(options).await?;
    let mut kinds = config.needs().kinds;
    let (mut receivers, mut receivers_are_good) = (Vec::new(), true);
    if let Some(namespaces) = args.receivers.namespaces() {
        let namespaces = if namespaces.is_empty() { args.cluster.namespaces() } else { namespaces };
        let rules = ReceiverDefaults {
            cross_namespace_refs: args.receivers.cross_namespace_refs,
            allowed_issuers: &args.receivers.allowed_issuers,
            ..ReceiverDefaults::default()
        };
        let found = receivers::examine(&connection, &namespaces, rules).await;
        match found.context("the Receivers (kustomization/components/receivers gives the rights)") {
            Ok(found) => {
                kinds.extend(found.kinds);
                (receivers, receivers_are_good) = (found.lines, found.is_good);
            }
            Err(err) => (receivers, receivers_are_good) = (vec![with_causes(&err)], false),
        }
    }
    let cannot_examine = || format!("cannot examine {}", connection.server());
    let namespaces = args.cluster.namespaces();
    let kinds = access::examine(&connection, &kinds, &namespaces).await.with_context(cannot_examine)?;
    let repositories =
        access::git_repositories(&connection, &namespaces).await.with_context(cannot_examine)?;
    Ok(ClusterReport {
        server: Some(connection.server().to_string()),
        context: connection.context().map(|context| context.to_string()),
        user: access::user_name(&connection).await,
        warnings: never::warnings(config, &kinds),
        hints: hints(config, &repositories),
        kinds: kinds.into_iter().map(row).collect(),
        receivers,
        receivers_are_good,
        ..ClusterReport::default()
    })
}

fn row(access: KindAccess) -> KindRow {
    // The base has no rights on kinds that few endpoints name.
    let is_further = !access.missing.is_empty() && !access.kind.is_of_payloads();
    KindRow {
        kind: access.kind.to_string(),
        namespace: access.namespace,
        version: access.version,
        objects: access.objects.map(|objects| objects.len()),
        missing_rights: access.missing,
        component: is_further.then_some("kustomization/components/more-kinds"),
    }
}

/// Objects that are named; the others are counted.
const MAX_SHOWN_OBJECTS: usize = 10;

/// Objects that a provider may know under another host, with the line to add.
fn hints(config: &Config, repositories: &[(Target, RepositoryUrl)]) -> Vec<String> {
    let is_about_git = |endpoint: &&Arc<Endpoint>| endpoint.provider.subjects.contains(&Subject::Git);
    let endpoints: Vec<&str> =
        config.endpoints.iter().filter(is_about_git).map(|endpoint| &*endpoint.name).collect();
    if endpoints.is_empty() {
        return Vec::new();
    }
    let listed = config.endpoints.iter().flat_map(|endpoint| endpoint.git_hosts.iter().cloned()).collect();
    let found = matching::at_other_hosts(repositories, &listed);
    let mut hints = Vec::new();
    for OtherHost { target, path, host, other } in found.iter().take(MAX_SHOWN_OBJECTS) {
        let seen = match other {
            Some((other, other_host)) => format!("{other} has it at {other_host}; if both are one forge,"),
            None => "only the cluster knows this host; if its payloads name another one,".to_owned(),
        };
        hints.push(format!(
            "{target} references {path} at {host}, {seen} add `gitHosts: [{host}]` to its endpoint ({})",
            endpoints.join(" or "),
        ));
    }
    if let Some(more @ 1..) = found.len().checked_sub(MAX_SHOWN_OBJECTS) {
        hints.push(format!("and {more} more objects like these"));
    }
    hints
}
