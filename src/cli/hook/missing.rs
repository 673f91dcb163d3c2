//! The repositories of a cluster's inventory that no webhook of an endpoint covers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use super::api_client::ApiError;
use super::checked_path;
use super::session::Session;
use crate::cli::{ClusterArgs, progress};
use crate::cluster::access;
use crate::cluster::connection::ApiConnection;
use crate::webhook_api::{Webhook, WebhookScope};

/// Repositories that one run looks at; each costs the provider a request at least.
const MAX_REPOSITORIES: usize = 1000;

/// What is known about the webhooks of a cluster's repositories.
pub(super) struct MissingWebhooks {
    /// Repositories that no webhook covers.
    pub(super) uncovered: Vec<WebhookScope>,
    /// Repositories whose webhooks this token may not see, each with why: those of others, mostly.
    pub(super) invisible: Vec<(String, String)>,
}

/// The repositories at this provider that objects of the cluster reference, without those that a webhook for
/// them, for one of their owners or for the instance covers.
pub(super) async fn find(session: &Session, cluster: &ClusterArgs) -> anyhow::Result<MissingWebhooks> {
    let repositories = repositories(session, cluster).await?;
    progress::action(&format!(
        "looking for webhooks of {} repositories at {}",
        repositories.len(),
        session.client.host()
    ));
    anyhow::ensure!(
        repositories.len() <= MAX_REPOSITORIES,
        "the cluster references {} repositories there, more than {MAX_REPOSITORIES}; narrow it with --namespaces",
        repositories.len()
    );
    let mut coverage = Coverage { session, by_scope: BTreeMap::new() };
    let mut missing = MissingWebhooks { uncovered: Vec::new(), invisible: Vec::new() };
    for path in repositories {
        // What tenants write becomes part of the API's paths.
        if let Err(err) = checked_path(&path, true) {
            missing.invisible.push((path, err.to_string()));
            continue;
        }
        match coverage.covers(&path).await {
            Ok(true) => {}
            Ok(false) => missing.uncovered.push(WebhookScope::Repository(path)),
            Err(err @ (ApiError::NotFound(_) | ApiError::Forbidden(_) | ApiError::NoSuchScope(_))) => {
                missing.invisible.push((path, err.to_string()));
            }
            Err(err) => return Err(err.into()),
        }
    }
    for (path, why) in &missing.invisible {
        progress::failure(&format!("repository {path} is left out: {why}"));
    }
    Ok(missing)
}

/// The paths of the repositories that GitRepositories fetch from the provider's host.
async fn repositories(session: &Session, cluster: &ClusterArgs) -> anyhow::Result<BTreeSet<String>> {
    let connection = ApiConnection::open(cluster.options()).await?;
    let found = access::git_repositories(&connection, &cluster.namespaces()).await;
    let found = found.with_context(|| format!("cannot list GitRepositories at {}", connection.server()))?;
    // The API of a service has a host of its own: api.github.com.
    let api_host = session.client.host();
    let host = api_host.strip_prefix("api.").unwrap_or(api_host);
    let hosts = &session.endpoint.git_hosts;
    let is_there = |other: &str| other == host || hosts.iter().any(|listed| listed == other);
    let there = found.into_iter().filter(|(_, url)| is_there(url.host()));
    Ok(there.map(|(_, url)| url.path().to_owned()).filter(|path| path.contains('/')).collect())
}

/// Which scopes have a webhook of the endpoint, as far as they were asked for.
struct Coverage<'s> {
    session: &'s Session,
    by_scope: BTreeMap<WebhookScope, bool>,
}

impl Coverage<'_> {
    async fn covers(&mut self, repository: &str) -> Result<bool, ApiError> {
        let owners = repository.match_indices('/').map(|(end, _)| &repository[..end]);
        let owners = owners.map(|owner| WebhookScope::Organization(owner.to_owned()));
        // From wide to narrow: what covers many is read once.
        let mut scopes = vec![WebhookScope::Instance];
        scopes.extend(owners);
        scopes.push(WebhookScope::Repository(repository.to_owned()));
        for scope in scopes {
            if self.has_webhook(scope).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has_webhook(&mut self, scope: WebhookScope) -> Result<bool, ApiError> {
        if let Some(known) = self.by_scope.get(&scope) {
            return Ok(*known);
        }
        let is_repository = matches!(scope, WebhookScope::Repository(_));
        let needed = self.session.needed_events(false);
        let works = |webhook: &Webhook| {
            let has = |event: &String| webhook.events.iter().any(|other| other == "*" || other == event);
            webhook.is_active && webhook.disabled.is_none() && needed.iter().all(has)
        };
        let found = match self.session.own_webhooks(&scope).await {
            Ok(own) => own.iter().any(works),
            // Users are not organizations, and not every API has webhooks for the instance.
            Err(ApiError::NotFound(_) | ApiError::NoSuchScope(_)) if !is_repository => false,
            // Only an administrator may see those of the instance, and few tokens are that.
            Err(ApiError::Forbidden(_)) if scope == WebhookScope::Instance => false,
            Err(ApiError::Forbidden(line)) if !is_repository => {
                // A webhook there may cover everything, and a second one would send everything twice.
                return Err(ApiError::Refused(format!("{line}; without that nobody can say what it covers")));
            }
            Err(err) => return Err(err),
        };
        self.by_scope.insert(scope, found);
        Ok(found)
    }
}
