//! The Flux kinds that flux-recv requests: one table.
//!
//! Watches, access checks, the RBAC test and the documents' tables are made from it.

pub mod details;
pub mod needs;
pub mod selection;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::field_error::FieldError;

/// A kind of Flux object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A Git repository that source-controller fetches.
    GitRepository,
    /// An OCI artifact that source-controller fetches.
    OciRepository,
    /// The index of a Helm repository; of type `oci` it is static and stands only for its charts.
    HelmRepository,
    /// A Helm chart that source-controller fetches.
    HelmChart,
    /// A bucket that source-controller fetches.
    Bucket,
    /// An image repository whose tags image-reflector-controller scans.
    ImageRepository,
    Kustomization,
    /// A release that helm-controller installs.
    HelmRelease,
    /// A choice among the tags of an image repository.
    ImagePolicy,
    /// Commits that image-automation-controller makes.
    ImageUpdateAutomation,
    /// An artifact that source-watcher puts together out of others.
    ArtifactGenerator,
    /// An artifact that some other controller publishes.
    ExternalArtifact,
    /// What flux-operator installs Flux from.
    FluxInstance,
    /// What flux-operator makes objects from.
    ResourceSet,
    /// Where flux-operator looks for the inputs of a `ResourceSet`.
    ResourceSetInputProvider,
    Terraform,
}

/// What the API server calls a [`Kind`].
#[derive(Debug)]
pub struct KindInfo {
    /// The kind that this row is about.
    pub kind: Kind,
    /// `kind` in a manifest.
    pub name: &'static str,
    pub group: &'static str,
    /// The resource in a URL and in RBAC rules.
    pub plural: &'static str,
    /// Versions whose fields matching can read, best first.
    pub versions: &'static [&'static str],
    /// The fields of `spec` that matching reads, for the documentation. None where no payload is ever
    /// about the kind: it is watched and requested only where an endpoint's `resources` name it.
    pub reads: Option<&'static str>,
}

const SOURCE_GROUP: &str = "source.toolkit.fluxcd.io";
const IMAGE_GROUP: &str = "image.toolkit.fluxcd.io";
const EXTENSIONS_GROUP: &str = "source.extensions.fluxcd.io";
const OPERATOR_GROUP: &str = "fluxcd.controlplane.io";

/// All kinds, in the order in which they are shown.
pub const KINDS: [KindInfo; 16] = [
    KindInfo {
        kind: Kind::GitRepository,
        name: "GitRepository",
        group: SOURCE_GROUP,
        plural: "gitrepositories",
        versions: &["v1", "v1beta2", "v1beta1"],
        reads: Some("url, ref, include, suspend"),
    },
    KindInfo {
        kind: Kind::OciRepository,
        name: "OCIRepository",
        group: SOURCE_GROUP,
        plural: "ocirepositories",
        versions: &["v1", "v1beta2"],
        reads: Some("url, ref, verify, suspend"),
    },
    KindInfo {
        kind: Kind::HelmRepository,
        name: "HelmRepository",
        group: SOURCE_GROUP,
        plural: "helmrepositories",
        versions: &["v1", "v1beta2", "v1beta1"],
        reads: Some("url, type, suspend"),
    },
    KindInfo {
        kind: Kind::HelmChart,
        name: "HelmChart",
        group: SOURCE_GROUP,
        plural: "helmcharts",
        versions: &["v1", "v1beta2", "v1beta1"],
        reads: Some("chart, version, sourceRef, verify, suspend"),
    },
    KindInfo {
        kind: Kind::Bucket,
        name: "Bucket",
        group: SOURCE_GROUP,
        plural: "buckets",
        versions: &["v1", "v1beta2", "v1beta1"],
        reads: Some("bucketName, endpoint, provider, prefix, suspend"),
    },
    KindInfo {
        kind: Kind::ImageRepository,
        name: "ImageRepository",
        group: IMAGE_GROUP,
        plural: "imagerepositories",
        versions: &["v1", "v1beta2", "v1beta1"],
        reads: Some("image, exclusionList, suspend"),
    },
    only_when_named(
        Kind::Kustomization,
        "Kustomization",
        "kustomize.toolkit.fluxcd.io",
        "kustomizations",
        &["v1", "v1beta2"],
    ),
    only_when_named(
        Kind::HelmRelease,
        "HelmRelease",
        "helm.toolkit.fluxcd.io",
        "helmreleases",
        &["v2", "v2beta2"],
    ),
    only_when_named(Kind::ImagePolicy, "ImagePolicy", IMAGE_GROUP, "imagepolicies", &["v1", "v1beta2"]),
    only_when_named(
        Kind::ImageUpdateAutomation,
        "ImageUpdateAutomation",
        IMAGE_GROUP,
        "imageupdateautomations",
        &["v1", "v1beta2"],
    ),
    only_when_named(
        Kind::ArtifactGenerator,
        "ArtifactGenerator",
        EXTENSIONS_GROUP,
        "artifactgenerators",
        &["v1", "v1beta1"],
    ),
    only_when_named(Kind::ExternalArtifact, "ExternalArtifact", SOURCE_GROUP, "externalartifacts", &["v1"]),
    only_when_named(Kind::FluxInstance, "FluxInstance", OPERATOR_GROUP, "fluxinstances", &["v1"]),
    only_when_named(Kind::ResourceSet, "ResourceSet", OPERATOR_GROUP, "resourcesets", &["v1"]),
    only_when_named(
        Kind::ResourceSetInputProvider,
        "ResourceSetInputProvider",
        OPERATOR_GROUP,
        "resourcesetinputproviders",
        &["v1"],
    ),
    only_when_named(Kind::Terraform, "Terraform", "infra.contrib.fluxcd.io", "terraforms", &["v1alpha2"]),
];

const fn only_when_named(
    kind: Kind,
    name: &'static str,
    group: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> KindInfo {
    KindInfo { kind, name, group, plural, versions, reads: None }
}

impl Kind {
    /// The kind's row in the table.
    pub fn info(self) -> &'static KindInfo {
        KINDS.iter().find(|info| info.kind == self).expect("KINDS has a row for every kind")
    }

    /// The kinds that payloads can be about, in the order in which they are shown.
    pub fn payload_kinds() -> impl Iterator<Item = Kind> {
        KINDS.iter().filter(|info| info.reads.is_some()).map(|info| info.kind)
    }

    /// Whether a payload can be about an object of this kind.
    pub fn is_of_payloads(self) -> bool {
        self.info().reads.is_some()
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        KINDS.iter().find(|info| info.name == name).map(|info| info.kind)
    }

    /// The kind of a manifest, if it is one of the table and of a version that can be read.
    pub fn from_manifest(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/')?;
        KINDS
            .iter()
            .find(|info| info.name == kind && info.group == group && info.versions.contains(&version))
            .map(|info| info.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

/// A Flux object by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// Reads `Kind/namespace/name`.
    pub fn parse(text: &str) -> Option<Target> {
        let mut parts = text.split('/');
        let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = Kind::named(kind)?;
        Some(Target { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// `Kind/namespace/name`, as in answers and logs.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.kind.info().name, "/", &self.namespace, "/", &self.name] {
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// The annotation that requests reconciliation: any new value does.
/// <https://fluxcd.io/flux/components/source/gitrepositories/#triggering-a-reconcile>
pub const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// How far Flux has come with an object: what follow-through reads beside its spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// A hash of the annotation that requests reconciliation, to tell one request from the next; 0 for none.
    pub requested: u64,
    /// Whether the controller has handled that request.
    pub handled: bool,
    /// The commit ID or digest that Flux has fetched, in hex.
    pub revision: Option<Box<str>>,
    /// A hash of revision and digest of the artifact: an artifact that includes others changes without a
    /// new revision.
    pub artifact: u64,
}

/// Bytes of a time or a hash; what is longer was written by neither Flux nor flux-recv.
const MAX_PROGRESS_BYTES: usize = 256;

impl Progress {
    /// Puts together the annotation, `status.lastHandledReconcileAt` and
    /// `status.artifact.revision`.
    pub fn new(requested: Option<&str>, handled: Option<&str>, revision: Option<&str>) -> Progress {
        let is_short = |text: &&str| text.len() <= MAX_PROGRESS_BYTES;
        Progress {
            requested: requested.map(hash_of).unwrap_or_default(),
            handled: requested.is_some() && requested == handled,
            revision: revision.map(revision_hash).filter(is_short).map(Box::from),
            artifact: 0,
        }
    }

    /// The same with `status.artifact.revision` and `status.artifact.digest`, by which one artifact is told
    /// from the next.
    pub fn with_artifact(self, revision: Option<&str>, digest: Option<&str>) -> Progress {
        Progress { artifact: hash_of((revision, digest)), ..self }
    }
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The hash in a revision: `main@sha1:…`, `refs/heads/main@sha1:…`, `sha1:…`, `tag@sha256:…`, and
/// `main/…` of older versions.
pub fn revision_hash(revision: &str) -> &str {
    revision.rsplit([':', '@', '/']).next().unwrap_or(revision)
}

/// The fields of `spec` that matching reads, as they are written.
#[derive(Debug, Clone)]
pub enum Spec {
    GitRepository(GitRepositorySpec),
    OciRepository(OciRepositorySpec),
    HelmRepository(HelmRepositorySpec),
    HelmChart(HelmChartSpec),
    Bucket(BucketSpec),
    ImageRepository(ImageRepositorySpec),
    /// Of a kind that no payload is about.
    Other(OtherSpec),
}

impl Spec {
    /// Reads the `spec` of an object of this kind.
    ///
    /// # Errors
    /// When a field that matching needs is missing or of another type; the error names the field.
    pub fn read(kind: Kind, spec: Option<&RawValue>) -> Result<Spec, FieldError> {
        fn typed<'t, T: Deserialize<'t>>(spec: &'t str) -> Result<T, FieldError> {
            let deserializer = &mut serde_json::Deserializer::from_str(spec);
            serde_path_to_error::deserialize(deserializer).map_err(|err| FieldError::from_serde("spec", err))
        }
        let spec = spec.map_or("null", RawValue::get);
        Ok(match kind {
            Kind::GitRepository => Spec::GitRepository(typed(spec)?),
            Kind::OciRepository => Spec::OciRepository(typed(spec)?),
            Kind::HelmRepository => Spec::HelmRepository(typed(spec)?),
            Kind::HelmChart => Spec::HelmChart(typed(spec)?),
            Kind::Bucket => Spec::Bucket(typed(spec)?),
            Kind::ImageRepository => Spec::ImageRepository(typed(spec)?),
            _ => Spec::Other(typed::<Option<OtherSpec>>(spec)?.unwrap_or_default()),
        })
    }

    /// Whether the object is suspended.
    pub fn is_suspended(&self) -> bool {
        match self {
            Spec::GitRepository(spec) => spec.suspend,
            Spec::OciRepository(spec) => spec.suspend,
            Spec::HelmRepository(spec) => spec.suspend,
            Spec::HelmChart(spec) => spec.suspend,
            Spec::Bucket(spec) => spec.suspend,
            Spec::ImageRepository(spec) => spec.suspend,
            Spec::Other(spec) => spec.suspend,
        }
    }
}

/// Reads whether a field has any value but null.
fn is_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|value| value.is_some())
}

/// What matching reads of a `GitRepository`.
#[derive(Debug, Clone, Deserialize)]
pub struct GitRepositorySpec {
    /// Where the repository is.
    pub url: String,
    /// What of it Flux follows.
    #[serde(default, rename = "ref")]
    pub reference: Option<GitRepositoryRef>,
    /// The GitRepositories of its namespace whose artifacts are put into its own.
    /// <https://fluxcd.io/flux/components/source/gitrepositories/#include>
    #[serde(default)]
    pub include: Option<Vec<GitRepositoryInclude>>,
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

/// An entry of `spec.include` of a `GitRepository`.
#[derive(Debug, Clone, Deserialize)]
pub struct GitRepositoryInclude {
    pub repository: GitRepositoryName,
}

/// A GitRepository of the same namespace.
#[derive(Debug, Clone, Deserialize)]
pub struct GitRepositoryName {
    pub name: String,
}

/// `spec.ref` of a `GitRepository`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GitRepositoryRef {
    /// A branch by its short name.
    pub branch: Option<String>,
    /// A tag by its short name.
    pub tag: Option<String>,
    /// A range that tags have to fit.
    pub semver: Option<String>,
    /// A ref by its full name.
    pub name: Option<String>,
    pub commit: Option<String>,
}

/// What matching reads of an `OCIRepository`.
#[derive(Debug, Clone, Deserialize)]
pub struct OciRepositorySpec {
    /// The repository as `oci://host/path`.
    pub url: String,
    /// What of it Flux follows.
    #[serde(default, rename = "ref")]
    pub reference: Option<OciRepositoryRef>,
    /// Whether Flux verifies the artifact's signature.
    /// <https://fluxcd.io/flux/components/source/ocirepositories/#verification>
    #[serde(default, deserialize_with = "is_set")]
    pub verify: bool,
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

/// `spec.ref` of an `OCIRepository`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciRepositoryRef {
    pub digest: Option<String>,
    /// A range that tags have to fit.
    pub semver: Option<String>,
    /// A regular expression that tags have to match before the range is evaluated.
    pub semver_filter: Option<String>,
    pub tag: Option<String>,
}

/// What matching reads of a `HelmRepository`.
#[derive(Debug, Clone, Deserialize)]
pub struct HelmRepositorySpec {
    /// Where the repository is; `oci://…` if its type is `oci`.
    pub url: String,
    /// `default` (or nothing) for HTTP, `oci` for a registry.
    #[serde(default, rename = "type")]
    pub repository_type: Option<String>,
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

/// What matching reads of a `HelmChart`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelmChartSpec {
    /// The chart's name in its repository.
    pub chart: String,
    /// The range that versions have to fit.
    pub version: Option<String>,
    /// Where the chart comes from, in the chart's own namespace.
    pub source_ref: SourceRef,
    /// Whether Flux verifies the chart's signature.
    /// <https://fluxcd.io/flux/components/source/helmcharts/#verification>
    #[serde(default, deserialize_with = "is_set")]
    pub verify: bool,
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

/// A reference to a source in the same namespace.
#[derive(Debug, Clone, Deserialize)]
pub struct SourceRef {
    pub kind: String,
    pub name: String,
}

/// What matching reads of a `Bucket`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketSpec {
    pub bucket_name: String,
    /// The service's host and port.
    pub endpoint: String,
    /// `generic` (or nothing), `aws`, `gcp` or `azure`.
    pub provider: Option<String>,
    /// What the keys that Flux reads start with.
    pub prefix: Option<String>,
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

/// What matching reads of an `ImageRepository`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRepositorySpec {
    /// The image's name, without tag.
    pub image: String,
    /// Regular expressions of tags that Flux does not look at.
    pub exclusion_list: Option<Vec<String>>,
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

/// What is read of a kind that no payload is about.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct OtherSpec {
    /// Whether Flux leaves the object alone.
    #[serde(default)]
    pub suspend: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_recognised_by_group_kind_and_version() {
        assert_eq!(
            Kind::from_manifest("source.toolkit.fluxcd.io/v1", "OCIRepository"),
            Some(Kind::OciRepository)
        );
        assert_eq!(
            Kind::from_manifest("image.toolkit.fluxcd.io/v1beta2", "ImageRepository"),
            Some(Kind::ImageRepository)
        );
        assert_eq!(Kind::from_manifest("source.toolkit.fluxcd.io/v9", "GitRepository"), None);
        assert_eq!(Kind::from_manifest("v1", "Secret"), None);
        assert_eq!(Kind::from_manifest("example.com/v1", "Bucket"), None);
    }

    #[test]
    fn the_hash_is_found_in_every_form_of_a_revision() {
        for revision in
            ["main@sha1:abc", "refs/heads/main@sha1:abc", "sha1:abc", "v1@sha256:abc", "main/abc", "abc"]
        {
            assert_eq!(revision_hash(revision), "abc", "{revision}");
        }
    }

    #[test]
    fn a_spec_that_lacks_a_needed_field_says_which() {
        let spec = RawValue::from_string("{\"url\": 7}".to_owned()).expect("JSON");
        let err = Spec::read(Kind::GitRepository, Some(&spec)).expect_err("a number");
        assert!(err.to_string().starts_with("spec.url"), "{err}");
    }
}
