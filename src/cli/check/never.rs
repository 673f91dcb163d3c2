//! What of an endpoint's selection can never match, as the cluster is now: namespaces and names that do not exist.

use std::collections::BTreeSet;

use crate::cluster::access::KindAccess;
use crate::config::{Config, suggestion};
use crate::endpoint::Endpoint;
use crate::flux::Target;

/// Warns of namespaces without Flux objects and of resources that do not exist. Where something may not be
/// listed, nothing is said about it.
pub(super) fn warnings(config: &Config, kinds: &[KindAccess]) -> Vec<String> {
    let may_list_all = kinds.iter().all(|access| access.version.is_none() || access.objects.is_some());
    let is_limited = kinds.iter().any(|access| access.namespace.is_some());
    if !may_list_all || is_limited {
        return Vec::new();
    }
    let objects: Vec<&Target> = kinds.iter().filter_map(|access| access.objects.as_ref()).flatten().collect();
    // A new cluster is not full of mistakes.
    if objects.is_empty() {
        return Vec::new();
    }
    config.endpoints.iter().flat_map(|endpoint| of_endpoint(endpoint, &objects)).collect()
}

fn of_endpoint(endpoint: &Endpoint, objects: &[&Target]) -> Vec<String> {
    let name = &endpoint.name;
    let existing: BTreeSet<&str> = objects.iter().map(|object| &*object.namespace).collect();
    let unknown =
        endpoint.selection.namespaces.iter().filter(|namespace| !existing.contains(namespace.as_str()));
    let mut warnings: Vec<String> = unknown
        .map(|namespace| {
            let meant = suggested(suggestion::nearest(namespace, existing.iter().copied()));
            format!("endpoint {name}: namespaces: no Flux object is in namespace {namespace}{meant}")
        })
        .collect();
    for selector in &endpoint.selection.resources {
        let Some(wanted) = &selector.name else { continue };
        let of_kind = objects.iter().filter(|object| object.kind == selector.kind);
        let in_namespace = |object: &&&Target| {
            selector.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace)
        };
        let names: Vec<&str> = of_kind.filter(in_namespace).map(|object| &*object.name).collect();
        if names.iter().any(|existing| existing == wanted) {
            continue;
        }
        let place = selector.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let meant = suggested(suggestion::nearest(wanted, names.into_iter()));
        warnings.push(format!(
            "endpoint {name}: resources: there is no {}/{place}{wanted}{meant}",
            selector.kind
        ));
    }
    warnings
}

fn suggested(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
