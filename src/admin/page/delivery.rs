//! One delivery: its story with times, why each object was requested or not, and text to copy.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::super::text::encoded;
use super::super::{AdminState, explain, guard};
use super::deliveries::names;
use super::{answer, layout, table};
use crate::flux::Target;
use crate::history::{DeliveryRecord, TargetRecord, length};
use crate::receive::{ExplainQuery, ExplainReport};

pub(super) async fn show(state: web::Data<AdminState>, id: web::Path<String>) -> HttpResponse {
    let Some(story) = state.service.history.find(&id, |record| story(&state, record)) else {
        let body = html! { p { "No delivery of this name is remembered any more." } };
        let page = layout(&state, "flux-recv: no such delivery", &body);
        return HttpResponse::NotFound().content_type("text/html; charset=utf-8").body(page.into_string());
    };
    let query = ExplainQuery { delivery: Some(id.clone()), ..ExplainQuery::default() };
    let explained = explain::report(&state, &query);
    let body = html! {
        div id="live" {
            (story)
            (explanation(&explained))
            (text_to_copy(&state, &id, &explained))
        }
    };
    answer(layout(&state, &format!("flux-recv: {id}"), &body))
}

fn story(state: &AdminState, record: &DeliveryRecord) -> Markup {
    let outcome = record.final_outcome();
    html! {
        section aria-labelledby="story-title" {
            h2 id="story-title" { "Delivery " (record.id) }
            ol class="story" {
                li {
                    "Received " (time(record.began()))
                    @if let Some(from) = record.from { " from " (from) }
                    @if let Some(id) = &record.provider_id { ", at the provider " code { (&**id) } }
                }
                li {
                    @match &record.key {
                        Some(key) => { "Verified with the key " code { (key) } }
                        None if record.status == 401 => { span class="bad" { "Not verified" } }
                        None => { "No key was needed" }
                    }
                    @if let Some(at) = record.steps.verified { " " (time(at)) }
                }
                @for event in &record.events { li { "About " (names(event).join(", ")) } }
                @if let Some(at) = record.steps.matched { li { "Matched " (time(at)) } }
                li {
                    "Outcome " strong { (record.outcome.label().as_str()) }
                    @if record.matched.is_some() { ", later " strong { (outcome.label().as_str()) } }
                    ": " (outcome.detail())
                    @if record.status != 0 { " (status " (record.status) " after " (length(record.took)) ")" }
                }
                @for target in &record.targets { li { (object(target)) } }
            }
            @if state.form_token.is_some() && !record.targets.is_empty() { (request_form(state, record)) }
        }
    }
}

/// How far an object has come: requested → handled → arrived.
fn object(record: &TargetRecord) -> Markup {
    html! {
        code { (record.target) } ": "
        @match (record.requested, &record.failure) {
            (Some(at), _) => { "requested " (time(at)) }
            (None, Some(why)) => { span class="bad" { "cannot be requested: " (&**why) } }
            (None, None) => { "pending" }
        }
        @if let Some(at) = record.handled { ", handled by Flux " (time(at)) }
        @if let Some(arrival) = record.arrival {
            ", revision " (arrival.result.as_str())
            @if let Some(after) = arrival.after { " after " (length(after)) }
        }
    }
}

fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (format!("{at:.3}")) } }
}

fn explanation(explained: &Result<ExplainReport, String>) -> Markup {
    html! {
        section aria-labelledby="explain-title" {
            h2 id="explain-title" { "Why these objects" }
            @match explained {
                Err(why) => { p class="muted" { (why) } }
                Ok(report) => {
                    @if let Some(why) = &report.ignored { p class="bad" { "Ignored: " (why) } }
                    @if report.candidates.is_empty() && report.ignored.is_none() {
                        p { "No object references it, nor anything written like it. " (report.known_objects) " objects are known." }
                    }
                    @if !report.candidates.is_empty() {
                        (table(
                            "Objects and reasons",
                            &["Object", "Verdict", "Reason"],
                            &html! {
                                @for candidate in &report.candidates {
                                    tr {
                                        td { (candidate.object) }
                                        td { (candidate.verdict.as_str()) }
                                        td class="wide" { (candidate.reason) }
                                    }
                                }
                            },
                        ))
                    }
                    @for line in &report.unlistable { p class="bad" { (line) } }
                    @for line in &report.notes { p class="muted" { (line) } }
                    p class="muted" { "As the config and the objects are now." }
                }
            }
        }
    }
}

/// What goes into a ticket.
fn text_to_copy(state: &AdminState, id: &str, explained: &Result<ExplainReport, String>) -> Markup {
    let record = state.service.history.find(id, DeliveryRecord::to_json).unwrap_or_default();
    let explained = explained.as_ref().ok().and_then(|report| serde_json::to_value(report).ok());
    let ticket = serde_json::json!({
        "fluxRecv": env!("CARGO_PKG_VERSION"), "replica": state.replica, "delivery": record, "explained": explained,
    });
    html! {
        section aria-labelledby="copy-title" {
            h2 id="copy-title" { "Text to copy" }
            pre tabindex="0" { (format!("{ticket:#}")) }
        }
    }
}

fn request_form(state: &AdminState, record: &DeliveryRecord) -> Markup {
    html! {
        form method="post" action={ "/delivery/" (encoded(&record.id.to_string())) "/request-again" } {
            input type="hidden" name="token" value=(state.form_token.as_deref().unwrap_or_default());
            button type="submit" { "Request again" }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RequestForm {
    #[serde(default)]
    token: String,
}

/// Requests the objects of a delivery once more, where the operator has allowed that.
pub(super) async fn request_again(
    request: HttpRequest,
    state: web::Data<AdminState>,
    id: web::Path<String>,
    form: Option<web::Form<RequestForm>>,
) -> HttpResponse {
    let Some(token) = &state.form_token else {
        return HttpResponse::Forbidden().body("set --allow-request-again to allow this\n");
    };
    if !guard::is_same_origin(&request) {
        return HttpResponse::Forbidden().body("the request comes from another site\n");
    }
    let given = form.map(|form| form.into_inner().token).unwrap_or_default();
    if !bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
        return HttpResponse::Forbidden().body("the form is of another process; load the page again\n");
    }
    let targets = state.service.history.find(&id, |record| {
        record.targets.iter().map(|target| target.target.clone()).collect::<Vec<Target>>()
    });
    let Some(targets) = targets else { return HttpResponse::NotFound().body("no such delivery\n") };
    log::info!(delivery:% = &*id, objects = targets.len(); "requested again from the page");
    if state.service.handler.request_again(&targets).await.is_err() {
        return HttpResponse::ServiceUnavailable().body("the journal cannot be written\n");
    }
    HttpResponse::SeeOther().insert_header(("Location", format!("/delivery/{}", encoded(&id)))).finish()
}
