//! Explains which objects an event concerns, and why not the others. It asks [`candidates`] as a delivery does,
//! and looks besides for objects that the event may have been meant for.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::inventory::{Inventory, Object, Tracked};
use super::misses::{MissReason, NearMiss, SelectionOf, describe_selection_miss, tracked};
use super::{Candidates, candidates};
use crate::event::Event;
use crate::expression::{Expression, VariableName};
use crate::filter_input::FilterInput;
use crate::flux::selection::{SelectionMiss, SelectionResult};
use crate::flux::{Kind, Target};

/// What a delivery would come to, object by object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Candidates in the order in which they are shown: those that are requested first.
    pub candidates: Vec<Candidate>,
    /// Kinds whose objects cannot be listed, each with the missing right.
    pub unlistable: Vec<String>,
}

/// An object, and why it is or is not requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub object: String,
    pub verdict: CandidateVerdict,
    /// The reason in words.
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CandidateVerdict {
    /// It is requested.
    Tracks,
    Suspended,
    FilterIsFalse,
    TracksSomethingElse,
    NotInNamespaces,
    NoConsent,
    NotInResources,
    /// It references the same path at another host.
    OtherHost,
    /// It references something that is written nearly alike.
    Similar,
}

impl CandidateVerdict {
    /// The verdict in a word or two, for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            CandidateVerdict::Tracks => "requested",
            CandidateVerdict::Suspended => "suspended",
            CandidateVerdict::FilterIsFalse => "filter is false",
            CandidateVerdict::TracksSomethingElse => "tracks something else",
            CandidateVerdict::NotInNamespaces => "other namespace",
            CandidateVerdict::NoConsent => "no consent",
            CandidateVerdict::NotInResources => "not in resources",
            CandidateVerdict::OtherHost => "other host",
            CandidateVerdict::Similar => "similar name",
        }
    }
}

/// Explains which objects these events concern. Filters and distances between names are slow, so that the
/// inventory is locked for the candidates alone.
pub fn explain(
    inventory: &RwLock<Inventory>,
    events: &[Event],
    of: SelectionOf<'_>,
    input: &FilterInput,
) -> Explanation {
    let selection = of.selection;
    let (found, objects): (Candidates<'_>, Vec<Arc<Object>>) = {
        let inventory = inventory.read();
        (candidates(&inventory, events, selection), inventory.objects().cloned().collect())
    };
    let mut matched = found.decide(events, selection, input);
    let mut rows: Vec<Candidate> = Vec::new();
    let mut row = |target: &Target, verdict, reason: String| {
        rows.push(Candidate { object: target.to_string(), verdict, reason });
    };
    for target in &matched.targets {
        let object = objects.iter().find(|object| object.target == *target);
        let reason = object.map(|object| format!("tracks {}", tracked(object)));
        row(target, CandidateVerdict::Tracks, reason.unwrap_or_default());
    }
    for skipped in &matched.skipped {
        row(
            &skipped.target,
            CandidateVerdict::Suspended,
            "`spec.suspend` is true; `flux resume` it".to_owned(),
        );
    }
    for NearMiss { object, why } in &matched.missed {
        let (verdict, reason) = match why {
            MissReason::FilteredOut => {
                (CandidateVerdict::FilterIsFalse, filters_with_values(object, events, of, input))
            }
            MissReason::TracksSomethingElse => {
                (CandidateVerdict::TracksSomethingElse, format!("tracks {}", tracked(object)))
            }
            MissReason::NotSelected(miss) => {
                let verdict = match miss {
                    SelectionMiss::Namespace => CandidateVerdict::NotInNamespaces,
                    SelectionMiss::Consent => CandidateVerdict::NoConsent,
                    SelectionMiss::Resources => CandidateVerdict::NotInResources,
                };
                (verdict, describe_selection_miss(*why, of))
            }
        };
        row(&object.target, verdict, reason);
    }
    let known: BTreeSet<String> = rows.iter().map(|row| row.object.clone()).collect();
    let elsewhere = at_other_hosts(&objects, events);
    rows.extend(elsewhere.into_iter().filter(|row| !known.contains(&row.object)));
    if rows.is_empty() {
        rows = similar(&objects, events);
    }
    let unlistable = std::mem::take(&mut matched.unlistable);
    Explanation { candidates: rows, unlistable: unlistable.iter().map(ToString::to_string).collect() }
}

/// The filters that are false for an object, each with the values that it reads.
fn filters_with_values(
    object: &Object,
    events: &[Event],
    of: SelectionOf<'_>,
    input: &FilterInput,
) -> String {
    let SelectionResult::If(filters) = of.selection.choose(&object.target, &object.marks) else {
        return String::new();
    };
    let view = object.view();
    let event = events.first().map(|event| input.normal_form(event));
    let described = filters.into_iter().map(|filter| {
        let mut values: Vec<String> = Vec::new();
        for (variable, json) in [(VariableName::Res, &view), (VariableName::Event, &event)] {
            values.extend(json.iter().flat_map(|json| values_of(filter, variable, json)));
        }
        for variable in [VariableName::Req, VariableName::Headers, VariableName::Claims] {
            values.extend(input.json_of(variable).iter().flat_map(|json| values_of(filter, variable, json)));
        }
        let values = if values.is_empty() { String::new() } else { format!(": {}", values.join(", ")) };
        format!("`{}` is false{values}", filter.text())
    });
    described.collect::<Vec<_>>().join("; ")
}

/// Characters of a value that are shown.
const MAX_VALUE_CHARS: usize = 80;

fn values_of(filter: &Expression, variable: VariableName, json: &serde_json::Value) -> Vec<String> {
    let value_at = |path: &str| {
        let fields = path.split('.').skip(1);
        let value = { fields }.try_fold(json, |value, field| value.get(field));
        let text = value.map_or_else(|| "absent".to_owned(), ToString::to_string);
        let shown: String = text.chars().take(MAX_VALUE_CHARS).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        format!("{path} = {shown}{more}")
    };
    // The whole variable would be everything there is.
    filter.fields_of(variable).filter(|path| path.contains('.')).map(value_at).collect()
}

/// GitRepositories whose path is that of the event, at another host.
fn at_other_hosts(objects: &[Arc<Object>], events: &[Event]) -> Vec<Candidate> {
    let mut rows = Vec::new();
    for event in events {
        let Event::Git(event) = event else { continue };
        for object in objects {
            let Tracked::Git { url, .. } = &object.tracked else { continue };
            let same_path = event.repository.iter().find(|other| other.path() == url.path());
            let Some(other) = same_path.filter(|other| other.host() != url.host()) else { continue };
            let reason = format!(
                "references {} at {}, the event names {}; if both are one forge, add `gitHosts: [{}]` to the endpoint",
                url.path(),
                url.host(),
                other.host(),
                url.host()
            );
            let verdict = CandidateVerdict::OtherHost;
            rows.push(Candidate { object: object.target.to_string(), verdict, reason });
        }
    }
    rows.sort_by(|one, other| one.object.cmp(&other.object));
    rows.dedup();
    rows
}

/// Objects that are named where nothing else is.
const MAX_SIMILAR: usize = 3;

/// Bytes of a name that is compared with others; comparing takes time by the product of two lengths.
const MAX_COMPARED_BYTES: usize = 256;

/// The largest distance, in edits per character, at which two names count as one that is misspelt.
const MAX_DISTANCE: f64 = 0.34;

/// The objects whose repository, image or bucket is written most like that of the event.
fn similar(objects: &[Arc<Object>], events: &[Event]) -> Vec<Candidate> {
    let is_short = |(_, name): &(bool, String)| name.len() <= MAX_COMPARED_BYTES;
    let wanted: Vec<(bool, String)> = events.iter().flat_map(names_of_event).filter(is_short).collect();
    let mut found: Vec<(f64, Candidate)> = Vec::new();
    for object in objects {
        let Some(name) = name_of_object(object).filter(|name| name.len() <= MAX_COMPARED_BYTES) else {
            continue;
        };
        let is_git = object.target.kind == Kind::GitRepository;
        let distances = wanted.iter().filter(|(of_git, _)| *of_git == is_git);
        let nearest = distances
            .map(|(_, wanted)| (1.0 - strsim::normalized_damerau_levenshtein(wanted, &name), wanted))
            .min_by(|one, other| one.0.total_cmp(&other.0));
        let Some((distance, wanted)) = nearest.filter(|(distance, _)| *distance <= MAX_DISTANCE) else {
            continue;
        };
        let reason = format!("references {name}, the event names {wanted}; is one of them misspelt?");
        let verdict = CandidateVerdict::Similar;
        found.push((distance, Candidate { object: object.target.to_string(), verdict, reason }));
    }
    found.sort_by(|one, other| one.0.total_cmp(&other.0).then_with(|| one.1.object.cmp(&other.1.object)));
    found.into_iter().take(MAX_SIMILAR).map(|(_, candidate)| candidate).collect()
}

/// What an event names, and whether that is a Git repository.
fn names_of_event(event: &Event) -> Vec<(bool, String)> {
    match event {
        Event::Git(event) => event.repository.iter().map(|url| (true, url.short())).collect(),
        Event::Image(event) => event.names.iter().map(|name| (false, name.to_string())).collect(),
        Event::Bucket(event) => vec![(false, event.name.clone())],
        Event::Chart(_) | Event::Anything { .. } => Vec::new(),
    }
}

fn name_of_object(object: &Object) -> Option<String> {
    match &object.tracked {
        Tracked::Git { url, .. } => Some(url.short()),
        Tracked::OciArtifact { image, .. } | Tracked::Image { image, .. } => Some(image.to_string()),
        Tracked::Bucket { name, .. } => Some(name.to_string()),
        _ => None,
    }
}
