//! The objects that an endpoint may request: `resources`, as Flux's Receivers have them, and namespaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Target};
use crate::expression::{Expression, VariableName};

/// The objects that an endpoint may request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Only in these namespaces; empty for everywhere.
    pub namespaces: Vec<String>,
    /// Only what one of these lists; empty for every object.
    pub resources: Vec<ResourceSelector>,
    /// Whether a delivery concerns all that `resources` lists, whatever it is about.
    pub matches_all: bool,
    /// The consent that objects need; none if objects need not consent.
    #[serde(default)]
    pub consent: Option<Consent>,
}

/// Tenants stay apart: outside of its own namespaces an endpoint may request only objects that name
/// it in their annotation [`ALLOW_ANNOTATION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// What the annotation has to name: the endpoint.
    pub endpoint: String,
    /// Where objects need not consent.
    pub own_namespaces: Vec<String>,
}

/// The annotation with which an object lets endpoints of other namespaces request it: their names,
/// separated by commas.
pub const ALLOW_ANNOTATION: &str = "flux-recv.fluxcd.io/allow";

/// Objects, as a Flux Receiver lists them.
/// <https://fluxcd.io/flux/components/notification/receivers/#resources>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSelector {
    pub kind: Kind,
    /// The name, or none for all names.
    pub name: Option<String>,
    /// The namespace, or none for all.
    pub namespace: Option<String>,
    /// Labels that they have to carry.
    pub labels: BTreeMap<String, String>,
    /// The condition on each of them.
    #[serde(default)]
    pub filter: Option<Expression>,
}

/// What an object carries for those who choose among objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelectionMarks(Option<Box<MarkTexts>>);

/// Apart, since most objects have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct MarkTexts {
    labels: Box<[(Box<str>, Box<str>)]>,
    /// The value of its annotation [`ALLOW_ANNOTATION`].
    allow: Option<Box<str>>,
}

/// Why an object may not be requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SelectionMiss {
    /// Its namespace is not one of the endpoint's.
    Namespace,
    /// It does not let the endpoint request it.
    Consent,
    /// `resources` does not list it.
    Resources,
}

/// Whether an object is chosen.
pub enum SelectionResult<'s> {
    No,
    Yes,
    /// If one of these holds of it.
    If(Vec<&'s Expression>),
}

impl Selection {
    /// Whether the object may be requested, as far as its name and marks tell.
    pub fn admits(&self, target: &Target, marks: &SelectionMarks) -> bool {
        self.check(target, marks).is_ok()
    }

    /// The same.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, target: &Target, marks: &SelectionMarks) -> Result<(), SelectionMiss> {
        self.check_namespace(&target.namespace, marks)?;
        let is_listed = || self.resources.iter().any(|listed| listed.holds(target, marks));
        if self.resources.is_empty() || is_listed() { Ok(()) } else { Err(SelectionMiss::Resources) }
    }

    /// Whether the object may be requested, and the condition that it has to meet.
    pub fn choose(&self, target: &Target, marks: &SelectionMarks) -> SelectionResult<'_> {
        if self.check_namespace(&target.namespace, marks).is_err() {
            return SelectionResult::No;
        }
        if self.resources.is_empty() {
            return SelectionResult::Yes;
        }
        let mut filters = Vec::new();
        for listed in self.resources.iter().filter(|listed| listed.holds(target, marks)) {
            match &listed.filter {
                None => return SelectionResult::Yes,
                Some(filter) => filters.push(filter),
            }
        }
        if filters.is_empty() { SelectionResult::No } else { SelectionResult::If(filters) }
    }

    /// The kinds that it lists and no payload is about.
    pub fn named_kinds(&self) -> impl Iterator<Item = Kind> {
        self.kinds().filter(|kind| !kind.is_of_payloads())
    }

    /// The filters of all that it lists.
    pub fn filters(&self) -> impl Iterator<Item = &Expression> {
        self.resources.iter().filter_map(|resource| resource.filter.as_ref())
    }

    /// Whether one of them reads objects of this kind.
    pub fn reads_objects_of(&self, kind: Kind) -> bool {
        self.resources.iter().any(|listed| listed.kind == kind && listed.reads_the_object())
    }

    /// The same, but nothing outside of these namespaces without the object's consent.
    pub fn with_consent(self, endpoint: &str, own_namespaces: Vec<String>) -> Selection {
        let consent = Consent { endpoint: endpoint.to_owned(), own_namespaces };
        // Beyond its own namespaces it reaches what lets it.
        Selection { namespaces: Vec::new(), consent: Some(consent), ..self }
    }

    /// The kinds that `resources` lists.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.resources.iter().map(|resource| resource.kind)
    }

    fn check_namespace(&self, namespace: &String, marks: &SelectionMarks) -> Result<(), SelectionMiss> {
        if !self.namespaces.is_empty() && !self.namespaces.contains(namespace) {
            return Err(SelectionMiss::Namespace);
        }
        let has_consent = self.consent.as_ref().is_none_or(|consent| {
            consent.own_namespaces.contains(namespace) || marks.allows(&consent.endpoint)
        });
        if has_consent { Ok(()) } else { Err(SelectionMiss::Consent) }
    }
}

impl ResourceSelector {
    /// Whether its filter reads the object.
    pub fn reads_the_object(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.names(VariableName::Res))
    }

    fn holds(&self, target: &Target, marks: &SelectionMarks) -> bool {
        self.kind == target.kind
            && self.name.as_ref().is_none_or(|name| *name == target.name)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == target.namespace)
            && self.labels.iter().all(|(name, value)| marks.carries(name, value))
    }
}

/// Bytes of the labels of an object that the inventory holds. Kubernetes limits each of them to 380 and not their
/// number.
const MAX_LABELS_BYTES: usize = 8 << 10;

/// Bytes of the annotation [`ALLOW_ANNOTATION`] that the inventory holds.
const MAX_ALLOW_BYTES: usize = 4 << 10;

impl SelectionMarks {
    /// Keeps of labels and consent what has room; what has none is as if it were not there.
    pub fn new(labels: BTreeMap<Box<str>, Box<str>>, allow: Option<&str>) -> SelectionMarks {
        let mut bytes = 0;
        let labels = labels.into_iter().take_while(|(name, value)| {
            bytes += name.len() + value.len();
            bytes <= MAX_LABELS_BYTES
        });
        let labels: Box<[_]> = labels.collect();
        let allow = allow.filter(|allow| allow.len() <= MAX_ALLOW_BYTES).map(Box::from);
        let is_any = !labels.is_empty() || allow.is_some();
        SelectionMarks(is_any.then(|| Box::new(MarkTexts { labels, allow })))
    }

    /// Returns the labels, by their names.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        self.0.as_deref().map_or(&[], |texts| &texts.labels)
    }

    fn carries(&self, name: &str, value: &str) -> bool {
        self.labels().iter().any(|(other, its_value)| **other == *name && **its_value == *value)
    }

    fn allows(&self, endpoint: &str) -> bool {
        let allow = self.0.as_deref().and_then(|texts| texts.allow.as_deref());
        allow.is_some_and(|names| names.split(',').any(|name| name.trim() == endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(selection: &Selection, target: (Kind, &str, &str), labels: &[(&str, &str)]) -> bool {
        let (kind, namespace, name) = target;
        let target = Target { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let labels = labels.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
        selection.admits(&target, &SelectionMarks::new(labels, None))
    }

    #[test]
    fn every_condition_has_to_hold() {
        let resource = ResourceSelector {
            kind: Kind::GitRepository,
            name: None,
            namespace: Some("apps".to_owned()),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            filter: None,
        };
        let named = ResourceSelector {
            name: Some("charts".to_owned()),
            kind: Kind::Bucket,
            namespace: None,
            labels: BTreeMap::new(),
            filter: None,
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

    // Incident 33.
    #[test]
    fn consent_is_needed_outside_of_the_own_namespaces() {
        let selection = Selection { namespaces: vec!["apps".to_owned()], ..Selection::default() };
        let selection = selection.with_consent("github", vec!["apps".to_owned()]);
        let admits = |namespace: &str, allow: Option<&str>| {
            let target = Target { kind: Kind::Bucket, namespace: namespace.to_owned(), name: "x".to_owned() };
            selection.admits(&target, &SelectionMarks::new(BTreeMap::new(), allow))
        };
        assert!(admits("apps", None));
        assert!(!admits("team-a", None));
        assert!(admits("team-a", Some("github")));
        assert!(admits("team-a", Some("harbor, github")));
        for other in ["", "git", "github2", "*", "GitHub"] {
            assert!(!admits("team-a", Some(other)), "{other}");
        }
    }
}
