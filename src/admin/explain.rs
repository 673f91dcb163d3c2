//! `/explain`: what a change would come to at an endpoint, for `flux-recv explain --instance`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::AdminState;
use crate::receive::{ExplainQuery, ExplainReport, ExplainRules};

pub(super) async fn explain(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    let query = match web::Query::<ExplainQuery>::from_query(request.query_string()) {
        Ok(query) => query.into_inner(),
        Err(err) => return HttpResponse::BadRequest().body(format!("{err}\n")),
    };
    match report(&state, &query) {
        Ok(report) => HttpResponse::Ok().json(report),
        Err(why) => HttpResponse::BadRequest().body(format!("{why}\n")),
    }
}

/// # Errors
/// What is missing in the query, or is not there.
pub(super) fn report(state: &AdminState, query: &ExplainQuery) -> Result<ExplainReport, String> {
    let (endpoint, events) = match &query.delivery {
        Some(id) => {
            let found =
                state.service.history.find(id, |entry| (entry.id.endpoint.to_string(), entry.events.clone()));
            found.ok_or_else(|| {
                format!("no delivery `{id}` is remembered; `flux-recv deliveries` lists those that are")
            })?
        }
        None => (query.endpoint.clone().unwrap_or_default(), query.events()?),
    };
    let name = endpoint.as_str();
    let serving = state.service.registry.get();
    let subscribed = state.subscriptions.endpoint(name);
    let rules = match (serving.endpoints.named(name), &subscribed) {
        (Some(endpoint), _) => ExplainRules::of_endpoint(endpoint),
        (None, Some(endpoint)) => ExplainRules::of_subscribed(endpoint),
        (None, None) => return Err(format!("no endpoint is called `{name}`")),
    };
    let report = state.service.handler.explain(rules, &events);
    report.ok_or_else(|| "events go to Flux v1, which matches them itself".to_owned())
}
