//! Of which kinds it is known which objects there are.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;

use super::lock;
use super::watch::Scope;
use crate::flux::Kind;
use crate::matching::Inventory;
use crate::metrics::Metrics;

/// What is known of a cluster. Deliveries wait for what is unknown, the start waits for what is
/// unsettled; a kind that is broken is settled and yet unknown.
///
/// All that changes it runs on one thread; others only read the inventory.
pub(super) struct Knowledge {
    inventory: Arc<RwLock<Inventory>>,
    metrics: Arc<Metrics>,
    unknown: Mutex<HashSet<(Kind, Scope)>>,
    /// Where objects may lack what filters read.
    without_details: Mutex<HashSet<(Kind, Scope)>>,
    unsettled: Mutex<HashSet<(Kind, Scope)>>,
    /// Where kinds may not be listed, in words, by the scope that this is about.
    unlistable: Mutex<BTreeMap<Kind, BTreeMap<Scope, String>>>,
    became_known: Arc<Notify>,
    all_settled: Notify,
}

impl Knowledge {
    pub(super) fn new(inventory: Arc<RwLock<Inventory>>, metrics: Arc<Metrics>) -> Knowledge {
        Knowledge {
            inventory,
            metrics,
            unknown: Mutex::default(),
            without_details: Mutex::default(),
            unsettled: Mutex::default(),
            unlistable: Mutex::default(),
            became_known: Arc::default(),
            all_settled: Notify::new(),
        }
    }

    /// Nothing is known of the kind there.
    pub(super) fn expect(&self, kind: Kind, scope: &Scope) {
        self.metrics.kind(kind);
        lock(&self.unsettled).insert((kind, scope.clone()));
        self.unknow(kind, scope);
    }

    /// More can be known of the kind than is: until its list is complete, its deliveries wait again.
    pub(super) fn unknow(&self, kind: Kind, scope: &Scope) {
        lock(&self.unknown).insert((kind, scope.clone()));
        self.inventory.write().unwrap_or_else(PoisonError::into_inner).unknow(kind);
        self.metrics.inventory_synced(kind, false);
    }

    /// Filters read objects of the kind from now on: their deliveries wait for the next list.
    pub(super) fn unknow_details(&self, kind: Kind, scope: &Scope) {
        lock(&self.without_details).insert((kind, scope.clone()));
        self.inventory.write().unwrap_or_else(PoisonError::into_inner).unknow_details(kind);
    }

    /// Objects of the kind may not be listed there, or in the part of it that `place` says. Deliveries do not
    /// wait for that, and are told so.
    pub(super) fn forbidden(&self, kind: Kind, scope: &Scope, place: String) {
        self.set_unlistable(kind, scope, Some(place));
        self.known(kind, scope, true);
    }

    /// All objects of the kind may be listed there.
    pub(super) fn allowed(&self, kind: Kind, scope: &Scope) {
        self.set_unlistable(kind, scope, None);
    }

    /// The kinds that cannot be listed somewhere.
    pub(super) fn unlistable_kinds(&self) -> BTreeSet<Kind> {
        lock(&self.unlistable).keys().copied().collect()
    }

    fn set_unlistable(&self, kind: Kind, scope: &Scope, place: Option<String>) {
        let mut unlistable = lock(&self.unlistable);
        let places = unlistable.entry(kind).or_default();
        match place {
            Some(place) => drop(places.insert(scope.clone(), place)),
            None => drop(places.remove(scope)),
        }
        let all: Vec<String> = places.values().cloned().collect();
        self.metrics.inventory_listable(kind, all.is_empty());
        if all.is_empty() {
            unlistable.remove(&kind);
        }
        self.inventory.write().unwrap_or_else(PoisonError::into_inner).set_unlistable(kind, all);
    }

    fn is_listable(&self, kind: Kind) -> bool {
        !lock(&self.unlistable).contains_key(&kind)
    }

    /// Which objects there are of the kind is known now, and with what filters read of them; or nobody
    /// may know.
    pub(super) fn known(&self, kind: Kind, scope: &Scope, with_details: bool) {
        if was_the_last(&self.unknown, kind, scope) {
            self.inventory.write().unwrap_or_else(PoisonError::into_inner).know(kind);
            self.metrics.inventory_synced(kind, self.is_listable(kind));
            self.became_known.notify_one();
        }
        if with_details && was_the_last(&self.without_details, kind, scope) {
            self.inventory.write().unwrap_or_else(PoisonError::into_inner).know_details(kind);
            self.became_known.notify_one();
        }
        self.settled(kind, scope);
    }

    /// Nobody waits for the kind there any longer, known or not.
    pub(super) fn settled(&self, kind: Kind, scope: &Scope) {
        let mut unsettled = lock(&self.unsettled);
        if !unsettled.remove(&(kind, scope.clone())) {
            return;
        }
        if !unsettled.iter().any(|(other, _)| *other == kind) {
            self.metrics.inventory_synced(kind, self.is_listable(kind));
        }
        if self.is_listable(kind) {
            let objects = self.inventory.read().unwrap_or_else(PoisonError::into_inner).count(kind);
            log::info!(kind:%, scope:%, objects; "kind listed");
        }
        if unsettled.is_empty() {
            self.all_settled.notify_waiters();
        }
    }

    pub(super) fn is_settled(&self, kind: Kind, scope: &Scope) -> bool {
        !lock(&self.unsettled).contains(&(kind, scope.clone()))
    }

    /// Whether deliveries may wait for the kind.
    pub(super) fn is_awaited(&self, kind: Kind, scope: &Scope) -> bool {
        let of_scope = (kind, scope.clone());
        lock(&self.unknown).contains(&of_scope) || lock(&self.without_details).contains(&of_scope)
    }

    pub(super) fn is_all_known(&self) -> bool {
        lock(&self.unknown).is_empty()
    }

    /// Tells whenever more is known than before.
    pub(super) fn became_known(&self) -> Arc<Notify> {
        Arc::clone(&self.became_known)
    }

    /// Waits until every kind is settled.
    pub(super) async fn all_settled(&self) {
        loop {
            let settled = self.all_settled.notified();
            if lock(&self.unsettled).is_empty() {
                return;
            }
            settled.await;
        }
    }
}

/// Takes the scope out; says whether it was there, and the last one of its kind.
fn was_the_last(scopes: &Mutex<HashSet<(Kind, Scope)>>, kind: Kind, scope: &Scope) -> bool {
    let mut scopes = lock(scopes);
    scopes.remove(&(kind, scope.clone())) && !scopes.iter().any(|(other, _)| *other == kind)
}
