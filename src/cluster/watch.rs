//! One watch: a list, then what changes, and a list again when the server has forgotten where it was.
//!
//! The list comes as a stream at the head of the watch where the API server offers that, else in pages.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use http_body_util::BodyDataStream;
use kube::Client;
use kube::api::{DynamicObject, ListParams, WatchParams};
use kube::client::Body;
use kube::core::{ApiResource, Request, Resource, Status as ApiStatus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::connection::ApiConnection;
use super::list_scanner::{ListScanner, MAX_OBJECT_BYTES};
use super::{describe, status_code};
use crate::backoff::growing_pause;
use crate::flux::details::{self, FilterFields};
use crate::flux::selection::{ALLOW_ANNOTATION, SelectionMarks};
use crate::flux::{Kind, Progress, REQUESTED_AT, Target};

/// Objects per page of a list: some 4 KiB each. What a page takes while it is read stays with the
/// allocator for long, and with the buffers of the connection.
const PAGE_SIZE: u32 = 50;

/// The API server sends a bookmark every minute; a watch without one for so long is dead.
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks>
const MAX_SILENCE: Duration = Duration::from_secs(180);

/// Bytes of an error of the API server.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A watch that ends sooner than this was not meant to.
const SHORT_WATCH_TIME: Duration = Duration::from_secs(5);

/// The pauses before a watch is opened again after short ones, and between two lists.
const FIRST_REOPEN_DELAY: Duration = Duration::from_millis(200);
const MAX_REOPEN_DELAY: Duration = Duration::from_secs(30);

/// The scope of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Scope {
    Cluster,
    Namespace(String),
}

impl Scope {
    /// Returns a scope for each namespace, or the whole cluster if there are none.
    pub(super) fn from_namespaces(namespaces: Vec<String>) -> Vec<Scope> {
        match namespaces.is_empty() {
            true => vec![Scope::Cluster],
            false => namespaces.into_iter().map(Scope::Namespace).collect(),
        }
    }

    pub(super) fn covers(&self, target: &Target) -> bool {
        match self {
            Scope::Cluster => true,
            Scope::Namespace(namespace) => target.namespace == *namespace,
        }
    }

    /// Returns the scope as part of a sentence.
    pub(super) fn place(&self) -> String {
        match self {
            Scope::Cluster => "in the whole cluster".to_owned(),
            Scope::Namespace(namespace) => format!("in namespace {namespace}"),
        }
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Scope::Cluster => None,
            Scope::Namespace(namespace) => Some(namespace),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.namespace().unwrap_or("all namespaces"))
    }
}

/// An event of a watch of one kind.
pub(super) enum WatchEvent<T> {
    /// A new list begins; what it does not name is gone at its end.
    Listing,
    /// The list holds this object.
    Listed(T),
    /// The list is complete: what it did not hold is gone.
    Complete,
    /// A watch was opened after nobody watched for this long: it begins with what has changed meanwhile.
    Opened(Duration),
    /// The object is new or has changed.
    Changed(T),
    /// The object is gone.
    Gone(T),
    /// Nothing has changed, and the server is there.
    Unchanged,
}

/// An object that can be watched.
pub(super) trait Watchable: DeserializeOwned + Send + 'static {
    /// The version to go on from after this object.
    fn resource_version(&self) -> &str;
}

/// An object as it comes: spec and status stay text, so that decoding never fails over one object, and
/// nothing else is read. What may be missing or of another type is empty then.
#[derive(Debug, Deserialize)]
pub(super) struct WatchedObject {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    metadata: ObjectMetadata,
    pub(super) spec: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "read_or_default")]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default, deserialize_with = "read_or_default")]
    labels: BTreeMap<Box<str>, Box<str>>,
    #[serde(default, deserialize_with = "read_or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "read_or_default")]
    creation_timestamp: Option<String>,
    #[serde(default, deserialize_with = "read_or_default")]
    deletion_timestamp: Option<String>,
    #[serde(default, deserialize_with = "read_or_default")]
    finalizers: Vec<String>,
    #[serde(default, deserialize_with = "read_or_default")]
    owner_references: Vec<Value>,
    #[serde(default, deserialize_with = "read_or_default")]
    generation: Option<i64>,
    #[serde(default, deserialize_with = "read_or_default")]
    uid: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    last_handled_reconcile_at: Option<String>,
    artifact: Option<Artifact>,
}

#[derive(Debug, Clone, Deserialize)]
struct Artifact {
    revision: Option<String>,
    digest: Option<String>,
}

impl Status {
    fn revision(&self) -> Option<&str> {
        self.artifact.as_ref()?.revision.as_deref()
    }

    fn digest(&self) -> Option<&str> {
        self.artifact.as_ref()?.digest.as_deref()
    }
}

fn read_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    let text = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(text.get()).unwrap_or_default())
}

impl Watchable for WatchedObject {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl WatchedObject {
    pub(super) fn target(&self, kind: Kind) -> Target {
        let ObjectMetadata { namespace, name, .. } = &self.metadata;
        Target { kind, namespace: namespace.clone(), name: name.clone() }
    }

    /// Takes the labels and the annotation that selections read.
    pub(super) fn take_marks(&mut self) -> SelectionMarks {
        let allow = self.metadata.annotations.get(ALLOW_ANNOTATION).map(String::as_str);
        SelectionMarks::new(std::mem::take(&mut self.metadata.labels), allow)
    }

    /// Returns the fields that filters read.
    pub(super) fn details(&self) -> FilterFields {
        let of = &self.metadata;
        let metadata = details::FilterMetadata {
            annotations: of.annotations.clone(),
            creation_timestamp: of.creation_timestamp.clone(),
            deletion_timestamp: of.deletion_timestamp.clone(),
            finalizers: of.finalizers.clone(),
            owner_references: of.owner_references.clone(),
            resource_version: Some(of.resource_version.clone()),
            generation: of.generation,
            uid: of.uid.clone(),
        };
        FilterFields::new(&self.api_version, metadata, self.spec.as_deref(), self.status.revision())
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::new(
            self.metadata.annotations.get(REQUESTED_AT).map(String::as_str),
            self.status.last_handled_reconcile_at.as_deref(),
            self.status.revision(),
        )
        .with_artifact(self.status.revision(), self.status.digest())
    }
}

/// The part of a page around its objects.
#[derive(Deserialize)]
struct ListPage {
    metadata: PageMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A watch of one kind in one scope. After an error [`Watch::next`] continues where that makes
/// sense. It does not wait: pauses are up to the caller.
pub(super) struct Watch<T> {
    client: Client,
    url: String,
    /// Only objects of this name.
    name: Option<String>,
    /// The list may come as a stream.
    connection: Option<ApiConnection>,
    state: StreamState,
    /// The streamed list has ended and `Opened` was not returned yet.
    is_newly_open: bool,
    short_watches: u32,
    /// Since when nobody watches: since the list began, or since the last watch may have ended.
    unwatched_since: Option<Instant>,
    of: std::marker::PhantomData<fn() -> T>,
}

enum StreamState {
    /// A list has to be requested.
    Outdated,
    Listing {
        page: ArrivingPage,
        /// The version of the first page, which all pages show.
        version: String,
    },
    /// The list arrives at the head of a watch.
    Streaming {
        events: WatchLines,
        since: Instant,
    },
    /// Everything up to this version is known.
    Current {
        version: String,
    },
    Watching {
        version: String,
        events: WatchLines,
        since: Instant,
    },
}

type Chunks = Pin<Box<BodyDataStream<Body>>>;

/// A page of a list of which some has arrived.
struct ArrivingPage {
    chunks: Chunks,
    /// What has arrived and was not read yet.
    chunk: Vec<u8>,
    read: usize,
    scanner: ListScanner,
}

/// Events of a watch, a line each.
struct WatchLines {
    chunks: Chunks,
    /// What has arrived behind the last whole line.
    rest: Vec<u8>,
    whole: VecDeque<Vec<u8>>,
    /// The connection ended without the end of the answer.
    is_broken: bool,
}

/// A line of a watch.
#[derive(Deserialize)]
struct EventLine<'a> {
    #[serde(rename = "type", borrow)]
    what: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: PageMetadata,
}

/// A request about a watch failed, or the watch ended before its time.
#[derive(Debug)]
pub(super) struct WatchFailure {
    /// The status code, if the API server has answered.
    pub(super) code: Option<u16>,
    pub(super) why: String,
    /// The API server was silent in the middle of an answer.
    pub(super) is_silence: bool,
    /// Discovery says that the kind is served, whatever this failure says.
    pub(super) is_discovered: bool,
}

impl From<kube::Error> for WatchFailure {
    fn from(err: kube::Error) -> WatchFailure {
        WatchFailure { code: status_code(&err), why: describe(&err), is_silence: false, is_discovered: false }
    }
}

/// A list that is streamed has to end in this time, however many changes arrive meanwhile.
const MAX_STREAM_TIME: Duration = Duration::from_secs(5 * 60);

/// The annotation of the bookmark that ends a list at the head of a watch.
const LIST_END_ANNOTATION: &str = "k8s.io/initial-events-end";

/// The version to go on from is too old, the server says.
const GONE_STATUS: u16 = 410;

impl<T: Watchable> Watch<T> {
    pub(super) fn new(client: Client, resource: &ApiResource, scope: &Scope) -> Watch<T> {
        Watch {
            client,
            url: DynamicObject::url_path(resource, scope.namespace()),
            name: None,
            connection: None,
            state: StreamState::Outdated,
            is_newly_open: false,
            short_watches: 0,
            unwatched_since: None,
            of: std::marker::PhantomData,
        }
    }

    /// Only the object of this name: the way in which RBAC lets one be watched by its name.
    /// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources>
    pub(super) fn with_name(self, name: &str) -> Watch<T> {
        Watch { name: Some(format!("metadata.name={name}")), ..self }
    }

    /// Lists as a stream, unless the API server of this connection does not offer it.
    pub(super) fn with_streaming_list(self, connection: &ApiConnection) -> Watch<T> {
        Watch { connection: Some(connection.clone()), ..self }
    }

    /// Whether an answer is due: a list has to come in time, a watch may be silent.
    pub(super) fn is_listing(&self) -> bool {
        matches!(
            self.state,
            StreamState::Outdated | StreamState::Listing { .. } | StreamState::Streaming { .. }
        )
    }

    pub(super) async fn next(&mut self) -> Result<WatchEvent<T>, WatchFailure> {
        loop {
            match &mut self.state {
                StreamState::Outdated => {
                    self.unwatched_since.get_or_insert_with(Instant::now);
                    self.begin_list().await?;
                    return Ok(WatchEvent::Listing);
                }
                StreamState::Streaming { since, .. } if since.elapsed() > MAX_STREAM_TIME => {
                    return Err(self.begin_anew(WatchFailure::because("the list did not end")));
                }
                StreamState::Streaming { events, .. } => match events.next_line().await {
                    Ok(Some(line)) => return self.take_listed(&line),
                    Ok(None) => {
                        return Err(self.begin_anew(WatchFailure::because("the list ended early")));
                    }
                    Err(failure) => return Err(self.begin_anew(failure)),
                },
                StreamState::Watching { .. } if self.is_newly_open => {
                    self.is_newly_open = false;
                    return Ok(self.opened());
                }
                StreamState::Listing { page, version } => match page.next_object().await {
                    Ok(Some(object)) => match serde_json::from_slice(&object) {
                        Ok(object) => return Ok(WatchEvent::Listed(object)),
                        Err(err) => return Err(self.begin_anew(err.into())),
                    },
                    Ok(None) => {
                        let version = std::mem::take(version);
                        let metadata = match page.end() {
                            Ok(metadata) => metadata,
                            Err(failure) => return Err(self.begin_anew(failure)),
                        };
                        let version = if version.is_empty() { metadata.resource_version } else { version };
                        if metadata.r#continue.is_empty() {
                            self.state = StreamState::Current { version };
                            return Ok(WatchEvent::Complete);
                        }
                        self.list(&metadata.r#continue, version).await?;
                    }
                    Err(failure) => return Err(self.begin_anew(failure)),
                },
                StreamState::Current { version } => {
                    let version = version.clone();
                    self.open(version).await?;
                    return Ok(self.opened());
                }
                StreamState::Watching { version, events, since } => {
                    let line = tokio::time::timeout(MAX_SILENCE, events.next_line()).await;
                    match line.unwrap_or_else(|_| Err(WatchFailure::because("the watch was silent"))) {
                        Ok(Some(line)) => return self.take(&line),
                        ended => {
                            let now = Instant::now();
                            // A connection that broke may have been silent before.
                            let is_broken = ended.is_err() || events.is_broken;
                            let silence = if is_broken { MAX_SILENCE } else { Duration::ZERO };
                            self.unwatched_since = Some(now.checked_sub(silence).unwrap_or(*since));
                            let was_short = since.elapsed() < SHORT_WATCH_TIME;
                            self.short_watches =
                                if was_short { self.short_watches.saturating_add(1) } else { 0 };
                            self.state = StreamState::Current { version: std::mem::take(version) };
                            ended?;
                        }
                    }
                }
            }
        }
    }

    fn opened(&mut self) -> WatchEvent<T> {
        let since = self.unwatched_since.take();
        WatchEvent::Opened(since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Begins the list anew after it has failed. If it was a stream it is read in pages from now on, which
    /// may arrive where a stream does not, as through a proxy that cuts long answers.
    fn begin_anew(&mut self, failure: WatchFailure) -> WatchFailure {
        if matches!(self.state, StreamState::Streaming { .. }) {
            self.connection = None;
        }
        self.state = StreamState::Outdated;
        failure
    }

    async fn begin_list(&mut self) -> Result<(), WatchFailure> {
        let connection = self.connection.as_ref().filter(|connection| connection.streams_lists());
        let Some(connection) = connection.cloned() else { return self.list("", String::new()).await };
        match self.stream().await {
            Err(failure) if failure.refuses_to_stream() => {
                connection.list_in_pages();
                self.list("", String::new()).await
            }
            streamed => streamed,
        }
    }

    /// Requests a watch that begins with all objects.
    async fn stream(&mut self) -> Result<(), WatchFailure> {
        let parameters = self.watch_parameters().initial_events();
        let request = Request::new(self.url.as_str()).watch(&parameters, "").map_err(invalid_request)?;
        let since = Instant::now();
        let chunks = send(&self.client, request.map(Body::from)).await?;
        self.state = StreamState::Streaming { events: WatchLines::new(chunks), since };
        Ok(())
    }

    fn watch_parameters(&self) -> WatchParams {
        match &self.name {
            Some(name) => WatchParams::default().fields(name),
            None => WatchParams::default(),
        }
    }

    /// Requests a page of the list.
    async fn list(&mut self, next_page: &str, version: String) -> Result<(), WatchFailure> {
        self.state = StreamState::Outdated;
        let mut parameters = ListParams::default().limit(PAGE_SIZE);
        if let Some(name) = &self.name {
            parameters = parameters.fields(name);
        }
        if !next_page.is_empty() {
            parameters = parameters.continue_token(next_page);
        }
        let request = Request::new(self.url.as_str()).list(&parameters).map_err(invalid_request)?;
        let chunks = send(&self.client, request.map(Body::from)).await?;
        let page = ArrivingPage { chunks, chunk: Vec::new(), read: 0, scanner: ListScanner::default() };
        self.state = StreamState::Listing { page, version };
        Ok(())
    }

    async fn open(&mut self, version: String) -> Result<(), WatchFailure> {
        if self.short_watches > 0 {
            let pause = growing_pause(FIRST_REOPEN_DELAY, MAX_REOPEN_DELAY, self.short_watches - 1);
            tokio::time::sleep(pause).await;
        }
        let parameters = self.watch_parameters();
        let request =
            Request::new(self.url.as_str()).watch(&parameters, &version).map_err(invalid_request)?;
        let since = Instant::now();
        match send(&self.client, request.map(Body::from)).await {
            Ok(chunks) => {
                let events = WatchLines::new(chunks);
                self.state = StreamState::Watching { version, events, since };
                Ok(())
            }
            Err(failure) => {
                self.short_watches = self.short_watches.saturating_add(1);
                if failure.code == Some(GONE_STATUS) {
                    self.state = StreamState::Outdated;
                }
                Err(failure)
            }
        }
    }

    /// Takes an event of a list that is streamed.
    fn take_listed(&mut self, line: &[u8]) -> Result<WatchEvent<T>, WatchFailure> {
        let event: EventLine<'_> = match serde_json::from_slice(line) {
            Ok(event) => event,
            Err(err) => return Err(self.begin_anew(err.into())),
        };
        let text = event.object.get();
        let event = match &*event.what {
            "ADDED" | "MODIFIED" => serde_json::from_str(text).map(WatchEvent::Listed),
            "DELETED" => serde_json::from_str(text).map(WatchEvent::Gone),
            "BOOKMARK" => serde_json::from_str::<Bookmark>(text).map(|bookmark| self.take_bookmark(bookmark)),
            _ => return Err(self.begin_anew(WatchFailure::from_status(0, text.as_bytes()))),
        };
        event.map_err(|err| self.begin_anew(err.into()))
    }

    /// Ends a list that is streamed where the bookmark says so.
    fn take_bookmark(&mut self, bookmark: Bookmark) -> WatchEvent<T> {
        let metadata = bookmark.metadata;
        if !metadata.annotations.contains_key(LIST_END_ANNOTATION) {
            return WatchEvent::Unchanged;
        }
        if let StreamState::Streaming { events, since } =
            std::mem::replace(&mut self.state, StreamState::Outdated)
        {
            self.state = StreamState::Watching { version: metadata.resource_version, events, since };
            self.is_newly_open = true;
        }
        WatchEvent::Complete
    }

    fn take(&mut self, line: &[u8]) -> Result<WatchEvent<T>, WatchFailure> {
        let event: EventLine<'_> = match serde_json::from_slice(line) {
            Ok(event) => event,
            Err(err) => return Err(self.begin_anew(err.into())),
        };
        let object = || serde_json::from_str::<T>(event.object.get());
        let seen = match &*event.what {
            "ADDED" | "MODIFIED" => {
                object().map(|object| (object.resource_version().to_owned(), WatchEvent::Changed(object)))
            }
            "DELETED" => {
                object().map(|object| (object.resource_version().to_owned(), WatchEvent::Gone(object)))
            }
            "BOOKMARK" => serde_json::from_str::<Bookmark>(event.object.get())
                .map(|bookmark| (bookmark.metadata.resource_version, WatchEvent::Unchanged)),
            _ => {
                // Whatever it is, going on from this version would bring it again.
                self.short_watches = self.short_watches.saturating_add(1);
                return Err(self.begin_anew(WatchFailure::from_status(0, event.object.get().as_bytes())));
            }
        };
        let (now_at, seen) = match seen {
            Ok(seen) => seen,
            Err(err) => return Err(self.begin_anew(err.into())),
        };
        if let StreamState::Watching { version, .. } = &mut self.state
            && !now_at.is_empty()
        {
            *version = now_at;
        }
        Ok(seen)
    }
}

impl ArrivingPage {
    /// The next object; none at the end of the page.
    async fn next_object(&mut self) -> Result<Option<Vec<u8>>, WatchFailure> {
        loop {
            let mut input = &self.chunk[self.read..];
            let object = self.scanner.next_object(&mut input).map_err(WatchFailure::because)?;
            self.read = self.chunk.len() - input.len();
            if object.is_some() {
                return Ok(object);
            }
            match self.chunks.next().await {
                Some(chunk) => (self.chunk, self.read) = (chunk?.to_vec(), 0),
                None => return Ok(None),
            }
        }
    }

    /// Returns the metadata of the list.
    fn end(&mut self) -> Result<PageMetadata, WatchFailure> {
        let around = std::mem::take(&mut self.scanner).into_around();
        Ok(serde_json::from_slice::<ListPage>(&around)?.metadata)
    }
}

impl WatchLines {
    fn new(chunks: Chunks) -> WatchLines {
        WatchLines { chunks, rest: Vec::new(), whole: VecDeque::new(), is_broken: false }
    }

    /// The next line; none when the server has ended the watch.
    async fn next_line(&mut self) -> Result<Option<Vec<u8>>, WatchFailure> {
        loop {
            if let Some(line) = self.whole.pop_front() {
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            let Some(chunk) = self.chunks.next().await else { return Ok(None) };
            // A server that ends a watch may end it within a line.
            let Ok(chunk) = chunk else {
                self.is_broken = true;
                return Ok(None);
            };
            let mut pieces = chunk.split(|byte| *byte == b'\n');
            let last = pieces.next_back().unwrap_or_default();
            for piece in pieces {
                self.rest.extend_from_slice(piece);
                self.whole.push_back(std::mem::take(&mut self.rest));
            }
            self.rest.extend_from_slice(last);
            if self.rest.len() > MAX_OBJECT_BYTES {
                return Err(WatchFailure::because("the API server sends an event that is too long"));
            }
        }
    }
}

/// Sends a request; an answer other than success is an failure.
async fn send(client: &Client, request: http::Request<Body>) -> Result<Chunks, WatchFailure> {
    let response = client.send(request).await?;
    let status = response.status();
    let mut chunks: Chunks = Box::pin(BodyDataStream::new(response.into_body()));
    if status.is_success() {
        return Ok(chunks);
    }
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await
        && body.len() < MAX_ERROR_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    Err(WatchFailure::from_status(status.as_u16(), &body))
}

impl WatchFailure {
    pub(super) fn because(why: impl fmt::Display) -> WatchFailure {
        WatchFailure { code: None, why: why.to_string(), is_silence: false, is_discovered: false }
    }

    pub(super) fn silent(limit: Duration) -> WatchFailure {
        let why = format!("no answer within {} s", limit.as_secs());
        WatchFailure { is_silence: true, ..WatchFailure::because(why) }
    }

    pub(super) fn not_served() -> WatchFailure {
        WatchFailure { code: Some(404), ..WatchFailure::because("the API server knows no such kind") }
    }

    /// Whether the log should have it at once: missing rights and kinds are logged once they are not transient.
    pub(super) fn is_unexpected(&self) -> bool {
        !matches!(self.code, Some(403 | 404))
    }

    /// Whether the API server does not stream lists: it takes no watch that begins with one.
    /// <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>
    fn refuses_to_stream(&self) -> bool {
        matches!(self.code, Some(400 | 422))
    }

    /// Reads the error in the body of an answer; `code` counts if the body names none.
    fn from_status(code: u16, body: &[u8]) -> WatchFailure {
        let described = serde_json::from_slice::<ApiStatus>(body).ok().filter(|status| status.code != 0);
        let (code, why) = match described {
            Some(ApiStatus { code, reason, message, .. }) => (code, format!("{code} {reason}: {message}")),
            None => (code, format!("{code} {}", String::from_utf8_lossy(&body[..body.len().min(200)]))),
        };
        WatchFailure { code: (code != 0).then_some(code), why, is_silence: false, is_discovered: false }
    }
}

impl From<serde_json::Error> for WatchFailure {
    fn from(err: serde_json::Error) -> WatchFailure {
        WatchFailure::because(err)
    }
}

fn invalid_request(err: kube::core::request::Error) -> WatchFailure {
    WatchFailure::because(err)
}
