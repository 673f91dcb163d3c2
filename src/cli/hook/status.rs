//! `flux-recv hook list` and `status`: what is there, and whether it works.

use std::process::ExitCode;

use serde::Serialize;

use super::api_client::ApiError;
use super::hook_urls::{WebhookTarget, masked};
use super::session::Session;
use super::{ReadArgs, StatusArgs, missing};
use crate::cli::progress;
use crate::cli::table::Table;
use crate::webhook_api::{PastDelivery, Webhook, WebhookScope};

/// A webhook in the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListRow {
    id: String,
    /// Without what is secret in it.
    url: String,
    /// The endpoint that it posts to.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    active: bool,
    events: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

pub(super) async fn list(session: &Session, args: &ReadArgs) -> anyhow::Result<ExitCode> {
    let webhooks = session.webhooks(&args.scope.scope()?).await?;
    let rows: Vec<ListRow> = webhooks.into_iter().map(|webhook| list_row(session, webhook)).collect();
    args.output.print(&rows, |rows| {
        let mut table = Table::new(&["ID", "URL", "ENDPOINT", "ACTIVE", "EVENTS", "NOTE"]);
        for row in rows {
            table.add(vec![
                row.id.clone(),
                row.url.clone(),
                row.endpoint.clone().unwrap_or_default(),
                yes_or_no(row.active),
                row.events.join(","),
                row.note.unwrap_or_default().to_owned(),
            ]);
        }
        Ok(table.draw())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list_row(session: &Session, webhook: Webhook) -> ListRow {
    let own = session.endpoint.name.to_string();
    let (endpoint, note) = match session.urls.classify(&webhook.url) {
        WebhookTarget::Present => (Some(own), None),
        WebhookTarget::Alias => (Some(own), Some("the alias; `create` changes it to the hook path")),
        WebhookTarget::Former => (Some(own), Some("a former URL; `create` changes it")),
        WebhookTarget::OtherPlace => (None, Some("a path of the endpoint at another port or place")),
        WebhookTarget::OtherEndpoint(name) => (Some(name), None),
        WebhookTarget::UnknownPath => (None, Some("a hook path of no endpoint in this config")),
        WebhookTarget::Elsewhere => (None, None),
    };
    ListRow {
        url: masked(&webhook.url),
        id: webhook.id,
        endpoint,
        active: webhook.is_active,
        events: webhook.events,
        note,
    }
}

/// The state of an endpoint's webhook in one scope.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusRow {
    scope: String,
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    active: bool,
    events: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verifies_tls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_delivery: Option<LastDelivery>,
    /// What is wrong, each with what to do.
    problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastDelivery {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// The status code of the answer; 0 when there was none.
    code: u16,
}

pub(super) async fn status(session: &Session, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let (mut rows, mut is_whole) = (Vec::new(), true);
    if args.scope.missing {
        let missing = missing::find(session, &args.cluster).await?;
        rows.extend(missing.uncovered.iter().map(|scope| absent(session, scope)));
        is_whole = missing.invisible.is_empty();
        if missing.uncovered.is_empty() && is_whole {
            progress::success("every repository is covered");
        }
    } else {
        let scope = args.scope.scope()?;
        let own = session.own_webhooks(&scope).await?;
        if own.is_empty() {
            rows.push(absent(session, &scope));
        }
        let count = own.len();
        for webhook in own {
            rows.push(status_row(session, &scope, webhook, count).await?);
        }
    }
    args.output.print(&rows, |rows| Ok(draw(rows)))?;
    let is_good = is_whole && rows.iter().all(|row| row.problems.is_empty());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn absent(session: &Session, scope: &WebhookScope) -> StatusRow {
    StatusRow {
        scope: scope.to_string(),
        exists: false,
        id: None,
        active: false,
        events: Vec::new(),
        content_type: None,
        verifies_tls: None,
        last_delivery: None,
        problems: vec![format!(
            "no webhook posts to endpoint {}; `flux-recv hook create` makes it",
            session.endpoint.name
        )],
    }
}

async fn status_row(
    session: &Session,
    scope: &WebhookScope,
    webhook: Webhook,
    count: usize,
) -> Result<StatusRow, ApiError> {
    let provider = session.endpoint.provider.name;
    let last = last_delivery(session, scope, &webhook).await?;
    let mut problems = Vec::new();
    let mut problem = |is_one: bool, text: String| {
        if is_one {
            problems.push(text);
        }
    };
    let is_former = session.urls.classify(&webhook.url) == WebhookTarget::Former;
    problem(
        count > 1,
        format!(
            "{count} webhooks post to the endpoint, so each push comes {count} times; `create` leaves one"
        ),
    );
    problem(is_former, "posts to a former URL; `create` changes it".to_owned());
    problem(!webhook.is_active, "not active; `create` switches it on".to_owned());
    let has_all = webhook.events.iter().any(|event| event == "*");
    let needed = session.needed_events(false).into_iter();
    let lacking: Vec<String> = needed.filter(|event| !has_all && !webhook.events.contains(event)).collect();
    problem(!lacking.is_empty(), format!("lacks the events {}; `create` adds them", lacking.join(", ")));
    problem(
        webhook.verifies_tls == Some(false),
        "does not verify certificates; `create` switches it on".to_owned(),
    );
    if let Some(branches) = &webhook.branch_filter {
        problem(
            true,
            format!(
                "sends pushes of the branches `{branches}` only; change it on the provider's page if that is not meant"
            ),
        );
    }
    if let Some(why) = &webhook.disabled {
        problem(
            true,
            format!(
                "{provider} has disabled it ({why}); mend the endpoint, then `flux-recv hook test` enables it again"
            ),
        );
    }
    if let Some(LastDelivery { code, .. }) = &last {
        problem(!(200..300).contains(code), format!("the last delivery failed: {}", meaning_of(*code)));
    }
    Ok(StatusRow {
        scope: scope.to_string(),
        exists: true,
        id: Some(webhook.id),
        active: webhook.is_active,
        events: webhook.events,
        content_type: webhook.content_type,
        verifies_tls: webhook.verifies_tls,
        last_delivery: last,
        problems,
    })
}

async fn last_delivery(
    session: &Session,
    scope: &WebhookScope,
    webhook: &Webhook,
) -> Result<Option<LastDelivery>, ApiError> {
    let from_list = webhook.last_code.map(|code| LastDelivery { at: None, code });
    let Some(api) = session.api.deliveries else { return Ok(from_list) };
    let path = format!("{}{}", session.path_of(scope, webhook)?, api.path);
    let items = match session.client.deliveries(scope, &path, api, None).await {
        Ok((items, _)) => items,
        // Older versions have webhooks and no list of deliveries.
        Err(ApiError::NotFound(_)) => return Ok(from_list),
        Err(err) => return Err(err),
    };
    let latest: Option<PastDelivery> = items.iter().find_map(api.read);
    let latest = latest.map(|delivery| LastDelivery {
        at: delivery.at.map(|at| at.to_string()),
        code: delivery.code.unwrap_or_default(),
    });
    Ok(latest.or(from_list))
}

/// What a status code of flux-recv means to the one who set up the webhook.
pub(super) fn meaning_of(code: u16) -> String {
    match code {
        0 => "no answer; check that the provider reaches the URL, and its certificate".to_owned(),
        401 => "401, the signature does not match; `create` sends the key again".to_owned(),
        404 => "404, no endpoint has this path there; compare with `flux-recv urls`".to_owned(),
        429 => "429, the endpoint's limit or the sender's was reached".to_owned(),
        502..=504 => format!("{code}, flux-recv is not reachable behind its proxy or not ready"),
        code => format!("{code}; the log of flux-recv has the reason"),
    }
}

fn draw(rows: &[StatusRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&["SCOPE", "ID", "ACTIVE", "EVENTS", "CONTENT-TYPE", "TLS", "LAST", "CODE", "OK"]);
    for row in rows {
        let last = row.last_delivery.as_ref();
        table.add(vec![
            row.scope.clone(),
            row.id.clone().unwrap_or_default(),
            yes_or_no(row.active),
            row.events.join(","),
            row.content_type.clone().unwrap_or_default(),
            row.verifies_tls.map(yes_or_no).unwrap_or_default(),
            last.and_then(|last| last.at.clone()).unwrap_or_default(),
            last.map(|last| last.code.to_string()).unwrap_or_default(),
            yes_or_no(row.problems.is_empty()),
        ]);
    }
    let mut text = table.draw();
    for row in rows {
        let name = row.id.as_ref().map(|id| format!(" webhook {id}")).unwrap_or_default();
        text.extend(row.problems.iter().map(|problem| format!("{}{name}: {problem}\n", row.scope)));
    }
    text
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
