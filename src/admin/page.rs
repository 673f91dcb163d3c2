//! The page for operators: what needs someone, then endpoints, deliveries and objects. Rendered here, complete
//! without JavaScript; a script reads it again when something has changed.

mod attention;
mod deliveries;
mod delivery;
mod endpoints;
mod instance;
mod live;
mod objects;

pub use self::live::Viewers;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use maud::{DOCTYPE, Markup, html};

use super::AdminState;
use super::text::ago;

/// Adds the routes of the page.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(overview))
        .route("/delivery/{id}", web::get().to(delivery::show))
        .route("/delivery/{id}/request-again", web::post().to(delivery::request_again))
        .route("/live", web::get().to(live::live))
        .route(
            "/style.css",
            web::get().to(async || asset("text/css; charset=utf-8", include_str!("page/style.css"))),
        )
        .route(
            "/live.js",
            web::get().to(async || asset("text/javascript; charset=utf-8", include_str!("page/live.js"))),
        );
}

fn asset(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(content_type).body(text)
}

async fn overview(
    state: web::Data<AdminState>,
    query: web::Query<deliveries::DeliveryQuery>,
) -> HttpResponse {
    let query = query.into_inner();
    let body = html! {
        (deliveries::search_form(&state, &query))
        div id="live" {
            (attention::section(&state))
            (endpoints::section(&state))
            (deliveries::section(&state, &query))
            (objects::section(&state))
            (instance::fleet_section(&state))
            (instance::config_section(&state))
        }
    };
    answer(layout(&state, "flux-recv", &body))
}

fn answer(page: Markup) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::html()).body(page.into_string())
}

fn layout(state: &AdminState, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href="/style.css";
                script src="/live.js" defer {}
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                header {
                    h1 { a href="/" { "flux-recv" } }
                    nav aria-label="Sections" {
                        ul {
                            li { a href="/#attention" { "What needs someone" } }
                            li { a href="/#endpoints" { "Endpoints" } }
                            li { a href="/#deliveries" { "Deliveries" } }
                            li { a href="/#objects" { "Objects" } }
                            li { a href="/#config" { "Config" } }
                        }
                    }
                }
                main id="content" { (body) }
                footer class="muted" {
                    "replica " (state.replica) ", version " (env!("CARGO_PKG_VERSION")) ", since "
                    time datetime=(state.started) { (format!("{:.0}", state.started)) }
                    " (" (ago(state.started)) ")"
                }
            }
        }
    }
}

/// A table in a region that scrolls sideways on its own, so that the page never does.
fn table(label: &str, headers: &[&str], rows: &Markup) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(label) {
            table {
                thead { tr { @for header in headers { th scope="col" { (header) } } } }
                tbody { (rows) }
            }
        }
    }
}
