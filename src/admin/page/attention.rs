//! One line that says fine, or what needs someone.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::AdminState;
use super::super::text::{ago, length};
use crate::history::{DeliveryRecord, TargetState};
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
    let mut items = Vec::new();
    state.service.history.read(|records| {
        let mut by_endpoint: BTreeMap<String, Vec<&DeliveryRecord>> = BTreeMap::new();
        for record in records {
            by_endpoint.entry(record.id.endpoint.to_string()).or_default().push(record);
        }
        for (endpoint, records) in by_endpoint {
            let link = |record: &DeliveryRecord| Some(format!("/delivery/{}", record.id));
            if let Some(silence) = Silence::of(&records, now) {
                let Silence { since, usual } = silence;
                let text = format!(
                    "Endpoint {endpoint} is silent: nothing for {}, usually every {}.",
                    length(since),
                    length(usual)
                );
                items.push(Item { text, link: link(records[0]) });
            }
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
            items.extend(
                records
                    .iter()
                    .filter(|record| is_recent(record.received))
                    .flat_map(|record| of_targets(record)),
            );
        }
    });
    // Many deliveries wait for one object.
    items.dedup_by(|later, first| later.text == first.text);
    items.truncate(MAX_ITEMS);
    items
}

/// Lines that are shown; the first ones are enough to begin with.
const MAX_ITEMS: usize = 30;

fn of_targets(record: &DeliveryRecord) -> Vec<Item> {
    let link = Some(format!("/delivery/{}", record.id));
    let mut items = Vec::new();
    for target in &record.targets {
        let failing = target.failure.as_ref().filter(|_| target.state() == TargetState::Failing);
        if let Some(why) = failing {
            items.push(Item {
                text: format!("{} cannot be requested: {why}", target.target),
                link: link.clone(),
            });
        }
        if target.arrival.is_some_and(|arrival| matches!(arrival.result, RevisionCheckLabel::GivenUp)) {
            items.push(Item {
                text: format!("{} does not show what was pushed; see its status.", target.target),
                link: link.clone(),
            });
        }
    }
    items
}

/// An endpoint that has been silent for much longer than usual.
pub(super) struct Silence {
    since: Duration,
    usual: Duration,
}

/// Deliveries that it takes to know what is usual.
const MIN_DELIVERIES: usize = 5;

/// What is shorter is no silence.
const MIN_SILENCE: Duration = Duration::from_secs(60 * 60);

/// How many usual pauses make a silence.
const SILENT_PAUSES: u32 = 10;

impl Silence {
    /// Looks at the records of an endpoint, the latest first.
    fn of(records: &[&DeliveryRecord], now: Timestamp) -> Option<Silence> {
        let usual = usual_pause(records)?;
        let since = now.duration_since(records.first()?.received).unsigned_abs();
        (since > MIN_SILENCE.max(usual.saturating_mul(SILENT_PAUSES))).then_some(Silence { since, usual })
    }
}

/// The median pause between two deliveries, if there are enough to tell.
pub(super) fn usual_pause(records: &[&DeliveryRecord]) -> Option<Duration> {
    if records.len() < MIN_DELIVERIES {
        return None;
    }
    let mut pauses: Vec<Duration> = records
        .windows(2)
        .map(|pair| pair[0].received.duration_since(pair[1].received).unsigned_abs())
        .collect();
    pauses.sort_unstable();
    pauses.get(pauses.len() / 2).copied()
}
