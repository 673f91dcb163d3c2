//! The Flux objects that exist, indexed by what events name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;

use super::index::HashIndex;
pub use super::index::ObjectId;
use super::pattern::{MAX_PATTERN_BYTES, MAX_RANGE_BYTES, Pattern, VersionRange};
use crate::event::git_ref::GitRef;
use crate::event::image::ImageName;
use crate::event::repository_url::RepositoryUrl;
use crate::event::{ChartEvent, Event, GitChanges, GitEvent, ImageEvent};
use crate::field_error::FieldError;
use crate::flux::details::FilterFields;
use crate::flux::selection::SelectionMarks;
use crate::flux::{self, Kind, Progress, Spec, Target};

/// The Flux objects that exist. Kept current in place, one object at a time.
#[derive(Default)]
pub struct Inventory {
    /// Shared, so that reading an object holds no lock.
    objects: Vec<Option<Arc<Object>>>,
    free: Vec<ObjectId>,
    /// By the hashes of their targets, which the objects hold.
    ids: HashTable<ObjectId>,
    hasher: RandomState,
    counts: HashMap<Kind, usize>,
    coverage: BTreeMap<Kind, KindCoverage>,
    git: HashIndex,
    images: HashIndex,
    /// OCI HelmRepositories by `host[/path]`.
    registries: HashIndex,
    /// HelmCharts by namespace and name of their HelmRepository.
    charts: HashIndex,
    /// HelmRepositories over HTTP by the last segment of their URL, or the host if it has no path.
    chart_indexes: HashIndex,
    buckets: HashIndex,
    /// GitRepositories by namespace and name of those that they include.
    includers: HashIndex,
}

/// How much of a kind the inventory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KindCoverage {
    /// It holds all objects that exist, as far as anyone can tell.
    pub is_known: bool,
    /// All objects that it holds have what filters read.
    pub has_filter_fields: bool,
    /// Where objects cannot be listed, in words: `in the whole cluster`.
    pub unlistable: Vec<String>,
}

impl KindCoverage {
    /// Everything there is.
    pub fn complete() -> KindCoverage {
        KindCoverage { is_known: true, has_filter_fields: true, unlistable: Vec::new() }
    }
}

/// A kind of which objects may exist that cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlistable {
    pub kind: Kind,
    places: String,
}

/// What is wrong, and the fix.
impl fmt::Display for Unlistable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unlistable { kind, places } = self;
        // Those that few endpoints name are not in the base.
        let fix = match kind.is_of_payloads() {
            true => "ClusterRole flux-recv",
            false => "ClusterRole of kustomization/components/more-kinds",
        };
        write!(f, "{kind} cannot be listed {places}; grant the {fix}")
    }
}

/// An object, with what matching reads of it in comparable form.
#[derive(Debug)]
pub struct Object {
    pub target: Target,
    /// Whether Flux leaves it alone.
    pub suspended: bool,
    /// How far Flux has come with it, as far as that is known.
    pub progress: Progress,
    /// Takes the labels and the annotation that selections read.
    pub marks: SelectionMarks,
    /// What else filters can read of it; none if no filter reads it.
    pub details: Option<Box<FilterFields>>,
    pub(super) tracked: Tracked,
    pushed: PushedDigests,
}

/// The beginnings of the digests that deliveries have last named for the tag that an object tracks, 0 for none:
/// several, since deliveries may come late.
#[derive(Debug, Default)]
struct PushedDigests(OnceLock<Box<[AtomicU64; 4]>>);

impl PushedDigests {
    fn add(&self, digest: u64) {
        let mut shifted = digest;
        for slot in self.0.get_or_init(Box::default).iter() {
            shifted = slot.swap(shifted, Ordering::Relaxed);
            if shifted == digest || shifted == 0 {
                return;
            }
        }
    }

    fn clear(&self) {
        self.slots().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        self.slots().map(|slot| slot.load(Ordering::Relaxed)).filter(|digest| *digest != 0)
    }

    fn slots(&self) -> impl Iterator<Item = &AtomicU64> {
        self.0.get().into_iter().flat_map(|slots| slots.iter())
    }
}

/// What an object references and tracks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tracked {
    Git {
        url: RepositoryUrl,
        reference: GitReference,
        /// The names of GitRepositories in the same namespace whose artifacts it includes.
        includes: Box<[Box<str>]>,
    },
    OciArtifact {
        image: ImageName,
        reference: OciReference,
        /// Whether Flux verifies its signature.
        is_verified: bool,
    },
    Image {
        image: ImageName,
        excluded: Vec<Pattern>,
    },
    Registry {
        prefix: Box<str>,
    },
    ChartIndex {
        host: Box<str>,
        path: Box<[String]>,
    },
    Chart {
        repository: Box<str>,
        chart: Box<str>,
        version: Option<VersionRange>,
        /// Whether Flux verifies its signature.
        is_verified: bool,
    },
    /// No event can name it: a chart out of a Git repository or bucket, whose source
    /// tracks the event, or an object that cannot be read.
    Nothing,
    Bucket {
        name: Box<str>,
        provider: Option<Box<str>>,
        endpoint: Box<str>,
        prefix: Option<Box<str>>,
    },
}

/// `spec.ref` of a GitRepository, by the precedence that Flux documents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GitReference {
    Commit(Box<str>),
    Name(GitRef),
    /// A name that is not under `refs/`: Flux reports that, any change may concern it.
    Anything,
    TagOrRange {
        tag: Option<Box<str>>,
        range: Option<VersionRange>,
    },
    Branch(Box<str>),
}

/// `spec.ref` of an OCIRepository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OciReference {
    /// A text that is too long: Flux reports that, any change may concern it.
    Anything,
    Digest(Box<str>),
    Range {
        range: VersionRange,
        filter: Option<Pattern>,
    },
    Tag(Box<str>),
}

impl Object {
    /// An object that exists and cannot be matched.
    pub fn unreadable(target: Target) -> Object {
        Object {
            target,
            suspended: false,
            progress: Progress::default(),
            marks: SelectionMarks::default(),
            details: None,
            tracked: Tracked::Nothing,
            pushed: PushedDigests::default(),
        }
    }

    /// Brings an object into comparable form.
    ///
    /// # Errors
    /// When it has no readable URL; Flux cannot fetch it either.
    pub fn new(target: Target, spec: &Spec) -> Result<Object, FieldError> {
        let suspended = spec.is_suspended();
        let tracked = match spec {
            Spec::GitRepository(spec) => Tracked::Git {
                url: RepositoryUrl::parse(&spec.url).map_err(|err| FieldError::new("spec.url", err))?,
                reference: GitReference::new(spec.reference.as_ref()),
                includes: included(spec.include.as_deref()),
            },
            Spec::OciRepository(spec) => Tracked::OciArtifact {
                image: ImageName::parse(&spec.url).map_err(|err| FieldError::new("spec.url", err))?,
                reference: OciReference::new(spec.reference.as_ref()),
                is_verified: spec.verify,
            },
            Spec::ImageRepository(spec) => Tracked::Image {
                image: ImageName::parse(&spec.image).map_err(|err| FieldError::new("spec.image", err))?,
                excluded: exclusions(spec.exclusion_list.as_deref()),
            },
            Spec::HelmRepository(spec) => helm_repository(spec)?,
            Spec::HelmChart(spec) if spec.source_ref.kind == "HelmRepository" => Tracked::Chart {
                repository: bounded(&spec.source_ref.name, "spec.sourceRef.name")?.into(),
                chart: bounded(&spec.chart, "spec.chart")?.to_ascii_lowercase().into(),
                version: spec.version.as_deref().filter(|version| !version.is_empty()).map(VersionRange::new),
                is_verified: spec.verify,
            },
            Spec::HelmChart(_) | Spec::Other(_) => Tracked::Nothing,
            Spec::Bucket(spec) => Tracked::Bucket {
                name: bounded(&spec.bucket_name, "spec.bucketName")?.into(),
                provider: bounded_or_none(spec.provider.as_ref()),
                endpoint: bounded(&spec.endpoint, "spec.endpoint")?.to_ascii_lowercase().into(),
                prefix: bounded_or_none(spec.prefix.as_ref()),
            },
        };
        let (progress, marks) = (Progress::default(), SelectionMarks::default());
        Ok(Object {
            target,
            suspended,
            progress,
            marks,
            details: None,
            tracked,
            pushed: PushedDigests::default(),
        })
    }
}

impl Object {
    /// The object as filters read it; none if no filter reads objects of this kind.
    pub(super) fn view(&self) -> Option<serde_json::Value> {
        Some(self.details.as_ref()?.view(&self.target, &self.marks))
    }

    /// Notes the digest, in hex, that a delivery has named for the tag that this object tracks.
    pub(super) fn was_pushed(&self, digest: &str) {
        self.pushed.add(digest_prefix(digest));
    }

    /// Notes that the tag has a digest that no delivery has named.
    pub(super) fn forget_pushed(&self) {
        self.pushed.clear();
    }

    /// Whether its artifact or the tag that it tracks may have this digest, in hex.
    pub(super) fn may_have_digest(&self, digest: &str) -> bool {
        let mut pushed = self.pushed.iter().peekable();
        pushed.peek().is_none()
            || pushed.any(|pushed| pushed == digest_prefix(digest))
            || self.progress.revision.as_deref() == Some(digest)
    }

    /// Whether the same deliveries concern both.
    pub fn is_matched_like(&self, other: &Object) -> bool {
        self.tracked == other.tracked && self.marks == other.marks && self.suspended == other.suspended
    }

    /// Whether a request makes Flux fetch something: it is not suspended, and not only an address.
    pub(super) fn can_be_requested(&self) -> bool {
        !self.suspended && self.is_reconciled()
    }

    /// Whether Flux reconciles it at all: a HelmRepository of type `oci` is only an address.
    pub(super) fn is_reconciled(&self) -> bool {
        !matches!(self.tracked, Tracked::Registry { .. })
    }
}

impl Inventory {
    /// Adds an object, or replaces the one of this name, which keeps its number.
    pub fn put(&mut self, mut object: Object) -> ObjectId {
        if let Some(before) = self.object(&object.target).filter(|before| before.tracked == object.tracked) {
            let pushed: Vec<u64> = before.pushed.iter().collect();
            object.pushed = PushedDigests::default();
            pushed.into_iter().rev().for_each(|digest| object.pushed.add(digest));
        }
        self.remove(&object.target);
        let id = self.free.pop().unwrap_or_else(|| {
            self.objects.push(None);
            ObjectId::try_from(self.objects.len() - 1).expect("a cluster holds fewer than 2^32 objects")
        });
        *self.counts.entry(object.target.kind).or_default() += 1;
        self.index(&object, id, true);
        let hash = self.hasher.hash_one(&object.target);
        self.objects[id as usize] = Some(Arc::new(object));
        let Inventory { ids, objects, hasher, .. } = self;
        ids.insert_unique(hash, id, |id| {
            objects[*id as usize].as_ref().map_or(0, |object| hasher.hash_one(&object.target))
        });
        id
    }

    fn id(&self, target: &Target) -> Option<ObjectId> {
        let is_target = |id: &ObjectId| is_target(&self.objects, *id, target);
        self.ids.find(self.hasher.hash_one(target), is_target).copied()
    }

    /// Sets how much of the kind is there; says whether events can be matched now that could not be before.
    pub fn set_coverage(&mut self, kind: Kind, coverage: KindCoverage) -> bool {
        let is_more = (coverage.is_known && !self.is_known(kind))
            || (coverage.has_filter_fields && !self.has_filter_fields(kind));
        self.coverage.insert(kind, coverage);
        is_more
    }

    /// Returns the kinds of which objects may exist that cannot be listed, each with where.
    pub fn unlistable(&self) -> impl Iterator<Item = Unlistable> {
        let forbidden = self.coverage.iter().filter(|(_, coverage)| !coverage.unlistable.is_empty());
        forbidden
            .map(|(kind, coverage)| Unlistable { kind: *kind, places: coverage.unlistable.join(" and ") })
    }

    /// Whether all objects of the kind are there, as far as anyone can tell.
    pub fn is_known(&self, kind: Kind) -> bool {
        self.coverage.get(&kind).is_some_and(|coverage| coverage.is_known)
    }

    /// Whether filters can read all objects of the kind.
    pub fn has_filter_fields(&self, kind: Kind) -> bool {
        self.coverage.get(&kind).is_some_and(|coverage| coverage.has_filter_fields)
    }

    pub fn remove(&mut self, target: &Target) {
        let Inventory { ids, objects, hasher, .. } = self;
        let is_target = |id: &ObjectId| is_target(objects, *id, target);
        let Ok(entry) = ids.find_entry(hasher.hash_one(target), is_target) else { return };
        let (id, _) = entry.remove();
        self.counts.entry(target.kind).and_modify(|count| *count -= 1);
        if let Some(object) = self.objects[id as usize].take() {
            self.index(&object, id, false);
        }
        self.free.push(id);
    }

    /// Removes the objects of a kind that `keep` rejects.
    pub fn retain(&mut self, kind: Kind, keep: impl Fn(ObjectId, &Target) -> bool) {
        let is_gone = |(id, object): (usize, &Option<Arc<Object>>)| {
            let target = &object.as_ref()?.target;
            (target.kind == kind && !keep(id as ObjectId, target)).then(|| target.clone())
        };
        let gone: Vec<Target> = self.objects.iter().enumerate().filter_map(is_gone).collect();
        for target in gone {
            self.remove(&target);
        }
    }

    /// The object of this name.
    pub fn object(&self, target: &Target) -> Option<&Object> {
        self.objects[self.id(target)? as usize].as_deref()
    }

    /// Whether the object exists.
    pub fn contains(&self, target: &Target) -> bool {
        self.id(target).is_some()
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.iter().flatten()
    }

    /// Says that objects of the kind cannot be listed in these places.
    pub fn set_unlistable(&mut self, kind: Kind, places: Vec<String>) {
        self.set_coverage(kind, KindCoverage { unlistable: places, ..KindCoverage::complete() });
    }

    /// How many objects exist.
    pub fn object_count(&self) -> usize {
        self.ids.len()
    }

    /// How many objects of the kind exist.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    fn index(&mut self, object: &Object, id: ObjectId, present: bool) {
        match &object.tracked {
            Tracked::Git { url, includes, .. } => {
                self.git.set(url.key(), id, present);
                for included in includes {
                    self.includers.set(&(&*object.target.namespace, &**included), id, present);
                }
            }
            Tracked::OciArtifact { image, .. } | Tracked::Image { image, .. } => {
                self.images.set(image, id, present)
            }
            Tracked::Registry { prefix } => self.registries.set(prefix, id, present),
            Tracked::Chart { repository, .. } => {
                self.charts.set(&(&*object.target.namespace, &**repository), id, present);
            }
            Tracked::ChartIndex { host, path } => {
                self.chart_indexes.set(path.last().map_or(&**host, String::as_str), id, present);
            }
            Tracked::Bucket { name, .. } => self.buckets.set(name, id, present),
            Tracked::Nothing => {}
        }
    }

    /// Visits the objects that reference what the event is about, whatever part of it. An object may
    /// be visited more than once.
    pub(super) fn candidates<'a>(&'a self, event: &Event, visit: &mut dyn FnMut(&'a Arc<Object>)) {
        match event {
            Event::Git(event) => {
                self.git_candidates(event, visit);
                self.pages_candidates(event, visit);
            }
            Event::Image(event) => self.image_candidates(event, visit),
            Event::Chart(event) => self.chart_candidates(event, visit),
            Event::Bucket(event) => self.get(&self.buckets, &event.name, &mut |object| {
                if matches!(&object.tracked, Tracked::Bucket { name, .. } if **name == *event.name) {
                    visit(object);
                }
            }),
            Event::Anything { .. } => {}
        }
    }

    /// Distinct URLs of one event may share a key; each object is visited once for it.
    fn git_candidates<'a>(&'a self, event: &GitEvent, visit: &mut dyn FnMut(&'a Arc<Object>)) {
        for (at, url) in event.repository.iter().enumerate() {
            let seen = event.repository[..at].iter().any(|earlier| earlier.key() == url.key());
            if seen {
                continue;
            }
            self.get(&self.git, url.key(), &mut |object| {
                if let Tracked::Git { url: tracked, .. } = &object.tracked
                    && event.repository.iter().any(|url| url.same_repository(tracked))
                {
                    visit(object);
                }
            });
        }
    }

    /// A push to `gh-pages` of `github.com/owner/repo` publishes `https://owner.github.io/repo`.
    fn pages_candidates<'a>(&'a self, event: &GitEvent, visit: &mut dyn FnMut(&'a Arc<Object>)) {
        if !may_publish_pages(event) {
            return;
        }
        let on_github = event.repository.iter().find(|url| url.host() == "github.com");
        let Some((owner, repository)) = on_github.and_then(|url| url.path().split_once('/')) else { return };
        let pages_host = format!("{owner}.github.io");
        self.get(&self.chart_indexes, repository, &mut |object| {
            if let Tracked::ChartIndex { host, path } = &object.tracked
                && **host == *pages_host
                && match &**path {
                    [] => **host == *repository,
                    path => path == [repository],
                }
            {
                visit(object);
            }
        });
    }

    fn image_candidates<'a>(&'a self, event: &ImageEvent, visit: &mut dyn FnMut(&'a Arc<Object>)) {
        for name in &event.names {
            self.get(&self.images, name, &mut |object| {
                if let Tracked::OciArtifact { image, .. } | Tracked::Image { image, .. } = &object.tracked
                    && image == name
                {
                    visit(object);
                }
            });
            for (prefix, chart) in registry_prefixes(name) {
                self.get(&self.registries, &prefix, &mut |registry| {
                    if matches!(&registry.tracked, Tracked::Registry { prefix: own } if **own == *prefix) {
                        self.charts_of(&registry.target, chart, visit);
                    }
                });
            }
        }
    }

    /// The HelmCharts of this name from a HelmRepository.
    fn charts_of<'a>(&'a self, registry: &Target, name: &str, visit: &mut dyn FnMut(&'a Arc<Object>)) {
        self.get(&self.charts, &(&*registry.namespace, &*registry.name), &mut |object| {
            if let Tracked::Chart { repository, chart, .. } = &object.tracked
                && **repository == *registry.name
                && object.target.namespace == registry.namespace
                && **chart == *name
            {
                visit(object);
            }
        });
    }

    fn chart_candidates<'a>(&'a self, event: &ChartEvent, visit: &mut dyn FnMut(&'a Arc<Object>)) {
        let Some(last) = event.url_tail.last() else { return };
        self.get(&self.chart_indexes, last, &mut |object| {
            if matches!(&object.tracked, Tracked::ChartIndex { path, .. } if path.ends_with(&event.url_tail))
            {
                visit(object);
            }
        });
    }

    /// Whether any object includes another one.
    pub(super) fn has_includers(&self) -> bool {
        !self.includers.is_empty()
    }

    /// The objects that include this GitRepository.
    pub(super) fn includers(&self, included: &Target) -> Vec<&Arc<Object>> {
        let mut includers = Vec::new();
        self.get(&self.includers, &(&*included.namespace, &*included.name), &mut |object| {
            if let Tracked::Git { includes, .. } = &object.tracked
                && object.target.namespace == included.namespace
                && includes.iter().any(|name| **name == *included.name)
            {
                includers.push(object);
            }
        });
        includers
    }

    /// Visits the objects that may have this key; the caller compares it.
    fn get<'a>(
        &'a self,
        index: &HashIndex,
        key: &(impl Hash + ?Sized),
        visit: &mut dyn FnMut(&'a Arc<Object>),
    ) {
        for object in index.get(key).iter().filter_map(|id| self.objects[*id as usize].as_ref()) {
            visit(object);
        }
    }
}

fn is_target(objects: &[Option<Arc<Object>>], id: ObjectId, target: &Target) -> bool {
    objects[id as usize].as_ref().is_some_and(|object| object.target == *target)
}

/// Whether the push is one to the branch that GitHub publishes.
pub(super) fn may_publish_pages(event: &GitEvent) -> bool {
    let GitChanges::Refs(refs) = &event.changes else { return false };
    refs.iter().any(|change| !change.deleted && change.name.as_branch() == Some("gh-pages"))
}

/// The registry prefixes under which a chart of this name can live, with the chart's name there:
/// `h/a/b` gives (`h/a`, `b`) and (`h`, `a/b`).
fn registry_prefixes(name: &ImageName) -> impl Iterator<Item = (String, &str)> {
    let with_path = name.prefixes().map(|(prefix, chart)| (prefix.to_string(), chart));
    with_path.chain(std::iter::once((name.host().to_owned(), name.path())))
}

fn helm_repository(spec: &flux::HelmRepositorySpec) -> Result<Tracked, FieldError> {
    bounded(&spec.url, "spec.url")?;
    let is_oci = spec.repository_type.as_deref() == Some("oci") || spec.url.starts_with("oci://");
    let rest = spec.url.split_once("://").map_or(spec.url.as_str(), |(_, rest)| rest).trim_end_matches('/');
    if is_oci {
        return registry_prefix(rest).map(|prefix| Tracked::Registry { prefix: prefix.into() });
    }
    let mut segments =
        rest.split(['/', '?', '#']).filter(|segment| !segment.is_empty()).map(str::to_ascii_lowercase);
    let host =
        segments.next().ok_or_else(|| FieldError::new("spec.url", format!("no host in `{}`", spec.url)))?;
    Ok(Tracked::ChartIndex { host: host.into(), path: segments.collect() })
}

/// `host[/path]`, with the host as image names have it. The host may stand alone, which no image
/// name does, so a segment is put behind it while it is read.
fn registry_prefix(url: &str) -> Result<String, FieldError> {
    let name = ImageName::parse(&format!("{url}/chart")).map_err(|err| FieldError::new("spec.url", err))?;
    let path = name.path().strip_suffix("chart").unwrap_or_default().trim_end_matches('/');
    Ok(if path.is_empty() { name.host().to_owned() } else { format!("{}/{path}", name.host()) })
}

/// Patterns of an ImageRepository; the API allows as many.
const MAX_EXCLUSIONS: usize = 25;

fn exclusions(list: Option<&[String]>) -> Vec<Pattern> {
    match list {
        // The default of the API: signatures that cosign stores as tags.
        None => Pattern::new(r"^.*\.sig$").into_iter().collect(),
        // What cannot be used excludes nothing: better one request too many.
        Some(list) => list.iter().take(MAX_EXCLUSIONS).filter_map(|text| Pattern::new(text)).collect(),
    }
}

/// Entries of `spec.include` that are read; nobody has as many.
const MAX_INCLUDES: usize = 64;

fn included(list: Option<&[flux::GitRepositoryInclude]>) -> Box<[Box<str>]> {
    let names = list.unwrap_or_default().iter().map(|include| include.repository.name.as_str());
    // A Kubernetes name has at most 253 bytes; what is longer names nothing.
    let mut names: Vec<Box<str>> =
        names.filter(|name| name.len() <= MAX_FIELD_BYTES).take(MAX_INCLUDES).map(Box::from).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

/// The first 16 digits of a digest as a number, which tell digests apart well enough; 0 for none.
fn digest_prefix(digest: &str) -> u64 {
    digest.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// Bytes of a name or text that an object is matched by; Git's and Kubernetes' own limits are lower.
const MAX_FIELD_BYTES: usize = 1024;

/// The first field that is too long to narrow what an object is matched by: without it the object is
/// requested more often than it has to be.
pub fn ignored_field(spec: &Spec) -> Option<&'static str> {
    let is_long = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|text| text.len() > max);
    let long_field = |fields: &[(&'static str, &Option<String>, usize)]| {
        fields.iter().find(|(_, text, max)| is_long(text, *max)).map(|(field, ..)| *field)
    };
    match spec {
        Spec::GitRepository(spec) => {
            let flux::GitRepositoryRef { branch, tag, semver, name, commit } = spec.reference.as_ref()?;
            long_field(&[
                ("spec.ref.branch", branch, MAX_FIELD_BYTES),
                ("spec.ref.tag", tag, MAX_FIELD_BYTES),
                ("spec.ref.semver", semver, MAX_RANGE_BYTES),
                ("spec.ref.name", name, MAX_FIELD_BYTES),
                ("spec.ref.commit", commit, MAX_FIELD_BYTES),
            ])
        }
        Spec::OciRepository(spec) => {
            let flux::OciRepositoryRef { digest, semver, semver_filter, tag } = spec.reference.as_ref()?;
            long_field(&[
                ("spec.ref.digest", digest, MAX_FIELD_BYTES),
                ("spec.ref.semver", semver, MAX_RANGE_BYTES),
                ("spec.ref.semverFilter", semver_filter, MAX_PATTERN_BYTES),
                ("spec.ref.tag", tag, MAX_FIELD_BYTES),
            ])
        }
        Spec::HelmChart(spec) => long_field(&[("spec.version", &spec.version, MAX_RANGE_BYTES)]),
        Spec::Bucket(spec) => long_field(&[
            ("spec.provider", &spec.provider, MAX_FIELD_BYTES),
            ("spec.prefix", &spec.prefix, MAX_FIELD_BYTES),
        ]),
        Spec::ImageRepository(spec) => {
            let list = spec.exclusion_list.as_deref().unwrap_or_default();
            let is_long =
                list.len() > MAX_EXCLUSIONS || list.iter().any(|text| text.len() > MAX_PATTERN_BYTES);
            is_long.then_some("spec.exclusionList")
        }
        Spec::HelmRepository(_) | Spec::Other(_) => None,
    }
}

/// A text that is short enough for the inventory.
///
/// # Errors
/// Names the field.
fn bounded<'f>(text: &'f str, field: &str) -> Result<&'f str, FieldError> {
    match text.len() <= MAX_FIELD_BYTES {
        true => Ok(text),
        false => Err(FieldError::new(field, format!("is longer than {MAX_FIELD_BYTES} bytes"))),
    }
}

/// The same for a text that narrows what an object is matched by: without it more matches.
fn bounded_or_none(text: Option<&String>) -> Option<Box<str>> {
    text.filter(|text| text.len() <= MAX_FIELD_BYTES).map(|text| text.as_str().into())
}

impl GitReference {
    /// `commit` goes before `name`, that before tags, those before the branch. Flux's code looks at
    /// `tag` before `semver` and its documentation says the reverse, so either may fit.
    fn new(reference: Option<&flux::GitRepositoryRef>) -> GitReference {
        let set =
            |field: &Option<String>| field.as_deref().filter(|value| !value.is_empty()).map(Box::<str>::from);
        let Some(reference) = reference else { return GitReference::default_branch() };
        let flux::GitRepositoryRef { branch, tag, name, commit, .. } = reference;
        if [branch, tag, name, commit].into_iter().flatten().any(|text| text.len() > MAX_FIELD_BYTES) {
            return GitReference::Anything;
        }
        if let Some(commit) = set(&reference.commit) {
            return GitReference::Commit(commit);
        }
        if let Some(name) = set(&reference.name) {
            return GitRef::from_full_name(&name).map_or(GitReference::Anything, GitReference::Name);
        }
        let (tag, range) = (set(&reference.tag), set(&reference.semver));
        if tag.is_some() || range.is_some() {
            return GitReference::TagOrRange { tag, range: range.as_deref().map(VersionRange::new) };
        }
        set(&reference.branch).map_or_else(GitReference::default_branch, GitReference::Branch)
    }

    fn default_branch() -> GitReference {
        GitReference::Branch("master".into())
    }
}

impl OciReference {
    fn new(reference: Option<&flux::OciRepositoryRef>) -> OciReference {
        let set =
            |field: &Option<String>| field.as_deref().filter(|value| !value.is_empty()).map(Box::<str>::from);
        let latest = || OciReference::Tag("latest".into());
        let Some(reference) = reference else { return latest() };
        let flux::OciRepositoryRef { digest, tag, .. } = reference;
        if [digest, tag].into_iter().flatten().any(|text| text.len() > MAX_FIELD_BYTES) {
            return OciReference::Anything;
        }
        if let Some(digest) = set(&reference.digest) {
            return OciReference::Digest(digest);
        }
        if let Some(range) = set(&reference.semver) {
            let filter = set(&reference.semver_filter).and_then(|filter| Pattern::new(&filter));
            return OciReference::Range { range: VersionRange::new(&range), filter };
        }
        set(&reference.tag).map_or_else(latest, OciReference::Tag)
    }
}
