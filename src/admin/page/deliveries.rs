//! The deliveries: searched, filtered, each with a link to its story.

use maud::{Markup, html};
use serde::Deserialize;

use super::super::AdminState;
use super::super::text::{ago, encoded};
use super::table;
use crate::event::normal_form::NormalEvent;
use crate::history::{DeliveryRecord, TargetState};

/// What is searched for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DeliveryQuery {
    /// A repository, commit, object or identifier, or a part of one.
    #[serde(default)]
    q: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    outcome: String,
}

/// Deliveries on a page; search finds the others.
const MAX_ROWS: usize = 100;

/// Characters of a search that are looked at.
const MAX_QUERY_CHARS: usize = 256;

pub(super) fn search_form(state: &AdminState, query: &DeliveryQuery) -> Markup {
    let serving = state.service.registry.get();
    html! {
        form class="search" method="get" action="/" role="search" {
            div {
                label for="q" { "Repository, commit, object or delivery" }
                input id="q" name="q" type="search" value=(query.q) size="36";
            }
            div {
                label for="endpoint" { "Endpoint" }
                select id="endpoint" name="endpoint" {
                    option value="" { "all" }
                    @for name in state.subscriptions.endpoint_names() {
                        option value=(name) selected[*name == *query.endpoint] { (name) }
                    }
                    @for endpoint in serving.endpoints.iter() {
                        option value=(endpoint.name) selected[*endpoint.name == *query.endpoint] { (endpoint.name) }
                    }
                }
            }
            div {
                label for="outcome" { "Outcome" }
                select id="outcome" name="outcome" {
                    option value="" { "all" }
                    @for outcome in ["accepted", "queued", "unmatched", "ignored", "refused", "unreadable"] {
                        option value=(outcome) selected[outcome == query.outcome] { (outcome) }
                    }
                }
            }
            button type="submit" { "Search" }
        }
    }
}

pub(super) fn section(state: &AdminState, query: &DeliveryQuery) -> Markup {
    let (rows, found) = state.service.history.read(|records| {
        let mut found: Vec<&DeliveryRecord> = records.filter(|record| is_wanted(record, query)).collect();
        found.sort_by_key(|record| std::cmp::Reverse(record.received));
        let rows = html! { @for record in found.iter().take(MAX_ROWS) { (row(record)) } };
        (rows, found.len())
    });
    html! {
        section id="deliveries" aria-labelledby="deliveries-title" {
            h2 id="deliveries-title" { "Deliveries" }
            @if found == 0 {
                p class="muted" { "None that is remembered matches." }
            } @else {
                (table("Deliveries", &["Received", "Endpoint", "What", "Outcome", "Objects", "Delivery"], &rows))
                @if found > MAX_ROWS { p class="muted" { (found - MAX_ROWS) " more; search for them." } }
            }
        }
    }
}

fn is_wanted(record: &DeliveryRecord, query: &DeliveryQuery) -> bool {
    let wanted: String = query.q.trim().chars().take(MAX_QUERY_CHARS).collect::<String>().to_lowercase();
    let holds = |text: &str| text.to_lowercase().contains(&wanted);
    let is_named = wanted.is_empty()
        || holds(&record.id.to_string())
        || record.provider_id.as_deref().is_some_and(holds)
        || holds(&record.final_outcome().detail())
        || record.targets.iter().any(|target| holds(&target.target.to_string()))
        || record.events.iter().any(|event| names(event).iter().any(|name| holds(name)));
    is_named
        && (query.endpoint.is_empty() || *record.id.endpoint == *query.endpoint)
        && (query.outcome.is_empty() || record.final_outcome().label().as_str() == query.outcome)
}

/// What an event names: repositories with refs and commits, or images.
pub(super) fn names(event: &NormalEvent) -> Vec<String> {
    match event {
        NormalEvent::Git { repository, refs } => {
            let refs = refs.iter().flatten();
            let refs =
                refs.map(|moved| format!("{} {}", moved.name, moved.commit.as_deref().unwrap_or_default()));
            repository.iter().cloned().chain(refs).collect()
        }
        NormalEvent::Image { images, .. } => images.clone(),
        NormalEvent::Bucket { name } => vec![name.clone()],
        NormalEvent::Other { summary } => vec![summary.clone()],
    }
}

fn row(record: &DeliveryRecord) -> Markup {
    let outcome = record.final_outcome();
    let failing = record.targets.iter().filter(|target| target.state() == TargetState::Failing).count();
    let label = outcome.label().as_str();
    html! {
        tr {
            td { time datetime=(record.received) { (ago(record.received)) } }
            td { (record.id.endpoint) }
            td class="wide" { (outcome.detail()) }
            td class={ @match label { "accepted" => "good", "refused" | "unmatched" => "bad", _ => "" } } { (label) }
            td {
                @if failing > 0 { span class="bad" { (failing) " failing" } br; }
                (record.targets.len())
            }
            td { a href={ "/delivery/" (encoded(&record.id.to_string())) } { (record.id) } }
        }
    }
}
