//! Watches that tell of Receivers and Secrets.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use kube::core::ApiResource;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::super::connection::ApiConnection;
use super::super::watch::{Scope, Watch, WatchEvent, Watchable};
use super::NamespacedName;
use super::objects::{ReceiverObject, SecretObject, receivers, secrets};
use crate::backoff::growing_pause;
use crate::flux_receiver::{FluxReceiver, Secret};

/// What a watch has found.
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

const FIRST_RETRY_DELAY: Duration = Duration::from_secs(2);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// So many refusals or errors of an API server that answers are no slip of one that has just started.
/// One Secret that cannot be read must not hold back the Receivers that name others.
const MAX_TRANSIENT_REFUSALS: u32 = 3;

/// How long a list may be silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Tells of all Receivers in a scope from now on.
pub(super) fn watch_receivers(
    connection: &ApiConnection,
    scope: &Scope,
    tell: &UnboundedSender<ReceiverChange>,
) {
    let (connection, scope, of_panic, tell) =
        (connection.clone(), scope.clone(), scope.clone(), tell.clone());
    let cannot = move || ReceiverChange::Listed(of_panic.clone(), None);
    start(tell.clone(), cannot, move || {
        let (connection, scope, tell) = (connection.clone(), scope.clone(), tell.clone());
        async move { receivers_of(&connection, scope, &tell).await }
    });
}

/// Tells of one Secret from now on, until it is ended.
pub(super) fn watch_secret(
    connection: &ApiConnection,
    name: &NamespacedName,
    tell: &UnboundedSender<ReceiverChange>,
) -> AbortHandle {
    let (connection, name, of_panic, tell) = (connection.clone(), name.clone(), name.clone(), tell.clone());
    let cannot = move || ReceiverChange::UnreadableSecret(of_panic.clone());
    start(tell.clone(), cannot, move || {
        let (connection, name, tell) = (connection.clone(), name.clone(), tell.clone());
        async move { secret_of(&connection, name, &tell).await }
    })
}

/// Starts a watch, and starts it again after a panic, which counts like an answer that says nothing:
/// the others do not wait for it.
fn start<W: Future<Output = ()> + Send + 'static>(
    tell: UnboundedSender<ReceiverChange>,
    cannot: impl Fn() -> ReceiverChange + Send + 'static,
    watch: impl Fn() -> W + Send + 'static,
) -> AbortHandle {
    let running = tokio::spawn(async move {
        while AssertUnwindSafe(watch()).catch_unwind().await.is_err() {
            log::error!("watch of Receivers panicked, restarting; please report this");
            drop(tell.send(cannot()));
            tokio::time::sleep(MAX_RETRY_DELAY).await;
        }
    });
    running.abort_handle()
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
    keep(connection, "Receivers", &receivers(), &scope, None, tell, see).await;
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
    let what = format!("Secret {}", name.1);
    keep(connection, &what, &secrets(), &scope, Some(&secret_name), tell, see).await;
}

/// Watches and goes on after whatever interrupts it. `see` is given none when the answers are errors for
/// good; that is looked at again all the same.
async fn keep<T: Watchable>(
    connection: &ApiConnection,
    what: &str,
    resource: &ApiResource,
    scope: &Scope,
    name: Option<&str>,
    tell: &UnboundedSender<ReceiverChange>,
    mut see: impl FnMut(Option<WatchEvent<T>>) -> Vec<ReceiverChange>,
) {
    let open = || {
        let watch = Watch::new(connection.client(), resource, scope);
        match name {
            Some(name) => watch.with_name(name),
            None => watch,
        }
    };
    let (mut watch, mut failures, mut answered_failures) = (open(), 0_u32, 0_u32);
    loop {
        let next = match watch.is_listing() {
            true => tokio::time::timeout(ANSWER_TIMEOUT, watch.next()).await.ok(),
            false => Some(watch.next().await),
        };
        let interruption = match next {
            Some(Ok(seen)) => {
                // A list that may be had says nothing about the watch behind it.
                if matches!(seen, WatchEvent::Unchanged | WatchEvent::Changed(_) | WatchEvent::Gone(_)) {
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
        if answered_failures == MAX_TRANSIENT_REFUSALS || (code == Some(400) && answered_failures == 1) {
            see(None).into_iter().for_each(|change| drop(tell.send(change)));
        }
        match code {
            Some(401) => {
                connection.reload_credentials().await;
                watch = open();
            }
            Some(403 | 404) if answered_failures == MAX_TRANSIENT_REFUSALS => {
                log::warn!(what, scope:%, why:%; "cannot be listed and watched; kustomization/components/receivers grants the right");
            }
            Some(403 | 404) => {}
            _ if failures == 1 || answered_failures == MAX_TRANSIENT_REFUSALS => {
                log::warn!(what, scope:%, why:%; "watch interrupted, retrying")
            }
            _ => {}
        }
        let pause = growing_pause(FIRST_RETRY_DELAY, MAX_RETRY_DELAY, failures - 1);
        tokio::time::sleep(pause).await;
    }
}
