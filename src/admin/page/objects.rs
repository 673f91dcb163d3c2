//! The objects that deliveries have reached: by which endpoints, when last, and what is pending.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::AdminState;
use super::super::text::ago;
use super::table;
use crate::flux::Target;
use crate::history::TargetState;

#[derive(Default)]
struct ObjectRow {
    endpoints: BTreeSet<String>,
    requested: Option<Timestamp>,
    state: Option<TargetState>,
    failure: Option<String>,
    last: Option<Timestamp>,
}

/// Objects on the page; those whose last delivery is the most recent.
const MAX_ROWS: usize = 100;

pub(super) fn section(state: &AdminState) -> Markup {
    let mut objects: BTreeMap<Target, ObjectRow> = BTreeMap::new();
    state.service.history.read(|records| {
        for record in records {
            for target in &record.targets {
                let row = objects.entry(target.target.clone()).or_default();
                row.endpoints.insert(record.id.endpoint.to_string());
                row.requested = row.requested.max(target.requested);
                if row.last < Some(record.received) {
                    row.last = Some(record.received);
                    row.state = Some(target.state());
                    row.failure = target.failure.as_ref().map(ToString::to_string);
                }
            }
        }
    });
    let pending = state.service.handler.pending_targets();
    let count = objects.len();
    let mut rows: Vec<(Target, ObjectRow)> = objects.into_iter().collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.last));
    let rows = html! {
        @for (target, row) in rows.iter().take(MAX_ROWS) {
            tr {
                td { (target) }
                td { (row.endpoints.iter().cloned().collect::<Vec<_>>().join(", ")) }
                td { (row.requested.map(ago).unwrap_or_default()) }
                td {
                    @match (row.state, &row.failure) {
                        (Some(TargetState::Failing), Some(why)) => {
                            span class="bad" { "failing, retrying: " (why) }
                        }
                        (Some(state), _) => { (state.as_str()) }
                        (None, _) => {}
                    }
                    @if pending.contains(target) { " (a request is pending)" }
                }
            }
        }
    };
    html! {
        section id="objects" aria-labelledby="objects-title" {
            h2 id="objects-title" { "Objects" }
            @if count == 0 {
                p class="muted" { "No delivery that is remembered has reached one." }
            } @else {
                (table("Objects", &["Object", "Endpoints", "Last request", "State"], &rows))
                @if count > MAX_ROWS { p class="muted" { (count - MAX_ROWS) " more" } }
            }
        }
    }
}
