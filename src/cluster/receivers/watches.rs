//! Watches that tell of Receivers and Secrets.

use std::collections::BTreeSet;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::super::connection::ApiConnection;
use super::super::watch::{Scope, WatchEvent, Watchable};
use super::super::watch_driver::{
    Interruption, WatchDriver, WatchSource, WatchVerdict, WatchedResource, spawn_watch,
};
use super::NamespacedName;
use super::objects::{ReceiverObject, SecretObject, receivers, secrets};
use crate::flux_receiver::{FluxReceiver, Secret};

/// A change of a Receiver or a Secret that a watch reports.
pub(super) enum ReceiverChange {
    /// A Receiver of this name is there; without what it is where it cannot be read.
    Receiver(NamespacedName, Option<FluxReceiver>),
    ReceiverGone(NamespacedName),
    /// What is listed in the scope is all there is; none if it may not be listed.
    Listed(Scope, Option<BTreeSet<NamespacedName>>),
    /// A Secret is there, or is not.
    Secret(NamespacedName, Option<Secret>),
    /// A Secret cannot be read, which does not mean that it is gone.
    UnreadableSecret(NamespacedName),
}

/// Tells of all Receivers in a scope from now on.
pub(super) fn watch_receivers(
    connection: &ApiConnection,
    scope: &Scope,
    tell: &UnboundedSender<ReceiverChange>,
) {
    let (connection, of_watch, tell) = (connection.clone(), scope.clone(), tell.clone());
    let (of_panic, tell_panic) = (scope.clone(), tell.clone());
    let on_panic = move || drop(tell_panic.send(ReceiverChange::Listed(of_panic.clone(), None)));
    spawn_watch("Receiver".to_owned(), scope.clone(), on_panic, move || {
        let (connection, scope, tell) = (connection.clone(), of_watch.clone(), tell.clone());
        async move { receivers_of(&connection, scope, &tell).await }
    });
}

/// Tells of one Secret from now on, until it is ended.
pub(super) fn watch_secret(
    connection: &ApiConnection,
    name: &NamespacedName,
    tell: &UnboundedSender<ReceiverChange>,
) -> AbortHandle {
    let (connection, of_watch, tell) = (connection.clone(), name.clone(), tell.clone());
    let (of_panic, tell_panic) = (name.clone(), tell.clone());
    let on_panic = move || drop(tell_panic.send(ReceiverChange::UnreadableSecret(of_panic.clone())));
    spawn_watch(format!("Secret {}", name.1), Scope::Namespace(name.0.clone()), on_panic, move || {
        let (connection, name, tell) = (connection.clone(), of_watch.clone(), tell.clone());
        async move { secret_of(&connection, name, &tell).await }
    })
}

/// Tells of all Receivers in a scope; never ends.
async fn receivers_of(connection: &ApiConnection, scope: Scope, tell: &UnboundedSender<ReceiverChange>) {
    let mut listed = BTreeSet::new();
    let see = |seen: Option<WatchEvent<ReceiverObject>>| match seen {
        None => vec![ReceiverChange::Listed(scope.clone(), None)],
        Some(WatchEvent::Opened(_) | WatchEvent::Unchanged) => Vec::new(),
        Some(WatchEvent::Listing) => {
            listed.clear();
            Vec::new()
        }
        Some(WatchEvent::Listed(object)) => {
            listed.insert(object.name());
            vec![ReceiverChange::Receiver(object.name(), object.read_or_log())]
        }
        Some(WatchEvent::Complete) => {
            vec![ReceiverChange::Listed(scope.clone(), Some(std::mem::take(&mut listed)))]
        }
        Some(WatchEvent::Changed(object)) => {
            vec![ReceiverChange::Receiver(object.name(), object.read_or_log())]
        }
        Some(WatchEvent::Gone(object)) => vec![ReceiverChange::ReceiverGone(object.name())],
    };
    let resource = WatchedResource::Fixed(receivers());
    let source = WatchSource { kind: "Receiver".to_owned(), resource, scope: scope.clone(), name: None };
    follow(connection, source, tell, see).await;
}

/// Tells of one Secret; never ends.
async fn secret_of(connection: &ApiConnection, name: NamespacedName, tell: &UnboundedSender<ReceiverChange>) {
    let mut is_there = false;
    let (scope, secret_name) = (Scope::Namespace(name.0.clone()), name.1.clone());
    let see = |seen: Option<WatchEvent<SecretObject>>| match seen {
        Some(WatchEvent::Opened(_) | WatchEvent::Unchanged) => Vec::new(),
        Some(WatchEvent::Listing) => {
            is_there = false;
            Vec::new()
        }
        Some(WatchEvent::Listed(secret) | WatchEvent::Changed(secret)) => {
            is_there = true;
            vec![ReceiverChange::Secret(name.clone(), Some(secret.read()))]
        }
        Some(WatchEvent::Complete) if is_there => Vec::new(),
        None => vec![ReceiverChange::UnreadableSecret(name.clone())],
        Some(WatchEvent::Complete | WatchEvent::Gone(_)) => vec![ReceiverChange::Secret(name.clone(), None)],
    };
    let source = WatchSource {
        kind: format!("Secret {secret_name}"),
        resource: WatchedResource::Fixed(secrets()),
        scope,
        name: Some(secret_name),
    };
    follow(connection, source, tell, see).await;
}

/// Follows a watch; never ends. `see` is given none when it fails for longer than others should wait.
async fn follow<T: Watchable>(
    connection: &ApiConnection,
    source: WatchSource,
    tell: &UnboundedSender<ReceiverChange>,
    mut see: impl FnMut(Option<WatchEvent<T>>) -> Vec<ReceiverChange>,
) {
    let (kind, scope) = (source.kind.clone(), source.scope.clone());
    let mut driver = WatchDriver::new(connection, source);
    let mut is_refused = false;
    loop {
        let changes = match driver.next().await {
            Ok(event) => see(Some(event)),
            Err(Interruption { verdict: WatchVerdict::Transient, .. }) => Vec::new(),
            Err(Interruption { verdict, failure }) => {
                if verdict != WatchVerdict::Broken && !is_refused {
                    is_refused = true;
                    log::warn!(kind, scope:%, why:% = failure.why; "cannot be listed and watched; kustomization/components/receivers grants the right");
                }
                see(None)
            }
        };
        changes.into_iter().for_each(|change| drop(tell.send(change)));
    }
}
