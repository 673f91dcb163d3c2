//! One patch on one object: the annotation that asks Flux to reconcile.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;

use super::connection::Connection;
use super::resources::Resources;
use super::{describe, retry_after, status_code};
use crate::flux::{REQUESTED_AT, Target};
use crate::matching::Inventory;
use crate::queue::{WriteError, Writer};

/// Who owns the annotation in `managedFields`.
const FIELD_MANAGER: &str = "flux-recv";

/// Asks through the Kubernetes API.
pub struct Annotator {
    pub(super) connection: Connection,
    pub(super) resources: Arc<Resources>,
    pub(super) inventory: Arc<RwLock<Inventory>>,
}

impl Annotator {
    async fn patch(&self, target: &Target) -> Result<(), WriteError> {
        let Some(resource) = self.resources.get(target.kind) else {
            return Err(WriteError::NotFound);
        };
        let client = self.connection.client();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &target.namespace, &resource);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {REQUESTED_AT: requested_at()}}}));
        let result = api.patch_metadata(&target.name, &PatchParams::apply(FIELD_MANAGER), &patch).await;
        let Err(err) = result else { return Ok(()) };
        let why = describe(&err);
        Err(match status_code(&err) {
            Some(401) => {
                self.connection.reload_credentials().await;
                WriteError::Temporary { why, retry_after: None }
            }
            Some(403) => WriteError::Forbidden(why),
            Some(404) => {
                // The served version may have moved on; the next try uses what is found now.
                if let Err(err) = self.resources.discover(&client, target.kind).await {
                    log::debug!(why:% = describe(&err); "cannot ask for the served versions");
                }
                WriteError::NotFound
            }
            Some(400 | 405 | 415 | 422) => WriteError::Rejected(why),
            _ => WriteError::Temporary { why, retry_after: retry_after(&err) },
        })
    }
}

impl Writer for Annotator {
    fn request_reconcile<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(self.patch(target))
    }

    fn exists(&self, target: &Target) -> bool {
        self.inventory.read().unwrap_or_else(PoisonError::into_inner).contains(target)
    }
}

/// Now, in RFC 3339 with nanoseconds; never the same twice, so that each request is a change.
fn requested_at() -> String {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let last = LAST.fetch_max(now, Ordering::Relaxed);
    let unique = if now > last { now } else { LAST.fetch_add(1, Ordering::Relaxed) + 1 };
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
