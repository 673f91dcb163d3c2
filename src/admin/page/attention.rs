//! One line that says fine, or what needs someone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::AdminState;
use super::super::text::{ago, encoded};
use crate::flux::Target;
use crate::history::{DeliveryRecord, TargetRecord, TargetState};
use crate::metrics::{OutcomeLabel, RevisionCheckLabel};

/// Something that needs someone, and where to look.
struct Item {
    text: String,
    link: Option<String>,
}

pub(super) fn section(state: &AdminState) -> Markup {
    let items = items(state);
    html! {
        section id="attention" aria-labelledby="attention-title" {
            h2 id="attention-title" { "What needs someone" }
            @if items.is_empty() {
                p class="fine good" { "Fine: nothing needs anyone." }
            } @else {
                ul class="attention" {
                    @for item in &items {
                        li class="bad" {
                            @match &item.link {
                                Some(link) => { a href=(link) { (item.text) } }
                                None => { (item.text) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn items(state: &AdminState) -> Vec<Item> {
    let mut items = Vec::new();
    let mut plain = |text: String| items.push(Item { text, link: None });
    if !state.journal.is_writable() {
        plain("The journal cannot be written: deliveries are refused with 503.".to_owned());
    }
    if let Some((at, mistake)) = state.service.config_state.failed_reload() {
        plain(format!("The changed config is not in force ({}): {mistake}", ago(at)));
    }
    for line in state.service.handler.unlistable() {
        plain(line);
    }
    for problem in state.publisher.iter().flat_map(|publisher| publisher.problems()) {
        plain(problem);
    }
    for status in state.subscriptions.statuses().into_iter().filter(|status| status.connected.is_none()) {
        let why = status.failure.unwrap_or_else(|| "connecting".to_owned());
        plain(format!("Publisher {} is not connected: {why}", status.name));
    }
    items.extend(of_deliveries(state));
    items
}

/// The time within which trouble counts as present.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);

fn of_deliveries(state: &AdminState) -> Vec<Item> {
    let now = Timestamp::now();
    let is_recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < RECENT;
    let mut seen: BTreeSet<Target> = BTreeSet::new();
    let silent = state.service.history.silent_endpoints(now);
    let mut items: Vec<Item> = silent
        .iter()
        .map(|silence| Item {
            text: format!("Endpoint {} is silent: {silence}.", silence.endpoint),
            link: Some(format!("/?endpoint={}#deliveries", encoded(&silence.endpoint))),
        })
        .collect();
    state.service.history.read(|records| {
        let mut by_endpoint: BTreeMap<String, Vec<&DeliveryRecord>> = BTreeMap::new();
        for record in records {
            by_endpoint.entry(record.id.endpoint.to_string()).or_default().push(record);
        }
        for (endpoint, records) in by_endpoint {
            let link =
                |record: &DeliveryRecord| Some(format!("/delivery/{}", encoded(&record.id.to_string())));
            // The latest says whether it is over.
            let latest = records.iter().find(|record| is_recent(record.received));
            if let Some(record) = latest
                && matches!(
                    record.final_outcome().label(),
                    OutcomeLabel::Refused
                        | OutcomeLabel::Unmatched
                        | OutcomeLabel::Unreadable
                        | OutcomeLabel::Unavailable
                        | OutcomeLabel::TooMany
                        | OutcomeLabel::TooLarge
                )
            {
                let outcome = record.final_outcome();
                let text = format!(
                    "Endpoint {endpoint}: the last delivery was {} ({}): {}",
                    outcome.label().as_str(),
                    ago(record.received),
                    outcome.detail()
                );
                items.push(Item { text, link: link(record) });
            }
            let recent = records.iter().filter(|record| is_recent(record.received));
            let of_objects =
                recent.flat_map(|record| record.targets.iter().map(move |target| (*record, target)));
            for (record, target) in of_objects {
                // The latest delivery of an object says how it is.
                if seen.insert(target.target.clone()) {
                    items.extend(of_target(record, target));
                }
            }
        }
    });
    items.truncate(MAX_ITEMS);
    items
}

/// Lines that are shown; the first ones are enough to begin with.
const MAX_ITEMS: usize = 30;

fn of_target(record: &DeliveryRecord, target: &TargetRecord) -> Option<Item> {
    let failing = target.failure.as_ref().filter(|_| target.state() == TargetState::Failing);
    let text = match (failing, target.arrival.map(|arrival| arrival.result)) {
        (Some(why), _) => format!("{} cannot be requested: {why}", target.target),
        (None, Some(RevisionCheckLabel::GivenUp)) => {
            format!("{} does not show what was pushed; see its status.", target.target)
        }
        _ => return None,
    };
    Some(Item { text, link: Some(format!("/delivery/{}", encoded(&record.id.to_string()))) })
}
