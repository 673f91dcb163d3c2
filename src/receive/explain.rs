//! Explains what a change would come to at an endpoint: which objects would be requested, and why not the
//! others. Nothing is requested.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::summary::summary;
use crate::endpoint::Endpoint;
use crate::event::git_ref::GitRef;
use crate::event::image::ImageReference;
use crate::event::normal_form::{NormalEvent, NormalRef};
use crate::event::repository_url::RepositoryUrl;
use crate::event::{BucketService, Event};
use crate::expression::{Expression, VariableName};
use crate::filter::{self, Filter};
use crate::filter_input::FilterInput;
use crate::fleet::options::SubscribedEndpoint;
use crate::flux::selection::Selection;
use crate::matching::{self, Candidate, CandidateVerdict, Inventory, SelectionOf};
use crate::provider::{ParseContext, Provider};

/// A change to explain, as a query of the page for operators and as options of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainQuery {
    /// The endpoint by its name; one of a subscription as `SUBSCRIPTION/ENDPOINT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Any URL of a Git repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// A branch, or a full ref.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// An image with its tag or digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The identifier of a delivery that a running instance remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainReport {
    pub endpoint: String,
    /// The events, in a line.
    pub event: String,
    /// Why the endpoint ignores the events before any object is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
    pub candidates: Vec<Candidate>,
    /// Kinds whose objects cannot be listed, each with the missing right.
    pub unlistable: Vec<String>,
    /// How far the explanation can be trusted.
    pub notes: Vec<String>,
    /// How many objects are known.
    pub known_objects: usize,
}

impl ExplainReport {
    /// Whether an object would be requested.
    pub fn requests_anything(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.verdict == CandidateVerdict::Tracks)
    }
}

/// The parts of an endpoint that decide.
#[derive(Clone, Copy)]
pub struct ExplainRules<'r> {
    pub name: &'r str,
    filter: &'r Filter,
    selection: &'r Selection,
    /// None where the events come through a publisher.
    provider: Option<(&'static Provider, ParseContext<'r>)>,
    is_suspended: bool,
}

impl<'r> ExplainRules<'r> {
    pub fn of_endpoint(endpoint: &'r Endpoint) -> ExplainRules<'r> {
        ExplainRules {
            name: &endpoint.name,
            filter: &endpoint.filter,
            selection: &endpoint.selection,
            provider: Some((endpoint.provider, endpoint.parse_context())),
            is_suspended: endpoint.suspended,
        }
    }

    pub fn of_subscribed(endpoint: &'r SubscribedEndpoint) -> ExplainRules<'r> {
        let SubscribedEndpoint { name, filter, selection, .. } = endpoint;
        ExplainRules { name, filter, selection, provider: None, is_suspended: false }
    }
}

impl ExplainQuery {
    /// The events that a provider would tell of.
    ///
    /// # Errors
    /// What is missing or cannot be read, and the fix.
    pub fn events(&self) -> Result<Vec<NormalEvent>, String> {
        let ExplainQuery { repo, reference, commit, image, bucket, .. } = self;
        let event = match (repo, image, bucket) {
            (Some(repo), None, None) => {
                let url = RepositoryUrl::parse(repo).map_err(|err| format!("repo: {err}"))?;
                let name = reference.as_deref().unwrap_or("main");
                let name = GitRef::from_full_name(name).unwrap_or_else(|| GitRef::branch(name));
                let moved =
                    NormalRef { name: name.as_str().to_owned(), commit: commit.clone(), deleted: false };
                NormalEvent::Git { repository: vec![url.to_string()], refs: Some(vec![moved]) }
            }
            (None, Some(image), None) => {
                ImageReference::parse(image).map_err(|err| format!("image: {err}"))?;
                NormalEvent::Image { images: vec![image.clone()], deleted: false }
            }
            (None, None, Some(name)) => NormalEvent::Bucket { name: name.clone() },
            _ => return Err("name one change: repo (with ref), image, bucket or delivery".to_owned()),
        };
        Ok(vec![event])
    }
}

/// Explains what events come to.
pub fn explain(
    rules: ExplainRules<'_>,
    inventory: &RwLock<Inventory>,
    normal: &[NormalEvent],
) -> ExplainReport {
    let mut events: Vec<Event> = normal.iter().filter_map(NormalEvent::to_event).collect();
    if let Some((provider, context)) = rules.provider {
        provider.add_known_hosts(&mut events, &context);
        for event in &mut events {
            if let Event::Bucket(event) = event {
                event.service = service_of(provider);
            }
        }
    }
    let mut report = ExplainReport {
        endpoint: rules.name.to_owned(),
        event: summary(&events),
        ignored: None,
        candidates: Vec::new(),
        unlistable: Vec::new(),
        notes: Vec::new(),
        known_objects: inventory.read().object_count(),
    };
    if events.is_empty() {
        report.event = normal.iter().map(describe).collect::<Vec<_>>().join("; ");
        report
            .notes
            .push("what it was about is remembered in words alone, which cannot be matched again".to_owned());
        return report;
    }
    if rules.is_suspended {
        report.ignored = Some("the endpoint is suspended".to_owned());
        return report;
    }
    let narrowed = match rules.filter.narrow(events) {
        Ok(events) => events,
        Err(none_left) => {
            report.ignored = Some(none_left.to_string());
            return report;
        }
    };
    if rules.filter.paths.is_some() {
        report
            .notes
            .push("`paths` was not looked at: only a delivery says which files have changed".to_owned());
    }
    let input = FilterInput::named(usual_event_type(rules));
    let events = match &rules.filter.condition {
        Some(condition) if reads_the_payload(condition) => {
            report.notes.push(format!(
                "`filter` was not evaluated, it reads what only a delivery has: {}",
                condition.text()
            ));
            narrowed
        }
        Some(condition) => match filter::fulfilling(condition, narrowed, &input, &mut |_| {}) {
            Ok(events) => events,
            Err(none_left) => {
                report.ignored = Some(none_left.to_string());
                return report;
            }
        },
        None => narrowed,
    };
    if rules.selection.filters().any(reads_the_payload) {
        report.notes.push(
            "filters of `resources` read what only a delivery has, which is absent here; their verdicts may differ"
                .to_owned(),
        );
    }
    let of = SelectionOf { endpoint: rules.name, selection: rules.selection };
    let explanation = matching::explain(inventory, &events, of, &input);
    report.candidates = explanation.candidates;
    report.unlistable = explanation.unlistable;
    report
}

/// An event that cannot be matched again, in words.
fn describe(event: &NormalEvent) -> String {
    match event {
        NormalEvent::Other { summary } => summary.clone(),
        _ => "an event".to_owned(),
    }
}

fn reads_the_payload(condition: &Expression) -> bool {
    [VariableName::Req, VariableName::Headers, VariableName::Claims].iter().any(|name| condition.names(*name))
}

fn usual_event_type(rules: ExplainRules<'_>) -> String {
    let header = rules.provider.and_then(|(provider, _)| provider.event_header);
    header.map(|header| header.usual.to_owned()).unwrap_or_default()
}

/// Whose buckets a provider tells of.
fn service_of(provider: &Provider) -> BucketService {
    match provider.name {
        "GCS" => BucketService::Gcp,
        "EventBridge" | "SNS" => BucketService::Aws,
        _ => BucketService::S3Compatible,
    }
}
