//! The endpoints, each with what has come lately.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::AdminState;
use super::super::text::{ago, encoded};
use super::table;
use crate::history::{DeliveryRecord, length, usual_pause};
use crate::metrics::OutcomeLabel;

pub(super) fn section(state: &AdminState) -> Markup {
    let serving = state.service.registry.get();
    let rows = state.service.history.read(|records| {
        let records: Vec<&DeliveryRecord> = records.collect();
        html! {
            @for name in state.subscriptions.endpoint_names() {
                @let own: Vec<&DeliveryRecord> =
                    records.iter().copied().filter(|record| *record.id.endpoint == *name).collect();
                tr {
                    td { a href={ "/?endpoint=" (encoded(&name)) "#deliveries" } { (name) } }
                    td { "of a publisher" }
                    td { (own.first().map(|record| ago(record.received)).unwrap_or_default()) }
                    td { (usual_pause(&own).map(|pause| format!("every {}", length(pause))).unwrap_or_default()) }
                    td { (chart(&own)) }
                    td {}
                }
            }
            @for endpoint in serving.endpoints.iter() {
                @let own: Vec<&DeliveryRecord> =
                    records.iter().copied().filter(|record| record.id.endpoint == endpoint.name).collect();
                tr {
                    td { a href={ "/?endpoint=" (encoded(&endpoint.name)) "#deliveries" } { (endpoint.name) } }
                    td { (endpoint.provider.name) }
                    td {
                        @match own.first() {
                            Some(record) => { (ago(record.received)) ", " (record.final_outcome().label().as_str()) }
                            None => { span class="muted" { "nothing since the start" } }
                        }
                    }
                    td { (usual_pause(&own).map(|pause| format!("every {}", length(pause))).unwrap_or_default()) }
                    td { (chart(&own)) }
                    td { (endpoint.key_names().map(ToString::to_string).collect::<Vec<_>>().join(", ")) }
                }
            }
        }
    });
    html! {
        section id="endpoints" aria-labelledby="endpoints-title" {
            h2 id="endpoints-title" { "Endpoints" }
            (table(
                "Endpoints",
                &["Endpoint", "Provider", "Last delivery", "Usually", "Outcomes of the day", "Keys"],
                &rows,
            ))
        }
    }
}

/// What the chart tells apart.
const CLASSES: [(&str, &[OutcomeLabel]); 3] = [
    ("accepted", &[OutcomeLabel::Accepted, OutcomeLabel::Queued, OutcomeLabel::Forwarded]),
    ("unmatched", &[OutcomeLabel::Unmatched]),
    (
        "refused",
        &[OutcomeLabel::Refused, OutcomeLabel::Unreadable, OutcomeLabel::Unavailable, OutcomeLabel::TooMany],
    ),
];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CHART_WIDTH: usize = 120;

/// The outcomes of the remembered deliveries of a day as one bar, with the numbers as its text.
fn chart(records: &[&DeliveryRecord]) -> Markup {
    let now = Timestamp::now();
    let of_day = records.iter().filter(|record| now.duration_since(record.received).unsigned_abs() < DAY);
    let labels: Vec<OutcomeLabel> = of_day.map(|record| record.final_outcome().label()).collect();
    if labels.is_empty() {
        return html! { span class="muted" { "none" } };
    }
    let mut parts: Vec<(&str, usize)> = CLASSES
        .iter()
        .map(|(class, of)| (*class, labels.iter().filter(|label| of.contains(label)).count()))
        .collect();
    let counted: usize = parts.iter().map(|(_, count)| count).sum();
    parts.push(("other", labels.len() - counted));
    parts.retain(|(_, count)| *count > 0);
    let text = parts.iter().map(|(class, count)| format!("{count} {class}")).collect::<Vec<_>>().join(", ");
    let mut x = 0;
    let bars: Vec<(&str, usize, usize)> = parts
        .iter()
        .map(|(class, count)| {
            let width = (count * CHART_WIDTH / labels.len()).max(2);
            let bar = (*class, x, width);
            x += width;
            bar
        })
        .collect();
    html! {
        svg class="chart" role="img" aria-label=(text) width=(CHART_WIDTH + 8) height="12" {
            @for (class, x, width) in bars { rect class=(class) x=(x) y="0" width=(width) height="12" {} }
        }
        span class="muted" { (text) }
    }
}
