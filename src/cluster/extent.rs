//! How far the inventory reaches: what it can say about objects that it does not hold.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use super::watch::Scope;
use crate::flux::{Kind, Target};

/// What is meant to be watched, and what of it has been listed whole at least once.
pub(super) struct Extent {
    scopes: Vec<Scope>,
    listed: RwLock<HashSet<(Kind, Scope)>>,
    /// Where the API server has known no such kind for long.
    absent: RwLock<HashSet<(Kind, Scope)>>,
}

impl Extent {
    pub(super) fn new(scopes: Vec<Scope>) -> Extent {
        Extent { scopes, listed: RwLock::default(), absent: RwLock::default() }
    }

    /// The kind was listed whole there.
    pub(super) fn listed(&self, kind: Kind, scope: &Scope) {
        self.absent.write().unwrap_or_else(PoisonError::into_inner).remove(&(kind, scope.clone()));
        self.listed.write().unwrap_or_else(PoisonError::into_inner).insert((kind, scope.clone()));
    }

    /// The kind is gone from there, and its objects with it.
    pub(super) fn absent(&self, kind: Kind, scope: &Scope) {
        self.listed.write().unwrap_or_else(PoisonError::into_inner).remove(&(kind, scope.clone()));
        self.absent.write().unwrap_or_else(PoisonError::into_inner).insert((kind, scope.clone()));
    }

    /// Whether the kind is gone from where the object would be.
    pub(super) fn lacks_the_kind_of(&self, target: &Target) -> bool {
        let absent = self.absent.read().unwrap_or_else(PoisonError::into_inner);
        absent.iter().any(|(kind, scope)| *kind == target.kind && scope.covers(target))
    }

    /// Whether the kind was listed whole there.
    pub(super) fn was_listed(&self, kind: Kind, scope: &Scope) -> bool {
        self.listed.read().unwrap_or_else(PoisonError::into_inner).contains(&(kind, scope.clone()))
    }

    /// Whether an object that the inventory does not hold does not exist: it was looked for where it
    /// would be, or nobody looks there any more (the journal remembers objects of an earlier
    /// `--namespaces`).
    pub(super) fn would_know(&self, target: &Target) -> bool {
        let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        let was_listed = listed.iter().any(|(kind, scope)| *kind == target.kind && scope.covers(target));
        was_listed || self.lacks_the_kind_of(target) || !self.scopes.iter().any(|scope| scope.covers(target))
    }
}
