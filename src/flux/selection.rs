//! Which objects an endpoint may ask for: the `resources` of a Flux Receiver, and its namespaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Target};

/// Which objects an endpoint may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Only in these namespaces; empty for everywhere.
    pub namespaces: Vec<String>,
    /// Only what one of these lists; empty for every object.
    pub resources: Vec<Resource>,
    /// Whether a delivery concerns all that `resources` lists, whatever it is about.
    pub matches_all: bool,
}

/// Objects, as a Flux Receiver lists them.
/// <https://fluxcd.io/flux/components/notification/receivers/#resources>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Their kind.
    pub kind: Kind,
    /// The name, or none for all names.
    pub name: Option<String>,
    /// The namespace, or none for all.
    pub namespace: Option<String>,
    /// Labels that they have to carry.
    pub labels: BTreeMap<String, String>,
}

/// The labels of an object.
pub type Labels = Box<[(Box<str>, Box<str>)]>;

impl Selection {
    /// Whether the object may be asked for.
    pub fn admits(&self, target: &Target, labels: &Labels) -> bool {
        self.admits_namespace(&target.namespace)
            && (self.resources.is_empty() || self.resources.iter().any(|listed| listed.holds(target, labels)))
    }

    /// The kinds that `resources` lists.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.resources.iter().map(|resource| resource.kind)
    }

    fn admits_namespace(&self, namespace: &String) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

impl Resource {
    fn holds(&self, target: &Target, labels: &Labels) -> bool {
        self.kind == target.kind
            && self.name.as_ref().is_none_or(|name| *name == target.name)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == target.namespace)
            && self.labels.iter().all(|(name, value)| carries(labels, name, value))
    }
}

fn carries(labels: &Labels, name: &str, value: &str) -> bool {
    labels.iter().any(|(other, its_value)| **other == *name && **its_value == *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(selection: &Selection, target: (Kind, &str, &str), labels: &[(&str, &str)]) -> bool {
        let (kind, namespace, name) = target;
        let target = Target { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let labels = labels.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
        selection.admits(&target, &labels)
    }

    #[test]
    fn every_condition_has_to_hold() {
        let resource = Resource {
            kind: Kind::GitRepository,
            name: None,
            namespace: Some("apps".to_owned()),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        };
        let named = Resource {
            name: Some("charts".to_owned()),
            kind: Kind::Bucket,
            namespace: None,
            labels: BTreeMap::new(),
        };
        let selection = Selection { resources: vec![resource, named], ..Selection::default() };
        let team = [("x", "y"), ("team", "a")];
        assert!(admits(&selection, (Kind::GitRepository, "apps", "app"), &team));
        assert!(!admits(&selection, (Kind::GitRepository, "apps", "app"), &[("team", "b")]));
        assert!(!admits(&selection, (Kind::GitRepository, "other", "app"), &team));
        assert!(!admits(&selection, (Kind::OciRepository, "apps", "app"), &team));
        assert!(admits(&selection, (Kind::Bucket, "other", "charts"), &[]));
        assert!(!admits(&selection, (Kind::Bucket, "other", "chart"), &[]));
        let narrowed = Selection { namespaces: vec!["apps".to_owned()], ..selection };
        assert!(!admits(&narrowed, (Kind::Bucket, "other", "charts"), &[]));
        assert!(admits(&Selection::default(), (Kind::Bucket, "anywhere", "x"), &[]));
    }
}
