//! What has to be known of a cluster so that endpoints can match.

use std::collections::BTreeSet;

use super::Kind;
use super::selection::Selection;

/// What has to be known of a cluster so that endpoints can match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryNeeds {
    /// The kinds whose objects are to be known.
    pub kinds: BTreeSet<Kind>,
    /// Those whose objects filters read, so that more of them has to be kept.
    pub read_by_filters: BTreeSet<Kind>,
}

impl InventoryNeeds {
    /// What it takes to match by these selections: the kinds of payloads, and what is listed.
    pub fn from_selections<'s>(selections: impl IntoIterator<Item = &'s Selection>) -> InventoryNeeds {
        let mut needs =
            InventoryNeeds { kinds: Kind::payload_kinds().collect(), ..InventoryNeeds::default() };
        for listed in selections.into_iter().flat_map(|selection| &selection.resources) {
            needs.kinds.insert(listed.kind);
            if listed.reads_the_object() {
                needs.read_by_filters.insert(listed.kind);
            }
        }
        needs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::selection::ResourceSelector;
    use super::*;
    use crate::expression::{Expression, VariableName};

    #[test]
    fn filters_that_name_the_object_need_more_of_it() {
        let listed = |kind, filter: Option<&str>| {
            let filter = filter.map(|text| {
                Expression::condition(text, &[VariableName::Event, VariableName::Res]).expect("a filter")
            });
            ResourceSelector { kind, name: None, namespace: None, labels: BTreeMap::new(), filter }
        };
        let resources = vec![
            listed(Kind::GitRepository, Some("res.metadata.name == 'a'")),
            listed(Kind::Kustomization, None),
            listed(Kind::HelmRelease, Some("event.refs[0].branch == 'main'")),
        ];
        let selection = Selection { resources, ..Selection::default() };
        let needs = InventoryNeeds::from_selections([&selection, &Selection::default()]);
        assert_eq!(needs.read_by_filters, BTreeSet::from([Kind::GitRepository]));
        let named = [Kind::Kustomization, Kind::HelmRelease];
        assert_eq!(needs.kinds, Kind::payload_kinds().chain(named).collect());
        let nobodys = InventoryNeeds::from_selections([]);
        assert_eq!(nobodys.kinds, Kind::payload_kinds().collect());
        assert!(nobodys.read_by_filters.is_empty());
    }
}
