//! Flux's Receivers and the Secrets that they name, watched; nothing is read per delivery.
//!
//! A Secret is watched by its name, so that a role may name the Secrets that it opens, and of each
//! only what a Receiver needs is kept.

mod examine;
mod objects;
mod watches;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

pub use self::examine::{Examined, examine};
use self::watches::{Change, watch_receivers, watch_secret};
use super::connection::Connection;
use super::watch::Scope;
use crate::endpoint::Endpoint;
use crate::flux_receiver::{self, FluxReceiver, Rules, Secret};

/// Watches Receivers in these namespaces, or everywhere.
pub struct Receivers {
    connection: Connection,
    scopes: Vec<Scope>,
    rules: Rules,
}

/// A Receiver or a Secret by namespace and name.
type Name = (String, String);

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
            watch_receivers(&self.connection, scope, &tell);
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
            let watch = || watch_secret(connection, &name, tell);
            self.watched_secrets.entry(name.clone()).or_insert_with(watch);
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
