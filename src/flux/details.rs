//! What filters read of an object beside its name and labels, kept as short as it can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Target;
use super::selection::SelectionMarks;

/// The part of an object that only filters read, as JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterFields(Box<str>);

/// What of `metadata` filters can read.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterMetadata {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// When its deletion was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Who has to agree to its deletion.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<Value>,
    /// Which of its versions this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// How often its spec has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Its identity over time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A field of `spec` or an annotation that is longer is left out, in bytes: values of charts and
/// inline patches would be kept for every object in the cluster.
const MAX_TEXT_BYTES: usize = 1024;

/// Bytes of all that filters read of an object.
const MAX_DETAILS_BYTES: usize = 32 << 10;

/// Holds the whole object again.
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl FilterFields {
    /// Takes of an object what filters can read; its API version may be empty where it is not said.
    pub fn new(
        api_version: &str,
        mut metadata: FilterMetadata,
        spec: Option<&RawValue>,
        revision: Option<&str>,
    ) -> FilterFields {
        metadata
            .annotations
            .retain(|name, value| name != LAST_APPLIED_ANNOTATION && value.len() <= MAX_TEXT_BYTES);
        let fields: BTreeMap<String, &RawValue> =
            spec.and_then(|spec| serde_json::from_str(spec.get()).ok()).unwrap_or_default();
        let short = fields.into_iter().filter(|(_, value)| value.get().len() <= MAX_TEXT_BYTES);
        let spec: Map<String, Value> =
            short.filter_map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?))).collect();
        let mut kept = json!({"metadata": metadata, "spec": spec});
        if !api_version.is_empty() {
            kept["apiVersion"] = json!(api_version);
        }
        if let Some(revision) = revision {
            kept["status"] = json!({"artifact": {"revision": revision}});
        }
        let mut text = kept.to_string();
        if text.len() > MAX_DETAILS_BYTES {
            // Without what can be of any number; a filter that reads it fails.
            for field in ["annotations", "finalizers", "ownerReferences"] {
                kept["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
            }
            text = kept.to_string();
        }
        if text.len() > MAX_DETAILS_BYTES {
            text = json!({"metadata": {}}).to_string();
        }
        FilterFields(text.into())
    }

    /// The object as filters read it.
    pub(crate) fn view(&self, target: &Target, marks: &SelectionMarks) -> Value {
        let info = target.kind.info();
        let mut object = serde_json::from_str(&self.0).unwrap_or_else(|_| json!({"metadata": {}}));
        if object.get("apiVersion").is_none() {
            object["apiVersion"] = json!(format!("{}/{}", info.group, info.versions[0]));
        }
        object["kind"] = json!(info.name);
        object["metadata"]["name"] = json!(target.name);
        object["metadata"]["namespace"] = json!(target.namespace);
        if !marks.labels().is_empty() {
            object["metadata"]["labels"] =
                marks.labels().iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::Kind;

    #[test]
    fn the_view_is_the_object_without_what_is_long() {
        let annotations = [
            ("team", "a".to_owned()),
            (LAST_APPLIED_ANNOTATION, "{}".to_owned()),
            ("long", "x".repeat(2000)),
        ];
        let metadata = FilterMetadata {
            annotations: annotations.map(|(name, value)| (name.to_owned(), value)).into(),
            generation: Some(2),
            ..FilterMetadata::default()
        };
        let spec = json!({"url": "https://example.com/a", "values": {"x": "y".repeat(2000)}});
        let spec = serde_json::value::to_raw_value(&spec).expect("JSON");
        let details =
            FilterFields::new("source.toolkit.fluxcd.io/v1beta2", metadata, Some(&spec), Some("main@sha1:1"));
        let target = Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: "a".to_owned() };
        let labels = std::iter::once((Box::from("app"), Box::from("x"))).collect();
        let expect = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1beta2", "kind": "GitRepository",
            "metadata": {"name": "a", "namespace": "apps", "labels": {"app": "x"}, "annotations": {"team": "a"}, "generation": 2},
            "spec": {"url": "https://example.com/a"},
            "status": {"artifact": {"revision": "main@sha1:1"}},
        });
        assert_eq!(details.view(&target, &SelectionMarks::new(labels, None)), expect);
        let bare = FilterFields::default().view(&target, &SelectionMarks::default());
        assert_eq!(bare["metadata"], json!({"name": "a", "namespace": "apps"}));
        assert_eq!(bare["apiVersion"], "source.toolkit.fluxcd.io/v1");
    }
}
