//! The stream of one subscriber: `hello`, a `reset` where the log cannot be continued, then entries and
//! heartbeats. Reads the log when the socket can take more, so there is no queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::Publisher;
use super::authentication::{Authenticated, GrantedSubscriber, SubscriberTable};
use super::frames::FrameScope;
use super::stream_end::StreamEnd;
use crate::endpoint::EndpointOrigin;
use crate::fleet::HEARTBEAT_INTERVAL;
use crate::fleet::cursor::Cursor;
use crate::fleet::frame::{self, FrameType};
use crate::fleet::hello::{Hello, OfferedEndpoint, Reset};
use crate::fleet::signature::SigningKey;
use crate::fleet::wire::WIRE_VERSION;
use crate::journal::event_log::{LogEntry, LogUnreadable};
use crate::journal::log_follower::{FollowError, LogFollower};

/// How long entries that cannot be read now are waited for; a heartbeat is due by then.
const READ_PATIENCE: Duration = Duration::from_secs(15);

const READ_RETRY_DELAY: Duration = Duration::from_millis(250);

/// The stream of a subscriber.
pub(super) struct SubscriberStream {
    publisher: Arc<Publisher>,
    subscriber: Arc<GrantedSubscriber>,
    number: u64,
    nonce: String,
    /// Where the subscriber is, as it says.
    resumes_at: Option<Cursor>,
    follower: LogFollower,
    has_begun: bool,
    /// When the next heartbeat is due.
    heartbeat: Instant,
    end: StreamEnd,
    /// Told when the stream is gone.
    gone: Arc<Notify>,
}

impl SubscriberStream {
    /// None if the subscriber has too many streams.
    pub(super) fn new(
        publisher: &Arc<Publisher>,
        authenticated: Authenticated,
        nonce: String,
        resumes_at: Option<Cursor>,
    ) -> Option<SubscriberStream> {
        let Authenticated { subscriber, until } = authenticated;
        let (number, displaced) = publisher.statuses.open(&subscriber.name)?;
        let end = StreamEnd::new(publisher, until, Some(displaced), still_grants(publisher, &subscriber));
        Some(SubscriberStream {
            subscriber,
            number,
            nonce,
            resumes_at,
            follower: LogFollower::at_head(Arc::clone(&publisher.log)),
            has_begun: false,
            heartbeat: Instant::now() + HEARTBEAT_INTERVAL,
            end,
            gone: Arc::new(Notify::new()),
            publisher: Arc::clone(publisher),
        })
    }

    /// Returns what ends the stream, and what tells when it is gone.
    pub(super) fn end(&self) -> (StreamEnd, Arc<Notify>) {
        (self.end.clone(), Arc::clone(&self.gone))
    }

    /// Returns what is to be sent next, once there is something; none at the end of the stream.
    pub(super) async fn next_bytes(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            return self.begin().await;
        }
        loop {
            // Only those that are behind wait for one another.
            let publisher = Arc::clone(&self.publisher);
            let turn = publisher.replay_turn(&self.follower).await;
            if self.end.is_over() {
                return None;
            }
            let entries = self.read().await?;
            if entries.is_empty() {
                drop(turn);
                if let Some(heartbeat) = self.wait().await? {
                    return Some(heartbeat);
                }
                continue;
            }
            let frames = self.frames(&entries);
            if turn.is_some() {
                // Live events of others have a turn between two batches.
                tokio::task::yield_now().await;
            }
            drop(turn);
            if frames.is_some() {
                return frames;
            }
        }
    }

    async fn begin(&mut self) -> Option<Bytes> {
        let reset = self.follower.resume(self.resumes_at).await;
        let cursor = self.follower.cursor();
        let publisher = Arc::clone(&self.publisher);
        let table = Arc::clone(&publisher.table.read());
        let key = table.signing_key()?;
        let hello = Hello {
            nonce: self.nonce.clone(),
            flux_recv: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: WIRE_VERSION,
            subscriber: self.subscriber.name.to_string(),
            endpoints: offered(&publisher, &self.subscriber),
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

    /// Reads the next entries; none at the end of the stream. What cannot be read now is read again: a subscriber
    /// that has to connect anew for it would wait for longer.
    async fn read(&mut self) -> Option<Vec<Arc<LogEntry>>> {
        let since = Instant::now();
        loop {
            match self.follower.read().await {
                Ok(entries) => return Some(entries),
                Err(FollowError::Unreadable(LogUnreadable::Now)) if since.elapsed() < READ_PATIENCE => {
                    tokio::time::sleep(READ_RETRY_DELAY).await;
                    if self.end.is_over() {
                        return None;
                    }
                }
                Err(FollowError::Unreadable(why)) => {
                    log::warn!(subscriber:% = self.subscriber.name, why:%; "stream of a subscriber ended");
                    return None;
                }
                Err(FollowError::Discontinued) => return None,
            }
        }
    }

    /// Signs the entries that are for this subscriber, and passes over the others.
    fn frames(&mut self, entries: &[Arc<LogEntry>]) -> Option<Bytes> {
        let publisher = Arc::clone(&self.publisher);
        let table = Arc::clone(&publisher.table.read());
        let scope = self.scope(&table);
        let key = table.signing_key()?;
        let mut bytes = BytesMut::new();
        for entry in entries {
            let endpoint = &entry.content.endpoint;
            if endpoint.is_empty() || self.subscriber.endpoints.contain(endpoint) {
                let cursor = Cursor { epoch: scope.epoch, sequence: entry.sequence };
                let known = publisher.frames.lock().event(scope, entry.sequence);
                // Signed without the lock, which all streams share.
                let frame = known.unwrap_or_else(|| {
                    let frame = Bytes::from(frame::write(key, FrameType::Event, cursor, &entry.content.json));
                    publisher.frames.lock().remember(scope, entry.sequence, &frame);
                    frame
                });
                bytes.extend_from_slice(&frame);
            }
        }
        publisher.statuses.advance(&self.subscriber.name, self.follower.cursor().sequence, !bytes.is_empty());
        if bytes.is_empty() {
            return None;
        }
        self.heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
        Some(bytes.freeze())
    }

    fn scope(&self, table: &SubscriberTable) -> FrameScope {
        let (epoch, breaks) = (self.follower.cursor().epoch, self.publisher.log.tail().breaks());
        FrameScope { epoch, breaks, generation: table.generation }
    }

    /// Waits until there may be more to send. Returns a heartbeat when one is due; nothing at all at the end.
    async fn wait(&mut self) -> Option<Option<Bytes>> {
        tokio::select! {
            has_more = self.follower.wait() => return has_more.then_some(None),
            () = sleep_until(self.heartbeat.into()) => {}
            () = self.end.wait() => return None,
        }
        self.heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
        let table = Arc::clone(&self.publisher.table.read());
        let scope = self.scope(&table);
        let (key, cursor) = (table.signing_key()?, self.follower.cursor());
        let sign = || Bytes::from(frame::write(key, FrameType::Heartbeat, cursor, "{}"));
        Some(Some(self.publisher.frames.lock().heartbeat(scope, cursor.sequence, sign)))
    }
}

/// Returns what tells whether the subscriber may go on as it has begun.
fn still_grants(
    publisher: &Arc<Publisher>,
    subscriber: &Arc<GrantedSubscriber>,
) -> impl Fn() -> bool + use<> {
    let (publisher, subscriber) = (Arc::clone(publisher), Arc::clone(subscriber));
    let offer = digest(&offered(&publisher, &subscriber));
    move || {
        publisher.table.read().still_grants(&subscriber) && digest(&offered(&publisher, &subscriber)) == offer
    }
}

/// Returns the endpoints of the config that the subscriber gets, as they are now.
fn offered(publisher: &Publisher, subscriber: &GrantedSubscriber) -> BTreeMap<String, OfferedEndpoint> {
    let serving = publisher.service.registry.get();
    let endpoints = serving.endpoints.iter();
    endpoints
        .filter(|endpoint| {
            endpoint.origin == EndpointOrigin::Config && subscriber.endpoints.contain(&endpoint.name)
        })
        .map(|endpoint| {
            let forward = endpoint.forward.iter().map(ToString::to_string).collect();
            let source = endpoint.provider.name.to_owned();
            (endpoint.name.to_string(), OfferedEndpoint { source, forward })
        })
        .collect()
}

fn digest(offer: &BTreeMap<String, OfferedEndpoint>) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(offer).unwrap_or_default()).into()
}

impl Drop for SubscriberStream {
    fn drop(&mut self) {
        self.publisher.statuses.close(&self.subscriber.name, self.number);
        self.gone.notify_one();
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
