//! `resources`, `match` and `namespaces` of an endpoint.

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::section::Section;
use super::{expression, suggestion};
use crate::filter_input;
use crate::flux::selection::{ResourceSelector, Selection};
use crate::flux::{KINDS, Kind};

/// Reads the fields that limit the objects of an endpoint.
pub(super) fn read(entry: &mut Section<'_>) -> Selection {
    let namespaces = entry.texts("namespaces");
    let lists_resources = entry.has("resources");
    let listed = entry.filled_list("resources");
    let matching = entry.text("match");
    let matches_all = matching.as_deref() == Some("all");
    if let Some(other) = matching.filter(|matching| !matches!(matching.as_str(), "all" | "payload")) {
        entry.mistake("match", &format!("`{other}` is neither `payload` nor `all`"));
    }
    if matches_all && !lists_resources {
        entry.mistake("match", "`all` needs `resources` to say all of what");
    }
    let resources =
        listed.into_iter().enumerate().filter_map(|(at, value)| resource(entry, at + 1, value)).collect();
    Selection { namespaces, resources, matches_all, consent: None }
}

fn resource(entry: &mut Section<'_>, number: usize, value: Value) -> Option<ResourceSelector> {
    let mut fields = entry.within(&format!("resources: {number}"), value)?;
    let kind = fields.required_text("kind");
    let api_version = fields.text("apiVersion");
    let name = fields.text("name").filter(|name| name != "*");
    let namespace = fields.text("namespace");
    let labels = labels(&mut fields);
    let filter = expression::read(&mut fields, "filter", filter_input::RESOURCE_VARIABLES);
    fields.finish();
    let kind = kind.and_then(|kind| find_kind(&mut fields, &kind));
    if let (Some(kind), Some(version)) = (kind, api_version)
        && Kind::from_manifest(&version, kind.info().name).is_none()
    {
        let known = format!("{}/{}", kind.info().group, kind.info().versions[0]);
        fields.mistake(
            "apiVersion",
            &format!("`{version}` is not a version of {kind}; write {known} or remove it"),
        );
    }
    Some(ResourceSelector { kind: kind?, name, namespace, labels, filter })
}

fn find_kind(fields: &mut Section<'_>, kind: &str) -> Option<Kind> {
    let found = Kind::named(kind);
    if found.is_none() {
        let known: Vec<&str> = KINDS.iter().map(|info| info.name).collect();
        let fix = suggestion::fix(kind, &known);
        fields.mistake("kind", &format!("`{kind}` is not a kind that flux-recv handles; {fix}"));
    }
    found
}

fn labels(fields: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    match fields.take("matchLabels") {
        None => {}
        Some(Value::Mapping(written)) if !written.is_empty() => {
            for (name, value) in written {
                match (name, value) {
                    (Value::String(name), Value::String(value)) => drop(labels.insert(name, value)),
                    _ => fields.mistake("matchLabels", "has a value that is not a string; put it in quotes"),
                }
            }
        }
        Some(_) => fields.mistake("matchLabels", "is not a mapping of labels; write `label: value` lines"),
    }
    labels
}
