//! Keeps the inventory current: one watch per kind, and per namespace where only some are wanted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta, Resource};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::annotate::Annotator;
use super::connection::Connection;
use super::resources::Resources;
use super::{describe, status_code};
use crate::flux::{KINDS, Kind, Spec, Target};
use crate::matching::{Inventory, Object};

/// The watches of one cluster.
pub struct Watches {
    connection: Connection,
    resources: Arc<Resources>,
    inventory: Arc<RwLock<Inventory>>,
    /// Empty for the whole cluster.
    namespaces: Vec<String>,
    unsynced: Mutex<HashSet<Kind>>,
    synced: Notify,
}

/// When to look again for a kind that is missing or forbidden.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// When to ask again after the API server did not answer; varied so that replicas spread.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);
const LONGEST_AFTER_FAILURES: Duration = Duration::from_secs(30);

/// A watch that the server ends at once would otherwise be opened again without any pause.
const BETWEEN_WATCHES: Duration = Duration::from_millis(200);

/// Objects per page of a list: some 4 KiB each, so a page stays below a few MiB.
const PAGE_SIZE: u32 = 250;

/// Why the watch of a kind ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Forbidden,
    NotServed,
    Unauthorized,
}

impl Watches {
    /// Watches for a cluster; nothing is asked until [`Watches::run`].
    pub fn new(
        connection: Connection,
        inventory: Arc<RwLock<Inventory>>,
        namespaces: Vec<String>,
    ) -> Arc<Watches> {
        Arc::new(Watches {
            connection,
            resources: Arc::default(),
            inventory,
            namespaces,
            unsynced: Mutex::new(KINDS.iter().map(|info| info.kind).collect()),
            synced: Notify::new(),
        })
    }

    /// The writer that asks objects of this cluster.
    pub fn annotator(&self) -> Annotator {
        Annotator {
            connection: self.connection.clone(),
            resources: Arc::clone(&self.resources),
            inventory: Arc::clone(&self.inventory),
        }
    }

    /// Watches all kinds; never ends.
    pub async fn run(self: Arc<Watches>) {
        let mut kinds = JoinSet::new();
        for info in &KINDS {
            let watches = Arc::clone(&self);
            kinds.spawn(async move { watches.keep(info.kind).await });
        }
        // A watch never ends by itself, so whatever comes out of here is a panic.
        if let Some(Err(err)) = kinds.join_next().await {
            log::error!("a watch ended in a panic: {err}");
        }
    }

    /// Waits until every kind is known, missing or forbidden.
    pub async fn synced(&self) {
        loop {
            let synced = self.synced.notified();
            if self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
            synced.await;
        }
    }

    async fn keep(&self, kind: Kind) {
        let mut failures = 0;
        let mut own_namespace_only = false;
        loop {
            let client = self.connection.client();
            let resource = match self.resources.discover(&client, kind).await {
                Ok(Some(resource)) => resource,
                Ok(None) => {
                    log::warn!(kind:%; "the cluster has no such kind; looking again every {} s", TRY_AGAIN.as_secs());
                    self.write().retain(kind, |_| false);
                    self.settled(kind);
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
                Err(err) => {
                    self.wait_after_failure(kind, &err, failures).await;
                    failures += 1;
                    continue;
                }
            };
            failures = 0;
            let scopes = self.scopes(&client, own_namespace_only);
            match self.watch(kind, &client, &resource, &scopes).await {
                Ended::NotServed => tokio::time::sleep(AFTER_A_FAILURE).await,
                Ended::Unauthorized => {
                    self.connection.reload_credentials().await;
                    tokio::time::sleep(AFTER_A_FAILURE).await;
                }
                Ended::Forbidden if scopes == [Scope::Cluster] => {
                    let namespace = client.default_namespace().to_owned();
                    log::warn!(kind:%, namespace:%; "may not list the kind in the whole cluster; watching the own namespace");
                    own_namespace_only = true;
                }
                Ended::Forbidden => {
                    log::warn!(
                        kind:%, namespaces:% = describe_scopes(&scopes);
                        "may not list and watch the kind; trying again every {} s", TRY_AGAIN.as_secs()
                    );
                    self.settled(kind);
                    tokio::time::sleep(TRY_AGAIN).await;
                    own_namespace_only = false;
                }
            }
        }
    }

    async fn wait_after_failure(&self, kind: Kind, err: &kube::Error, failures: u32) {
        if status_code(err) == Some(401) {
            self.connection.reload_credentials().await;
        }
        let pause = AFTER_A_FAILURE.saturating_mul(1 << failures.min(5)).min(LONGEST_AFTER_FAILURES);
        log::warn!(kind:%, why:% = describe(err), retry_in_s = pause.as_secs(); "the API server does not say what it serves");
        tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }

    fn scopes(&self, client: &Client, own_namespace_only: bool) -> Vec<Scope> {
        if own_namespace_only {
            return vec![Scope::Namespace(client.default_namespace().to_owned())];
        }
        if self.namespaces.is_empty() {
            return vec![Scope::Cluster];
        }
        self.namespaces.iter().cloned().map(Scope::Namespace).collect()
    }

    /// Watches a kind until the way of watching it has to change.
    async fn watch(&self, kind: Kind, client: &Client, resource: &ApiResource, scopes: &[Scope]) -> Ended {
        self.write().retain(kind, |target| scopes.iter().any(|scope| scope.covers(target)));
        let streams =
            scopes.iter().map(|scope| Box::pin(events(client.clone(), resource.clone(), scope.clone())));
        let mut events = futures::stream::select_all(streams);
        let mut listing: Vec<(Scope, HashSet<Target>)> = Vec::new();
        let mut unlisted = scopes.len();
        let mut complained = false;
        loop {
            match events.try_next().await {
                Ok(Some((scope, event))) => {
                    complained = false;
                    let done = self.apply(kind, &scope, event, &mut listing);
                    unlisted = unlisted.saturating_sub(usize::from(done));
                    if done && unlisted == 0 {
                        self.settled(kind);
                    }
                }
                Ok(None) => return Ended::NotServed,
                Err(err) => {
                    if let Some(ended) = ended(&err) {
                        return ended;
                    }
                    if !complained {
                        log::warn!(kind:%, why:% = describe_watch(&err); "the watch was interrupted; it goes on by itself");
                    }
                    complained = true;
                }
            }
        }
    }

    /// Applies one event; says whether it ended the list of a scope.
    fn apply(
        &self,
        kind: Kind,
        scope: &Scope,
        event: Event<Watched>,
        listing: &mut Vec<(Scope, HashSet<Target>)>,
    ) -> bool {
        let at = listing.iter().position(|(of, _)| of == scope);
        match event {
            Event::Init => {
                listing.retain(|(of, _)| of != scope);
                listing.push((scope.clone(), HashSet::new()));
                false
            }
            Event::InitApply(object) => {
                let target = object.target(kind);
                self.put(&target, object);
                if let Some(at) = at {
                    listing[at].1.insert(target);
                }
                false
            }
            Event::InitDone => {
                let Some(at) = at else { return false };
                let (_, listed) = listing.swap_remove(at);
                self.write().retain(kind, |target| !scope.covers(target) || listed.contains(target));
                true
            }
            Event::Apply(object) => {
                self.put(&object.target(kind), object);
                false
            }
            Event::Delete(object) => {
                self.write().remove(&object.target(kind));
                false
            }
        }
    }

    /// An object that cannot be read hides only itself.
    fn put(&self, target: &Target, object: Watched) {
        let read = Spec::read(target.kind, object.spec).and_then(|spec| Object::new(target.clone(), &spec));
        match read {
            Ok(object) => self.write().put(object),
            Err(why) => {
                log::warn!(object:% = target, why:%; "the object cannot be matched");
                self.write().remove(target);
            }
        }
    }

    fn settled(&self, kind: Kind) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if unsynced.remove(&kind) {
            log::info!(kind:%, objects = self.inventory.read().unwrap_or_else(PoisonError::into_inner).count(kind); "objects are known");
            if unsynced.is_empty() {
                self.synced.notify_waiters();
            }
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inventory> {
        self.inventory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a watch looks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Cluster,
    Namespace(String),
}

impl Scope {
    fn covers(&self, target: &Target) -> bool {
        match self {
            Scope::Cluster => true,
            Scope::Namespace(namespace) => target.namespace == *namespace,
        }
    }
}

fn describe_scopes(scopes: &[Scope]) -> String {
    let names = scopes.iter().map(|scope| match scope {
        Scope::Cluster => "all",
        Scope::Namespace(namespace) => namespace,
    });
    names.collect::<Vec<_>>().join(",")
}

/// An object as it comes from a watch: the spec stays untyped, so that decoding a list never fails
/// over one of its objects.
#[derive(Debug, Clone, Deserialize)]
struct Watched {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: serde_json::Value,
}

impl Watched {
    fn target(&self, kind: Kind) -> Target {
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

fn events(
    client: Client,
    resource: ApiResource,
    scope: Scope,
) -> impl Stream<Item = Result<(Scope, Event<Watched>), watcher::Error>> + Send {
    let api: Api<Watched> = match &scope {
        Scope::Cluster => Api::all_with(client, &resource),
        Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, &resource),
    };
    let config = watcher::Config::default().page_size(PAGE_SIZE);
    let paced = kube::runtime::watcher(api, config).default_backoff().then(|event| async move {
        if matches!(event, Ok(Event::Init)) {
            tokio::time::sleep(BETWEEN_WATCHES).await;
        }
        event
    });
    paced.map_ok(move |event| (scope.clone(), event))
}

/// What an error means for the way of watching; `None` if the watch mends itself.
fn ended(err: &watcher::Error) -> Option<Ended> {
    let code = match err {
        watcher::Error::InitialListFailed(err)
        | watcher::Error::WatchStartFailed(err)
        | watcher::Error::WatchFailed(err) => status_code(err)?,
        watcher::Error::WatchError(status) => status.code,
        watcher::Error::NoResourceVersion => return None,
    };
    match code {
        401 => Some(Ended::Unauthorized),
        403 => Some(Ended::Forbidden),
        404 => Some(Ended::NotServed),
        _ => None,
    }
}

fn describe_watch(err: &watcher::Error) -> String {
    match err {
        watcher::Error::InitialListFailed(err)
        | watcher::Error::WatchStartFailed(err)
        | watcher::Error::WatchFailed(err) => describe(err),
        other => other.to_string(),
    }
}
