//! The states of all kinds that are watched, and whom their changes concern: the inventory, deliveries
//! that wait, the start, and the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::kind_state::{KindChange, KindState};
use super::watch::Scope;
use crate::flux::{Kind, Target};
use crate::matching::{Inventory, KindCoverage};
use crate::metrics::Metrics;

/// The state of each kind in each scope. Changes come from the watches; everyone else only reads.
pub(super) struct KindStates {
    scopes: Vec<Scope>,
    states: Mutex<BTreeMap<Kind, BTreeMap<Scope, KindState>>>,
    inventory: Arc<RwLock<Inventory>>,
    metrics: Arc<Metrics>,
    became_known: Arc<Notify>,
    settled: Notify,
}

impl KindStates {
    pub(super) fn new(
        scopes: Vec<Scope>,
        inventory: Arc<RwLock<Inventory>>,
        metrics: Arc<Metrics>,
    ) -> KindStates {
        KindStates {
            scopes,
            states: Mutex::default(),
            inventory,
            metrics,
            became_known: Arc::default(),
            settled: Notify::new(),
        }
    }

    pub(super) fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// From now on deliveries wait for the kind until it is listed.
    pub(super) fn add(&self, kind: Kind) {
        self.metrics.kind(kind);
        let states = self.scopes.iter().map(|scope| (scope.clone(), KindState::default()));
        self.states.lock().insert(kind, states.collect());
        self.publish(kind);
    }

    /// From now on filters read objects of the kind.
    pub(super) fn need_filter_fields(&self, kind: Kind) {
        self.scopes.iter().for_each(|scope| self.apply(kind, scope, KindChange::FilterFieldsNeeded));
    }

    /// Changes the state of a kind in one of the scopes.
    pub(super) fn apply(&self, kind: Kind, scope: &Scope, change: KindChange) {
        if let Some(state) = self.states.lock().get_mut(&kind).and_then(|states| states.get_mut(scope)) {
            state.apply(change);
        }
        self.publish(kind);
    }

    /// Returns the state of a kind in one of the scopes.
    pub(super) fn get(&self, kind: Kind, scope: &Scope) -> KindState {
        let states = self.states.lock();
        states.get(&kind).and_then(|states| states.get(scope)).cloned().unwrap_or_default()
    }

    /// Tells everyone whom the state of the kind concerns.
    fn publish(&self, kind: Kind) {
        let (coverage, is_settled, is_all_settled) = {
            let states = self.states.lock();
            let Some(of_kind) = states.get(&kind) else { return };
            let all = || of_kind.values();
            let coverage = KindCoverage {
                is_known: all().all(KindState::is_known),
                has_filter_fields: all().all(KindState::has_filter_fields),
                unlistable: all().filter_map(KindState::unlistable_place).map(str::to_owned).collect(),
            };
            let is_all_settled = states.values().flat_map(BTreeMap::values).all(KindState::is_settled);
            (coverage, all().all(KindState::is_settled), is_all_settled)
        };
        let is_listable = coverage.unlistable.is_empty();
        self.metrics.inventory_listable(kind, is_listable);
        self.metrics.inventory_synced(kind, is_listable && is_settled && coverage.is_known);
        if self.inventory.write().set_coverage(kind, coverage) {
            self.became_known.notify_one();
        }
        if is_all_settled {
            self.settled.notify_waiters();
        }
    }

    /// The kinds that cannot be listed somewhere.
    pub(super) fn unlistable_kinds(&self) -> BTreeSet<Kind> {
        let states = self.states.lock();
        let unlistable = states
            .iter()
            .filter(|(_, scopes)| scopes.values().any(|state| state.unlistable_place().is_some()));
        unlistable.map(|(kind, _)| *kind).collect()
    }

    /// Whether events of every kind can be matched.
    pub(super) fn is_all_known(&self) -> bool {
        self.states.lock().values().flat_map(BTreeMap::values).all(KindState::is_known)
    }

    /// Is notified whenever events can be matched that could not be before.
    pub(super) fn became_known(&self) -> Arc<Notify> {
        Arc::clone(&self.became_known)
    }

    /// Waits until every kind is listed, absent, forbidden or broken.
    pub(super) async fn all_settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.states.lock().values().flat_map(BTreeMap::values).all(KindState::is_settled) {
                return;
            }
            settled.await;
        }
    }

    /// Whether an object that the inventory does not hold does not exist: it would have been listed, or
    /// nobody looks there any more, since the journal remembers objects of an earlier `--namespaces`.
    pub(super) fn would_know(&self, target: &Target) -> bool {
        let states = self.states.lock();
        let covering = |scope: &Scope| scope.covers(target);
        let is_listed = states
            .get(&target.kind)
            .into_iter()
            .flatten()
            .any(|(scope, state)| covering(scope) && state.would_hold_objects_of(&target.namespace));
        is_listed || !self.scopes.iter().any(covering)
    }

    /// Whether the kind is gone from where the object would be.
    pub(super) fn is_kind_gone(&self, target: &Target) -> bool {
        let states = self.states.lock();
        let mut of_kind = states.get(&target.kind).into_iter().flatten();
        of_kind.any(|(scope, state)| scope.covers(target) && state.is_gone())
    }
}
