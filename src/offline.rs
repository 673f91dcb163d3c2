//! Flux objects out of YAML files instead of a cluster, and a writer that only says what it would
//! write: for `--manifests` and the demo.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use serde::Deserialize;

use crate::flux::details::{self, FilterFields};
use crate::flux::selection::{ALLOW_ANNOTATION, SelectionMarks};
use crate::flux::{KINDS, Kind, Spec, Target};
use crate::matching::{Inventory, KindCoverage, Object};
use crate::queue::{WriteError, Writer};

/// Writes nothing; what would be patched is in the log.
pub struct DryRun {
    inventory: Arc<RwLock<Inventory>>,
}

impl DryRun {
    /// A writer for these objects.
    pub fn new(inventory: Arc<RwLock<Inventory>>) -> DryRun {
        DryRun { inventory }
    }
}

impl Writer for DryRun {
    fn request_reconcile<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), WriteError>> {
        log::info!(object:% = target; "reconciliation would be requested (dry run)");
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_gone(&self, target: &Target) -> bool {
        !self.inventory.read().contains(target)
    }
}

/// Reads the Flux objects of all `*.yaml` and `*.yml` files in a folder; other objects are passed
/// over.
///
/// # Errors
/// Names the file that cannot be read.
pub fn load(folder: &Path) -> anyhow::Result<Inventory> {
    let mut inventory = known_to_be_empty();
    for file in manifest_files(folder)? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        add_manifests(&mut inventory, &text).with_context(|| format!("{}", file.display()))?;
    }
    Ok(inventory)
}

/// An inventory that holds nothing because there is nothing: manifests are all that there is.
pub fn known_to_be_empty() -> Inventory {
    let mut inventory = Inventory::default();
    for info in &KINDS {
        inventory.set_coverage(info.kind, KindCoverage::complete());
    }
    inventory
}

/// Adds the Flux objects of a text of YAML documents.
///
/// # Errors
/// When the text is no YAML, or an object lacks what matching reads.
pub fn add_manifests(inventory: &mut Inventory, text: &str) -> anyhow::Result<()> {
    for document in serde_yaml::Deserializer::from_str(text) {
        let manifest = Option::<ManifestDocument>::deserialize(document)?;
        let Some(manifest) = manifest else { continue };
        if let Some(object) = manifest.into_object()? {
            inventory.put(object);
        }
    }
    Ok(())
}

/// Adds an object as an API server lists it. One that cannot be read exists and matches nothing, as in a
/// cluster that is watched.
pub fn add_manifest(inventory: &mut Inventory, manifest: serde_json::Value) {
    let Ok(manifest) = serde_json::from_value::<ManifestDocument>(manifest) else { return };
    let target = manifest.target();
    match (manifest.into_object(), target) {
        (Ok(Some(object)), _) => {
            inventory.put(object);
        }
        (Err(_), Some(target)) => {
            inventory.put(Object::unreadable(target));
        }
        _ => {}
    }
}

impl ManifestDocument {
    /// The object's name; none if it is not a Flux object.
    fn target(&self) -> Option<Target> {
        let kind = Kind::from_manifest(&self.api_version, &self.kind)?;
        let namespace = self.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        Some(Target { kind, namespace, name: self.metadata.name.clone() })
    }

    /// Brings a Flux object into comparable form; none for other objects.
    fn into_object(self) -> anyhow::Result<Option<Object>> {
        let Some(target) = self.target() else { return Ok(None) };
        let ManifestMetadata { labels, annotations, .. } = self.metadata;
        let spec = serde_json::value::to_raw_value(&self.spec)?;
        let allow = annotations.get(ALLOW_ANNOTATION).cloned();
        let metadata = details::FilterMetadata { annotations, ..details::FilterMetadata::default() };
        let details = FilterFields::new(&self.api_version, metadata, Some(&spec), None);
        let object = Spec::read(target.kind, Some(&spec)).and_then(|spec| Object::new(target.clone(), &spec));
        let mut object = object.map_err(|err| anyhow::anyhow!("{target}: {err}"))?;
        object.marks = SelectionMarks::new(labels, allow.as_deref());
        object.details = Some(Box::new(details));
        Ok(Some(object))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ManifestMetadata,
    #[serde(default)]
    spec: serde_yaml::Value,
}

#[derive(Default, Deserialize)]
struct ManifestMetadata {
    #[serde(default)]
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<Box<str>, Box<str>>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn manifest_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?.path();
        let is_manifest = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flux_objects_are_read_and_others_passed_over() {
        let text = "
apiVersion: v1
kind: Namespace
metadata: {name: apps}
---
# nothing here
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: apps}
spec: {url: https://github.com/org/app, ref: {branch: main}}
";
        let mut inventory = Inventory::default();
        add_manifests(&mut inventory, text).expect("manifests");
        assert_eq!(inventory.count(Kind::GitRepository), 1);
    }

    #[test]
    fn an_object_that_cannot_be_matched_is_named() {
        let text = "{apiVersion: source.toolkit.fluxcd.io/v1, kind: Bucket, metadata: {name: b}, spec: {}}";
        let err = add_manifests(&mut Inventory::default(), text).expect_err("no bucket name");
        assert!(err.to_string().starts_with("Bucket/default/b: spec: missing field `bucketName`"), "{err}");
    }
}
