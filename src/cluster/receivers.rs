//! Flux's Receivers and the Secrets that they name, watched; nothing is read per delivery.
//!
//! A Secret is watched by its name, so that a role may name the Secrets that it opens, and of each
//! only what a Receiver needs is held in memory.

mod examine;
mod objects;
mod polling;
mod watches;
mod weights;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

pub use self::examine::examine;
use self::polling::Polling;
use self::watches::{ReceiverChange, watch_receivers, watch_secret};
use self::weights::ReceiverWeights;
use super::connection::ApiConnection;
use super::watch::Scope;
use crate::endpoint::Endpoint;
use crate::flux_receiver::{self, FluxReceiver, ReceiverDefaults, Secret};

/// Watches Receivers in these namespaces, or everywhere.
pub struct Receivers {
    connection: ApiConnection,
    scopes: Vec<Scope>,
    rules: ReceiverRules,
}

/// Options of the command line that hold for all Receivers.
#[derive(Debug, Clone, Default)]
pub struct ReceiverRules {
    /// Whether a Receiver reaches objects of other namespaces than its own.
    pub cross_namespace_refs: bool,
    /// Whether objects outside of its namespace have to consent.
    pub require_opt_in: bool,
    /// Issuers that may be fetched from wherever they are.
    pub allowed_issuers: Vec<String>,
}

impl ReceiverRules {
    fn as_rules(&self) -> ReceiverDefaults<'_> {
        let ReceiverRules { cross_namespace_refs, require_opt_in, allowed_issuers } = self;
        ReceiverDefaults {
            cross_namespace_refs: *cross_namespace_refs,
            require_opt_in: *require_opt_in,
            allowed_issuers,
        }
    }
}

/// A Receiver or a Secret by namespace and name.
type NamespacedName = (String, String);

/// The endpoint of a Receiver, and what it was made from.
struct ServedReceiver {
    receiver: FluxReceiver,
    secret: Option<Secret>,
    /// The last one that could be made: a Receiver that cannot be built any more keeps it.
    endpoint: Option<Arc<Endpoint>>,
    /// Its path before the token changed.
    digest_before: Option<String>,
}

#[derive(Default)]
struct ReceiversState {
    /// The scopes whose list is not complete yet.
    unlisted: Vec<Scope>,
    receivers: BTreeMap<NamespacedName, FluxReceiver>,
    weights: ReceiverWeights,
    /// Some of those that were refused, until others go.
    refused: BTreeMap<NamespacedName, FluxReceiver>,
    secrets: BTreeMap<NamespacedName, Option<Secret>>,
    watched_secrets: HashMap<NamespacedName, AbortHandle>,
    /// All Secrets that Receivers name.
    named: BTreeSet<NamespacedName>,
    built: BTreeMap<NamespacedName, ServedReceiver>,
    /// Whether endpoints were handed over before.
    is_in_force: bool,
    /// Receivers that the first endpoints lacked, since their Secrets could not be read.
    awaited: BTreeSet<NamespacedName>,
    /// Those of them that are served since the last time.
    came_late: Vec<Arc<Endpoint>>,
}

/// Changes that come together are put in force together.
const BATCH_DELAY: Duration = Duration::from_millis(50);

/// The time that the first endpoints wait for Secrets of others, once all Receivers are listed: one Secret that
/// cannot be read must not keep out every Receiver.
const FIRST_SET_TIMEOUT: Duration = Duration::from_secs(10);

/// Receivers that are known although the memory to serve them is used up.
const MAX_REFUSED: usize = 64;

/// Secrets that are watched one by one. What is beyond is looked at in turns.
const MAX_WATCHED_SECRETS: usize = 64;

impl Receivers {
    /// Sends nothing until [`Receivers::run`].
    pub fn new(connection: ApiConnection, namespaces: Vec<String>, rules: ReceiverRules) -> Receivers {
        Receivers { connection, scopes: Scope::from_namespaces(namespaces), rules }
    }

    /// Watches, and hands over all endpoints whenever one of them has changed, for the first time
    /// when all are known or the deadline for that is over; never ends. Those that the first time lacked are
    /// handed over a second time: deliveries to them were answered as to unknown paths.
    pub async fn run(self, put_in_force: impl Fn(Vec<Arc<Endpoint>>, Vec<Arc<Endpoint>>)) {
        let (tell, mut changes) = unbounded_channel();
        let polling = Polling::start(&self.connection, &tell);
        let mut state = ReceiversState { unlisted: self.scopes.clone(), ..ReceiversState::default() };
        for scope in &self.scopes {
            watch_receivers(&self.connection, scope, &tell);
        }
        let mut deadline: Option<Instant> = None;
        loop {
            tokio::select! {
                // The other end lives as long as this function.
                change = changes.recv() => match change {
                    Some(change) => state.take(change),
                    None => return,
                },
                () = until(deadline.filter(|_| !state.is_in_force)) => {}
            }
            tokio::time::sleep(BATCH_DELAY).await;
            take_all(&mut state, &mut changes);
            state.watch_named_secrets(&self.connection, &tell, &polling);
            if state.unlisted.is_empty() {
                deadline.get_or_insert_with(|| Instant::now() + FIRST_SET_TIMEOUT);
            }
            let is_due = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if (state.is_in_force || state.is_known() || is_due) && state.build(self.rules.as_rules()) {
                let came_late = std::mem::take(&mut state.came_late);
                put_in_force(state.endpoints(), came_late);
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn take_all(state: &mut ReceiversState, changes: &mut UnboundedReceiver<ReceiverChange>) {
    while let Ok(change) = changes.try_recv() {
        state.take(change);
    }
}

impl ReceiversState {
    fn take(&mut self, change: ReceiverChange) {
        match change {
            ReceiverChange::Receiver(name, Some(receiver)) => self.admit(name, receiver),
            ReceiverChange::Receiver(name, None) | ReceiverChange::ReceiverGone(name) => {
                self.weights.remove(&name);
                self.receivers.remove(&name);
                self.refused.remove(&name);
                self.admit_refused();
            }
            ReceiverChange::Listed(scope, names) => {
                if let Some(names) = names {
                    let weights = &mut self.weights;
                    self.receivers.retain(|name, _| {
                        let is_there = !covers(&scope, name) || names.contains(name);
                        if !is_there {
                            weights.remove(name);
                        }
                        is_there
                    });
                    self.refused.retain(|name, _| !covers(&scope, name) || names.contains(name));
                    self.admit_refused();
                }
                self.unlisted.retain(|unlisted| *unlisted != scope);
            }
            ReceiverChange::Secret(name, secret) => {
                if self.named.contains(&name) {
                    self.secrets.insert(name, secret);
                }
            }
            ReceiverChange::UnreadableSecret(name) => {
                if self.named.contains(&name) {
                    self.secrets.entry(name).or_default();
                }
            }
        }
    }

    /// Takes a Receiver, if there is memory for it; one that has become too large stays as it was.
    fn admit(&mut self, name: NamespacedName, receiver: FluxReceiver) {
        self.refused.remove(&name);
        if self.weights.admit(&name, receiver.weight()) {
            self.receivers.insert(name, receiver);
        } else if self.refused.len() < MAX_REFUSED {
            self.refused.insert(name, receiver);
        }
    }

    fn admit_refused(&mut self) {
        for (name, receiver) in std::mem::take(&mut self.refused) {
            if !self.receivers.contains_key(&name) {
                self.awaited.insert(name.clone());
            }
            self.admit(name, receiver);
        }
    }

    fn named_secrets(&self) -> BTreeSet<NamespacedName> {
        let named = self.receivers.values().filter_map(|receiver| {
            Some((receiver.namespace.clone(), receiver.spec.secret_ref.as_ref()?.name.clone()))
        });
        named.collect()
    }

    fn watch_named_secrets(
        &mut self,
        connection: &ApiConnection,
        tell: &UnboundedSender<ReceiverChange>,
        polling: &Polling,
    ) {
        let named = self.named_secrets();
        self.watched_secrets.retain(|name, watch| {
            let is_named = named.contains(name);
            if !is_named {
                watch.abort();
            }
            is_named
        });
        self.secrets.retain(|name, _| named.contains(name));
        for name in &named {
            if self.watched_secrets.len() >= MAX_WATCHED_SECRETS {
                break;
            }
            let watch = || watch_secret(connection, name, tell);
            self.watched_secrets.entry(name.clone()).or_insert_with(watch);
        }
        let beyond = named.iter().filter(|name| !self.watched_secrets.contains_key(*name));
        polling.poll(beyond.cloned().collect());
        self.named = named;
    }

    /// Whether every Receiver was listed and every Secret looked at.
    fn is_known(&self) -> bool {
        self.unlisted.is_empty() && self.named_secrets().iter().all(|name| self.secrets.contains_key(name))
    }

    /// Makes endpoints of what has changed, each Receiver on its own: one whose Secret is not known, or
    /// that cannot be served as it is now, keeps its last endpoint. Says whether anything has changed; the
    /// first time something has.
    fn build(&mut self, rules: ReceiverDefaults<'_>) -> bool {
        let before = self.built.len();
        self.built.retain(|name, _| self.receivers.contains_key(name));
        let is_first = !std::mem::replace(&mut self.is_in_force, true);
        let mut has_changed = is_first || self.built.len() != before;
        for (name, receiver) in &self.receivers {
            let secret_name =
                receiver.spec.secret_ref.as_ref().map(|secret| (name.0.clone(), secret.name.clone()));
            let secret = match &secret_name {
                None => None,
                Some(secret_name) => match self.secrets.get(secret_name) {
                    Some(secret) => secret.clone(),
                    // It is being looked at; until then what was served goes on being served.
                    None => {
                        if is_first {
                            self.awaited.insert(name.clone());
                        }
                        continue;
                    }
                },
            };
            let last = self.built.get(name);
            if last.is_some_and(|built| built.receiver == *receiver && built.secret == secret) {
                continue;
            }
            let (last_endpoint, mut digest_before) = match last {
                Some(ServedReceiver { endpoint, digest_before, .. }) => {
                    (endpoint.clone(), digest_before.clone())
                }
                None => (None, None),
            };
            let is_gone = secret_name.is_some() && secret.is_none();
            let endpoint = match make(receiver, secret.as_ref(), rules) {
                Some(mut endpoint) => {
                    if let Some(last) = &last_endpoint
                        && last.digest() != endpoint.digest()
                    {
                        digest_before = Some(last.digest().to_owned());
                    }
                    if let Some(digest) = &digest_before {
                        endpoint = endpoint.with_former_path(digest);
                    }
                    Some(Arc::new(endpoint))
                }
                // Deleting a Secret revokes its token, and the one before it.
                None if is_gone && last.is_some_and(|built| built.receiver == *receiver) => {
                    digest_before = None;
                    None
                }
                None => last_endpoint,
            };
            has_changed = true;
            match &endpoint {
                None if is_first && is_gone => drop(self.awaited.insert(name.clone())),
                Some(endpoint) if self.awaited.remove(name) => self.came_late.push(Arc::clone(endpoint)),
                _ => {}
            }
            let built = ServedReceiver { receiver: receiver.clone(), secret, endpoint, digest_before };
            self.built.insert(name.clone(), built);
        }
        has_changed
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.built.values().filter_map(|built| built.endpoint.clone()).collect()
    }
}

fn covers(scope: &Scope, name: &NamespacedName) -> bool {
    scope.namespace().is_none_or(|namespace| namespace == name.0)
}

fn make(receiver: &FluxReceiver, secret: Option<&Secret>, rules: ReceiverDefaults<'_>) -> Option<Endpoint> {
    let name = receiver.endpoint_name();
    match flux_receiver::endpoint(receiver, secret, rules) {
        Ok(made) => {
            for why in made.without_effect {
                log::warn!(receiver:% = name, why:%; "part of the Receiver has no effect");
            }
            Some(made.endpoint)
        }
        Err(why) => {
            log::error!(receiver:% = name, why:%; "Receiver is not served");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(token: Option<&str>) -> ReceiversState {
        let mut state = ReceiversState::default();
        let spec = json!({"type": "github", "secretRef": {"name": "token"}, "resources": [{"kind": "GitRepository", "name": "app"}]});
        let receiver = FluxReceiver {
            namespace: "apps".to_owned(),
            name: "hook".to_owned(),
            created: String::new(),
            uid: String::new(),
            spec: serde_json::from_value(spec).expect("a spec"),
            webhook_path: None,
        };
        state.receivers.insert(("apps".to_owned(), "hook".to_owned()), receiver);
        set_token(&mut state, token);
        state
    }

    fn set_token(state: &mut ReceiversState, token: Option<&str>) {
        let data = |token: &str| {
            use base64::Engine;
            let encoded = base64::engine::general_purpose::STANDARD.encode(token);
            Secret::from_data(|key| (key == "token").then_some(encoded.as_str()))
        };
        state.secrets.insert(("apps".to_owned(), "token".to_owned()), token.map(data));
        state.build(ReceiverDefaults::default());
    }

    #[test]
    fn a_receiver_that_the_first_endpoints_lacked_comes_late_once() {
        let mut state = state(None);
        assert!(state.came_late.is_empty());
        set_token(&mut state, Some("first"));
        assert_eq!(std::mem::take(&mut state.came_late).len(), 1);
        set_token(&mut state, Some("second"));
        assert!(state.came_late.is_empty());
    }

    /// The digest that the one Receiver is served at, and that of the token before.
    fn digests(state: &ReceiversState) -> (Option<String>, Option<String>) {
        let built = state.built.values().next().expect("a Receiver");
        (built.endpoint.as_ref().map(|endpoint| endpoint.digest().to_owned()), built.digest_before.clone())
    }

    #[test]
    fn a_revoked_token_does_not_come_back_with_a_new_secret() {
        let mut state = state(Some("first"));
        let (first, _) = digests(&state);
        assert!(first.is_some());
        set_token(&mut state, Some("second"));
        assert_eq!(digests(&state).1, first, "it works until providers have the new one");
        set_token(&mut state, None);
        assert_eq!(digests(&state), (None, None));
        set_token(&mut state, Some("third"));
        assert_eq!(digests(&state).1, None);
    }
}
