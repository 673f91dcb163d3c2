//! Appends to the stream, with the journal for what it does not acknowledge.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::SharedLog;
use crate::journal::event_log::NewEntry;

/// How long JetStream has for an acknowledgement.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// The header with the name of the endpoint whose event an entry is.
pub(super) const ENDPOINT_HEADER: &str = "Flux-Recv-Endpoint";

/// Entries of the journal that are published at a time.
const MAX_PUBLISHED_AT_ONCE: usize = 64;

/// The pause after an entry of the journal was not acknowledged.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl SharedLog {
    /// Appends entries. Says whether they are durable: in the stream, or in the journal.
    pub(super) async fn append(&self, entries: Vec<NewEntry>) -> bool {
        // Nobody waits for what has just failed.
        let left = match self.acknowledges.load(Ordering::Relaxed) {
            true => self.publish(entries).await,
            false => entries,
        };
        left.is_empty() || self.unpublished.keep(left).await.is_ok()
    }

    /// Publishes entries. Returns those that were not acknowledged.
    async fn publish(&self, entries: Vec<NewEntry>) -> Vec<NewEntry> {
        let deadline = Instant::now() + ACK_TIMEOUT;
        let acknowledged = join_all(entries.iter().map(|entry| self.publish_one(entry, deadline))).await;
        let left = entries.into_iter().zip(acknowledged).filter(|(_, acknowledged)| !acknowledged);
        left.map(|(entry, _)| entry).collect()
    }

    async fn publish_one(&self, entry: &NewEntry, deadline: Instant) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", entry.id.as_str());
        headers.insert(ENDPOINT_HEADER, header_value(&entry.content.endpoint).as_str());
        let payload = entry.content.json.as_bytes().to_vec().into();
        let acknowledged = async {
            let subject = self.config.subject.clone();
            self.context.publish_with_headers(subject, headers, payload).await?.await
        };
        match timeout_at(deadline, acknowledged).await {
            Ok(Ok(_)) => {
                if !self.acknowledges.swap(true, Ordering::Relaxed) {
                    log::info!("event log acknowledges entries again");
                }
                true
            }
            Ok(Err(err)) => self.not_acknowledged(&reason(&err)),
            Err(_) => self.not_acknowledged("it does not answer within 2 s"),
        }
    }

    fn not_acknowledged(&self, why: &str) -> bool {
        if self.acknowledges.swap(false, Ordering::Relaxed) {
            // A server refuses without an answer to the request.
            let complaint = self.server_error.recent();
            let why = complaint.as_ref().map_or(why, |complaint| complaint);
            log::error!(
                why, stream:% = self.config.name;
                "event log does not acknowledge an entry; entries wait in the journal until it does"
            );
        }
        false
    }

    /// Publishes what waits in the journal; never ends.
    pub(super) async fn publish_waiting(&self) {
        loop {
            let _ = timeout(RETRY_DELAY, self.unpublished.changed()).await;
            let waited = self.unpublished.len();
            while !self.unpublished.is_empty() && self.publish_some().await {}
            if !self.unpublished.is_empty() {
                sleep(RETRY_DELAY).await;
                continue;
            }
            if waited > 0 {
                log::info!(entries = waited; "entries of the journal are in the event log");
            }
            // The next delivery finds out.
            self.acknowledges.store(true, Ordering::Relaxed);
        }
    }

    /// Publishes the first of what waits. Says whether all of it was acknowledged.
    async fn publish_some(&self) -> bool {
        let (numbers, entries): (Vec<u64>, Vec<NewEntry>) =
            self.unpublished.first(MAX_PUBLISHED_AT_ONCE).into_iter().unzip();
        let deadline = Instant::now() + ACK_TIMEOUT;
        let acknowledged = join_all(entries.iter().map(|entry| self.publish_one(entry, deadline))).await;
        let is_all = acknowledged.iter().all(|acknowledged| *acknowledged);
        let done = numbers.into_iter().zip(acknowledged).filter(|(_, acknowledged)| *acknowledged);
        self.unpublished.remove(&done.map(|(number, _)| number).collect::<Vec<u64>>());
        is_all
    }
}

/// Says why an entry was not taken, as the operator needs it.
fn reason(err: &PublishError) -> String {
    match err.kind() {
        PublishErrorKind::StreamNotFound => "there is no stream for its subject; was it deleted?".to_owned(),
        PublishErrorKind::TimedOut => "it does not answer within 2 s".to_owned(),
        _ => err.source().map_or_else(|| err.to_string(), ToString::to_string),
    }
}

/// Names of endpoints may have line breaks, which a header may not.
fn header_value(endpoint: &str) -> String {
    url::form_urlencoded::byte_serialize(endpoint.as_bytes()).collect()
}
