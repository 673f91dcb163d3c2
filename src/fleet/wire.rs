//! The wire form of the entries of an event log: CloudEvents 1.0 in JSON. A type of its own, so that the
//! internal ones may change; `tests/fixtures/wire` holds what each release has written.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use serde::{Deserialize, Serialize};

use super::forward::ForwardedFields;
use crate::event::git_ref::GitRef;
use crate::event::image::ImageName;
use crate::event::repository_url::RepositoryUrl;
use crate::event::{
    BucketEvent, BucketService, ChangedFiles, ChartEvent, CommitIds, Event, GitChanges, GitEvent, ImageEvent,
    Media, RefChange,
};
use crate::trace_parent::TraceParent;

/// The version of the wire form that this flux-recv writes. A subscriber reads this one and those before it.
pub const WIRE_VERSION: u32 = 1;

const EVENT_TYPE: &str = "io.fluxcd.flux-recv.event.v1";
const CATCH_UP_TYPE: &str = "io.fluxcd.flux-recv.catch-up.v1";

/// Commit IDs of a ref that an entry holds. Beyond that the entry says "any ref", which requests too much
/// and nothing too little; GitHub lists 2,048.
const MAX_COMMITS: usize = 4096;

/// Bytes of the names of changed files that an entry holds. Beyond that any file may have changed.
const MAX_FILE_NAME_BYTES: usize = 32 << 10;

/// Bytes of an entry. A longer one is written without what makes it long, so that it concerns more objects
/// and none too few.
pub const MAX_ENTRY_BYTES: usize = 256 << 10;

/// An entry of an event log.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An endpoint has let an event through.
    Event(Box<PublishedEvent>),
    /// The publisher was away, and deliveries may have been refused: every subscriber has to catch up.
    CatchUp,
}

/// An event with what filters read of its delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedEvent {
    /// The endpoint, by its name at the publisher.
    pub endpoint: String,
    /// The provider, as `source` names it.
    pub provider: String,
    /// What the provider calls the event.
    pub event_type: String,
    pub event: Event,
    pub forwarded: ForwardedFields,
    /// The trace that the delivery belongs to.
    pub trace: Option<TraceParent>,
}

/// An entry cannot be read: this flux-recv is too old for it, or it is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry of the event log cannot be read: {0}")]
pub struct UnreadableEntry(String);

#[derive(Serialize, Deserialize)]
struct CloudEvent<D> {
    specversion: String,
    id: String,
    source: String,
    r#type: String,
    time: String,
    #[serde(default)]
    datacontenttype: Option<String>,
    /// The extension for distributed tracing.
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/distributed-tracing.md>
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    data: D,
}

#[derive(Serialize, Deserialize)]
struct CatchUpData {}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventData {
    endpoint: String,
    provider: String,
    #[serde(default)]
    event_type: String,
    #[serde(flatten)]
    event: WireEvent,
    #[serde(default)]
    forwarded: ForwardedFields,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum WireEvent {
    Git { urls: Vec<String>, refs: Option<Vec<WireRef>> },
    Image(WireImage),
    Chart { url_tail: Vec<String> },
    Bucket { name: String, service: WireBucketService, endpoint: Option<String>, keys: Vec<String> },
    Anything { what: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRef {
    name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    commits: Vec<String>,
    /// The files that changed; absent where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireImage {
    names: Vec<String>,
    /// The name as the provider has written it, where its case is another one than in `names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    media: Option<WireMedia>,
    #[serde(default, skip_serializing_if = "is_false")]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireMedia {
    Chart,
    Image,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireBucketService {
    Aws,
    Gcp,
    S3,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Entry {
    /// Writes the entry as a CloudEvent. `id` is one that no other entry has.
    pub fn to_json(&self, id: &str, time: jiff::Timestamp) -> String {
        let json = self.written(id, time, to_wire);
        if json.len() > MAX_ENTRY_BYTES {
            self.written(id, time, |event| to_wire(&without_details(event)))
        } else {
            json
        }
    }

    fn written(&self, id: &str, time: jiff::Timestamp, to_wire: impl Fn(&Event) -> WireEvent) -> String {
        let envelope = |source: String, r#type: &str| (source, r#type.to_owned(), time.to_string());
        match self {
            Entry::CatchUp => {
                let (source, r#type, time) = envelope("/".to_owned(), CATCH_UP_TYPE);
                write(id, source, r#type, time, None, CatchUpData {})
            }
            Entry::Event(published) => {
                let (source, r#type, time) =
                    envelope(format!("/endpoints/{}", published.endpoint), EVENT_TYPE);
                let data = EventData {
                    endpoint: published.endpoint.clone(),
                    provider: published.provider.clone(),
                    event_type: published.event_type.clone(),
                    event: to_wire(&published.event),
                    forwarded: published.forwarded.clone(),
                };
                let trace = published.trace.as_ref().map(ToString::to_string);
                write(id, source, r#type, time, trace, data)
            }
        }
    }

    /// Reads an entry; fields that this version does not know are passed over.
    ///
    /// # Errors
    /// When its type is not known, or a field that matching needs cannot be read.
    pub fn from_json(json: &str) -> Result<Entry, UnreadableEntry> {
        let unreadable =
            |err: serde_json::Error| UnreadableEntry(format!("{:?}", err.classify()).to_lowercase());
        let envelope: CloudEvent<serde::de::IgnoredAny> = serde_json::from_str(json).map_err(unreadable)?;
        match envelope.r#type.as_str() {
            CATCH_UP_TYPE => Ok(Entry::CatchUp),
            EVENT_TYPE => {
                let read: CloudEvent<EventData> = serde_json::from_str(json).map_err(unreadable)?;
                let EventData { endpoint, provider, event_type, event, forwarded } = read.data;
                let event = from_wire(event).ok_or_else(|| UnreadableEntry("a name in it".to_owned()))?;
                Ok(Entry::Event(Box::new(PublishedEvent {
                    endpoint,
                    provider,
                    event_type,
                    event,
                    forwarded,
                    // What cannot be read is as if there were none.
                    trace: read.traceparent.and_then(|trace| TraceParent::parse(&trace).ok()),
                })))
            }
            _ => Err(UnreadableEntry("its type is not known; is the publisher newer?".to_owned())),
        }
    }
}

fn write<D: Serialize>(
    id: &str,
    source: String,
    r#type: String,
    time: String,
    traceparent: Option<String>,
    data: D,
) -> String {
    let event = CloudEvent {
        specversion: "1.0".to_owned(),
        id: id.to_owned(),
        source,
        r#type,
        time,
        datacontenttype: Some("application/json".to_owned()),
        traceparent,
        data,
    };
    // Neither maps with other keys than texts nor numbers that JSON does not have.
    serde_json::to_string(&event).unwrap_or_default()
}

fn to_wire(event: &Event) -> WireEvent {
    match event {
        Event::Git(GitEvent { repository, changes, .. }) => {
            let refs = match changes {
                GitChanges::Refs(refs) => refs.iter().map(ref_to_wire).collect(),
                GitChanges::Unknown => None,
            };
            WireEvent::Git { urls: repository.iter().map(ToString::to_string).collect(), refs }
        }
        Event::Image(image) => WireEvent::Image(WireImage {
            names: image.names.iter().map(ToString::to_string).collect(),
            written: image
                .names
                .first()
                .is_none_or(|name| name.to_string() != image.written)
                .then(|| image.written.clone()),
            tags: image.tags.clone(),
            digest: image.digest.clone(),
            media: match image.media {
                Media::Chart => Some(WireMedia::Chart),
                Media::Image => Some(WireMedia::Image),
                Media::Unknown => None,
            },
            deleted: image.deleted,
        }),
        Event::Chart(ChartEvent { url_tail }) => WireEvent::Chart { url_tail: url_tail.clone() },
        Event::Bucket(BucketEvent { name, service, endpoint, keys }) => WireEvent::Bucket {
            name: name.clone(),
            service: match service {
                BucketService::Aws => WireBucketService::Aws,
                BucketService::Gcp => WireBucketService::Gcp,
                BucketService::S3Compatible => WireBucketService::S3,
            },
            endpoint: endpoint.clone(),
            keys: keys.clone(),
        },
        Event::Anything { what } => WireEvent::Anything { what: what.clone() },
    }
}

/// The event without its lists: any ref, tag or key may have changed.
fn without_details(event: &Event) -> Event {
    match event.clone() {
        Event::Git(event) => Event::Git(GitEvent { changes: GitChanges::Unknown, ..event }),
        Event::Image(event) => Event::Image(ImageEvent { tags: Vec::new(), digest: None, ..event }),
        Event::Bucket(event) => Event::Bucket(BucketEvent { keys: Vec::new(), ..event }),
        other => other,
    }
}

/// None if it has more commits than an entry may hold.
fn ref_to_wire(change: &RefChange) -> Option<WireRef> {
    let commits = change.commits.to_list();
    (commits.len() <= MAX_COMMITS).then(|| WireRef {
        name: change.name.as_str().to_owned(),
        deleted: change.deleted,
        head: change.head.clone(),
        commits,
        files: change.changed_files(MAX_FILE_NAME_BYTES),
    })
}

fn from_wire(event: WireEvent) -> Option<Event> {
    Some(match event {
        WireEvent::Git { urls, refs } => {
            let repository = urls.iter().map(|url| RepositoryUrl::parse(url).ok()).collect::<Option<_>>()?;
            let changes = match refs {
                None => GitChanges::Unknown,
                Some(refs) => GitChanges::Refs(refs.into_iter().map(ref_from_wire).collect::<Option<_>>()?),
            };
            Event::Git(GitEvent { repository, ssh_url: None, changes })
        }
        WireEvent::Image(WireImage { names, written, tags, digest, media, deleted }) => {
            let names: Vec<ImageName> =
                names.iter().map(|name| ImageName::parse(name).ok()).collect::<Option<_>>()?;
            let written = written.or_else(|| names.first().map(ToString::to_string)).unwrap_or_default();
            let media = match media {
                Some(WireMedia::Chart) => Media::Chart,
                Some(WireMedia::Image) => Media::Image,
                None => Media::Unknown,
            };
            Event::Image(ImageEvent { names, written, tags, digest, media, deleted })
        }
        WireEvent::Chart { url_tail } => Event::Chart(ChartEvent { url_tail }),
        WireEvent::Bucket { name, service, endpoint, keys } => {
            let service = match service {
                WireBucketService::Aws => BucketService::Aws,
                WireBucketService::Gcp => BucketService::Gcp,
                WireBucketService::S3 => BucketService::S3Compatible,
            };
            Event::Bucket(BucketEvent { name, service, endpoint, keys })
        }
        WireEvent::Anything { what } => Event::Anything { what },
    })
}

fn ref_from_wire(wire: WireRef) -> Option<RefChange> {
    let name = GitRef::from_full_name(&wire.name)?;
    let commits: CommitIds = wire.commits.iter().map(String::as_str).collect();
    let files = wire.files.map_or(ChangedFiles::Unknown, |files| ChangedFiles::Listed(files.into()));
    Some(RefChange { name, deleted: wire.deleted, commits, head: wire.head, files })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn push(commits: &str, files: ChangedFiles) -> Event {
        let change = RefChange {
            commits: CommitIds::default().with_list(commits),
            head: Some("2".repeat(40)),
            files,
            ..RefChange::new(GitRef::branch("main"))
        };
        let repository =
            ["https://github.com/org/app", "git@github.com:org/app.git", "ssh://git@example.com:2222/a/b"];
        let repository = repository.iter().map(|url| RepositoryUrl::parse(url).expect("a URL")).collect();
        Event::Git(GitEvent { repository, ssh_url: None, changes: GitChanges::Refs(vec![change]) })
    }

    fn published(event: Event) -> Entry {
        let (endpoint, provider, event_type) = ("github".to_owned(), "GitHub".to_owned(), "push".to_owned());
        let forwarded = ForwardedFields::default();
        Entry::Event(Box::new(PublishedEvent {
            endpoint,
            provider,
            event_type,
            event,
            forwarded,
            trace: None,
        }))
    }

    fn round_trip(entry: &Entry) -> (String, Event) {
        let json = entry.to_json("a", jiff::Timestamp::UNIX_EPOCH);
        match Entry::from_json(&json) {
            Ok(Entry::Event(published)) => (json, published.event),
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn a_push_arrives_with_its_commits_and_files() {
        let commits = json!([{"id": "1".repeat(40), "message": "secret words", "added": ["a"], "modified": ["b/c"], "removed": []}]);
        let files = ChangedFiles::ByCommit { total: None };
        let (json, event) = round_trip(&published(push(&commits.to_string(), files)));
        assert!(!json.contains("secret"), "{json}");
        let Event::Git(GitEvent { repository, changes: GitChanges::Refs(refs), .. }) = &event else {
            panic!("{event:?}")
        };
        assert_eq!(repository.len(), 3);
        assert!(refs[0].commits.contains(&"1".repeat(40)));
        assert_eq!(event.changes_a_file(|file| file == "b/c"), Some(true));
        assert_eq!(event.changes_a_file(|file| file == "b"), Some(false));
        let (_, unknown) = round_trip(&published(push("[]", ChangedFiles::Unknown)));
        assert_eq!(unknown.changes_a_file(|_| false), None);
    }

    #[test]
    fn other_events_arrive_as_they_were() {
        let image = ImageEvent {
            names: vec![ImageName::parse("ghcr.io/org/app").expect("an image")],
            written: "ghcr.io/org/app".to_owned(),
            tags: vec!["v1".to_owned()],
            digest: Some("sha256:00".to_owned()),
            media: Media::Chart,
            deleted: true,
        };
        let bucket = BucketEvent {
            name: "b".to_owned(),
            service: BucketService::S3Compatible,
            endpoint: Some("minio:9000".to_owned()),
            keys: vec!["k".to_owned()],
        };
        for event in [
            Event::Image(image),
            Event::Bucket(bucket),
            Event::Chart(ChartEvent { url_tail: vec!["repository".to_owned(), "charts".to_owned()] }),
            Event::Anything { what: "a delivery".to_owned() },
        ] {
            assert_eq!(round_trip(&published(event.clone())).1, event);
        }
        assert_eq!(
            Entry::from_json(&Entry::CatchUp.to_json("a", jiff::Timestamp::UNIX_EPOCH)),
            Ok(Entry::CatchUp)
        );
    }

    // Too much is never cut to too little: what does not fit stands for everything.
    #[test]
    fn what_is_too_long_concerns_more() {
        let commits: Vec<_> = (0..5000).map(|number| json!({"id": format!("{number:040}")})).collect();
        let (json, event) = round_trip(&published(push(&json!(commits).to_string(), ChangedFiles::Unknown)));
        assert!(
            json.len() < 1000 && matches!(event, Event::Git(GitEvent { changes: GitChanges::Unknown, .. }))
        );
        let tags = (0..40_000).map(|number| format!("v{number}")).collect();
        let image = ImageEvent {
            names: vec![ImageName::parse("ghcr.io/org/app").expect("an image")],
            written: String::new(),
            tags,
            digest: None,
            media: Media::Unknown,
            deleted: false,
        };
        let (json, event) = round_trip(&published(Event::Image(image)));
        assert!(
            json.len() < 1000 && matches!(event, Event::Image(ImageEvent { tags, .. }) if tags.is_empty())
        );
    }

    #[test]
    fn later_fields_are_passed_over_and_later_types_are_not() {
        let json =
            published(Event::Anything { what: "x".to_owned() }).to_json("a", jiff::Timestamp::UNIX_EPOCH);
        let mut value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        value["later"] = json!(1);
        value["data"]["later"] = json!({"a": []});
        assert!(Entry::from_json(&value.to_string()).is_ok());
        value["type"] = json!("io.fluxcd.flux-recv.event.v2");
        assert!(Entry::from_json(&value.to_string()).is_err());
        for text in ["", "{}", "[]", "{\"type\": 1}"] {
            assert!(Entry::from_json(text).is_err(), "{text}");
        }
    }
}
