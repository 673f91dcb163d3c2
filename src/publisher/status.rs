//! Who is connected, how far each has come, and why the last one was refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

/// The subscribers of the config and their streams.
pub(super) struct Statuses {
    by_name: Mutex<BTreeMap<Arc<str>, Status>>,
    next_stream: AtomicU64,
    strangers: AtomicU64,
}

#[derive(Default)]
struct Status {
    streams: Vec<OpenStream>,
    /// The last sequence that any stream has sent or passed over.
    position: u64,
    connected: Option<Timestamp>,
    last_event: Option<Timestamp>,
    refused: Option<(Timestamp, String)>,
}

struct OpenStream {
    number: u64,
    /// Set once the stream has to end.
    ends: watch::Sender<bool>,
}

/// The state of a subscriber, for metrics, pages and commands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberStatus {
    pub name: String,
    pub streams: usize,
    /// Entries between its position and the head of the log; none while it is not connected.
    pub lag_entries: Option<u64>,
    /// When it last connected.
    pub connected: Option<String>,
    /// When it was last sent an event.
    pub last_event: Option<String>,
    /// When and why it was last refused.
    pub refused: Option<String>,
    #[serde(skip)]
    pub last_event_seconds: Option<f64>,
}

/// Streams of one subscriber: replicas of it, and connections that have died without a word. The oldest one
/// ends for a new one.
const MAX_STREAMS: usize = 4;

/// Streams of one subscriber that are open or ending.
const MAX_OPEN_STREAMS: usize = 8;

impl Statuses {
    pub(super) fn new<'n>(names: impl Iterator<Item = &'n Arc<str>>) -> Statuses {
        let by_name = names.map(|name| (Arc::clone(name), Status::default())).collect();
        Statuses {
            by_name: Mutex::new(by_name),
            next_stream: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
        }
    }

    /// Keeps what is known of these, and forgets others.
    pub(super) fn retain<'n>(&self, names: impl Iterator<Item = &'n Arc<str>>) {
        let mut by_name = self.by_name.lock();
        let mut before = std::mem::take(&mut *by_name);
        by_name.extend(names.map(|name| (Arc::clone(name), before.remove(name).unwrap_or_default())));
    }

    /// A stream was opened. The oldest one ends if there are too many: it may have died without a word.
    /// None if the subscriber opens them more quickly than they end.
    pub(super) fn open(&self, name: &str) -> Option<(u64, watch::Receiver<bool>)> {
        let (number, ends) = (self.next_stream.fetch_add(1, Ordering::Relaxed), watch::Sender::new(false));
        let ended = ends.subscribe();
        let mut by_name = self.by_name.lock();
        let status = by_name.get_mut(name)?;
        if status.streams.len() >= MAX_OPEN_STREAMS {
            return None;
        }
        let going_on = status.streams.iter().filter(|stream| !*stream.ends.borrow());
        if going_on.clone().count() >= MAX_STREAMS
            && let Some(oldest) = going_on.min_by_key(|stream| stream.number)
        {
            oldest.ends.send_replace(true);
        }
        status.streams.push(OpenStream { number, ends });
        status.connected = Some(Timestamp::now());
        Some((number, ended))
    }

    pub(super) fn close(&self, name: &str, number: u64) {
        if let Some(status) = self.by_name.lock().get_mut(name) {
            status.streams.retain(|stream| stream.number != number);
        }
    }

    /// A stream begins here.
    pub(super) fn begin(&self, name: &str, position: u64) {
        if let Some(status) = self.by_name.lock().get_mut(name) {
            status.position = position;
        }
    }

    /// A stream has come this far.
    pub(super) fn advance(&self, name: &str, position: u64, has_events: bool) {
        if let Some(status) = self.by_name.lock().get_mut(name) {
            status.position = status.position.max(position);
            if has_events {
                status.last_event = Some(Timestamp::now());
            }
        }
    }

    /// A subscriber that is known was refused. Says whether the log should have it: once a minute.
    pub(super) fn refuse(&self, name: &str, reason: &str) -> bool {
        let now = Timestamp::now();
        let mut by_name = self.by_name.lock();
        let Some(status) = by_name.get_mut(name) else { return false };
        let is_due =
            status.refused.as_ref().is_none_or(|(last, _)| now.duration_since(*last).as_secs() >= 60);
        if is_due {
            status.refused = Some((now, reason.to_owned()));
        }
        is_due
    }

    pub(super) fn refuse_stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    pub(super) fn list(&self, head: u64) -> Vec<SubscriberStatus> {
        let by_name = self.by_name.lock();
        let statuses = by_name.iter().map(|(name, status)| SubscriberStatus {
            name: name.to_string(),
            streams: status.streams.len(),
            lag_entries: (!status.streams.is_empty()).then(|| head.saturating_sub(status.position)),
            connected: status.connected.map(|time| time.to_string()),
            last_event: status.last_event.map(|time| time.to_string()),
            refused: status.refused.as_ref().map(|(time, reason)| format!("{time}: {reason}")),
            last_event_seconds: status.last_event.map(|time| time.as_millisecond() as f64 / 1000.0),
        });
        statuses.collect()
    }
}
