//! Events: what a verified delivery says, in flux-recv's own normal form.
//!
//! Providers make these values, matching reads them; neither knows the other.

mod changed_files;
mod commit_ids;
pub mod git_ref;
pub mod image;
pub mod normal_form;
pub mod repository_url;
pub mod semver;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use changed_files::ChangedFiles;
pub use commit_ids::CommitIds;
use git_ref::GitRef;
use image::ImageName;
use repository_url::RepositoryUrl;

/// One thing that happened at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Refs of a Git repository changed.
    Git(GitEvent),
    /// A manifest or a tag in an image registry changed.
    Image(ImageEvent),
    /// The index of a Helm repository served over HTTP changed.
    Chart(ChartEvent),
    /// Objects in a bucket changed.
    Bucket(BucketEvent),
    /// The provider does not say what: everything that the endpoint lists may be concerned.
    Anything {
        /// What the provider calls it, for people.
        what: String,
    },
}

/// The subject of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Git,
    /// Images, charts and other artifacts in a registry.
    Images,
    /// Helm repositories over HTTP.
    Charts,
    Buckets,
    /// Everything that the endpoint lists in `resources`.
    Selection,
}

impl Subject {
    pub const ALL: [Subject; 5] =
        [Subject::Git, Subject::Images, Subject::Charts, Subject::Buckets, Subject::Selection];
}

/// A change in a Git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitEvent {
    /// Every URL that the provider gives for the repository, or that follows from what it gives.
    pub repository: Vec<RepositoryUrl>,
    /// The SSH URL as the provider writes it, if it gives one: what Flux v1 gets.
    pub ssh_url: Option<String>,
    /// What changed in it.
    pub changes: GitChanges,
}

/// The refs that a [`GitEvent`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GitChanges {
    /// These refs, and no others.
    Refs(Vec<RefChange>),
    /// The provider does not say, or has cut its list short: any ref may have changed.
    Unknown,
}

/// One ref that was created, moved or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefChange {
    /// The ref by its full name.
    pub name: GitRef,
    /// Whether the ref is gone now.
    pub deleted: bool,
    /// Commit IDs that the change brings, as far as the provider lists them.
    pub commits: CommitIds,
    /// The commit that the ref points to now, if the provider says; never a tag object.
    pub head: Option<String>,
    /// The files that its commits change. They are read before a delivery waits, so the journal does not
    /// hold them.
    #[serde(skip)]
    pub files: ChangedFiles,
}

/// A change in an image registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageEvent {
    /// Every name under which the repository may be known (a registry can have several hosts).
    pub names: Vec<ImageName>,
    /// The repository as the provider writes it, without tag: what Flux v1 gets.
    pub written: String,
    /// The tags concerned; empty when the provider names none.
    pub tags: Vec<String>,
    /// The manifest's digest (`sha256:…`), if the provider names it.
    pub digest: Option<String>,
    /// What was pushed, as far as the provider says.
    pub media: Media,
    /// Whether the tag or manifest is gone now.
    pub deleted: bool,
}

/// The kind of artifact that an [`ImageEvent`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Media {
    /// A Helm chart: no `ImageRepository` cares.
    Chart,
    /// A container image: no `HelmChart` cares.
    Image,
    /// The provider does not say.
    Unknown,
}

impl Media {
    /// Reads an OCI config media type.
    pub fn from_config_media_type(media_type: &str) -> Media {
        match media_type {
            "application/vnd.cncf.helm.config.v1+json" => Media::Chart,
            "application/vnd.docker.container.image.v1+json" | "application/vnd.oci.image.config.v1+json" => {
                Media::Image
            }
            _ => Media::Unknown,
        }
    }
}

/// A change in a Helm repository served over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChartEvent {
    /// How the repository's URL ends, as lower-case path segments: providers do not know the host.
    pub url_tail: Vec<String>,
}

/// A change in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEvent {
    pub name: String,
    /// The service that holds it.
    pub service: BucketService,
    /// The service's host, with its port if it has one, where the provider gives it.
    pub endpoint: Option<String>,
    /// The decoded keys of the objects that changed; empty when unknown.
    pub keys: Vec<String>,
}

/// The object storage that a [`BucketEvent`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketService {
    Aws,
    Gcp,
    /// Anything else that speaks S3.
    S3Compatible,
}

impl Event {
    /// Forgets what its refs point to.
    pub fn forget_commits(&mut self) {
        if let Event::Git(GitEvent { changes: GitChanges::Refs(refs), .. }) = self {
            for change in refs {
                change.head = None;
                change.commits = CommitIds::default();
            }
        }
    }

    /// Whether one of the files that it changes is wanted; none if it does not say which it changes.
    pub fn changes_a_file(&self, is_wanted: impl Fn(&str) -> bool) -> Option<bool> {
        let Event::Git(GitEvent { changes: GitChanges::Refs(refs), .. }) = self else { return None };
        let mut changes_one = false;
        for change in refs {
            changes_one |= change.files.change_one(change.commits.listed(), &is_wanted)?;
        }
        Some(changes_one)
    }

    /// The event in one line, for answers, logs and tables. Holds no secrets.
    pub fn summary(&self) -> String {
        match self {
            Event::Git(git) => {
                let repository = git.repository.first().map(|url| url.short()).unwrap_or_default();
                match &git.changes {
                    GitChanges::Unknown => format!("push to {repository}"),
                    GitChanges::Refs(refs) => {
                        format!(
                            "push to {repository} {}",
                            shortened(refs.iter().map(RefChange::summary), ", ")
                        )
                    }
                }
            }
            Event::Image(image) => {
                let name = image.names.first().map(ToString::to_string).unwrap_or_default();
                let verb = if image.deleted { "deletion of" } else { "push of" };
                match (image.tags.is_empty(), &image.digest) {
                    (false, _) => format!("{verb} {name}:{}", shortened(image.tags.iter().cloned(), ",")),
                    (true, Some(digest)) => format!("{verb} {name}@{digest}"),
                    (true, None) => format!("{verb} {name}"),
                }
            }
            Event::Chart(chart) => format!("change of chart repository …/{}", chart.url_tail.join("/")),
            Event::Bucket(bucket) => format!("change of bucket {}", bucket.name),
            Event::Anything { what } => what.clone(),
        }
    }
}

/// Bytes of a tag, as the OCI distribution specification has it.
/// <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests>
const MAX_TAG_BYTES: usize = 128;

/// Bytes of a digest or a commit ID; SHA-512 in hex with its name has 135.
const MAX_DIGEST_BYTES: usize = 256;

/// Bytes of a host, as DNS has it, with a port.
const MAX_HOST_BYTES: usize = 260;

/// Bytes of a bucket's key: S3 allows 1,024, file systems behind MinIO more.
const MAX_KEY_BYTES: usize = 4096;

impl Event {
    /// Finds a field that is longer than anything it could name. No object can reference that, and
    /// everything behind this point may copy what it gets.
    ///
    /// # Errors
    /// The field, for people.
    pub fn check_lengths(&self) -> Result<(), &'static str> {
        let check =
            |text: &str, max_bytes: usize, field| if text.len() > max_bytes { Err(field) } else { Ok(()) };
        match self {
            Event::Git(git) => {
                check(git.ssh_url.as_deref().unwrap_or_default(), MAX_KEY_BYTES, "an SSH URL")?;
                let GitChanges::Refs(refs) = &git.changes else { return Ok(()) };
                let mut heads = refs.iter().filter_map(|change| change.head.as_deref());
                heads.try_for_each(|head| check(head, MAX_DIGEST_BYTES, "a commit ID"))
            }
            Event::Image(image) => {
                check(&image.written, MAX_KEY_BYTES, "an image name")?;
                check(image.digest.as_deref().unwrap_or_default(), MAX_DIGEST_BYTES, "a digest")?;
                image.tags.iter().try_for_each(|tag| check(tag, MAX_TAG_BYTES, "a tag"))
            }
            Event::Chart(chart) => {
                chart.url_tail.iter().try_for_each(|segment| check(segment, MAX_KEY_BYTES, "a URL"))
            }
            Event::Bucket(bucket) => {
                check(&bucket.name, MAX_HOST_BYTES, "a bucket")?;
                check(bucket.endpoint.as_deref().unwrap_or_default(), MAX_HOST_BYTES, "a host")?;
                bucket.keys.iter().try_for_each(|key| check(key, MAX_KEY_BYTES, "a key"))
            }
            Event::Anything { .. } => Ok(()),
        }
    }
}

/// The number of refs or tags that a summary names.
const MAX_NAMED_REFS: usize = 5;

fn shortened(names: impl ExactSizeIterator<Item = String>, separator: &str) -> String {
    let more = names.len().saturating_sub(MAX_NAMED_REFS);
    let named = names.take(MAX_NAMED_REFS).collect::<Vec<_>>().join(separator);
    if more == 0 { named } else { format!("{named} and {more} more") }
}

impl RefChange {
    /// A ref that was created or moved, and nothing more is known.
    pub fn new(name: GitRef) -> RefChange {
        let (commits, files) = (CommitIds::default(), ChangedFiles::Unknown);
        RefChange { name, deleted: false, commits, head: None, files }
    }

    /// Returns the files that it changes; none if they are not known, or their names have more bytes.
    pub fn changed_files(&self, max_bytes: usize) -> Option<Vec<String>> {
        let (files, bytes) = (RefCell::new(BTreeSet::new()), Cell::new(0));
        self.files.change_one(self.commits.listed(), |file| {
            if bytes.get() <= max_bytes && files.borrow_mut().insert(file.to_owned()) {
                bytes.set(bytes.get() + file.len());
            }
            false
        })?;
        (bytes.get() <= max_bytes).then(|| files.into_inner().into_iter().collect())
    }

    fn summary(&self) -> String {
        if self.deleted {
            return format!("{} (deleted)", self.name.short());
        }
        self.name.short().to_owned()
    }
}
