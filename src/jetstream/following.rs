//! Follows the stream with one ordered consumer, and looks after it: whether JetStream answers, whether the consumer
//! has come as far as the stream, and whether the stream is still the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull, push};
use async_nats::jetstream::stream::{Info, Stream};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use super::publishing::ENDPOINT_HEADER;
use super::stream_config::{self, StreamFault};
use super::{REQUEST_TIMEOUT, SharedLog};
use crate::fleet::wire::Entry;
use crate::journal::event_log::{LogContent, LogEntry, LogRange, LogUnreadable};
use crate::journal::log_tail::MAX_READ_ENTRIES;

/// When JetStream is silent for this long, subscribers are sent elsewhere.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two looks at the stream.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A consumer that is behind for this long is made anew: the server that it was on may be gone.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(2);

const CONSUMER_RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a subscriber waits for the consumer to come to where it has been at another replica.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries before the head that are read at the start, for subscribers that come from other replicas.
const RECENT_ENTRIES: u64 = 256;

/// Bytes of one read of older entries. The longest entry has a quarter of it.
const MAX_OLDER_BYTES: usize = 1 << 20;

/// Bytes of an entry's JSON; no flux-recv writes a longer one.
const MAX_ENTRY_BYTES: usize = 512 << 10;

/// What consumers of flux-recv are called.
const CONSUMER_DESCRIPTION: &str = "flux-recv";

/// Consumers of a stream that are looked through for those of other replicas.
const MAX_LISTED_CONSUMERS: usize = 1024;

/// A log is another one when its stream was made anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Generation {
    number: u64,
    epoch: u64,
    /// The sequence that the consumer has to come to before subscribers are served.
    settles_at: u64,
}

/// What the look before this one has found.
struct LastLook {
    heard: Instant,
    last_sequence: u64,
    /// When the consumer was first found to be behind.
    behind: Option<Instant>,
    fault: Option<StreamFault>,
}

impl SharedLog {
    /// Makes the stream if it is not there, and opens the log.
    pub(super) async fn prepare(&self) -> Result<(), StreamFault> {
        let info = match self.info().await {
            Err(StreamFault::Missing(_)) => {
                self.context.create_stream(self.config.to_create()).await.map_err(|err| {
                    // A server without the right to answer at all is silent.
                    StreamFault::Refused(err.to_string().into())
                })?;
                log::info!(stream:% = self.config.name; "made the stream of the event log");
                self.info().await?
            }
            info => info?,
        };
        self.config.check(&info.config)?;
        if self.unattended.borrow().is_none() {
            let is_unattended = info.state.last_sequence > 0 && !self.has_followers().await;
            self.unattended.send_replace(Some(is_unattended));
        }
        self.open(&info);
        Ok(())
    }

    async fn stream(&self) -> Result<Stream<()>, StreamFault> {
        let stream = self.context.get_stream_no_info(&self.config.name).await;
        stream.map_err(|err| StreamFault::Refused(err.to_string().into()))
    }

    async fn info(&self) -> Result<Info, StreamFault> {
        stream_config::info(&self.context, &self.config.name).await.map_err(|fault| match fault {
            // Where a right is missing, the server complains and does not answer.
            StreamFault::Silent => self.server_error.recent().map_or(fault, StreamFault::Refused),
            fault => fault,
        })
    }

    /// Whether another replica follows the stream, or did half a minute ago.
    async fn has_followers(&self) -> bool {
        let Ok(stream) = self.stream().await else { return false };
        let consumers = stream.consumers().take(MAX_LISTED_CONSUMERS);
        let is_follower = consumers.any(|consumer| async {
            consumer.is_ok_and(|info| info.config.description.as_deref() == Some(CONSUMER_DESCRIPTION))
        });
        // Without an answer subscribers catch up once too often.
        timeout(REQUEST_TIMEOUT, is_follower).await.unwrap_or(false)
    }

    /// Takes note of the stream's state. One that was made anew is another log.
    fn open(&self, info: &Info) {
        let (epoch, state) = (epoch_of(info), &info.state);
        let mut generation = self.generation.lock();
        let is_shorter = state.last_sequence < self.tail.range().head();
        if generation.epoch == epoch && !is_shorter {
            drop(generation);
            self.tail.trimmed(state.first_sequence, state.bytes);
            return;
        }
        if generation.epoch != 0 {
            log::error!(
                stream:% = self.config.name, last = state.last_sequence;
                "the stream was made anew or has lost entries; subscribers catch up"
            );
        }
        // Closes all streams.
        self.follows(false);
        let next = (state.last_sequence + 1).saturating_sub(RECENT_ENTRIES).max(state.first_sequence).max(1);
        *generation = Generation { number: generation.number + 1, epoch, settles_at: state.last_sequence };
        self.tail.opened(LogRange { epoch, first: state.first_sequence.max(1), next, bytes: state.bytes });
        drop(generation);
        self.restart.notify_one();
    }

    fn follows(&self, is_available: bool) {
        if self.tail.set_available(is_available) {
            self.metrics.event_log_available(is_available);
            match is_available {
                true => log::info!(stream:% = self.config.name; "following the event log"),
                false => {
                    log::warn!(stream:% = self.config.name; "event log cannot be followed; closing the streams of subscribers")
                }
            }
        }
    }

    /// Reports what is wrong with the stream.
    pub(super) fn report(&self, fault: &StreamFault) {
        log::error!(
            why:% = fault, stream:% = self.config.name;
            "event log is not there; deliveries are accepted into the journal, and subscribers wait"
        );
    }

    /// Looks after the stream; never ends.
    pub(super) async fn watch_stream(&self) {
        let mut last = LastLook { heard: Instant::now(), last_sequence: 0, behind: None, fault: None };
        loop {
            self.look(&mut last).await;
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self, last: &mut LastLook) {
        let found = timeout(REQUEST_TIMEOUT, self.info()).await.unwrap_or(Err(StreamFault::Silent));
        let found = match found {
            Ok(info) if self.generation.lock().epoch != 0 => self.config.check(&info.config).map(|()| info),
            // It was not there before.
            Ok(_) | Err(StreamFault::Missing(_)) => match self.prepare().await {
                Ok(()) => self.info().await,
                Err(fault) => Err(fault),
            },
            Err(fault) => Err(fault),
        };
        let info = match found {
            Ok(info) => info,
            Err(fault) => {
                let is_silent = last.heard.elapsed() > SILENCE_TIMEOUT || fault != StreamFault::Silent;
                if is_silent && last.fault.as_ref() != Some(&fault) {
                    self.report(&fault);
                    last.fault = Some(fault);
                }
                if is_silent {
                    self.follows(false);
                }
                return;
            }
        };
        last.heard = Instant::now();
        last.fault = None;
        self.open(&info);
        let head = self.tail.range().head();
        // Judged by what was there a look ago: entries are always on their way.
        let is_behind = head < last.last_sequence || !self.has_consumer.load(Ordering::Relaxed);
        match is_behind {
            false => last.behind = None,
            true => {
                let since = *last.behind.get_or_insert(last.heard);
                if since.elapsed() >= BEHIND_TIMEOUT {
                    self.restart.notify_one();
                }
                if since.elapsed() > SILENCE_TIMEOUT {
                    self.follows(false);
                }
            }
        }
        last.last_sequence = info.state.last_sequence;
        if last.behind.is_none() && head >= self.generation.lock().settles_at {
            self.follows(true);
        }
    }

    /// Takes what the stream gets, for as long as the process lives.
    pub(super) async fn follow(&self) {
        loop {
            let generation = *self.generation.lock();
            if generation.epoch == 0 {
                self.restart.notified().await;
                continue;
            }
            let ended = self.follow_once(generation).await;
            self.has_consumer.store(false, Ordering::Relaxed);
            if let Err(why) = ended {
                log::debug!(why:%; "consumer of the event log ended");
                sleep(CONSUMER_RETRY_DELAY).await;
            }
        }
    }

    async fn follow_once(&self, generation: Generation) -> Result<(), async_nats::Error> {
        let config = push::OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            description: Some(CONSUMER_DESCRIPTION.to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.tail.range().next },
            ..push::OrderedConfig::default()
        };
        let create = self.context.create_consumer_on_stream(config, &self.config.name);
        let consumer = timeout(REQUEST_TIMEOUT, create).await??;
        let mut messages = timeout(REQUEST_TIMEOUT, consumer.messages()).await??;
        self.has_consumer.store(true, Ordering::Relaxed);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return Ok(()) };
                    let entry = self.entry(&message?)?;
                    let now = self.generation.lock();
                    if *now != generation {
                        return Ok(());
                    }
                    self.tail.arrived(entry);
                }
                () = self.restart.notified() => return Ok(()),
            }
        }
    }

    /// Reads an entry. What is none was published by somebody else, and may stand for anything.
    fn entry(&self, message: &Message) -> Result<LogEntry, async_nats::Error> {
        let info = message.info()?;
        let sequence = info.stream_sequence;
        let time_millis = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let content = content(message).unwrap_or_else(|| {
            log::error!(sequence, stream:% = self.config.name; "an entry that no flux-recv has written; subscribers catch up");
            let json = Entry::CatchUp.to_json(&format!("{sequence:032x}"), jiff::Timestamp::now());
            LogContent { endpoint: "".into(), json: json.into() }
        });
        Ok(LogEntry { sequence, time_millis, content })
    }

    /// Reads entries from this sequence on, through a consumer that goes again.
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
            // A replica of the stream that is behind.
            None => Err(LogUnreadable::Now),
            Some(_) => Ok(entries),
        }
    }

    async fn fetch(&self, from: u64) -> Result<Vec<LogEntry>, async_nats::Error> {
        let config = pull::Config {
            description: Some(format!("{CONSUMER_DESCRIPTION} (older entries)")),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            inactive_threshold: SILENCE_TIMEOUT,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = self.context.create_consumer_on_stream(config, &self.config.name).await?;
        let name = consumer.cached_info().name.clone();
        let read = async {
            let mut messages =
                consumer.fetch().max_messages(MAX_READ_ENTRIES).max_bytes(MAX_OLDER_BYTES).messages().await?;
            let mut entries: Vec<LogEntry> = Vec::new();
            while let Some(message) = messages.next().await {
                let entry = self.entry(&message?)?;
                let is_next = entries.last().is_none_or(|last| last.sequence + 1 == entry.sequence);
                if !is_next {
                    break;
                }
                entries.push(entry);
            }
            Ok(entries)
        };
        let read = read.await;
        let _ = self.context.delete_consumer_from_stream(&name, &self.config.name).await;
        read
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

/// Tells a stream from another one of the same name, at each replica alike.
fn epoch_of(info: &Info) -> u64 {
    let created = info.created.unix_timestamp_nanos();
    let digest = Sha256::new()
        .chain_update(b"flux-recv event log\n")
        .chain_update(info.config.name.as_bytes())
        .chain_update(created.to_le_bytes())
        .finalize();
    let mut epoch = [0; 8];
    epoch.copy_from_slice(&digest[..8]);
    // 0 is that of a log of which nothing is known.
    u64::from_le_bytes(epoch).max(1)
}
