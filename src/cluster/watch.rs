//! One watch: what it sees of an object, and where it looks.

use std::fmt;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta, Resource};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::Deserialize;

use super::{describe, status_code};
use crate::flux::{Kind, Target};

/// Lists that the server asks for one after the other are spaced.
const BETWEEN_LISTS: Duration = Duration::from_millis(200);

/// Objects per page of a list: some 4 KiB each, so a page stays below a few MiB.
const PAGE_SIZE: u32 = 250;

/// Where a watch looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Cluster,
    Namespace(String),
}

impl Scope {
    pub(super) fn covers(&self, target: &Target) -> bool {
        match self {
            Scope::Cluster => true,
            Scope::Namespace(namespace) => target.namespace == *namespace,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Cluster => f.write_str("all namespaces"),
            Scope::Namespace(namespace) => f.write_str(namespace),
        }
    }
}

/// An object as it comes from a watch: the spec stays untyped, so that decoding a list never fails
/// over one of its objects.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Watched {
    metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: serde_json::Value,
}

impl Watched {
    pub(super) fn target(&self, kind: Kind) -> Target {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        Target { kind, namespace: part(&self.metadata.namespace), name: part(&self.metadata.name) }
    }
}

impl Resource for Watched {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The events of a kind in a scope, from one list on. Errors come unpaced: whoever reads them waits.
pub(super) fn events(
    client: Client,
    resource: &ApiResource,
    scope: &Scope,
) -> impl Stream<Item = Result<Event<Watched>, watcher::Error>> + Send + use<> {
    let api: Api<Watched> = match scope {
        Scope::Cluster => Api::all_with(client, resource),
        Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, resource),
    };
    let config = watcher::Config::default().page_size(PAGE_SIZE);
    kube::runtime::watcher(api, config).then(|event| async move {
        if matches!(event, Ok(Event::Init)) {
            tokio::time::sleep(BETWEEN_LISTS).await;
        }
        event
    })
}

/// The status code behind an error, if the API server has answered.
pub(super) fn watch_status_code(err: &watcher::Error) -> Option<u16> {
    match err {
        watcher::Error::InitialListFailed(err)
        | watcher::Error::WatchStartFailed(err)
        | watcher::Error::WatchFailed(err) => status_code(err),
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::NoResourceVersion => None,
    }
}

/// An error in a line.
pub(super) fn describe_watch(err: &watcher::Error) -> String {
    match err {
        watcher::Error::InitialListFailed(err)
        | watcher::Error::WatchStartFailed(err)
        | watcher::Error::WatchFailed(err) => describe(err),
        other => other.to_string(),
    }
}
