//! Follows the stream with one ordered consumer, and reads older entries from any copy of the stream.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::{Message, StatusCode};
use futures::StreamExt;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::publishing::ENDPOINT_HEADER;
use super::watching::Generation;
use super::{REQUEST_TIMEOUT, SharedLog};
use crate::fleet::wire::{Entry, MAX_ENTRY_BYTES};
use crate::journal::event_log::{LogContent, LogEntry, LogUnreadable};
use crate::journal::log_tail::MAX_READ_ENTRIES;

/// What consumers of flux-recv are called.
pub(super) const CONSUMER_DESCRIPTION: &str = "flux-recv";

const CONSUMER_RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a subscriber waits for the consumer to come to where it has been at another replica.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of one read of older entries. The longest entry has a quarter of it.
const MAX_OLDER_BYTES: usize = 1 << 20;

impl SharedLog {
    /// Takes what the stream gets, for as long as the process lives.
    pub(super) async fn follow(&self) {
        loop {
            let generation = *self.generation.lock();
            if generation.epoch == 0 {
                self.restart.notified().await;
                continue;
            }
            if !self.is_connected() {
                sleep(CONSUMER_RETRY_DELAY).await;
                continue;
            }
            let ended = self.follow_once(generation).await;
            self.has_consumer.store(false, Ordering::Relaxed);
            if self.has_gone_back.load(Ordering::Relaxed) {
                // Until subscribers have to catch up.
                self.restart.notified().await;
                continue;
            }
            if let Err(why) = ended {
                log::debug!(why:%; "consumer of the event log ended");
                sleep(CONSUMER_RETRY_DELAY).await;
            }
        }
    }

    async fn follow_once(&self, generation: Generation) -> Result<(), async_nats::Error> {
        let next = self.tail.range().next;
        // The last one once more: where it is another one now, the stream has gone back.
        let last = self.tail.read(next.saturating_sub(1)).and_then(|entries| entries.first().cloned());
        let start_sequence = last.as_ref().map_or(next, |last| last.sequence);
        let stream_end = timeout(REQUEST_TIMEOUT, self.info()).await??.state.last_sequence;
        let config = push::OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            description: Some(CONSUMER_DESCRIPTION.to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ..push::OrderedConfig::default()
        };
        let create = self.context.create_consumer_on_stream(config, &self.config.name);
        let consumer = timeout(REQUEST_TIMEOUT, create).await??;
        let mut pending = consumer.cached_info().num_pending;
        let mut messages = timeout(REQUEST_TIMEOUT, consumer.messages()).await??;
        self.has_consumer.store(true, Ordering::Relaxed);
        let mut has_settled = false;
        loop {
            if pending == 0 && !has_settled && self.is_current(generation) {
                // What was there at the start has come, or was deleted.
                self.tail.skip_to(stream_end);
                has_settled = true;
                self.settled.notify_one();
            }
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return Err("it ended by itself".into()) };
                    let message = message?;
                    pending = message.info()?.pending;
                    let entry = self.entry(&message)?;
                    if let Some(last) = last.as_ref().filter(|last| last.sequence == entry.sequence) {
                        if last.content != entry.content {
                            self.has_gone_back.store(true, Ordering::Relaxed);
                            return Ok(());
                        }
                        continue;
                    }
                    if entry.content.endpoint.is_empty()
                        && entry.sequence > self.lost_up_to.load(Ordering::Relaxed)
                    {
                        // Another replica was first.
                        self.lost_up_to.store(0, Ordering::Relaxed);
                    }
                    let now = self.generation.lock();
                    if *now != generation {
                        return Ok(());
                    }
                    self.tail.arrived(entry);
                }
                () = self.restart.notified() => return Ok(()),
                // All servers may have lost what they had; the next consumer compares.
                () = self.errors.disconnected() => return Ok(()),
            }
        }
    }

    fn is_current(&self, generation: Generation) -> bool {
        *self.generation.lock() == generation
    }

    fn entry(&self, message: &jetstream::Message) -> Result<LogEntry, async_nats::Error> {
        let info = message.info()?;
        let time_millis = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let (sequence, content) =
            (info.stream_sequence, self.content(info.stream_sequence, &message.message));
        Ok(LogEntry { sequence, time_millis, content })
    }

    /// Reads what an entry holds. What is none was published by somebody else, and may stand for anything.
    fn content(&self, sequence: u64, message: &Message) -> LogContent {
        content(message).unwrap_or_else(|| {
            log::error!(sequence, stream:% = self.config.name; "an entry that no flux-recv has written; subscribers catch up");
            // The same each time, so that it is known again.
            let json = Entry::CatchUp.to_json(&format!("{sequence:032x}"), jiff::Timestamp::UNIX_EPOCH);
            LogContent { endpoint: "".into(), json: json.into() }
        })
    }

    /// Reads entries from this sequence on, from any copy of the stream.
    pub(super) async fn read_older(&self, from: u64) -> Result<Vec<LogEntry>, LogUnreadable> {
        let entries = timeout(REQUEST_TIMEOUT, self.fetch(from)).await;
        let entries = entries.map_err(|_| LogUnreadable::Now)?.map_err(|why| {
            log::warn!(why:%; "event log cannot be read");
            LogUnreadable::Now
        })?;
        match entries.first() {
            // It was deleted by hand; what was trimmed is found out by the range.
            Some(first) if first.sequence > from && from >= self.tail.range().first => {
                Err(LogUnreadable::Damaged(first.sequence - 1))
            }
            // A copy of the stream that is behind.
            None => Err(LogUnreadable::Now),
            Some(_) => Ok(entries),
        }
    }

    /// Requests a batch: it is answered with a message for each entry and one that ends them.
    /// <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md>
    async fn fetch(&self, from: u64) -> Result<Vec<LogEntry>, async_nats::Error> {
        let client = self.context.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let request = json!({"seq": from, "batch": MAX_READ_ENTRIES, "max_bytes": MAX_OLDER_BYTES});
        let subject = format!("$JS.API.DIRECT.GET.{}", self.config.name);
        client.publish_with_reply(subject, inbox, request.to_string().into()).await?;
        let mut entries: Vec<LogEntry> = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.status {
                None => {}
                Some(StatusCode::NO_RESPONDERS) => return Err("no server has the stream".into()),
                // The end, or nothing at this place and behind it.
                Some(_) => break,
            }
            let Some((sequence, time_millis)) = place(&answer) else {
                return Err("an answer without its place".into());
            };
            if entries.last().is_some_and(|last| last.sequence + 1 != sequence) {
                break;
            }
            entries.push(LogEntry { sequence, time_millis, content: self.content(sequence, &answer) });
        }
        Ok(entries)
    }

    /// Waits until the consumer has come to this sequence, if the stream has.
    pub(super) async fn reach(&self, sequence: u64) {
        if self.tail.range().head() >= sequence {
            return;
        }
        let is_there = match timeout(REQUEST_TIMEOUT, self.info()).await {
            Ok(Ok(info)) => info.state.last_sequence >= sequence,
            _ => false,
        };
        if is_there {
            let mut head = self.tail.watch_head();
            let _ = timeout(REACH_TIMEOUT, head.wait_for(|head| *head >= sequence)).await;
        }
    }
}

/// Returns the sequence and the time of an entry of a batch.
fn place(answer: &Message) -> Option<(u64, u64)> {
    let headers = answer.headers.as_ref()?;
    let sequence = headers.get("Nats-Sequence")?.as_str().parse().ok()?;
    let time: jiff::Timestamp = headers.get("Nats-Time-Stamp")?.as_str().parse().ok()?;
    Some((sequence, u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

/// Returns what an entry holds; none if it is not one that flux-recv has written.
fn content(message: &Message) -> Option<LogContent> {
    let header = message.headers.as_ref()?.get(ENDPOINT_HEADER)?.as_str();
    let (endpoint, _) = url::form_urlencoded::parse(header.as_bytes()).next().unwrap_or_default();
    let json = std::str::from_utf8(&message.payload).ok()?;
    // A frame is a line.
    if json.len() > MAX_ENTRY_BYTES || json.contains(['\n', '\r']) || !json.starts_with('{') {
        return None;
    }
    Some(LogContent { endpoint: endpoint.into_owned().into(), json: json.into() })
}
