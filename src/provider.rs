//! Who sends webhooks: one file per sender, and the table of all.
//!
//! To add one: write `provider/<name>.rs` with a `pub(super) const PROVIDER`, and put its `mod` line
//! and its row into the table below. (`forge`, `cloud_event`, `aws`, `batch`, `pubsub`, `changed_files` and `testing`
//! are no senders: they are shared.)

mod acr;
mod artifactory;
mod aws;
mod azure_devops;
mod batch;
mod bitbucket_cloud;
mod bitbucket_server;
mod cdevents;
mod changed_files;
mod cloud_event;
mod distribution;
mod dockerhub;
mod event_bridge;
mod forge;
mod forgejo;
mod gcs;
mod generic;
mod generic_hmac;
mod generic_oidc;
mod gitea;
mod github;
mod gitlab;
mod gogs;
mod google_container_registry;
mod harbor;
mod minio;
mod nexus;
mod pubsub;
mod quay;
mod sns;
mod standard_webhooks;
mod zot;

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

pub use self::changed_files::changes_a_file;

use crate::bounded_text::BoundedText;
use crate::event::git_ref::{GitRef, is_zero_object_id};
use crate::event::image::{ImageName, ImageReference};
use crate::event::repository_url::RepositoryUrl;
use crate::event::{CommitIds, Event, GitChanges, GitEvent, ImageEvent, Media, RefChange, Subject};
use crate::json_items;
use crate::verify::{Proof, Unreadable, Verified};

/// All senders, in the order in which they are shown.
pub const PROVIDERS: [&Provider; 26] = [
    &github::PROVIDER,
    &gitlab::PROVIDER,
    &bitbucket_cloud::PROVIDER,
    &bitbucket_server::PROVIDER,
    &gitea::PROVIDER,
    &forgejo::PROVIDER,
    &gogs::PROVIDER,
    &azure_devops::PROVIDER,
    &dockerhub::PROVIDER,
    &quay::PROVIDER,
    &harbor::PROVIDER,
    &nexus::PROVIDER,
    &google_container_registry::PROVIDER,
    &acr::PROVIDER,
    &event_bridge::PROVIDER,
    &sns::PROVIDER,
    &artifactory::PROVIDER,
    &distribution::PROVIDER,
    &zot::PROVIDER,
    &minio::PROVIDER,
    &gcs::PROVIDER,
    &cdevents::PROVIDER,
    &standard_webhooks::PROVIDER,
    &generic::PROVIDER,
    &generic_hmac::PROVIDER,
    &generic_oidc::PROVIDER,
];

/// A kind of sender: how it proves itself, and how to read what it sends.
pub struct Provider {
    /// Its name, as in `source:` of the config.
    pub name: &'static str,
    /// What flux-recv acts on, in a few words.
    pub sends: &'static str,
    /// How its deliveries prove themselves.
    pub proof: Proof,
    /// Reads an authentic delivery.
    pub parse: fn(&Verified<'_>, &Hints<'_>) -> Result<Parsed, Unreadable>,
    /// Writes a delivery as the sender would, for `flux-recv send` and `flux-recv demo`.
    pub compose: fn(&Sample) -> Result<UnsignedDelivery, CannotCompose>,
    /// The header that names the event, if one does.
    pub event_header: Option<EventHeader>,
    /// Where the body names the event, or an action of it, as JSON pointers (RFC 6901).
    pub event_fields: &'static [&'static str],
    /// What filters read as `req`, as JSON text, where that is not the body itself but something inside it.
    pub request: Option<fn(&Verified<'_>) -> Option<String>>,
    /// Whether its pushes list the files that they change.
    pub lists_changed_files: bool,
    /// Whether its CloudEvents may come after a handshake.
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection>
    pub takes_cloud_events: bool,
    /// Whether the payload lacks the registry's host, so that the endpoint has to name it.
    pub needs_registry_host: bool,
    /// Whether an endpoint may say `unsigned: true`: the sender signed nothing until lately.
    pub may_come_unsigned: bool,
    /// What its deliveries can be about.
    pub subjects: &'static [Subject],
    /// What to choose in the sender's own settings.
    pub settings: ProviderSettings,
}

/// What to choose in a sender's own settings page.
pub struct ProviderSettings {
    /// Where the page is.
    pub page: &'static str,
    /// The content type to choose, if there is a choice.
    pub content_type: Option<&'static str>,
    /// Which field takes the key.
    pub secret: &'static str,
    /// The events to tick.
    pub events: &'static str,
}

/// What an endpoint knows and the payload may not.
#[derive(Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The registry's hosts, as the endpoint lists them.
    pub registry_hosts: &'a [String],
    /// Other hosts of the Git forge, as the endpoint lists them, without ports.
    pub git_hosts: &'a [String],
    /// Where to go on in a delivery of many events, as [`Parsed::Part`] has said; 0 at its beginning.
    pub resume_at: usize,
}

/// What an authentic delivery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Events(Vec<Event>),
    /// The first of many; the others are read by parsing again with this `resume_at`.
    Part {
        /// What this part says.
        events: Vec<Event>,
        /// Where the next one begins.
        resume_at: usize,
    },
    /// The sender tests the connection.
    Ping,
    /// The sender goes on only when this address was asked for.
    Confirm(String),
    /// Nothing that could concern a Flux object; the reason is for the answer.
    Ignored(String),
}

/// A change to compose a delivery about.
#[derive(Debug, Clone)]
pub enum Sample {
    /// A push to a Git repository.
    Push {
        /// Any URL of the repository.
        repository: RepositoryUrl,
        /// The ref that moved.
        name: GitRef,
        /// The commit that it moved to.
        commit: String,
    },
    /// A push to an image registry.
    Image {
        /// The image with its tag or digest.
        reference: ImageReference,
    },
    /// A test of the connection.
    Ping,
}

/// A delivery without its proof.
#[derive(Debug, Clone)]
pub struct UnsignedDelivery {
    /// Headers, without those of the proof.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The sender has no such delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this sender {0}")]
pub struct CannotCompose(&'static str);

/// The header that names the event.
#[derive(Debug, Clone, Copy)]
pub struct EventHeader {
    /// Its names; the first that has a value counts.
    pub names: &'static [&'static str],
    /// Its value for the commonest event.
    pub usual: &'static str,
}

impl EventHeader {
    /// The event that a delivery names.
    pub fn value<'d>(&self, delivery: &Verified<'d>) -> Option<&'d str> {
        let mut values = self.names.iter().filter_map(|name| delivery.header(name));
        values.find(|value| !value.is_empty())
    }
}

impl Provider {
    /// The provider of this name.
    pub fn named(name: &str) -> Option<&'static Provider> {
        PROVIDERS.into_iter().find(|provider| provider.name == name)
    }

    /// Which senders bring the events of a service that is none itself.
    pub fn carriers_of(service: &str) -> Option<&'static str> {
        match service.to_ascii_lowercase().as_str() {
            "ecr" | "codecommit" | "s3" => Some("`EventBridge` or `SNS`"),
            "gcr" | "gar" | "artifactregistry" => Some("`GoogleContainerRegistry`"),
            "svix" => Some("`StandardWebhooks`"),
            "ghcr" => Some("`GitHub`"),
            _ => None,
        }
    }

    /// Reads an authentic delivery. A Git repository in it is also known at the other hosts of its forge.
    ///
    /// # Errors
    /// When the delivery is not what this provider sends.
    pub fn read(&self, delivery: &Verified<'_>, hints: &Hints<'_>) -> Result<Parsed, Unreadable> {
        let mut parsed = (self.parse)(delivery, hints)?;
        if let Parsed::Events(events) | Parsed::Part { events, .. } = &mut parsed {
            for event in events {
                if let Event::Git(event) = event {
                    add_git_hosts(&mut event.repository, hints);
                }
            }
        }
        Ok(parsed)
    }

    /// Whether its deliveries say what event they are.
    pub fn names_its_events(&self) -> bool {
        self.event_header.is_some() || !self.event_fields.is_empty()
    }

    /// What the sender calls the event, with its action behind a dot: `release.published`.
    pub fn event_name(&self, delivery: &Verified<'_>) -> String {
        let header = self.event_header.and_then(|header| header.value(delivery));
        let mut parts: Vec<String> = header.map(str::to_owned).into_iter().collect();
        if !self.event_fields.is_empty()
            && let Ok(body) = delivery.json::<Box<RawValue>>()
        {
            parts.extend(self.event_fields.iter().filter_map(|field| text_at(&body, field)));
        }
        parts.join(".")
    }
}

/// The text at a JSON pointer. Only what is on the way there is read: bodies can be long.
fn text_at(body: &RawValue, pointer: &str) -> Option<String> {
    let mut at = body.get();
    for field in pointer.split('/').skip(1) {
        at = json_items::field(at, field)?.get();
    }
    let text: Cow<'_, str> = serde_json::from_str(at).ok()?;
    Some(BoundedText::from(&*text).to_string())
}

impl UnsignedDelivery {
    fn json(headers: &[(&str, &str)], body: &Value) -> UnsignedDelivery {
        let mut all = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        UnsignedDelivery { headers: all, body: body.to_string() }
    }
}

impl Sample {
    /// The image, for senders that know nothing else.
    fn only_image(&self) -> Result<&ImageReference, CannotCompose> {
        match self {
            Sample::Image { reference } => Ok(reference),
            Sample::Push { .. } => Err(SENDS_NO_PUSHES),
            Sample::Ping => Err(SENDS_NO_PING),
        }
    }

    /// Repository, ref and commit, for senders that know nothing else.
    fn only_push(&self) -> Result<(&RepositoryUrl, &GitRef, &str), CannotCompose> {
        match self {
            Sample::Push { repository, name, commit } => Ok((repository, name, commit)),
            Sample::Image { .. } => Err(SENDS_NO_IMAGES),
            Sample::Ping => Err(SENDS_NO_PING),
        }
    }
}

const SENDS_NO_PUSHES: CannotCompose = CannotCompose("knows images, not Git repositories: give --image");
const SENDS_NO_IMAGES: CannotCompose = CannotCompose("knows Git repositories, not images: give --repo");
const SENDS_NO_PING: CannotCompose = CannotCompose("has no test delivery of its own: give --repo or --image");

// What the files of this module share.

impl Parsed {
    fn ignored(reason: impl Into<String>) -> Parsed {
        Parsed::Ignored(reason.into())
    }

    fn ignored_event(event: &str) -> Parsed {
        Parsed::Ignored(format!("event type `{event}` is not handled"))
    }
}

/// The header that names the event; a delivery without it cannot be read.
fn required_header<'a>(delivery: &Verified<'a>, name: &str) -> Result<&'a str, Unreadable> {
    delivery.header(name).ok_or_else(|| Unreadable(format!("the header {name} is missing")))
}

/// URLs of one repository that are read; providers give five at most, and each is compared with each host of
/// `gitHosts`. Before Bitbucket Server 6 there are two for each host.
const MAX_REPOSITORY_URLS: usize = 32;

/// A Git event about whatever URLs of the list can be read.
fn git_event<'u>(
    urls: impl IntoIterator<Item = Option<&'u str>>,
    ssh_url: Option<&str>,
    changes: GitChanges,
) -> Result<Parsed, Unreadable> {
    let ssh_url = ssh_url.map(str::to_owned);
    let mut repository: Vec<RepositoryUrl> = Vec::new();
    for url in urls.into_iter().flatten().filter_map(|url| RepositoryUrl::parse(url).ok()) {
        if repository.len() < MAX_REPOSITORY_URLS && !repository.contains(&url) {
            repository.push(url);
        }
    }
    if repository.is_empty() {
        return Err(Unreadable::payload("the repository has no URL that can be read"));
    }
    Ok(Parsed::Events(vec![Event::Git(GitEvent { repository, ssh_url, changes })]))
}

/// One ref, as push events write it: its full name and the object it points to afterwards, which for
/// a tag may be a tag object rather than the commit `head`, and their list of commits.
fn pushed_ref<'c>(
    name: &str,
    after: Option<&'c str>,
    deleted: bool,
    head: Option<&'c str>,
    list: Option<&RawValue>,
) -> Result<RefChange, Unreadable> {
    let name = GitRef::from_full_name(name)
        .ok_or_else(|| Unreadable::payload(format_args!("ref: `{name}` is not a full ref name")))?;
    let deleted = deleted || after.is_some_and(is_zero_object_id);
    let after = after.filter(|after| !is_zero_object_id(after));
    let named: CommitIds = after.into_iter().chain(head).collect();
    let branch_head = after.filter(|_| name.as_branch().is_some());
    let head = head.or(branch_head).filter(|_| !deleted).map(str::to_owned);
    let commits = match list {
        Some(list) => named.with_list(list.get()),
        None => named,
    };
    Ok(RefChange { name, deleted, commits, head })
}

/// The refs of a pull request whose head has moved: `base` is what stands before `/head`. The other one, the
/// trial merge, moves with it.
fn pull_request_refs(base: &str, head: Option<&str>) -> Vec<RefChange> {
    let refs = [("head", head), ("merge", None)].into_iter().filter_map(|(end, head)| {
        let name = GitRef::from_full_name(&format!("{base}/{end}"))?;
        let commits = head.into_iter().collect();
        Some(RefChange { name, deleted: false, commits, head: head.map(str::to_owned) })
    });
    refs.collect()
}

/// An image as a sender writes it, in a registry with a known host.
fn image_event(written: &str) -> Result<ImageEvent, Unreadable> {
    let reference = ImageReference::parse(written).map_err(Unreadable::payload)?;
    Ok(ImageEvent {
        names: vec![reference.name],
        written: written_without_tag(written),
        tags: reference.tag.into_iter().collect(),
        digest: reference.digest,
        media: Media::Unknown,
        deleted: false,
    })
}

/// A change of a tag or a manifest in a registry that does not say what kind of artifact it is; none
/// if no name of the repository is known.
fn artifact_event(
    names: Vec<ImageName>,
    tag: Option<String>,
    digest: Option<String>,
    deleted: bool,
) -> Option<Event> {
    Some(Event::Image(ImageEvent {
        written: names.first()?.to_string(),
        names,
        tags: tag.filter(|tag| !tag.is_empty()).into_iter().collect(),
        digest: digest.filter(|digest| !digest.is_empty()),
        media: Media::Unknown,
        deleted,
    }))
}

/// The host of a URL, with its port if one is written that is not the scheme's own.
fn host_of(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The same repository under the hosts that the endpoint lists as well.
fn add_registry_hosts(names: &mut Vec<ImageName>, hints: &Hints<'_>, path: &str) {
    for host in hints.registry_hosts {
        if let Ok(name) = ImageName::in_registry(host, path)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
}

/// The same for a Git repository.
fn add_git_hosts(urls: &mut Vec<RepositoryUrl>, hints: &Hints<'_>) {
    for at in 0..urls.len() {
        for host in hints.git_hosts {
            // Also at the host that the payload names: ports are not compared at hosts that are listed.
            let url = urls[at].at_host(host);
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
}

fn written_without_tag(written: &str) -> String {
    let name = written.split('@').next().unwrap_or(written);
    let last_segment = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last_segment..].find(':') {
        Some(colon) => name[..last_segment + colon].to_owned(),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod testing;
