//! Flux's Receivers and the Secrets that they name, watched; nothing is read per delivery.
//!
//! A Secret is watched by its name, so that a role may name the Secrets that it opens, and of each
//! only what a Receiver needs is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind, Request, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::describe;
use super::watch::{Scope, Seen, Watch, Watchable};
use crate::backoff::growing_pause;
use crate::endpoint::Endpoint;
use crate::flux::Kind;
use crate::flux_receiver::{self, FluxReceiver, Rules, Secret, Spec};

/// Watches Receivers in these namespaces, or everywhere.
pub struct Receivers {
    connection: Connection,
    scopes: Vec<Scope>,
    rules: Rules,
}

/// A Receiver or a Secret by namespace and name.
type Name = (String, String);

/// What a watch has found.
enum Change {
    /// A Receiver of this name is there; without what it is where it cannot be read.
    Receiver(Name, Option<FluxReceiver>),
    ReceiverGone(Name),
    /// What is listed in the scope is all there is; none if it may not be listed.
    Listed(Scope, Option<BTreeSet<Name>>),
    /// A Secret is there, or is not.
    Secret(Name, Option<Secret>),
    /// A Secret cannot be read, which does not mean that it is gone.
    UnreadableSecret(Name),
}

/// What was made of a Receiver, and out of what.
struct Built {
    receiver: FluxReceiver,
    secret: Option<Secret>,
    endpoint: Option<Arc<Endpoint>>,
}

#[derive(Default)]
struct State {
    /// The scopes whose list is not complete yet.
    unlisted: Vec<Scope>,
    receivers: BTreeMap<Name, FluxReceiver>,
    secrets: BTreeMap<Name, Option<Secret>>,
    watched_secrets: HashMap<Name, AbortHandle>,
    built: BTreeMap<Name, Built>,
    /// Whether endpoints were handed over before.
    is_in_force: bool,
}

/// Changes that come together are put in force together.
const SETTLE: Duration = Duration::from_millis(50);

const AFTER_A_FAILURE: Duration = Duration::from_secs(2);
const LONGEST_AFTER_FAILURES: Duration = Duration::from_secs(30);

/// So many refusals or errors of an API server that answers are no slip of one that has just started.
/// One Secret that cannot be read must not hold back the Receivers that name others.
const SLIPS: u32 = 3;

/// How long a list may be silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

impl Receivers {
    /// Nothing is asked until [`Receivers::run`].
    pub fn new(connection: Connection, namespaces: Vec<String>, rules: Rules) -> Receivers {
        Receivers { connection, scopes: Scope::of(namespaces), rules }
    }

    /// Watches, and hands over all endpoints whenever one of them has changed, for the first time
    /// when all are known; never ends.
    pub async fn run(self, put_in_force: impl Fn(Vec<Arc<Endpoint>>)) {
        let (tell, mut changes) = unbounded_channel();
        let mut state = State { unlisted: self.scopes.clone(), ..State::default() };
        for scope in &self.scopes {
            let (connection, scope, tell) = (self.connection.clone(), scope.clone(), tell.clone());
            tokio::spawn(async move { watch_receivers(&connection, scope, &tell).await });
        }
        loop {
            // The other end lives as long as this function.
            let Some(change) = changes.recv().await else { return };
            state.take(change);
            tokio::time::sleep(SETTLE).await;
            take_all(&mut state, &mut changes);
            state.watch_named_secrets(&self.connection, &tell);
            if state.is_known() && state.build(self.rules) {
                put_in_force(state.endpoints());
            }
        }
    }
}

/// What `flux-recv check` finds out about Receivers.
pub struct Examined {
    /// A line each.
    pub lines: Vec<String>,
    /// Whether all is well.
    pub is_good: bool,
    /// The kinds that they list.
    pub kinds: BTreeSet<Kind>,
}

/// Finds out about the Receivers in these namespaces, or everywhere.
///
/// # Errors
/// When the API server does not answer, or the Receivers may not be listed.
pub async fn examine(
    connection: &Connection,
    namespaces: &[String],
    rules: Rules,
) -> anyhow::Result<Examined> {
    let scopes: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut found = Examined { lines: Vec::new(), is_good: true, kinds: BTreeSet::new() };
    for scope in scopes {
        let listed: Listed<ReceiverObject> = get(connection, &receivers(), scope, None).await?;
        for object in listed.items {
            let (line, is_served) = examine_one(connection, object, rules, &mut found.kinds).await;
            found.is_good &= is_served;
            found.lines.push(line);
        }
    }
    Ok(found)
}

async fn examine_one(
    connection: &Connection,
    object: ReceiverObject,
    rules: Rules,
    kinds: &mut BTreeSet<Kind>,
) -> (String, bool) {
    let name = format!("Receiver/{}/{}", object.metadata.namespace, object.metadata.name);
    let not_served = |why: String| (format!("{name}: is NOT served: {why}"), false);
    let receiver = match object.read() {
        Ok(receiver) => receiver,
        Err(why) => return not_served(why),
    };
    let secret = match &receiver.spec.secret_ref {
        None => None,
        Some(named) => {
            let (secrets, namespace) = (secrets(), Some(receiver.namespace.as_str()));
            match get::<Listed<SecretObject>>(connection, &secrets, namespace, Some(&named.name)).await {
                // One that is not there is told of below.
                Ok(listed) => listed.items.first().map(SecretObject::read),
                Err(err) => return not_served(format!("spec.secretRef: {err}")),
            }
        }
    };
    match flux_receiver::endpoint(&receiver, secret.as_ref(), rules) {
        Err(why) => not_served(why),
        Ok(made) => {
            kinds.extend(made.endpoint.selection.kinds());
            let of_status = match &receiver.webhook_path {
                None => "its status names no path yet",
                Some(path) if *path == made.endpoint.path() => "at the path of its status",
                Some(_) => "at the path of its status, and at that of its changed token",
            };
            let lost: String =
                made.without_effect.iter().map(|why| format!("; without effect: {why}")).collect();
            (
                format!("{name} ({}): is served, {of_status}{lost}", receiver.spec.r#type),
                made.without_effect.is_empty(),
            )
        }
    }
}

#[derive(Deserialize)]
struct Listed<T> {
    items: Vec<T>,
}

/// The list of all, or of the one with this name: it takes the right that a watch of it takes.
async fn get<T: DeserializeOwned>(
    connection: &Connection,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: Option<&str>,
) -> anyhow::Result<T> {
    let request = Request::new(DynamicObject::url_path(resource, namespace));
    let which = match name {
        Some(name) => ListParams::default().fields(&format!("metadata.name={name}")),
        None => ListParams::default(),
    };
    let request = request.list(&which)?;
    let answer = connection.client().request(request).await;
    answer.map_err(|err| anyhow::anyhow!("the API server: {}", describe(&err)))
}

fn take_all(state: &mut State, changes: &mut UnboundedReceiver<Change>) {
    while let Ok(change) = changes.try_recv() {
        state.take(change);
    }
}

impl State {
    fn take(&mut self, change: Change) {
        match change {
            Change::Receiver(name, Some(receiver)) => drop(self.receivers.insert(name, receiver)),
            Change::Receiver(name, None) | Change::ReceiverGone(name) => drop(self.receivers.remove(&name)),
            Change::Listed(scope, names) => {
                if let Some(names) = names {
                    self.receivers.retain(|name, _| !covers(&scope, name) || names.contains(name));
                }
                self.unlisted.retain(|unlisted| *unlisted != scope);
            }
            Change::Secret(name, secret) => {
                if self.watched_secrets.contains_key(&name) {
                    self.secrets.insert(name, secret);
                }
            }
            Change::UnreadableSecret(name) => {
                if self.watched_secrets.contains_key(&name) {
                    self.secrets.entry(name).or_default();
                }
            }
        }
    }

    fn named_secrets(&self) -> BTreeSet<Name> {
        let named = self.receivers.values().filter_map(|receiver| {
            Some((receiver.namespace.clone(), receiver.spec.secret_ref.as_ref()?.name.clone()))
        });
        named.collect()
    }

    fn watch_named_secrets(&mut self, connection: &Connection, tell: &UnboundedSender<Change>) {
        let named = self.named_secrets();
        self.watched_secrets.retain(|name, watch| {
            let is_named = named.contains(name);
            if !is_named {
                watch.abort();
            }
            is_named
        });
        self.secrets.retain(|name, _| named.contains(name));
        for name in named {
            self.watched_secrets.entry(name.clone()).or_insert_with(|| {
                let (connection, tell) = (connection.clone(), tell.clone());
                tokio::spawn(async move { watch_secret(&connection, name, &tell).await }).abort_handle()
            });
        }
    }

    /// Whether every Receiver was listed and every Secret looked at.
    fn is_known(&self) -> bool {
        self.unlisted.is_empty() && self.named_secrets().iter().all(|name| self.secrets.contains_key(name))
    }

    /// Makes endpoints of what has changed; says whether anything has. The first time something has.
    fn build(&mut self, rules: Rules) -> bool {
        let before = self.built.len();
        self.built.retain(|name, _| self.receivers.contains_key(name));
        let is_first = !std::mem::replace(&mut self.is_in_force, true);
        let mut has_changed = is_first || self.built.len() != before;
        for (name, receiver) in &self.receivers {
            let secret_name =
                receiver.spec.secret_ref.as_ref().map(|secret| (name.0.clone(), secret.name.clone()));
            let secret = secret_name.and_then(|name| self.secrets.get(&name).cloned().flatten());
            let is_same = |built: &Built| built.receiver == *receiver && built.secret == secret;
            if self.built.get(name).is_some_and(is_same) {
                continue;
            }
            let endpoint = make(receiver, secret.as_ref(), rules);
            has_changed = true;
            self.built.insert(name.clone(), Built { receiver: receiver.clone(), secret, endpoint });
        }
        has_changed
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.built.values().filter_map(|built| built.endpoint.clone()).collect()
    }
}

fn covers(scope: &Scope, name: &Name) -> bool {
    scope.namespace().is_none_or(|namespace| namespace == name.0)
}

fn make(receiver: &FluxReceiver, secret: Option<&Secret>, rules: Rules) -> Option<Arc<Endpoint>> {
    let name = receiver.endpoint_name();
    match flux_receiver::endpoint(receiver, secret, rules) {
        Ok(made) => {
            for why in made.without_effect {
                log::warn!(receiver:% = name, why:%; "a part of the Receiver has no effect");
            }
            Some(Arc::new(made.endpoint))
        }
        Err(why) => {
            log::error!(receiver:% = name, why:%; "the Receiver is not served");
            None
        }
    }
}

/// A Receiver as it comes; its spec stays untyped, so that one that cannot be read hides no other.
#[derive(Clone, Deserialize)]
struct ReceiverObject {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    resource_version: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    webhook_path: Option<String>,
}

/// A Secret as it comes.
#[derive(Clone, Deserialize)]
struct SecretObject {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, Zeroizing<String>>,
}

impl Watchable for ReceiverObject {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Watchable for SecretObject {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl ReceiverObject {
    fn name(&self) -> Name {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    fn read(self) -> Result<FluxReceiver, String> {
        let Metadata { name, namespace, .. } = self.metadata;
        let spec =
            serde_path_to_error::deserialize::<_, Spec>(self.spec).map_err(|err| format!("spec.{err}"))?;
        Ok(FluxReceiver { namespace, name, spec, webhook_path: self.status.webhook_path })
    }

    /// The Receiver; none, and the reason in the log, if it cannot be read.
    fn read_or_log(self) -> Option<FluxReceiver> {
        let name = format!("Receiver/{}/{}", self.metadata.namespace, self.metadata.name);
        self.read().map_err(|why| log::error!(receiver:% = name, why:%; "the Receiver is not served")).ok()
    }
}

impl SecretObject {
    fn read(&self) -> Secret {
        Secret::of_data(|key| Some(self.data.get(key)?.as_str()))
    }
}

fn receivers() -> ApiResource {
    let kind = GroupVersionKind::gvk("notification.toolkit.fluxcd.io", "v1", "Receiver");
    ApiResource::from_gvk_with_plural(&kind, "receivers")
}

fn secrets() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets")
}

/// Tells of all Receivers in a scope; never ends.
async fn watch_receivers(connection: &Connection, scope: Scope, tell: &UnboundedSender<Change>) {
    let mut listed = BTreeSet::new();
    let see = |seen: Option<Seen<ReceiverObject>>| match seen {
        None => vec![Change::Listed(scope.clone(), None)],
        Some(Seen::Unchanged) => Vec::new(),
        Some(Seen::Listing) => {
            listed.clear();
            Vec::new()
        }
        Some(Seen::Listed(object)) => {
            listed.insert(object.name());
            vec![Change::Receiver(object.name(), object.read_or_log())]
        }
        Some(Seen::Complete) => vec![Change::Listed(scope.clone(), Some(std::mem::take(&mut listed)))],
        Some(Seen::Changed(object)) => vec![Change::Receiver(object.name(), object.read_or_log())],
        Some(Seen::Gone(object)) => vec![Change::ReceiverGone(object.name())],
    };
    keep(connection, "Receivers", &receivers(), &scope, None, tell, see).await;
}

/// Tells of one Secret; never ends.
async fn watch_secret(connection: &Connection, name: Name, tell: &UnboundedSender<Change>) {
    let mut is_there = false;
    let (scope, secret_name) = (Scope::Namespace(name.0.clone()), name.1.clone());
    let see = |seen: Option<Seen<SecretObject>>| match seen {
        Some(Seen::Unchanged) => Vec::new(),
        Some(Seen::Listing) => {
            is_there = false;
            Vec::new()
        }
        Some(Seen::Listed(secret) | Seen::Changed(secret)) => {
            is_there = true;
            vec![Change::Secret(name.clone(), Some(secret.read()))]
        }
        Some(Seen::Complete) if is_there => Vec::new(),
        None => vec![Change::UnreadableSecret(name.clone())],
        Some(Seen::Complete | Seen::Gone(_)) => vec![Change::Secret(name.clone(), None)],
    };
    let what = format!("Secret {}", name.1);
    keep(connection, &what, &secrets(), &scope, Some(&secret_name), tell, see).await;
}

/// Watches and goes on after whatever interrupts it. `see` is given none when the answers are errors for
/// good; that is looked at again all the same.
async fn keep<T: Watchable>(
    connection: &Connection,
    what: &str,
    resource: &ApiResource,
    scope: &Scope,
    name: Option<&str>,
    tell: &UnboundedSender<Change>,
    mut see: impl FnMut(Option<Seen<T>>) -> Vec<Change>,
) {
    let open = || {
        let watch = Watch::new(connection.client(), resource, scope);
        match name {
            Some(name) => watch.of_name(name),
            None => watch,
        }
    };
    let (mut watch, mut failures, mut answered_failures) = (open(), 0_u32, 0_u32);
    loop {
        let next = match watch.is_listing() {
            true => tokio::time::timeout(ANSWER_LIMIT, watch.next()).await.ok(),
            false => Some(watch.next().await),
        };
        let interruption = match next {
            Some(Ok(seen)) => {
                // A list that may be had says nothing about the watch behind it.
                if matches!(seen, Seen::Unchanged | Seen::Changed(_) | Seen::Gone(_)) {
                    (failures, answered_failures) = (0, 0);
                }
                see(Some(seen)).into_iter().for_each(|change| drop(tell.send(change)));
                continue;
            }
            Some(Err(interruption)) => Some(interruption),
            None => None,
        };
        failures = failures.saturating_add(1);
        let code = interruption.as_ref().and_then(|interruption| interruption.code);
        let why = interruption.map_or_else(|| "no answer".to_owned(), |interruption| interruption.why);
        answered_failures = answered_failures.saturating_add(u32::from(code.is_some()));
        // A name that no object can have is asked for in vain.
        if answered_failures == SLIPS || (code == Some(400) && answered_failures == 1) {
            see(None).into_iter().for_each(|change| drop(tell.send(change)));
        }
        match code {
            Some(401) => {
                connection.reload_credentials().await;
                watch = open();
            }
            Some(403 | 404) if answered_failures == SLIPS => {
                log::warn!(what, scope:%, why:%; "may not be listed and watched; kustomization/components/receivers gives the right");
            }
            Some(403 | 404) => {}
            _ if failures == 1 || answered_failures == SLIPS => {
                log::warn!(what, scope:%, why:%; "the watch was interrupted; it goes on by itself")
            }
            _ => {}
        }
        let pause = growing_pause(AFTER_A_FAILURE, LONGEST_AFTER_FAILURES, failures - 1);
        tokio::time::sleep(pause).await;
    }
}
