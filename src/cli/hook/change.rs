//! `flux-recv hook create` and `delete`: a plan, a question, then the changes.

use std::collections::BTreeSet;
use std::process::ExitCode;

use reqwest::Method;
use serde::Serialize;

use super::api_client::ApiError;
use super::hook_urls::masked;
use super::session::Session;
use super::{CreateArgs, DeleteArgs, may_go_on, missing};
use crate::cli::output::OutputArgs;
use crate::cli::progress;
use crate::cli::table::Table;
use crate::webhook_api::{UpdateMethod, Webhook, WebhookScope};

/// A change of one webhook.
struct PlannedChange {
    scope: WebhookScope,
    kind: ChangeKind,
}

enum ChangeKind {
    Create,
    Update(Webhook),
    Delete(Webhook),
}

/// A change that was made, or would be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeRow {
    scope: String,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The hook URL, shortened.
    url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<String>,
}

pub(super) async fn create(session: &Session, args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let (scopes, is_whole) = match args.scope.missing {
        true => {
            let missing = missing::find(session, &args.cluster).await?;
            (missing.uncovered, missing.invisible.is_empty())
        }
        false => (vec![args.scope.scope()?], true),
    };
    let events = session.needed_events(args.pull_requests);
    let mut plan = Vec::new();
    for scope in scopes {
        let mut own = session.own_webhooks(&scope).await?.into_iter();
        let kind = own.next().map_or(ChangeKind::Create, ChangeKind::Update);
        plan.push(PlannedChange { scope: scope.clone(), kind });
        // A second webhook would send everything twice.
        let surplus =
            own.map(|webhook| PlannedChange { scope: scope.clone(), kind: ChangeKind::Delete(webhook) });
        plan.extend(surplus);
    }
    if plan.is_empty() && is_whole {
        progress::success("every repository is covered");
    }
    let done = carry_out(session, plan, &events, &args.confirm, &args.output).await?;
    Ok(if is_whole { done } else { ExitCode::FAILURE })
}

pub(super) async fn delete(session: &Session, args: &DeleteArgs) -> anyhow::Result<ExitCode> {
    let scope = args.scope.scope()?;
    let own = session.own_webhooks(&scope).await?.into_iter();
    let plan: Vec<PlannedChange> = own
        .map(|webhook| PlannedChange { scope: scope.clone(), kind: ChangeKind::Delete(webhook) })
        .collect();
    if plan.is_empty() {
        progress::success(&format!("{scope} has no webhook for endpoint {}", session.endpoint.name));
    }
    carry_out(session, plan, &[], &args.confirm, &args.output).await
}

async fn carry_out(
    session: &Session,
    plan: Vec<PlannedChange>,
    events: &[String],
    confirm: &super::ConfirmArgs,
    output: &OutputArgs,
) -> anyhow::Result<ExitCode> {
    for change in &plan {
        progress::action(&change.describe(session, events));
    }
    let mut rows = Vec::new();
    let mut failure = None;
    if !plan.is_empty() && may_go_on(confirm)? {
        for change in plan {
            match change.apply(session, events).await {
                Ok(row) => rows.push(row),
                Err(err) => {
                    failure = Some(err);
                    break;
                }
            }
        }
    } else {
        rows.extend(plan.iter().map(|change| change.row(session, events, None)));
    }
    output.print(&rows, |rows| Ok(draw(rows)))?;
    match failure {
        None if confirm.yes || confirm.dry_run || rows.iter().all(|row| !row.action.starts_with("would")) => {
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(ExitCode::FAILURE),
        Some(err) => Err(err.into()),
    }
}

fn draw(rows: &[ChangeRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["SCOPE", "ACTION", "ID", "URL", "EVENTS"]);
    for row in rows {
        table.add(vec![
            row.scope.clone(),
            row.action.to_owned(),
            row.id.clone().unwrap_or_default(),
            row.url.clone(),
            row.events.join(","),
        ]);
    }
    table.draw()
}

impl PlannedChange {
    fn describe(&self, session: &Session, events: &[String]) -> String {
        let ChangeRow { scope, url, events, .. } = self.row(session, events, None);
        match &self.kind {
            ChangeKind::Create => {
                format!("create a webhook for {scope}: {url}, events {}", events.join(", "))
            }
            ChangeKind::Update(webhook) => format!(
                "update webhook {} of {scope}: {url} with the key of endpoint {}, events {}",
                webhook.id,
                session.endpoint.name,
                events.join(", ")
            ),
            ChangeKind::Delete(webhook) => format!("delete webhook {} of {scope}: {url}", webhook.id),
        }
    }

    /// The row of a change; with the identifier of the webhook once it is made.
    fn row(&self, session: &Session, events: &[String], made: Option<String>) -> ChangeRow {
        let present = masked(&session.urls.present());
        let is_made = made.is_some();
        let (action, planned, id, url, events) = match &self.kind {
            ChangeKind::Create => ("created", "would create", made, present, events.to_vec()),
            ChangeKind::Update(webhook) => {
                let id = made.or_else(|| Some(webhook.id.clone()));
                ("updated", "would update", id, present, events_after(webhook, events))
            }
            ChangeKind::Delete(webhook) => {
                ("deleted", "would delete", Some(webhook.id.clone()), masked(&webhook.url), Vec::new())
            }
        };
        ChangeRow {
            scope: self.scope.to_string(),
            action: if is_made { action } else { planned },
            id,
            url,
            events,
        }
    }

    async fn apply(&self, session: &Session, events: &[String]) -> Result<ChangeRow, ApiError> {
        let url = session.urls.present();
        let scope = &self.scope;
        let made = match &self.kind {
            ChangeKind::Create => {
                let form = (session.api.write)(&session.form(scope, &url, events), None);
                let path = session.path(scope)?;
                let made = session.client.send(scope, Method::POST, &path, Some(&form)).await?;
                (session.api.read)(&made).map(|webhook| webhook.id).unwrap_or_default()
            }
            ChangeKind::Update(webhook) => {
                let events = events_after(webhook, events);
                let form = (session.api.write)(&session.form(scope, &url, &events), Some(&webhook.item));
                let path = session.path_of(scope, webhook)?;
                let method = match session.api.update {
                    UpdateMethod::Patch => Method::PATCH,
                    UpdateMethod::Put => Method::PUT,
                    UpdateMethod::Replace => {
                        // The new one first: a push in between comes twice rather than never.
                        let list = session.path(scope)?;
                        let made = session.client.send(scope, Method::POST, &list, Some(&form)).await?;
                        delete_webhook(session, scope, webhook).await?;
                        let made = (session.api.read)(&made).map(|webhook| webhook.id).unwrap_or_default();
                        return Ok(self.applied(session, &events, made));
                    }
                };
                session.client.send(scope, method, &path, Some(&form)).await?;
                webhook.id.clone()
            }
            ChangeKind::Delete(webhook) => {
                delete_webhook(session, scope, webhook).await?;
                webhook.id.clone()
            }
        };
        Ok(self.applied(session, events, made))
    }

    fn applied(&self, session: &Session, events: &[String], made: String) -> ChangeRow {
        let row = self.row(session, events, Some(made));
        let id = row.id.as_deref().unwrap_or_default();
        progress::success(&format!("{} webhook {id} of {}", row.action, self.scope));
        row
    }
}

async fn delete_webhook(session: &Session, scope: &WebhookScope, webhook: &Webhook) -> Result<(), ApiError> {
    let path = session.path_of(scope, webhook)?;
    match session.client.send(scope, Method::DELETE, &path, None).await {
        Ok(_) => Ok(()),
        // Somebody may have been faster, or the token may read and not write: GitHub answers both alike.
        Err(ApiError::NotFound(line)) => {
            let left = session.webhooks(scope).await?;
            match left.iter().any(|other| other.id == webhook.id) {
                true => Err(ApiError::NotFound(format!("webhook {} was not deleted: {line}", webhook.id))),
                false => Ok(()),
            }
        }
        Err(err) => Err(err),
    }
}

/// Events that somebody has added stay.
fn events_after(webhook: &Webhook, needed: &[String]) -> Vec<String> {
    if webhook.events.iter().any(|event| event == "*") {
        return webhook.events.clone();
    }
    let all: BTreeSet<String> = webhook.events.iter().chain(needed).cloned().collect();
    all.into_iter().collect()
}
