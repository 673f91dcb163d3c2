//! What to choose at a provider: on its settings page, and through its API for webhooks.
//!
//! Each provider describes both beside its `parse`; `flux-recv urls`, `flux-recv hook` and the documents are made
//! from the descriptions.

use serde_json::Value;

/// What to enter in the provider's settings page.
pub struct ProviderSettings {
    /// Where the page is.
    pub page: &'static str,
    /// The content type to choose, if there is a choice.
    pub content_type: Option<&'static str>,
    /// Which field takes the key.
    pub secret: &'static str,
    /// The events to choose.
    pub events: EventSettings,
}

/// The events to choose at a provider.
pub enum EventSettings {
    /// In words, for people.
    Described(&'static str),
    /// By their names on the page and in the API.
    Choices(&'static [EventChoice]),
}

/// An event that a webhook can be subscribed to.
pub struct EventChoice {
    /// Its name on the settings page.
    pub label: &'static str,
    /// Its name in the API.
    pub name: &'static str,
    pub purpose: EventPurpose,
}

/// What an event is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventPurpose {
    /// Every endpoint.
    Always,
    /// Objects that reference images.
    Images,
    /// Objects that track a pull or merge request.
    PullRequests,
}

impl EventSettings {
    /// The choices; none where only words describe them.
    pub fn choices(&self) -> &'static [EventChoice] {
        match self {
            EventSettings::Described(_) => &[],
            EventSettings::Choices(choices) => choices,
        }
    }

    /// Describes them for people.
    pub fn describe(&self) -> String {
        let choices = match self {
            EventSettings::Described(text) => return (*text).to_owned(),
            EventSettings::Choices(choices) => choices,
        };
        let labels = |purpose| {
            let chosen = choices.iter().filter(move |choice| choice.purpose == purpose);
            chosen.map(|choice| choice.label).collect::<Vec<_>>().join(", ")
        };
        let mut text = labels(EventPurpose::Always);
        for (purpose, whom) in [
            (EventPurpose::Images, "images"),
            (EventPurpose::PullRequests, "objects that track a pull request"),
        ] {
            if choices.iter().any(|choice| choice.purpose == purpose) {
                text.push_str(&format!("; for {whom} also {}", labels(purpose)));
            }
        }
        text
    }
}

/// A provider's API for webhooks.
pub struct WebhookApi {
    /// The API of the provider's own service; none where everyone runs the software.
    pub service: Option<&'static str>,
    /// The path of the API at a host, as in `/api/v3`.
    pub path_at: fn(host: &str) -> &'static str,
    /// The environment variables that usually hold a token; the first one that is set counts.
    pub token_variables: &'static [&'static str],
    /// The header that carries the token, and its value.
    pub authorization: fn(token: &str) -> (&'static str, String),
    /// Further headers of every request.
    pub headers: &'static [(&'static str, &'static str)],
    /// The rights that a token needs.
    pub rights: &'static str,
    /// The path of the list of webhooks; an error says why there is none.
    pub webhooks: fn(&WebhookScope) -> Result<String, &'static str>,
    /// The query for the longest pages.
    pub page_size: &'static str,
    /// The field that holds the items of a page; none where the page is the list.
    pub items: Option<&'static str>,
    /// The method that changes a webhook.
    pub update: UpdateMethod,
    /// Reads a webhook from the list.
    pub read: fn(&Value) -> Option<Webhook>,
    /// Writes the whole form, for a new webhook or in place of what an existing one has.
    pub write: fn(&WebhookForm<'_>, Option<&Value>) -> Value,
    /// The path below a webhook that makes the provider send a test; an error says why there is none.
    pub test: fn(&WebhookScope) -> Result<&'static str, &'static str>,
    /// Past deliveries, where the API shows them.
    pub deliveries: Option<&'static DeliveryApi>,
}

/// The part of a provider's API that shows past deliveries.
pub struct DeliveryApi {
    /// The path of the list below a webhook.
    pub path: &'static str,
    /// The query for the longest pages.
    pub page_size: &'static str,
    /// The event of a test.
    pub test_event: &'static str,
    /// What asks for the next page.
    pub paging: DeliveryPaging,
    /// Reads a delivery from the list.
    pub read: fn(&Value) -> Option<PastDelivery>,
    /// The path below the list's item that sends it again.
    pub resend: &'static str,
    /// The status code of a repetition, where the answer to the request tells it.
    pub resent_code: fn(&Value) -> Option<u16>,
}

/// How a list of deliveries goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryPaging {
    /// `page=2`.
    Number,
    /// `cursor=…`, as the `Link` header of the page before says (RFC 8288).
    Cursor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMethod {
    Patch,
    Put,
    /// A new webhook in place of the old one: a change does not take the key.
    Replace,
}

/// What a webhook is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WebhookScope {
    /// `owner/name`, at GitLab with any number of groups.
    Repository(String),
    /// An organization, group, workspace or user.
    Organization(String),
    /// Everything that the instance hosts.
    Instance,
}

impl std::fmt::Display for WebhookScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WebhookScope::Repository(name) => write!(f, "repository {name}"),
            WebhookScope::Organization(name) => write!(f, "organization {name}"),
            WebhookScope::Instance => f.write_str("instance"),
        }
    }
}

/// A webhook as the provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: String,
    /// Where it posts to. A secret, since it may hold a hook path.
    pub url: String,
    pub is_active: bool,
    /// By the names that the form takes.
    pub events: Vec<String>,
    /// Whether bodies are JSON or forms; none where there is no choice.
    pub content_type: Option<String>,
    /// Whether the certificate of the URL is verified; none where a webhook has no such option.
    pub verifies_tls: Option<bool>,
    /// Why the provider no longer sends, if it says so.
    pub disabled: Option<String>,
    /// The status code of the last answer, if the list shows it.
    pub last_code: Option<u16>,
    /// The branches whose pushes are sent, where they are restricted.
    pub branch_filter: Option<String>,
    /// The item of the list, for what an update has to repeat.
    pub item: Value,
}

/// What a webhook should be.
pub struct WebhookForm<'a> {
    pub scope: &'a WebhookScope,
    pub url: &'a str,
    /// None where deliveries come without a signature.
    pub key: Option<&'a str>,
    /// By the names of the API.
    pub events: &'a [String],
}

/// A delivery that the provider remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastDelivery {
    pub id: String,
    /// What it shares with its repetitions.
    pub group: String,
    pub event: String,
    /// When it was sent, if the provider says so.
    pub at: Option<jiff::Timestamp>,
    /// The status code of the answer; none when there was no answer.
    pub code: Option<u16>,
}

impl PastDelivery {
    pub fn succeeded(&self) -> bool {
        self.code.is_some_and(|code| (200..300).contains(&code))
    }
}

/// Splits `owner/name`, for APIs that know nothing else.
pub fn owner_and_name(repository: &str) -> Result<(&str, &str), &'static str> {
    let parts = repository.split_once('/').filter(|(_, name)| !name.contains('/'));
    parts.ok_or("a repository is written `owner/name`")
}

/// The string in a field.
pub fn text(item: &Value, pointer: &str) -> Option<String> {
    item.pointer(pointer)?.as_str().map(str::to_owned)
}

/// The identifier in a field: a number, or a string.
pub fn identifier(item: &Value, pointer: &str) -> Option<String> {
    match item.pointer(pointer)? {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// The strings in a field.
pub fn texts(item: &Value, pointer: &str) -> Vec<String> {
    let items = item.pointer(pointer).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The status code in a field, as a number or as text. 0 stands for no answer.
pub fn status_code(item: &Value, pointer: &str) -> Option<u16> {
    let code = match item.pointer(pointer)? {
        Value::Number(number) => number.as_u64().and_then(|code| u16::try_from(code).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    code.filter(|code| *code != 0)
}
