//! One patch on one object: the annotation that requests reconciliation.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::client::Body;
use kube::core::{ApiResource, Request, Resource, Status};
use parking_lot::RwLock;
use serde_json::json;

use super::connection::ApiConnection;
use super::describe;
use super::event_recorder::EventRecorder;
use super::kind_states::KindStates;
use super::resources::Resources;
use crate::flux::{REQUESTED_AT, Target};
use crate::matching::Inventory;
use crate::queue::{WriteError, Writer};

/// The field manager of the annotation in `managedFields`.
const FIELD_MANAGER: &str = "flux-recv";

/// Annotates objects through the Kubernetes API.
pub struct Annotator {
    pub(super) connection: ApiConnection,
    pub(super) resources: Arc<Resources>,
    pub(super) inventory: Arc<RwLock<Inventory>>,
    pub(super) states: Arc<KindStates>,
    /// Wants to know the objects, if Events are written.
    pub(super) events: Option<Arc<EventRecorder>>,
}

/// The longest `Retry-After` that is respected; a proxy before the API server may set it as well.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

impl Annotator {
    async fn patch(&self, target: &Target) -> Result<(), WriteError> {
        let client = self.connection.client();
        let resource = match self.resources.get(target.kind) {
            Some(resource) => resource,
            None => self
                .resources
                .discover(&client, target.kind)
                .await
                .map_err(unanswered)?
                .ok_or_else(|| self.not_served(target, "the API server knows no such kind"))?,
        };
        let refusal = match send(&client, &resource, target).await? {
            Ok(object) => {
                log::info!(object:% = target; "reconciliation requested");
                if let Some(events) = &self.events {
                    let object = serde_json::from_slice(&object).unwrap_or_default();
                    events.saw(target, &resource.api_version, &object);
                }
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        let why = refusal.why;
        Err(match refusal.code {
            401 => {
                self.connection.reload_credentials().await;
                WriteError::Transient { why, retry_after: None }
            }
            403 => WriteError::Forbidden(why),
            404 => {
                // The served version may have moved on; the next try uses what is found now.
                if let Err(err) = self.resources.discover(&client, target.kind).await {
                    log::debug!(why:% = describe(&err); "API discovery failed");
                }
                // Without the object's name it was the path that was not found, not the object.
                if refusal.names_the_object { WriteError::NotFound } else { self.not_served(target, &why) }
            }
            422 => WriteError::Rejected(why),
            _ => WriteError::Transient { why, retry_after: refusal.retry_after },
        })
    }

    /// A transient answer of the API server, unless the watches have found the kind gone for long.
    fn not_served(&self, target: &Target, why: &str) -> WriteError {
        match self.states.is_kind_gone(target) {
            true => WriteError::NotFound,
            false => temporary(why),
        }
    }
}

fn temporary(why: &str) -> WriteError {
    WriteError::Transient { why: why.to_owned(), retry_after: None }
}

fn unanswered(err: kube::Error) -> WriteError {
    temporary(&describe(&err))
}

/// An answer of the API server other than success.
struct ApiRefusal {
    code: u16,
    why: String,
    /// Whether the API server speaks of an object by its name.
    names_the_object: bool,
    /// The pause of its `Retry-After`, as with 429.
    retry_after: Option<Duration>,
}

/// Sends the patch, and returns the metadata of the object; the outer error is for an API server that does not
/// answer.
///
/// Sent by hand rather than through `Api`, which drops the header `Retry-After`.
async fn send(
    client: &Client,
    resource: &ApiResource,
    target: &Target,
) -> Result<Result<Vec<u8>, ApiRefusal>, WriteError> {
    let path = DynamicObject::url_path(resource, Some(&target.namespace));
    let patch = Patch::Merge(json!({"metadata": {"annotations": {REQUESTED_AT: requested_at()}}}));
    let request = Request::new(path)
        .patch_metadata(&target.name, &PatchParams::apply(FIELD_MANAGER), &patch)
        .map_err(|err| WriteError::Rejected(err.to_string()))?;
    let response = client.send(request.map(Body::from)).await.map_err(unanswered)?;
    let response_status = response.status();
    let retry_after =
        response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    // Read to its end, so that the connection can be used again.
    let body = response.into_body().collect_bytes().await.map_err(unanswered)?;
    if response_status.is_success() {
        return Ok(Ok(body.into()));
    }
    let status = serde_json::from_slice::<Status>(&body).ok();
    let names_the_object = status
        .as_ref()
        .and_then(|status| status.details.as_ref())
        .is_some_and(|details| details.name == target.name);
    let message = match status {
        Some(status) => format!("{}: {}", status.reason, status.message),
        None => String::from_utf8_lossy(&body).chars().take(200).collect(),
    };
    let (code, retry_after) = (
        response_status.as_u16(),
        retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
    );
    Ok(Err(ApiRefusal { code, why: format!("{code} {}", message.trim()), names_the_object, retry_after }))
}

impl Writer for Annotator {
    fn request_reconcile<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(self.patch(target))
    }

    fn is_gone(&self, target: &Target) -> bool {
        let held = self.inventory.read().contains(target);
        !held && self.states.would_know(target)
    }
}

/// Now, in RFC 3339 with nanoseconds; never the same twice, so that each request is a change.
fn requested_at() -> String {
    static LAST_REQUESTED_AT: AtomicI64 = AtomicI64::new(0);
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let last = LAST_REQUESTED_AT.fetch_max(now, Ordering::Relaxed);
    let unique = if now > last { now } else { LAST_REQUESTED_AT.fetch_add(1, Ordering::Relaxed) + 1 };
    let timestamp =
        jiff::Timestamp::from_nanosecond(i128::from(unique)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{timestamp:.9}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    // Incident 35.
    #[test]
    fn no_two_requests_have_one_time() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..500).map(|_| requested_at()).collect::<Vec<_>>()))
            .collect();
        let all: Vec<String> =
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 2000);
        assert_eq!(all[0].len(), "2026-01-01T00:00:00.000000000Z".len(), "{}", all[0]);
    }
}
