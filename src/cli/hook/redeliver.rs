//! `flux-recv hook redeliver`: what failed is sent again. GitHub never does that by itself, GitLab soon gives up.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde::Serialize;

use super::api_client::ApiError;
use super::session::{Session, encoded};
use super::status::meaning_of;
use super::{RedeliverArgs, may_go_on};
use crate::cli::progress;
use crate::cli::table::Table;
use crate::webhook_api::{DeliveryApi, PastDelivery, Webhook, WebhookScope};

/// A delivery that is sent again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RedeliveryRow {
    id: String,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// The status code of the answer that it got; 0 when there was none.
    code: u16,
    sent_again: bool,
    /// The status code of the answer to the repetition, where the API tells it; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_code: Option<u16>,
    /// Why it was not sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// Deliveries that one run sends again.
const MAX_REDELIVERIES: usize = 1000;

/// Pages of past deliveries that one run reads.
const MAX_DELIVERY_PAGES: usize = 100;

/// The longest pause that a provider's limit may ask for; GitLab allows five repetitions a minute.
const MAX_WAIT: Duration = Duration::from_secs(120);
const MIN_WAIT: Duration = Duration::from_secs(1);

/// Pauses for one delivery.
const MAX_WAITS: u32 = 5;

pub(super) async fn redeliver(session: &Session, args: &RedeliverArgs) -> anyhow::Result<ExitCode> {
    let scope = args.scope.scope()?;
    let provider = session.endpoint.provider.name;
    let Some(api) = session.api.deliveries else {
        bail!("the API of {provider} cannot send deliveries again; `flux-recv send` posts one like it");
    };
    let Some(webhook) = session.own_webhooks(&scope).await?.into_iter().next() else {
        bail!(
            "{scope} has no webhook for endpoint {}; `flux-recv hook create` makes it",
            session.endpoint.name
        );
    };
    let since = Timestamp::now() - SignedDuration::try_from(args.since)?;
    let FailedDeliveries { deliveries: failed, is_cut } =
        failed_deliveries(session, &scope, &webhook, api, since).await?;
    for delivery in &failed {
        progress::action(&format!("send delivery {} again: {}", delivery.id, delivery.event));
    }
    if is_cut {
        progress::failure(&format!(
            "there are more than {MAX_DELIVERY_PAGES} pages or {MAX_REDELIVERIES} deliveries; run the command again afterwards"
        ));
    }
    if failed.is_empty() {
        progress::success(&format!("no delivery has failed since {since:.0}"));
    }
    let goes_on = !failed.is_empty() && may_go_on(&args.confirm)?;
    let mut rows = Vec::new();
    let mut stopped = None;
    for delivery in failed {
        let mut row = RedeliveryRow {
            id: delivery.id.clone(),
            event: delivery.event.clone(),
            at: delivery.at.map(|at| at.to_string()),
            code: delivery.code.unwrap_or_default(),
            sent_again: false,
            new_code: None,
            failure: None,
        };
        if goes_on && stopped.is_none() {
            match resend(session, &scope, &webhook, api, &delivery).await {
                Ok(new_code) => (row.sent_again, row.new_code) = (true, new_code),
                // This one cannot be sent; the others may.
                Err(err @ (ApiError::Invalid(_) | ApiError::NotFound(_))) => {
                    let line = err.to_string();
                    progress::failure(&format!("delivery {}: {line}", delivery.id));
                    row.failure = Some(line);
                }
                Err(err) => stopped = Some(err),
            }
        }
        rows.push(row);
    }
    args.output.print(&rows, |rows| Ok(draw(rows)))?;
    let is_good =
        |row: &RedeliveryRow| row.sent_again && row.new_code.is_none_or(|code| (200..300).contains(&code));
    match stopped {
        Some(err) => Err(err.into()),
        None if args.confirm.dry_run || (rows.iter().all(is_good) && !is_cut) => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// What failed, the oldest first.
struct FailedDeliveries {
    deliveries: Vec<PastDelivery>,
    /// There are more than one run looks at.
    is_cut: bool,
}

/// The deliveries since then of which no repetition has succeeded, the oldest first.
async fn failed_deliveries(
    session: &Session,
    scope: &WebhookScope,
    webhook: &Webhook,
    api: &DeliveryApi,
    since: Timestamp,
) -> Result<FailedDeliveries, ApiError> {
    let path = format!("{}{}", session.path_of(scope, webhook)?, api.path);
    let mut page = None;
    let mut all: Vec<PastDelivery> = Vec::new();
    for _ in 0..MAX_DELIVERY_PAGES {
        let (items, next) = session.client.deliveries(scope, &path, api, page.as_deref()).await?;
        let deliveries: Vec<PastDelivery> = items.iter().filter_map(api.read).collect();
        let count = deliveries.len();
        // The newest comes first. Where the provider tells no time, the delivery is as recent as those around it.
        let recent = deliveries.into_iter().take_while(|delivery| delivery.at.is_none_or(|at| at >= since));
        let before = all.len();
        all.extend(recent);
        page = next;
        if page.is_none() || all.len() - before < count {
            page = None;
            break;
        }
    }
    let mut deliveries = without_success(all);
    let is_cut = page.is_some() || deliveries.len() > MAX_REDELIVERIES;
    deliveries.truncate(MAX_REDELIVERIES);
    Ok(FailedDeliveries { deliveries, is_cut })
}

/// Of each delivery and its repetitions the latest, unless one has succeeded. The list is the newest first.
fn without_success(deliveries: Vec<PastDelivery>) -> Vec<PastDelivery> {
    let mut groups: BTreeMap<String, (bool, usize)> = BTreeMap::new();
    for (position, delivery) in deliveries.iter().enumerate() {
        let (has_succeeded, _) = groups.entry(delivery.group.clone()).or_insert((false, position));
        *has_succeeded |= delivery.succeeded();
    }
    let mut latest: Vec<usize> =
        groups.into_values().filter(|(has_succeeded, _)| !has_succeeded).map(|(_, first)| first).collect();
    latest.sort_by(|one, other| other.cmp(one));
    let mut deliveries: Vec<Option<PastDelivery>> = deliveries.into_iter().map(Some).collect();
    latest.into_iter().filter_map(|position| deliveries[position].take()).collect()
}

/// Sends it again; waits where the provider limits repetitions. Returns the status code of the new answer, where
/// the API tells it.
async fn resend(
    session: &Session,
    scope: &WebhookScope,
    webhook: &Webhook,
    api: &DeliveryApi,
    delivery: &PastDelivery,
) -> Result<Option<u16>, ApiError> {
    let path =
        format!("{}{}/{}{}", session.path_of(scope, webhook)?, api.path, encoded(&delivery.id), api.resend);
    let mut waits = 0;
    loop {
        match session.client.send(scope, Method::POST, &path, None).await {
            Ok(answer) => {
                let code = (api.resent_code)(&answer);
                match code {
                    Some(code) if !(200..300).contains(&code) => {
                        progress::failure(&format!(
                            "delivery {} was sent again and failed: {}",
                            delivery.id,
                            meaning_of(code)
                        ));
                    }
                    _ => progress::success(&format!("delivery {} was sent again", delivery.id)),
                }
                return Ok(code);
            }
            Err(ApiError::TooManyRequests { wait: Some(wait), .. })
                if wait <= MAX_WAIT && waits < MAX_WAITS =>
            {
                waits += 1;
                let wait = wait.max(MIN_WAIT);
                progress::action(&format!("the provider limits repetitions; waiting {} s", wait.as_secs()));
                tokio::time::sleep(wait).await;
            }
            Err(err) => return Err(err),
        }
    }
}

fn draw(rows: &[RedeliveryRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["ID", "EVENT", "SENT", "CODE", "SENT-AGAIN", "NEW-CODE"]);
    for row in rows {
        table.add(vec![
            row.id.clone(),
            row.event.clone(),
            row.at.clone().unwrap_or_default(),
            row.code.to_string(),
            if row.sent_again { "yes" } else { "no" }.to_owned(),
            row.new_code.map(|code| code.to_string()).unwrap_or_default(),
        ]);
    }
    table.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(id: &str, group: &str, code: Option<u16>) -> PastDelivery {
        PastDelivery { id: id.to_owned(), group: group.to_owned(), event: "push".to_owned(), at: None, code }
    }

    #[test]
    fn what_has_succeeded_later_is_left_alone() {
        let newest_first = vec![
            delivery("6", "c", None),
            delivery("5", "b", Some(500)),
            delivery("4", "a", Some(200)),
            delivery("3", "b", Some(502)),
            delivery("2", "a", Some(502)),
            delivery("1", "d", Some(202)),
        ];
        let failed = without_success(newest_first);
        let identifiers: Vec<&str> = failed.iter().map(|delivery| &*delivery.id).collect();
        assert_eq!(identifiers, ["5", "6"]);
    }
}
