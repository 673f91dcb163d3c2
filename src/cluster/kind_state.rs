//! The state of one kind in one scope: a pure state machine.
//!
//! Everything that depends on it is derived here: whether deliveries can be matched, whether the start
//! waits, what a list may reveal that was missed, whether an object that is not in the inventory is gone.

/// The state of one kind in one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KindState {
    listing: Listing,
    /// The scope was listed whole at least once, and the kind has not gone since.
    was_listed: bool,
    /// The one namespace that was listed in place of the whole cluster.
    narrowed_to: Option<String>,
    /// Filters read objects of the kind, and the inventory may hold some without what filters read.
    lacks_filter_fields: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Listing {
    /// No list was read yet. Deliveries wait for it, and so does the start.
    #[default]
    Unlisted,
    /// The API server answers with errors for long. Deliveries wait, the start does not.
    Broken,
    /// The inventory holds all objects.
    Listed,
    /// A list of a kind that was absent or forbidden is being read. Deliveries wait for its end.
    Relisting,
    /// Objects cannot be listed there, in words. Deliveries do not wait for a right that may never come.
    Forbidden(String),
    /// The API server does not serve the kind.
    Absent {
        /// A later request has confirmed it; the objects are gone.
        is_confirmed: bool,
    },
}

/// Something that happened to the watch of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KindChange {
    /// A list begins; of this namespace alone if the cluster cannot be listed.
    ListBegan { namespace: Option<String> },
    /// The list is complete; `has_filter_fields` if its objects hold what filters read.
    ListEnded { namespace: Option<String>, has_filter_fields: bool },
    /// The right to list is missing, for longer than a transient refusal lasts.
    Forbidden { place: String },
    /// The API server does not serve the kind, for longer than a transient refusal lasts.
    Absent { is_confirmed: bool },
    /// The API server answers with errors for longer than others should wait.
    Broken,
    /// From now on filters read objects of the kind.
    FilterFieldsNeeded,
}

impl KindState {
    pub(super) fn apply(&mut self, change: KindChange) {
        match change {
            KindChange::ListBegan { namespace } => {
                let is_unseen = !self.was_listed_in(namespace.as_deref());
                if is_unseen && matches!(self.listing, Listing::Forbidden(_) | Listing::Absent { .. }) {
                    self.listing = Listing::Relisting;
                }
            }
            KindChange::ListEnded { namespace: None, has_filter_fields } => {
                self.listing = Listing::Listed;
                self.was_listed = true;
                self.lacks_filter_fields &= !has_filter_fields;
            }
            KindChange::ListEnded { namespace: Some(namespace), has_filter_fields } => {
                self.listing = Listing::Forbidden(format!("outside of namespace {namespace}"));
                self.narrowed_to = Some(namespace);
                self.lacks_filter_fields &= !has_filter_fields;
            }
            KindChange::Forbidden { place } => {
                self.listing = Listing::Forbidden(place);
                self.lacks_filter_fields = false;
            }
            KindChange::Absent { is_confirmed } => {
                self.listing = Listing::Absent { is_confirmed };
                self.lacks_filter_fields = false;
                if is_confirmed {
                    (self.was_listed, self.narrowed_to) = (false, None);
                }
            }
            KindChange::Broken if self.listing == Listing::Unlisted => self.listing = Listing::Broken,
            KindChange::Broken => {}
            KindChange::FilterFieldsNeeded => self.lacks_filter_fields = true,
        }
    }

    /// Whether the inventory holds what there is, as far as anyone can tell: events can be matched.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.listing, Listing::Listed | Listing::Forbidden(_) | Listing::Absent { .. })
    }

    /// Whether filters can read all objects that are known.
    pub(super) fn has_filter_fields(&self) -> bool {
        !self.lacks_filter_fields
    }

    /// Whether deliveries may wait for the next list.
    pub(super) fn is_awaited(&self) -> bool {
        !self.is_known() || self.lacks_filter_fields
    }

    /// Whether the start waits for it no longer.
    pub(super) fn is_settled(&self) -> bool {
        self.listing != Listing::Unlisted
    }

    /// Where objects cannot be listed, in words; nowhere if all can be.
    pub(super) fn unlistable_place(&self) -> Option<&str> {
        match &self.listing {
            Listing::Forbidden(place) => Some(place),
            _ => None,
        }
    }

    /// Whether the objects of a list that begins now may have changed after deliveries about them were
    /// answered: the first list is the only one that deliveries wait for.
    pub(super) fn may_have_missed_changes(&self, namespace: Option<&str>) -> bool {
        self.was_listed_in(namespace) || !self.is_awaited()
    }

    /// Whether the whole scope, or the namespace in place of it, was listed.
    pub(super) fn was_listed_in(&self, namespace: Option<&str>) -> bool {
        match namespace {
            None => self.was_listed,
            Some(_) => self.narrowed_to.as_deref() == namespace,
        }
    }

    /// Whether an object of this namespace that the inventory does not hold does not exist.
    pub(super) fn would_hold_objects_of(&self, namespace: &str) -> bool {
        self.was_listed || self.was_listed_in(Some(namespace)) || self.is_gone()
    }

    /// Whether the API server does not serve the kind any more, and its objects are gone with it.
    pub(super) fn is_gone(&self) -> bool {
        self.listing == Listing::Absent { is_confirmed: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: KindChange = KindChange::ListBegan { namespace: None };
    const ENDED: KindChange = KindChange::ListEnded { namespace: None, has_filter_fields: true };
    const ABSENT: KindChange = KindChange::Absent { is_confirmed: false };
    const GONE: KindChange = KindChange::Absent { is_confirmed: true };

    fn forbidden() -> KindChange {
        KindChange::Forbidden { place: "in the whole cluster".to_owned() }
    }

    fn own(is_end: bool) -> KindChange {
        let namespace = Some("flux-system".to_owned());
        match is_end {
            true => KindChange::ListEnded { namespace, has_filter_fields: true },
            false => KindChange::ListBegan { namespace },
        }
    }

    fn after(changes: &[KindChange]) -> KindState {
        let mut state = KindState::default();
        changes.iter().for_each(|change| state.apply(change.clone()));
        state
    }

    #[test]
    fn what_follows_from_each_state() {
        // known, settled, awaited, missed changes in the next list, would hold objects of `apps`
        let rows: [(&str, Vec<KindChange>, [bool; 5]); 14] = [
            ("nothing yet", vec![], [false, false, true, false, false]),
            ("the first list begins", vec![BEGAN], [false, false, true, false, false]),
            ("listed", vec![BEGAN, ENDED], [true, true, false, true, true]),
            ("a second list begins", vec![BEGAN, ENDED, BEGAN], [true, true, false, true, true]),
            ("errors", vec![KindChange::Broken], [false, true, true, false, false]),
            ("errors, then a list", vec![KindChange::Broken, BEGAN, ENDED], [true, true, false, true, true]),
            ("errors later", vec![BEGAN, ENDED, KindChange::Broken], [true, true, false, true, true]),
            ("forbidden", vec![forbidden()], [true, true, false, true, false]),
            ("a right that came late", vec![forbidden(), BEGAN], [false, true, true, false, false]),
            ("a right that went", vec![BEGAN, ENDED, forbidden()], [true, true, false, true, true]),
            ("absent, perhaps transient", vec![BEGAN, ENDED, ABSENT], [true, true, false, true, true]),
            ("gone", vec![BEGAN, ENDED, ABSENT, GONE], [true, true, false, true, true]),
            ("back again", vec![BEGAN, ENDED, GONE, BEGAN], [false, true, true, false, false]),
            ("the own namespace", vec![own(false), own(true)], [true, true, false, true, false]),
        ];
        for (name, changes, expected) in rows {
            let state = after(&changes);
            let is = [
                state.is_known(),
                state.is_settled(),
                state.is_awaited(),
                state.may_have_missed_changes(None),
                state.would_hold_objects_of("apps"),
            ];
            assert_eq!(is, expected, "{name}: {state:?}");
        }
    }

    #[test]
    fn the_own_namespace_stands_for_the_cluster_and_says_so() {
        let mut state = after(&[own(false), own(true)]);
        assert_eq!(state.unlistable_place(), Some("outside of namespace flux-system"));
        assert!(state.would_hold_objects_of("flux-system") && state.was_listed_in(Some("flux-system")));
        state.apply(own(false));
        assert!(state.is_known(), "its second list keeps no delivery waiting");
        [BEGAN, ENDED].into_iter().for_each(|change| state.apply(change));
        assert_eq!(state.unlistable_place(), None);
    }

    #[test]
    fn filters_wait_for_a_list_with_their_fields() {
        let without = KindChange::ListEnded { namespace: None, has_filter_fields: false };
        let mut state = after(&[BEGAN, ENDED, KindChange::FilterFieldsNeeded]);
        assert!(state.is_known() && state.is_awaited() && !state.has_filter_fields());
        state.apply(without);
        assert!(!state.has_filter_fields(), "this list began before");
        state.apply(ENDED);
        assert!(state.has_filter_fields());
        for end in [forbidden(), ABSENT] {
            let state = after(&[KindChange::FilterFieldsNeeded, end]);
            assert!(state.has_filter_fields(), "there is nothing to wait for");
        }
    }
}
