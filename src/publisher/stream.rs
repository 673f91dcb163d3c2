//! The stream of one subscriber: `hello`, a `reset` where the log cannot be continued, then entries and
//! heartbeats. Reads the log when the socket can take more, so there is no queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use super::Publisher;
use super::authentication::{Authenticated, GrantedSubscriber};
use crate::endpoint::EndpointOrigin;
use crate::fleet::HEARTBEAT_INTERVAL;
use crate::fleet::cursor::Cursor;
use crate::fleet::frame::{self, FrameType};
use crate::fleet::hello::{Hello, OfferedEndpoint, Reset};
use crate::fleet::signature::SigningKey;
use crate::fleet::wire::WIRE_VERSION;
use crate::journal::event_log::{LogEntry, LogRange};

/// A subscriber that would have to read more entries than this catches up instead, which is one request for
/// each of its objects.
const MAX_REPLAYED_ENTRIES: u64 = 10_000;

/// The stream of a subscriber.
pub(super) struct SubscriberStream {
    publisher: Arc<Publisher>,
    subscriber: Arc<GrantedSubscriber>,
    number: u64,
    nonce: String,
    /// Where the subscriber is, as it says.
    resumes_at: Option<Cursor>,
    epoch: u64,
    /// The sequence to read next.
    next: u64,
    has_begun: bool,
    /// When the next heartbeat is due.
    heartbeat: Instant,
    head: watch::Receiver<u64>,
    table_changes: watch::Receiver<u64>,
    closing: watch::Receiver<Option<Instant>>,
    /// When the token expires, or the process ends.
    ends: Option<Instant>,
    ended: Arc<Notify>,
}

impl SubscriberStream {
    pub(super) fn new(
        publisher: &Arc<Publisher>,
        authenticated: Authenticated,
        nonce: String,
        resumes_at: Option<Cursor>,
    ) -> SubscriberStream {
        let Authenticated { subscriber, until } = authenticated;
        let range = publisher.log.range();
        let (number, ended) = publisher.statuses.open(&subscriber.name);
        SubscriberStream {
            subscriber,
            number,
            nonce,
            resumes_at,
            epoch: range.epoch,
            next: range.next,
            has_begun: false,
            heartbeat: Instant::now() + HEARTBEAT_INTERVAL,
            head: publisher.log.watch_head(),
            table_changes: publisher.table_changes.subscribe(),
            closing: publisher.closing.subscribe(),
            ends: until,
            ended,
            publisher: Arc::clone(publisher),
        }
    }

    /// Returns what is to be sent next, once there is something; none at the end of the stream.
    pub(super) async fn next_bytes(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            return self.begin();
        }
        loop {
            if self.is_over() {
                return None;
            }
            let entries = self.read().await?;
            if entries.is_empty() {
                if let Some(heartbeat) = self.wait().await? {
                    return Some(heartbeat);
                }
                continue;
            }
            if let Some(frames) = self.frames(&entries) {
                return Some(frames);
            }
        }
    }

    fn begin(&mut self) -> Option<Bytes> {
        let publisher = Arc::clone(&self.publisher);
        let table = Arc::clone(&publisher.table.read());
        let key = table.signing_key()?;
        let range = publisher.log.range();
        let reset = self.position(&range);
        let cursor = self.cursor();
        let hello = Hello {
            nonce: self.nonce.clone(),
            flux_recv: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: WIRE_VERSION,
            subscriber: self.subscriber.name.to_string(),
            endpoints: self.offered(),
            stagger_millis: table.stagger.as_millis() as u64,
        };
        let mut bytes = written(key, FrameType::Hello, cursor, &hello);
        if let Some(reason) = reset {
            let reset = Reset { nonce: self.nonce.clone(), reason: reason.to_owned() };
            bytes.push_str(&written(key, FrameType::Reset, cursor, &reset));
        }
        publisher.statuses.begin(&self.subscriber.name, cursor.sequence);
        log::info!(subscriber:% = self.subscriber.name, cursor:%, reset = reset.unwrap_or("none"); "subscriber connected");
        Some(bytes.into())
    }

    /// Decides where the stream begins. Returns why the log cannot be continued, if so.
    fn position(&mut self, range: &LogRange) -> Option<&'static str> {
        self.epoch = range.epoch;
        self.next = range.next;
        let Some(cursor) = self.resumes_at else { return Some("first connection") };
        if cursor.epoch != range.epoch {
            return Some("the event log is another one");
        }
        if cursor.sequence > range.head() {
            return Some("the cursor is beyond the event log");
        }
        if cursor.sequence + 1 < range.first {
            return Some("the event log does not go back that far");
        }
        if range.head() - cursor.sequence > MAX_REPLAYED_ENTRIES {
            return Some("there are too many entries since the cursor");
        }
        self.next = cursor.sequence + 1;
        None
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, sequence: self.next - 1 }
    }

    fn offered(&self) -> BTreeMap<String, OfferedEndpoint> {
        let serving = self.publisher.service.registry.get();
        let is_offered = |name: &str| self.subscriber.endpoints.contain(name);
        let endpoints = serving.endpoints.iter();
        endpoints
            .filter(|endpoint| endpoint.origin == EndpointOrigin::Config && is_offered(&endpoint.name))
            .map(|endpoint| {
                let forward = endpoint.forward.iter().map(ToString::to_string).collect();
                (
                    endpoint.name.to_string(),
                    OfferedEndpoint { source: endpoint.provider.name.to_owned(), forward },
                )
            })
            .collect()
    }

    fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
            || !self.publisher.table.read().still_grants(&self.subscriber)
    }

    /// Reads the next entries; none at the end of the stream.
    async fn read(&mut self) -> Option<Vec<Arc<LogEntry>>> {
        let _turn = match self.publisher.log.is_recent(self.next) {
            true => None,
            false => Some(self.publisher.replays.acquire().await.ok()?),
        };
        let entries = match self.publisher.log.read(self.next) {
            Ok(entries) => entries,
            Err(err) => {
                log::warn!(subscriber:% = self.subscriber.name, why:% = err; "stream of a subscriber ended");
                return None;
            }
        };
        // What was trimmed meanwhile is caught up with after the next connection.
        let is_next = entries.first().is_none_or(|entry| entry.sequence == self.next);
        (is_next && self.publisher.log.range().epoch == self.epoch).then_some(entries)
    }

    /// Signs the entries that are for this subscriber, and passes over the others.
    fn frames(&mut self, entries: &[Arc<LogEntry>]) -> Option<Bytes> {
        let publisher = Arc::clone(&self.publisher);
        let table = Arc::clone(&publisher.table.read());
        let key = table.signing_key()?;
        let mut bytes = BytesMut::new();
        for entry in entries {
            let endpoint = &entry.content.endpoint;
            if endpoint.is_empty() || self.subscriber.endpoints.contain(endpoint) {
                bytes.extend_from_slice(&publisher.frames.lock().event(key, self.epoch, entry));
            }
            self.next = entry.sequence + 1;
        }
        publisher.statuses.advance(&self.subscriber.name, self.next - 1, !bytes.is_empty());
        if bytes.is_empty() {
            return None;
        }
        self.heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
        Some(bytes.freeze())
    }

    /// Waits until there may be more to send. Returns a heartbeat when one is due; nothing at all at the end.
    async fn wait(&mut self) -> Option<Option<Bytes>> {
        let ends = self.ends;
        let over = async move {
            match ends {
                Some(ends) => sleep_until(ends.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.head.changed() => changed.ok().map(|()| None),
            _ = self.table_changes.changed() => Some(None),
            () = sleep_until(self.heartbeat.into()) => {
                self.heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
                let table = Arc::clone(&self.publisher.table.read());
                Some(Some(self.publisher.frames.lock().heartbeat(table.signing_key()?, self.cursor())))
            }
            _ = self.closing.changed() => {
                let last = *self.closing.borrow_and_update();
                if let Some(last) = last {
                    // Spread, so that the next publisher does not get all subscribers at once.
                    let window = last.saturating_duration_since(Instant::now());
                    let ends = Instant::now() + window.mul_f64(fastrand::f64());
                    self.ends = Some(self.ends.map_or(ends, |before| before.min(ends)));
                }
                Some(None)
            }
            () = over => None,
            () = self.ended.notified() => None,
        }
    }
}

impl Drop for SubscriberStream {
    fn drop(&mut self) {
        self.publisher.statuses.close(&self.subscriber.name, self.number);
        log::info!(subscriber:% = self.subscriber.name; "subscriber disconnected");
    }
}

fn written<T: serde::Serialize>(
    key: &SigningKey,
    frame_type: FrameType,
    cursor: Cursor,
    content: &T,
) -> String {
    // Texts and numbers.
    let json = serde_json::to_string(content).unwrap_or_default();
    frame::write(key, frame_type, cursor, &json)
}
