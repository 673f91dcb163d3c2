//! Other clusters, and the config in force with its warnings.

use maud::{Markup, html};
use serde_json::Value;

use super::super::{AdminState, describe};
use super::table;

pub(super) fn fleet_section(state: &AdminState) -> Markup {
    let subscribers = state.publisher.as_ref().map(|publisher| publisher.to_json());
    let subscribers = subscribers.as_ref().and_then(|page| page["subscribers"].as_array().cloned());
    let publishers = state.subscriptions.statuses();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    html! {
        @if let Some(subscribers) = subscribers {
            section aria-labelledby="subscribers-title" {
                h2 id="subscribers-title" { "Subscribers" }
                (table(
                    "Subscribers",
                    &["Subscriber", "Connected since", "Entries behind", "Last refused"],
                    &html! {
                        @for row in &subscribers {
                            tr {
                                td { (text(row, "name")) }
                                td {
                                    @if row["streams"] == 0 { span class="bad" { "not connected" } }
                                    @else { (text(row, "connected")) }
                                }
                                td { (row["lagEntries"].as_u64().map(|lag| lag.to_string()).unwrap_or_default()) }
                                td { (text(row, "refused")) }
                            }
                        }
                    },
                ))
            }
        }
        @if !publishers.is_empty() {
            section aria-labelledby="publishers-title" {
                h2 id="publishers-title" { "Publishers" }
                (table(
                    "Publishers",
                    &["Publisher", "URL", "State", "Last event"],
                    &html! {
                        @for status in &publishers {
                            tr {
                                td { (status.name) }
                                td { (status.url) }
                                td {
                                    @match &status.connected {
                                        Some(since) => { "connected since " (since) }
                                        None => {
                                            span class="bad" { (status.failure.as_deref().unwrap_or("connecting")) }
                                        }
                                    }
                                }
                                td { (status.last_event.as_deref().unwrap_or_default()) }
                            }
                        }
                    },
                ))
            }
        }
    }
}

pub(super) fn config_section(state: &AdminState) -> Markup {
    let serving = state.service.registry.get();
    let config = describe(&serving, &state.options);
    let warnings = state.service.config_state.warnings();
    html! {
        section id="config" aria-labelledby="config-title" {
            h2 id="config-title" { "Config in force" }
            @if !warnings.is_empty() {
                ul class="attention" { @for warning in &warnings { li class="warn" { (warning) } } }
            }
            details {
                summary { "As it is served, without keys and hook paths" }
                pre tabindex="0" { (format!("{config:#}")) }
            }
        }
    }
}
