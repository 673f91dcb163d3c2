//! Looks at Secrets in turns, where there are too many for a watch each: a cluster of many tenants has
//! thousands of Receivers, and each watch is a connection's worth of memory here and at the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::super::connection::Connection;
use super::super::lock;
use super::super::watch::{Scope, Seen, Watch};
use super::Name;
use super::objects::{SecretObject, secrets};
use super::watches::Change;

/// How old what is known of a Secret may be.
const INTERVAL: Duration = Duration::from_secs(60);

/// Secrets that are looked at together.
const MAX_AT_ONCE: usize = 8;

/// How long one look may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The Secrets that are looked at in turns.
pub(super) struct Polling {
    named: Arc<Mutex<BTreeSet<Name>>>,
    changed: Arc<Notify>,
}

impl Polling {
    /// Begins with none.
    pub(super) fn start(connection: &Connection, tell: &UnboundedSender<Change>) -> Polling {
        let polling = Polling { named: Arc::default(), changed: Arc::default() };
        let (named, changed) = (Arc::clone(&polling.named), Arc::clone(&polling.changed));
        let (connection, tell) = (connection.clone(), tell.clone());
        tokio::spawn(async move { look_in_turns(&connection, &tell, &named, &changed).await });
        polling
    }

    /// Looks at these from now on; at new ones at once.
    pub(super) fn poll(&self, names: BTreeSet<Name>) {
        let mut named = lock(&self.named);
        if *named != names {
            *named = names;
            self.changed.notify_one();
        }
    }
}

async fn look_in_turns(
    connection: &Connection,
    tell: &UnboundedSender<Change>,
    named: &Mutex<BTreeSet<Name>>,
    changed: &Notify,
) {
    let mut looked_at: BTreeMap<Name, Instant> = BTreeMap::new();
    loop {
        let names = lock(named).clone();
        looked_at.retain(|name, _| names.contains(name));
        let is_due = |name: &Name| looked_at.get(name).is_none_or(|at| at.elapsed() >= INTERVAL);
        let due: Vec<Name> = names.into_iter().filter(is_due).collect();
        let looks = due.into_iter().map(|name| {
            let connection = connection.clone();
            async move {
                let change = look(&connection, &name).await;
                (name, change)
            }
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(MAX_AT_ONCE);
        while let Some((name, change)) = looks.next().await {
            looked_at.insert(name, Instant::now());
            drop(tell.send(change));
        }
        drop(looks);
        let _ = tokio::time::timeout(INTERVAL / 6, changed.notified()).await;
    }
}

/// Reads a Secret as a watch by its name would: it takes the same right.
async fn look(connection: &Connection, name: &Name) -> Change {
    let scope = Scope::Namespace(name.0.clone());
    let list = async {
        let mut watch = Watch::<SecretObject>::new(connection.client(), &secrets(), &scope).of_name(&name.1);
        let mut found = None;
        loop {
            match watch.next().await {
                Ok(Seen::Listed(secret)) => found = Some(secret.read()),
                Ok(Seen::Complete) => return Ok(found),
                Ok(_) => {}
                Err(interruption) => return Err(interruption),
            }
        }
    };
    match tokio::time::timeout(ANSWER_LIMIT, list).await {
        Ok(Ok(found)) => Change::Secret(name.clone(), found),
        Ok(Err(interruption)) => {
            log::warn!(what = format!("Secret {}", name.1), scope:%, why:% = interruption.why; "cannot be read");
            Change::UnreadableSecret(name.clone())
        }
        Err(_) => Change::UnreadableSecret(name.clone()),
    }
}
