//! One watch: a list in pages, then what changes, and a list again when the server has forgotten
//! where it was.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use kube::Client;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, Request, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{describe, status_code};
use crate::backoff::growing_pause;
use crate::flux::details::{self, Details};
use crate::flux::selection::{ALLOW, Marks};
use crate::flux::{Kind, Progress, REQUESTED_AT, Target};

/// Objects per page of a list: some 4 KiB each. What a page takes while it is read stays with the
/// allocator for long, and with the buffers of the connection.
const PAGE_SIZE: u32 = 50;

/// A watch that ends sooner than this was not meant to.
const SHORT: Duration = Duration::from_secs(5);

/// The pauses before a watch is opened again after short ones, and between two lists.
const AFTER_A_SHORT_WATCH: Duration = Duration::from_millis(200);
const LONGEST_AFTER_SHORT_WATCHES: Duration = Duration::from_secs(30);

/// Where a watch looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Cluster,
    Namespace(String),
}

impl Scope {
    /// These namespaces, or the whole cluster if there are none.
    pub(super) fn of(namespaces: Vec<String>) -> Vec<Scope> {
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

/// What a watch sees of objects of one kind.
pub(super) enum Seen<T> {
    /// A list begins.
    Listing,
    /// The list holds this object.
    Listed(T),
    /// The list is complete: what it did not hold is gone.
    Complete,
    /// The object is new or has changed.
    Changed(T),
    /// The object is gone.
    Gone(T),
    /// Nothing has changed, and the server is there.
    Unchanged,
}

/// What can be watched.
pub(super) trait Watchable: DeserializeOwned + Clone + Send + 'static {
    /// The version to go on from after this object.
    fn resource_version(&self) -> &str;
}

/// An object as it comes: spec and status stay untyped, so that decoding a list never fails over one
/// of its objects, and nothing else is read.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Watched {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    metadata: Metadata,
    #[serde(default)]
    pub(super) spec: Value,
    #[serde(default, deserialize_with = "read_or_default")]
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default, deserialize_with = "read_or_default")]
    labels: HashMap<Box<str>, Box<str>>,
    #[serde(flatten, deserialize_with = "read_or_default")]
    others: details::Metadata,
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
}

impl Status {
    fn revision(&self) -> Option<&str> {
        self.artifact.as_ref()?.revision.as_deref()
    }
}

fn read_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

impl Watchable for Watched {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Watched {
    pub(super) fn target(&self, kind: Kind) -> Target {
        let Metadata { namespace, name, .. } = &self.metadata;
        Target { kind, namespace: namespace.clone(), name: name.clone() }
    }

    /// What it carries for those who choose among objects.
    pub(super) fn take_marks(&mut self) -> Marks {
        let Metadata { labels, others, .. } = &mut self.metadata;
        let allow = others.annotations.get(ALLOW).map(|allow| Box::from(allow.as_str()));
        Marks { labels: std::mem::take(labels).into_iter().collect(), allow }
    }

    /// What filters read of it.
    pub(super) fn details(&self) -> Details {
        let Metadata { others, resource_version, .. } = &self.metadata;
        let resource_version = Some(resource_version.clone());
        let metadata = details::Metadata { resource_version, ..others.clone() };
        Details::new(&self.api_version, metadata, &self.spec, self.status.revision())
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::new(
            self.metadata.others.annotations.get(REQUESTED_AT).map(String::as_str),
            self.status.last_handled_reconcile_at.as_deref(),
            self.status.revision(),
        )
    }
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: PageMetadata,
    items: VecDeque<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

/// A watch of one kind in one scope. After an error [`Watch::next`] goes on where it makes sense; it
/// does not wait, which is up to whoever reads the errors.
pub(super) struct Watch<T> {
    client: Client,
    url: String,
    /// Only objects of this name.
    name: Option<String>,
    state: State<T>,
    short_watches: u32,
}

enum State<T> {
    /// A list has to be asked for.
    Outdated,
    Listing {
        page: VecDeque<T>,
        next_page: String,
        version: String,
    },
    /// Everything up to this version is known.
    Current {
        version: String,
    },
    Watching {
        version: String,
        events: Events<T>,
        since: Instant,
    },
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<WatchEvent<T>, kube::Error>> + Send>>;

/// Why a watch was interrupted.
#[derive(Debug)]
pub(super) struct Interruption {
    /// The status code, if the API server has answered.
    pub(super) code: Option<u16>,
    pub(super) why: String,
}

impl From<kube::Error> for Interruption {
    fn from(err: kube::Error) -> Interruption {
        Interruption { code: status_code(&err), why: describe(&err) }
    }
}

/// The version to go on from is too old, the server says.
const EXPIRED: u16 = 410;

impl<T: Watchable> Watch<T> {
    pub(super) fn new(client: Client, resource: &ApiResource, scope: &Scope) -> Watch<T> {
        let url = DynamicObject::url_path(resource, scope.namespace());
        Watch { client, url, name: None, state: State::Outdated, short_watches: 0 }
    }

    /// Only the object of this name: the way in which RBAC lets one be watched by its name.
    /// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources>
    pub(super) fn of_name(self, name: &str) -> Watch<T> {
        Watch { name: Some(format!("metadata.name={name}")), ..self }
    }

    /// Whether an answer is due: a list has to come in time, a watch may be silent.
    pub(super) fn is_listing(&self) -> bool {
        matches!(self.state, State::Outdated | State::Listing { .. })
    }

    pub(super) async fn next(&mut self) -> Result<Seen<T>, Interruption> {
        loop {
            match &mut self.state {
                State::Outdated => {
                    self.list("", String::new()).await?;
                    return Ok(Seen::Listing);
                }
                State::Listing { page, next_page, version } => {
                    if let Some(object) = page.pop_front() {
                        return Ok(Seen::Listed(object));
                    }
                    if next_page.is_empty() {
                        self.state = State::Current { version: std::mem::take(version) };
                        return Ok(Seen::Complete);
                    }
                    let (next_page, version) = (std::mem::take(next_page), std::mem::take(version));
                    self.list(&next_page, version).await?;
                }
                State::Current { version } => {
                    let version = version.clone();
                    self.open(version).await?;
                }
                State::Watching { version, events, since } => match events.next().await {
                    Some(Ok(event)) => return self.take(event),
                    ended => {
                        let was_short = since.elapsed() < SHORT;
                        self.short_watches = if was_short { self.short_watches.saturating_add(1) } else { 0 };
                        self.state = State::Current { version: std::mem::take(version) };
                        if let Some(Err(err)) = ended {
                            return Err(err.into());
                        }
                    }
                },
            }
        }
    }

    /// Asks for a page; a list that fails in the middle begins anew.
    async fn list(&mut self, next_page: &str, version: String) -> Result<(), Interruption> {
        self.state = State::Outdated;
        let mut parameters = ListParams::default().limit(PAGE_SIZE);
        if let Some(name) = &self.name {
            parameters = parameters.fields(name);
        }
        if !next_page.is_empty() {
            parameters = parameters.continue_token(next_page);
        }
        let request = Request::new(self.url.as_str()).list(&parameters).map_err(unaskable)?;
        let Page { metadata, items } = self.client.request(request).await?;
        // The version of the first page is the one that all pages show.
        let version = if version.is_empty() { metadata.resource_version } else { version };
        self.state = State::Listing { page: items, next_page: metadata.r#continue, version };
        Ok(())
    }

    async fn open(&mut self, version: String) -> Result<(), Interruption> {
        if self.short_watches > 0 {
            let pause =
                growing_pause(AFTER_A_SHORT_WATCH, LONGEST_AFTER_SHORT_WATCHES, self.short_watches - 1);
            tokio::time::sleep(pause).await;
        }
        let parameters = match &self.name {
            Some(name) => WatchParams::default().fields(name),
            None => WatchParams::default(),
        };
        let request = Request::new(self.url.as_str()).watch(&parameters, &version).map_err(unaskable)?;
        let since = Instant::now();
        match self.client.request_events(request).await {
            Ok(events) => {
                self.state = State::Watching { version, events: Box::pin(events), since };
                Ok(())
            }
            Err(err) => {
                self.short_watches = self.short_watches.saturating_add(1);
                if status_code(&err) == Some(EXPIRED) {
                    self.state = State::Outdated;
                }
                Err(err.into())
            }
        }
    }

    fn take(&mut self, event: WatchEvent<T>) -> Result<Seen<T>, Interruption> {
        let (now_at, seen) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                (object.resource_version().to_owned(), Seen::Changed(object))
            }
            WatchEvent::Deleted(object) => (object.resource_version().to_owned(), Seen::Gone(object)),
            WatchEvent::Bookmark(bookmark) => (bookmark.metadata.resource_version, Seen::Unchanged),
            WatchEvent::Error(status) => {
                // Whatever it is, going on from this version would bring it again.
                self.state = State::Outdated;
                self.short_watches = self.short_watches.saturating_add(1);
                let why = format!("{} {}: {}", status.code, status.reason, status.message);
                return Err(Interruption { code: Some(status.code), why });
            }
        };
        if let State::Watching { version, .. } = &mut self.state
            && !now_at.is_empty()
        {
            *version = now_at;
        }
        Ok(seen)
    }
}

fn unaskable(err: kube::core::request::Error) -> Interruption {
    Interruption { code: None, why: err.to_string() }
}
