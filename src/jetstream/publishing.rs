//! Appends to the stream, with the journal for what it does not acknowledge.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::SharedLog;
use crate::fleet::wire::Entry;
use crate::journal::event_log::NewEntry;

/// How long JetStream has for an acknowledgement.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an entry was not acknowledged in that time.
const NO_ANSWER: &str = "it does not answer within 2 s";

/// The header with the name of the endpoint whose event an entry is.
pub(super) const ENDPOINT_HEADER: &str = "Flux-Recv-Endpoint";

/// Entries of the journal that are published at a time.
const MAX_PUBLISHED_AT_ONCE: usize = 64;

/// The pause after an entry of the journal was not acknowledged.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The longest such pause: each entry without an answer takes memory in the client.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(4);

impl SharedLog {
    /// Appends entries. Says whether they are durable: in the stream, or in the journal.
    pub(super) async fn append(&self, entries: Vec<NewEntry>) -> bool {
        // Nobody waits for what has just failed.
        let is_sent = self.takes_entries() && (self.is_connected() || !self.unpublished.is_persistent());
        let left = if is_sent { self.publish(entries).await } else { entries };
        left.is_empty() || self.unpublished.keep(left).await.is_ok()
    }

    /// Whether an entry may be acknowledged.
    pub(super) fn takes_entries(&self) -> bool {
        self.acknowledges.load(Ordering::Relaxed) && self.is_usable.load(Ordering::Relaxed)
    }

    /// Publishes entries. Returns those that were not acknowledged.
    async fn publish(&self, entries: Vec<NewEntry>) -> Vec<NewEntry> {
        let acknowledged = self.publish_all(&entries).await;
        let left = entries.into_iter().zip(acknowledged).filter(|(_, acknowledged)| !acknowledged);
        left.map(|(entry, _)| entry).collect()
    }

    /// Publishes entries in their order. Says of each whether it was acknowledged.
    pub(super) async fn publish_all(&self, entries: &[NewEntry]) -> Vec<bool> {
        let deadline = Instant::now() + ACK_TIMEOUT;
        let mut sent = Vec::new();
        for entry in entries {
            let send = timeout_at(deadline, self.send(entry)).await;
            sent.push(
                send.map_or_else(|_| Err(NO_ANSWER.to_owned()), |sent| sent.map_err(|err| reason(&err))),
            );
        }
        join_all(sent.into_iter().map(|sent| self.acknowledgement(sent, deadline))).await
    }

    async fn send(&self, entry: &NewEntry) -> Result<PublishAckFuture, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", entry.id.as_str());
        headers.insert("Nats-Expected-Stream", self.config.name.as_str());
        headers.insert(ENDPOINT_HEADER, header_value(&entry.content.endpoint).as_str());
        let payload = entry.content.json.as_bytes().to_vec().into();
        let subject = &self.config.subject;
        match self.context.publish_with_headers(subject.clone(), headers.clone(), payload).await {
            // The server will never take it. A catch-up requests too much and nothing too little.
            Err(err) if err.kind() == PublishErrorKind::MaxPayloadExceeded => {
                let bytes = entry.content.json.len();
                log::error!(bytes; "an entry is longer than `max_payload` of the NATS servers; subscribers catch up instead");
                headers.insert(ENDPOINT_HEADER, "");
                let catch_up = Entry::CatchUp.to_json(&entry.id, jiff::Timestamp::now());
                self.context.publish_with_headers(subject.clone(), headers, catch_up.into()).await
            }
            sent => sent,
        }
    }

    async fn acknowledgement(&self, sent: Result<PublishAckFuture, String>, deadline: Instant) -> bool {
        let acknowledged = match sent {
            Ok(acknowledged) => acknowledged,
            Err(why) => return self.not_acknowledged(&why),
        };
        match timeout_at(deadline, acknowledged.into_future()).await {
            // Whoever may subscribe to the subject can answer as well.
            Ok(Ok(acknowledged)) if acknowledged.stream != self.config.name => {
                self.not_acknowledged("another stream has answered")
            }
            Ok(Ok(acknowledged)) => {
                self.acknowledged_up_to.fetch_max(acknowledged.sequence, Ordering::Relaxed);
                if !self.acknowledges.swap(true, Ordering::Relaxed) {
                    log::info!("event log acknowledges entries again");
                }
                true
            }
            Ok(Err(err)) => self.not_acknowledged(&reason(&err)),
            Err(_) => self.not_acknowledged(NO_ANSWER),
        }
    }

    fn not_acknowledged(&self, why: &str) -> bool {
        if self.acknowledges.swap(false, Ordering::Relaxed) {
            // A server refuses without an answer to the request.
            let complaint = self.errors.complaint(&self.config.subject).or_else(|| self.errors.connecting());
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
        let (mut published, mut delay, mut failures) = (0, RETRY_DELAY, 0);
        loop {
            let _ = timeout(RETRY_DELAY, self.unpublished.changed()).await;
            while !self.unpublished.is_empty() {
                if !self.is_usable.load(Ordering::Relaxed) || !self.is_connected() {
                    sleep(RETRY_DELAY).await;
                    continue;
                }
                // One of them finds out, another one each time: it may be the entry.
                let most = if failures == 0 { MAX_PUBLISHED_AT_ONCE } else { 1 };
                let some = self.publish_some(failures, most).await;
                published += some;
                if some > 0 {
                    (failures, delay) = (0, RETRY_DELAY);
                    continue;
                }
                sleep(delay).await;
                (failures, delay) = (failures + 1, (delay * 2).min(MAX_RETRY_DELAY));
            }
            if published > 0 {
                log::info!(entries = published; "entries of the journal are in the event log");
                published = 0;
            }
            // The next delivery finds out.
            self.acknowledges.store(true, Ordering::Relaxed);
        }
    }

    /// Publishes some of what waits, from this place on. Returns how many were acknowledged.
    async fn publish_some(&self, place: usize, most: usize) -> usize {
        let (numbers, entries): (Vec<u64>, Vec<NewEntry>) =
            self.unpublished.some(place, most).into_iter().unzip();
        let acknowledged = self.publish_all(&entries).await;
        let done = numbers.into_iter().zip(acknowledged).filter(|(_, acknowledged)| *acknowledged);
        let done: Vec<u64> = done.map(|(number, _)| number).collect();
        self.unpublished.remove(&done);
        done.len()
    }
}

/// Says why an entry was not taken, as the operator needs it.
fn reason(err: &PublishError) -> String {
    match err.kind() {
        PublishErrorKind::StreamNotFound => "there is no stream for its subject; was it deleted?".to_owned(),
        PublishErrorKind::TimedOut => NO_ANSWER.to_owned(),
        _ => err.source().map_or_else(|| err.to_string(), ToString::to_string),
    }
}

/// Names of endpoints may have line breaks, which a header may not.
fn header_value(endpoint: &str) -> String {
    url::form_urlencoded::byte_serialize(endpoint.as_bytes()).collect()
}
