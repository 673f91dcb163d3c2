//! `flux-recv hook test`: makes the provider send a test, and waits for what became of it where the API tells.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde::Serialize;

use super::ReadArgs;
use super::api_client::ApiError;
use super::session::Session;
use super::status::meaning_of;
use crate::cli::progress;
use crate::cli::table::Table;
use crate::webhook_api::{PastDelivery, Webhook, WebhookScope};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestRow {
    scope: String,
    id: String,
    /// The status code of the answer; none where the API does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

pub(super) async fn test(session: &Session, args: &ReadArgs) -> anyhow::Result<ExitCode> {
    let scope = args.scope.scope()?;
    let provider = session.endpoint.provider.name;
    let path = (session.api.test)(&scope).map_err(|why| anyhow::anyhow!("{provider}: {why}"))?;
    let Some(webhook) = session.own_webhooks(&scope).await?.into_iter().next() else {
        bail!(
            "{scope} has no webhook for endpoint {}; `flux-recv hook create` makes it",
            session.endpoint.name
        );
    };
    let before = latest(session, &scope, &webhook).await?.map(|delivery| delivery.id);
    progress::action(&format!("{provider} sends a test with webhook {}", webhook.id));
    let path = format!("{}{path}", session.path_of(&scope, &webhook)?);
    let sent = session.client.send(&scope, Method::POST, &path, None).await;
    // GitLab answers 422 where the endpoint has not answered well: the list says with what.
    match sent {
        Err(ApiError::Invalid(_)) if session.api.deliveries.is_some() => {}
        sent => {
            sent.context("no test was sent")?;
        }
    }
    let code = wait_for_answer(session, &scope, &webhook, before).await?;
    match code {
        None if session.api.deliveries.is_some() => {
            bail!(
                "{provider} shows no test after {} s; look at the webhook's page there",
                TEST_TIMEOUT.as_secs()
            )
        }
        None => progress::success("sent; the log of flux-recv shows what came"),
        Some(code) if (200..300).contains(&code) => progress::success(&format!("answered {code}")),
        Some(code) => progress::failure(&format!("the test failed: {}", meaning_of(code))),
    }
    let row = TestRow { scope: scope.to_string(), id: webhook.id, code };
    args.output.print(&row, |row| {
        let mut table = Table::new(&["SCOPE", "ID", "CODE"]);
        table.add(vec![
            row.scope.clone(),
            row.id.clone(),
            row.code.map(|code| code.to_string()).unwrap_or_default(),
        ]);
        Ok(table.draw())
    })?;
    let is_good = code.is_none_or(|code| (200..300).contains(&code));
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How long to look for the test in the list of deliveries.
const TEST_TIMEOUT: Duration = Duration::from_secs(15);
const TEST_INTERVAL: Duration = Duration::from_millis(500);

/// Waits until the test is in the list of deliveries. Returns the status code of its answer, 0 for none.
async fn wait_for_answer(
    session: &Session,
    scope: &WebhookScope,
    webhook: &Webhook,
    before: Option<String>,
) -> anyhow::Result<Option<u16>> {
    if session.api.deliveries.is_none() {
        return Ok(None);
    }
    let looking = async {
        loop {
            match latest(session, scope, webhook).await? {
                Some(delivery) if before.as_ref() != Some(&delivery.id) => {
                    return anyhow::Ok(Some(delivery.code.unwrap_or_default()));
                }
                _ => tokio::time::sleep(TEST_INTERVAL).await,
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, looking).await.unwrap_or(Ok(None))
}

async fn latest(
    session: &Session,
    scope: &WebhookScope,
    webhook: &Webhook,
) -> anyhow::Result<Option<PastDelivery>> {
    let Some(api) = session.api.deliveries else { return Ok(None) };
    let path = format!("{}{}", session.path_of(scope, webhook)?, api.path);
    match session.client.deliveries(scope, &path, api, None).await {
        Ok((items, _)) => {
            let deliveries = items.iter().filter_map(api.read);
            Ok(deliveries.into_iter().find(|delivery| delivery.event == api.test_event))
        }
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(err) => Err(err.into()),
    }
}
