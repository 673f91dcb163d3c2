//! Looks after the stream once a second: whether JetStream answers, whether the stream is as it has to be and still
//! the same, and whether the consumer has come as far as it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::following::CONSUMER_DESCRIPTION;
use super::stream_config::{self, Differences, StreamFault};
use super::{REQUEST_TIMEOUT, SharedLog};
use crate::fleet::wire::Entry;
use crate::journal::event_log::{LogRange, MissedEvents, NewEntry};

/// When JetStream is silent for this long, subscribers are sent elsewhere.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two looks at the stream.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The time between two looks while something is wrong: a new leader of the stream is there after some seconds.
const FAULTY_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A silence that is not the election of a leader. Each question that nobody answers takes memory in the client.
const LONG_SILENCE: Duration = Duration::from_secs(60);
const LONG_SILENCE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A consumer that is behind for this long is made anew: the server that it was on may be gone. So is one after
/// JetStream was silent for this long: it compares what it had with what there is.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks that find a stream shorter than it was, before it is said to have lost entries.
const SHORTER_LOOKS: u32 = 2;

/// Entries before the head that are read at the start, for subscribers that come from other replicas.
const RECENT_ENTRIES: u64 = 1024;

/// Consumers of a stream that are looked through for those of other replicas.
const MAX_LISTED_CONSUMERS: usize = 1024;

/// A log is another one when its stream was made anew or has lost entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Generation {
    number: u64,
    /// 0 before the stream was seen.
    pub(super) epoch: u64,
    /// The sequence that the consumer has to come to before subscribers are served.
    settles_at: u64,
}

/// Whether a stream with other limits than those of the config is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitsCheck {
    Strict,
    Lenient,
}

/// What the look before this one has found.
struct LastLook {
    heard: Instant,
    last_sequence: u64,
    /// When the consumer was first found to be behind.
    behind: Option<Instant>,
    /// How often the stream was found shorter than it was.
    shorter: u32,
    /// The stream has gone back, and subscribers do not have to catch up yet.
    is_going_back: bool,
    fault: Option<StreamFault>,
}

impl LastLook {
    fn new() -> LastLook {
        let heard = Instant::now();
        LastLook { heard, last_sequence: 0, behind: None, shorter: 0, is_going_back: false, fault: None }
    }
}

impl SharedLog {
    /// Makes the stream if it is not there, tells subscribers of an absence, and opens the log.
    pub(super) async fn prepare(&self, limits: LimitsCheck) -> Result<(), StreamFault> {
        let mut is_new = false;
        let info = match self.info().await {
            Err(StreamFault::Missing(_)) => {
                is_new = true;
                let made = self.context.create_stream(self.config.to_create()).await;
                made.map_err(|err| StreamFault::Refused(err.to_string().into()))?;
                log::info!(stream:% = self.config.name; "made the stream of the event log");
                self.info().await?
            }
            info => info?,
        };
        self.check(&info, limits)?;
        // Before anybody can take this replica for one that was there.
        let missed = *self.missed.lock();
        match missed {
            MissedEvents::UnlessOthers if info.state.last_sequence > 0 && !self.has_followers().await => {
                self.make_all_catch_up().await?;
                log::warn!("the publisher was away; every subscriber catches up");
            }
            MissedEvents::Some if !is_new => {
                self.make_all_catch_up().await?;
                log::warn!("events went to another log before this start; every subscriber catches up");
            }
            _ => {}
        }
        *self.missed.lock() = MissedEvents::None;
        self.open(&info);
        Ok(())
    }

    pub(super) async fn info(&self) -> Result<Info, StreamFault> {
        stream_config::info(&self.context, &self.config.name).await.map_err(|fault| match fault {
            // Where a right is missing, the server complains and does not answer.
            StreamFault::Silent(why) => match self.errors.complaint(&self.info_subject()) {
                Some(complaint) => StreamFault::Refused(complaint),
                None => StreamFault::Silent(why.or_else(|| self.errors.connecting())),
            },
            fault => fault,
        })
    }

    fn info_subject(&self) -> String {
        format!("$JS.API.STREAM.INFO.{}", self.config.name)
    }

    /// Nothing is published to a stream that might keep nothing. One with other limits is refused at the start alone:
    /// whoever changes them changes the stream before the config, or after it.
    fn check(&self, info: &Info, check: LimitsCheck) -> Result<(), StreamFault> {
        let Differences { limits, others } = self.config.differences(&info.config);
        self.is_usable.store(others.is_empty(), Ordering::Relaxed);
        if !others.is_empty() || check == LimitsCheck::Strict {
            self.config.check(&info.config)?;
        }
        let mut reported = self.other_limits.lock();
        if *reported != limits && !limits.is_empty() {
            let (stream, differences) = (&self.config.name, limits.join("; "));
            log::warn!(stream, differences; "the stream has other limits than the config, which is refused at the next start");
        }
        *reported = limits;
        Ok(())
    }

    /// Whether another replica follows the stream. Consumers outlive their replica for a while, also when the
    /// servers restart.
    async fn has_followers(&self) -> bool {
        let Ok(stream) = self.context.get_stream_no_info(&self.config.name).await else { return false };
        let consumers = stream.consumers().take(MAX_LISTED_CONSUMERS);
        let is_follower = consumers.any(|consumer| async {
            consumer.is_ok_and(|info| {
                info.push_bound && info.config.description.as_deref() == Some(CONSUMER_DESCRIPTION)
            })
        });
        // Without an answer subscribers catch up once too often.
        timeout(REQUEST_TIMEOUT, is_follower).await.unwrap_or(false)
    }

    async fn make_all_catch_up(&self) -> Result<(), StreamFault> {
        let entry = NewEntry::new("", &Entry::CatchUp);
        match self.publish_all(&[entry]).await.as_slice() {
            [true] => Ok(()),
            _ => Err(StreamFault::NotAcknowledged),
        }
    }

    /// Takes note of the stream's state. One that was made anew is another log.
    fn open(&self, info: &Info) {
        let mut generation = self.generation.lock();
        if generation.epoch == epoch_of(info) {
            drop(generation);
            // An empty stream says 0.
            self.tail.trimmed(info.state.first_sequence.max(1), info.state.bytes);
            return;
        }
        if generation.epoch != 0 {
            log::error!(stream:% = self.config.name; "the stream was made anew; subscribers catch up");
        }
        self.begin(&mut generation, info);
    }

    /// The stream has gone back. Sequences stand for other entries than before, so everybody catches up, also those
    /// who are away: their cursors look good.
    async fn go_back(&self, last: &mut LastLook) -> Result<(), StreamFault> {
        self.has_gone_back.store(true, Ordering::Relaxed);
        self.follows(false);
        if !std::mem::replace(&mut last.is_going_back, true) {
            log::error!(stream:% = self.config.name; "the stream has lost entries; subscribers catch up");
        }
        let lost_up_to = self.known_up_to();
        self.make_all_catch_up().await?;
        let info = self.info().await?;
        self.lost_up_to.fetch_max(lost_up_to, Ordering::Relaxed);
        self.begin(&mut self.generation.lock(), &info);
        *last = LastLook { heard: last.heard, ..LastLook::new() };
        Ok(())
    }

    /// Who was away while the stream went back may have a cursor beyond the entry that said so. Once the stream has
    /// come to there again, another one follows.
    async fn catch_up_beyond_loss(&self, info: &Info) -> Result<(), StreamFault> {
        let lost_up_to = self.lost_up_to.load(Ordering::Relaxed);
        if lost_up_to > 0 && info.state.last_sequence > lost_up_to {
            self.make_all_catch_up().await?;
            self.lost_up_to.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The last entry that the stream is known to have.
    fn known_up_to(&self) -> u64 {
        self.tail.range().head().max(self.acknowledged_up_to.load(Ordering::Relaxed))
    }

    /// Begins with the stream as it is, and closes all streams of subscribers.
    fn begin(&self, generation: &mut Generation, info: &Info) {
        let (epoch, state) = (epoch_of(info), &info.state);
        self.follows(false);
        if generation.epoch != epoch {
            self.lost_up_to.store(0, Ordering::Relaxed);
        }
        let recent = (state.last_sequence + 1).saturating_sub(RECENT_ENTRIES);
        let (first, next) = (state.first_sequence.max(1), recent.max(state.first_sequence).max(1));
        *generation = Generation { number: generation.number + 1, epoch, settles_at: state.last_sequence };
        self.has_gone_back.store(false, Ordering::Relaxed);
        self.acknowledged_up_to.store(0, Ordering::Relaxed);
        // Whoever has read entries of before has no place in what is known now.
        self.tail.opened(LogRange::default());
        self.tail.opened(LogRange { epoch, first, next, bytes: state.bytes });
        self.restart.notify_one();
    }

    /// Says whether subscribers are served.
    fn follows(&self, is_available: bool) {
        self.has_followed.fetch_or(is_available, Ordering::Relaxed);
        if self.tail.set_available(is_available) {
            self.metrics.event_log_available(is_available);
            match is_available {
                true => log::info!(stream:% = self.config.name; "following the event log"),
                false => {
                    log::warn!(stream:% = self.config.name; "event log cannot be followed; closing the streams of subscribers");
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
        let mut last = LastLook::new();
        loop {
            let mut pause = LOOK_INTERVAL;
            if let Err(fault) = self.look(&mut last).await {
                self.take_fault(fault, &mut last);
                let is_long = last.heard.elapsed() > LONG_SILENCE;
                pause = if is_long { LONG_SILENCE_LOOK_INTERVAL } else { FAULTY_LOOK_INTERVAL };
            }
            let _ = timeout(pause, self.settled.notified()).await;
        }
    }

    fn take_fault(&self, fault: StreamFault, last: &mut LastLook) {
        let is_silence = matches!(fault, StreamFault::Silent(_));
        if is_silence && last.heard.elapsed() <= SILENCE_TIMEOUT {
            return;
        }
        // The reasons of one silence change with each look.
        let is_known = is_silence && matches!(last.fault, Some(StreamFault::Silent(_)));
        if !is_known && last.fault.as_ref() != Some(&fault) {
            self.report(&fault);
            last.fault = Some(fault);
        }
        self.follows(false);
    }

    async fn look(&self, last: &mut LastLook) -> Result<(), StreamFault> {
        // Before the question: what comes while it is answered is not in the answer.
        let known_before = self.known_up_to();
        let found = match self.is_connected() {
            true => timeout(REQUEST_TIMEOUT, self.info()).await.ok(),
            false => None,
        };
        let is_open = self.generation.lock().epoch != 0;
        let info = match found.unwrap_or_else(|| Err(StreamFault::Silent(self.errors.connecting()))) {
            Err(StreamFault::Missing(_)) => {
                self.prepare(LimitsCheck::Lenient).await?;
                self.info().await?
            }
            Ok(_) if !is_open => {
                self.prepare(LimitsCheck::Lenient).await?;
                self.info().await?
            }
            found => found?,
        };
        self.check(&info, LimitsCheck::Lenient)?;
        let silence = last.heard.elapsed();
        (last.heard, last.fault) = (Instant::now(), None);
        let is_same = self.generation.lock().epoch == epoch_of(&info);
        let is_shorter = is_same && info.state.last_sequence < known_before;
        last.shorter = if is_shorter { last.shorter + 1 } else { 0 };
        if last.shorter >= SHORTER_LOOKS || self.has_gone_back.load(Ordering::Relaxed) {
            return self.go_back(last).await;
        }
        if is_shorter {
            return Ok(());
        }
        last.is_going_back = false;
        self.open(&info);
        self.catch_up_beyond_loss(&info).await?;
        if silence > BEHIND_TIMEOUT {
            self.restart.notify_one();
        }
        self.compare(&info, last);
        Ok(())
    }

    /// Compares how far the consumer has come with the stream.
    fn compare(&self, info: &Info, last: &mut LastLook) {
        let head = self.tail.range().head();
        // Judged by what was there a look ago: entries are always on their way.
        let is_behind = head < last.last_sequence || !self.has_consumer.load(Ordering::Relaxed);
        last.last_sequence = info.state.last_sequence;
        if !is_behind {
            last.behind = None;
            if head >= self.generation.lock().settles_at {
                self.follows(true);
            }
            return;
        }
        let since = *last.behind.get_or_insert(last.heard);
        if since.elapsed() >= BEHIND_TIMEOUT {
            self.restart.notify_one();
        }
        if since.elapsed() > SILENCE_TIMEOUT {
            self.follows(false);
        }
    }
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
