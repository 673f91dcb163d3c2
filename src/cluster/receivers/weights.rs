//! Limits the memory of all Receivers: a tenant can write any number of them, and each may have many filters.

use std::collections::{BTreeMap, BTreeSet};

use super::NamespacedName;

/// Bytes that the Receivers of a namespace may take, and those of all. Beyond that, a Receiver is not served.
const MAX_NAMESPACE_BYTES: usize = 4 << 20;
const MAX_BYTES: usize = 24 << 20;

/// Receivers of a cluster.
const MAX_RECEIVERS: usize = 20_000;

/// The memory of the Receivers that are served, by namespace.
#[derive(Default)]
pub(super) struct ReceiverWeights {
    by_name: BTreeMap<NamespacedName, usize>,
    by_namespace: BTreeMap<String, usize>,
    total: usize,
    /// Those that were refused, each of which is logged once.
    refused: BTreeSet<NamespacedName>,
}

impl ReceiverWeights {
    /// Makes room for a Receiver, or for what has become of it; says whether there is any. If there is not, what
    /// it was before stays.
    pub(super) fn admit(&mut self, name: &NamespacedName, weight: usize) -> bool {
        let before = self.by_name.get(name).copied();
        self.remove(name);
        let of_namespace = self.by_namespace.get(&name.0).copied().unwrap_or_default();
        let has_room = of_namespace + weight <= MAX_NAMESPACE_BYTES
            && self.total + weight <= MAX_BYTES
            && self.by_name.len() < MAX_RECEIVERS;
        if !has_room {
            if self.refused.len() < MAX_RECEIVERS && self.refused.insert(name.clone()) {
                log::error!(
                    receiver:% = format!("{}/{}", name.0, name.1), bytes = weight;
                    "Receiver is not served: the memory for Receivers of its namespace or of the cluster is used up"
                );
            }
            if let Some(before) = before {
                self.add(name, before);
            }
            return false;
        }
        self.refused.remove(name);
        self.add(name, weight);
        true
    }

    fn add(&mut self, name: &NamespacedName, weight: usize) {
        self.total += weight;
        *self.by_namespace.entry(name.0.clone()).or_default() += weight;
        self.by_name.insert(name.clone(), weight);
    }

    pub(super) fn remove(&mut self, name: &NamespacedName) {
        let Some(weight) = self.by_name.remove(name) else { return };
        self.total -= weight;
        if let Some(of_namespace) = self.by_namespace.get_mut(&name.0) {
            *of_namespace -= weight;
            if *of_namespace == 0 {
                self.by_namespace.remove(&name.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_and_all_together_have_a_limit() {
        let mut weights = ReceiverWeights::default();
        let name = |namespace: &str, at: usize| (namespace.to_owned(), format!("r{at}"));
        assert!(weights.admit(&name("a", 0), MAX_NAMESPACE_BYTES - 10));
        assert!(!weights.admit(&name("a", 1), 11));
        assert!(weights.admit(&name("b", 1), 11), "another namespace has room");
        assert!(weights.admit(&name("a", 0), 5), "a change gives back what it took before");
        assert!(weights.admit(&name("a", 1), 11));
        assert!(!weights.admit(&name("a", 1), MAX_NAMESPACE_BYTES), "and keeps what it had");
        assert!(!weights.admit(&name("a", 2), MAX_NAMESPACE_BYTES - 10));
        weights.remove(&name("a", 1));
        let filled =
            (0..20).filter(|at| weights.admit(&name(&format!("n{at}"), 0), MAX_NAMESPACE_BYTES)).count();
        assert_eq!(filled, 5, "and all together");
    }
}
