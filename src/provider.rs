//! Providers: one file for each, and the table of all.
//!
//! A new one is a file `provider/<name>.rs` with a `pub(super) const PROVIDER`, and its `mod` line and row
//! below. CONTRIBUTING.md names the fixtures and documents that go with it. What providers share is in
//! `provider/shared/`.

mod acr;
mod artifactory;
mod azure_devops;
mod bitbucket_cloud;
mod bitbucket_server;
mod cdevents;
mod distribution;
mod dockerhub;
mod event_bridge;
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
mod quay;
mod shared;
mod sns;
mod standard_webhooks;
mod zot;

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::bounded_text::BoundedText;
use crate::event::git_ref::GitRef;
use crate::event::image::ImageReference;
use crate::event::repository_url::RepositoryUrl;
use crate::event::{Event, Subject};
use crate::json_items;
use crate::verify::{Authentication, Unreadable, Verified};
use crate::webhook_api::{EventSettings, ProviderSettings, WebhookApi};

/// All providers, in the order in which they are shown.
pub const PROVIDERS: &[&Provider] = &[
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

/// A kind of provider: how its deliveries are authenticated and read.
pub struct Provider {
    /// Its name, as in `source:` of the config.
    pub name: &'static str,
    /// The events that flux-recv acts on, in a few words.
    pub handled_events: &'static str,
    /// The scheme that authenticates its deliveries.
    pub authentication: Authentication,
    /// Reads a verified delivery.
    pub parse: fn(&Verified<'_>, &ParseContext<'_>) -> Result<Parsed, Unreadable>,
    /// Writes a delivery as the provider would, for `flux-recv send` and `flux-recv demo`.
    pub compose: fn(&Sample) -> Result<UnsignedDelivery, CannotCompose>,
    /// The header that names the event type, if any does.
    pub event_header: Option<EventHeader>,
    /// The header with the identifier that the provider's own pages show for a delivery.
    pub delivery_id_header: Option<&'static str>,
    /// The event types that it acts on, without their actions; empty where any can matter.
    pub event_types: &'static [&'static str],
    /// Where the body names the event, or an action of it, as JSON pointers (RFC 6901).
    pub event_fields: &'static [&'static str],
    /// What filters read as `req`, as JSON text, where that is not the body itself but something inside it.
    pub filter_body: Option<fn(&Verified<'_>) -> Option<String>>,
    /// Whether its pushes list the files that they change.
    pub lists_changed_files: bool,
    /// Whether its CloudEvents may come after a handshake.
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection>
    pub takes_cloud_events: bool,
    /// Whether the payload lacks the registry's host, so that the endpoint has to name it.
    pub needs_registry_host: bool,
    /// Whether an endpoint may say `unsigned: true`: the provider signed nothing until lately.
    pub may_come_unsigned: bool,
    /// What its deliveries can be about.
    pub subjects: &'static [Subject],
    /// What to choose in the provider's own settings.
    pub settings: ProviderSettings,
    /// Its API for webhooks, where `flux-recv hook` knows it.
    pub webhook_api: Option<&'static WebhookApi>,
}

/// What the endpoint knows and the payload may lack.
#[derive(Clone, Copy, Default)]
pub struct ParseContext<'a> {
    /// The registry's hosts, as the endpoint lists them.
    pub registry_hosts: &'a [String],
    /// Other hosts of the Git forge, as the endpoint lists them, without ports.
    pub git_hosts: &'a [String],
    /// Where to go on in a delivery of many events, as [`Parsed::Part`] has said; 0 at its beginning.
    pub resume_at: usize,
}

/// The content of a verified delivery.
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
    /// The provider tests the connection.
    Ping,
    /// The provider goes on only when this URL was fetched.
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

/// A delivery without what authenticates it.
#[derive(Debug, Clone)]
pub struct UnsignedDelivery {
    /// Headers, without those that authenticate it.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The provider has no such delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this provider {0}")]
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
    /// A provider that says nothing about itself: its deliveries concern whatever the endpoint lists.
    const BASE: Provider = Provider {
        name: "",
        handled_events: "",
        // The endpoint has to say how deliveries are authenticated.
        authentication: Authentication::Configured,
        parse: generic::parse,
        compose: generic::compose,
        event_header: None,
        delivery_id_header: None,
        event_types: &[],
        event_fields: &[],
        filter_body: None,
        lists_changed_files: false,
        takes_cloud_events: false,
        needs_registry_host: false,
        may_come_unsigned: false,
        subjects: &[Subject::Selection],
        settings: ProviderSettings {
            page: "",
            content_type: None,
            secret: "",
            events: EventSettings::Described(""),
        },
        webhook_api: None,
    };

    /// The provider of this name.
    pub fn named(name: &str) -> Option<&'static Provider> {
        PROVIDERS.iter().copied().find(|provider| provider.name == name)
    }

    /// Returns the `source` values for a service that has no provider of its own, such as ECR.
    pub fn sources_for_service(service: &str) -> Option<&'static str> {
        match service.to_ascii_lowercase().as_str() {
            "ecr" | "codecommit" | "s3" => Some("`EventBridge` or `SNS`"),
            "gcr" | "gar" | "artifactregistry" => Some("`GoogleContainerRegistry`"),
            "svix" => Some("`StandardWebhooks`"),
            "ghcr" => Some("`GitHub`"),
            _ => None,
        }
    }

    /// Reads a verified delivery. A Git repository in it is also known at the other hosts of its forge.
    ///
    /// # Errors
    /// When the delivery is not what this provider sends.
    pub fn read(&self, delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
        let mut parsed = (self.parse)(delivery, context)?;
        if let Parsed::Events(events) | Parsed::Part { events, .. } = &mut parsed {
            self.add_known_hosts(events, context);
        }
        Ok(parsed)
    }

    /// Adds the other hosts of the forge to the repositories of events.
    pub fn add_known_hosts(&self, events: &mut [Event], context: &ParseContext<'_>) {
        for event in events {
            if let Event::Git(event) = event {
                shared::add_git_hosts(&mut event.repository, context);
            }
        }
    }

    /// The identifier that the provider's own pages show for a delivery. Anything else in that header, which
    /// no signature covers, is left out.
    pub fn delivery_id(&self, delivery: &Verified<'_>) -> Option<BoundedText> {
        let id = delivery.header(self.delivery_id_header?)?;
        let is_id = (1..=MAX_DELIVERY_ID_BYTES).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'));
        is_id.then(|| id.into())
    }

    /// Whether its deliveries say what event they are.
    pub fn names_its_events(&self) -> bool {
        self.event_header.is_some() || !self.event_fields.is_empty()
    }

    /// Returns the event type, with its action behind a dot: `release.published`.
    pub fn event_type(&self, delivery: &Verified<'_>) -> String {
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

/// Bytes of an identifier; a UUID has 36.
const MAX_DELIVERY_ID_BYTES: usize = 80;

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
    /// The image, for providers that know nothing else.
    fn only_image(&self) -> Result<&ImageReference, CannotCompose> {
        match self {
            Sample::Image { reference } => Ok(reference),
            Sample::Push { .. } => Err(SENDS_NO_PUSHES),
            Sample::Ping => Err(SENDS_NO_PING),
        }
    }

    /// Repository, ref and commit, for providers that know nothing else.
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

impl Parsed {
    fn ignored(reason: impl Into<String>) -> Parsed {
        Parsed::Ignored(reason.into())
    }

    fn ignored_event(event: &str) -> Parsed {
        Parsed::Ignored(format!("event type `{event}` is not handled"))
    }
}
