//! Looks at Secrets in turns, where there are too many for a watch each: a cluster of many tenants has
//! thousands of Receivers, and each watch is a connection's worth of memory here and at the API server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::super::connection::ApiConnection;
use super::super::watch::{Scope, Watch, WatchEvent};
use super::objects::{SecretObject, secrets};
use super::watches::ReceiverChange;
use super::{NamespacedName, until};

/// The time between two reads of a Secret.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Looks in flight, and how many of them may be at Secrets that are new or could not be read the last time.
const MAX_LOOKS: usize = 16;
const MAX_UNCERTAIN_LOOKS: usize = MAX_LOOKS - 4;

/// The limit of one read.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The Secrets that are looked at in turns.
pub(super) struct Polling {
    named: Arc<Mutex<BTreeSet<NamespacedName>>>,
    changed: Arc<Notify>,
}

impl Polling {
    /// Starts without Secrets; they are named later.
    pub(super) fn start(connection: &ApiConnection, tell: &UnboundedSender<ReceiverChange>) -> Polling {
        let polling = Polling { named: Arc::default(), changed: Arc::default() };
        let (named, changed) = (Arc::clone(&polling.named), Arc::clone(&polling.changed));
        let (connection, tell) = (connection.clone(), tell.clone());
        tokio::spawn(async move { look_in_turns(&connection, &tell, &named, &changed).await });
        polling
    }

    /// Looks at these from now on; at new ones at once.
    pub(super) fn poll(&self, names: BTreeSet<NamespacedName>) {
        let mut named = self.named.lock();
        if *named != names {
            *named = names;
            self.changed.notify_one();
        }
    }
}

async fn look_in_turns(
    connection: &ApiConnection,
    tell: &UnboundedSender<ReceiverChange>,
    named: &Mutex<BTreeSet<NamespacedName>>,
    changed: &Notify,
) {
    let mut schedule = Schedule::default();
    let mut looks = FuturesUnordered::new();
    loop {
        while looks.len() < MAX_LOOKS
            && let Some(name) = schedule.next(Instant::now())
        {
            looks.push(async move {
                let change = look(connection, &name).await;
                (name, change)
            });
        }
        let next = schedule.next_at().filter(|_| looks.len() < MAX_LOOKS);
        tokio::select! {
            Some((name, change)) = looks.next() => {
                let is_readable = !matches!(change, ReceiverChange::UnreadableSecret(_));
                schedule.ended(name, is_readable, Instant::now());
                drop(tell.send(change));
            }
            () = changed.notified() => schedule.set(named.lock().clone()),
            () = until(next) => {}
        }
    }
}

/// Chooses the Secret to read next. Those that are new or could not be read never take all reads, so that
/// Secrets that hang delay no change of the others.
#[derive(Default)]
struct Schedule {
    names: BTreeSet<NamespacedName>,
    new: VecDeque<NamespacedName>,
    readable: BTreeSet<(Instant, NamespacedName)>,
    unreadable: BTreeSet<(Instant, NamespacedName)>,
    /// Looks that have not ended, and whether their Secrets are new or could not be read the last time.
    in_flight: BTreeMap<NamespacedName, bool>,
}

impl Schedule {
    fn set(&mut self, names: BTreeSet<NamespacedName>) {
        let new = names.difference(&self.names).filter(|name| !self.in_flight.contains_key(*name));
        self.new.extend(new.cloned());
        self.new.retain(|name| names.contains(name));
        self.readable.retain(|(_, name)| names.contains(name));
        self.unreadable.retain(|(_, name)| names.contains(name));
        self.names = names;
    }

    /// Removes the Secret to look at now, if there is one.
    fn next(&mut self, now: Instant) -> Option<NamespacedName> {
        let is_due =
            |due: &BTreeSet<(Instant, NamespacedName)>| due.first().is_some_and(|(at, _)| *at <= now);
        // What is new may hang as well as what could not be read before.
        let (name, is_uncertain) = if self.may_look_at_uncertain() && !self.new.is_empty() {
            (self.new.pop_front()?, true)
        } else if self.may_look_at_uncertain() && is_due(&self.unreadable) {
            (self.unreadable.pop_first()?.1, true)
        } else if is_due(&self.readable) {
            (self.readable.pop_first()?.1, false)
        } else {
            return None;
        };
        self.in_flight.insert(name.clone(), is_uncertain);
        Some(name)
    }

    fn may_look_at_uncertain(&self) -> bool {
        self.in_flight.values().filter(|is_uncertain| **is_uncertain).count() < MAX_UNCERTAIN_LOOKS
    }

    /// Returns the time of the next read.
    fn next_at(&self) -> Option<Instant> {
        let retry = self.unreadable.first().filter(|_| self.may_look_at_uncertain());
        self.readable.first().into_iter().chain(retry).map(|(at, _)| *at).min()
    }

    /// A look has ended.
    fn ended(&mut self, name: NamespacedName, is_readable: bool, now: Instant) {
        self.in_flight.remove(&name);
        if self.names.contains(&name) {
            let due = if is_readable { &mut self.readable } else { &mut self.unreadable };
            due.insert((now + POLL_INTERVAL, name));
        }
    }
}

/// Reads a Secret as a watch by its name would: it takes the same right.
async fn look(connection: &ApiConnection, name: &NamespacedName) -> ReceiverChange {
    let scope = Scope::Namespace(name.0.clone());
    let list = async {
        let mut watch =
            Watch::<SecretObject>::new(connection.client(), &secrets(), &scope).with_name(&name.1);
        let mut found = None;
        loop {
            match watch.next().await {
                Ok(WatchEvent::Listed(secret)) => found = Some(secret.read()),
                Ok(WatchEvent::Complete) => return Ok(found),
                Ok(_) => {}
                Err(interruption) => return Err(interruption),
            }
        }
    };
    match tokio::time::timeout(LOOK_TIMEOUT, list).await {
        Ok(Ok(found)) => ReceiverChange::Secret(name.clone(), found),
        Ok(Err(interruption)) => {
            log::warn!(secret:% = name.1, scope:%, why:% = interruption.why; "Secret cannot be read");
            ReceiverChange::UnreadableSecret(name.clone())
        }
        Err(_) => ReceiverChange::UnreadableSecret(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NamespacedName {
        ("apps".to_owned(), name.to_owned())
    }

    #[test]
    fn secrets_that_hang_delay_no_other() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let hanging: BTreeSet<NamespacedName> = (0..20).map(|at| name(&format!("hanging-{at}"))).collect();
        schedule.set(hanging.clone());
        schedule.set([name("readable")].into());
        let readable = schedule.next(now).expect("a look");
        schedule.ended(readable, true, now);
        let mut names = hanging;
        names.insert(name("readable"));
        schedule.set(names);
        let later = now + POLL_INTERVAL;
        let looks: Vec<_> = std::iter::from_fn(|| schedule.next(later)).collect();
        assert_eq!(looks.len(), MAX_UNCERTAIN_LOOKS + 1);
        assert!(looks.contains(&name("readable")), "new ones that hang leave it its look");
        looks.into_iter().for_each(|look| schedule.ended(look, false, later));
        let again: Vec<_> = std::iter::from_fn(|| schedule.next(later + POLL_INTERVAL)).collect();
        assert_eq!(again.len(), MAX_UNCERTAIN_LOOKS, "the other looks are free");
    }

    #[test]
    fn a_secret_that_is_named_no_more_is_forgotten() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set([name("a"), name("b")].into());
        let first = schedule.next(now).expect("a look");
        schedule.set(BTreeSet::new());
        schedule.ended(first, true, now);
        assert_eq!((schedule.next(now + POLL_INTERVAL), schedule.next_at()), (None, None));
    }
}
