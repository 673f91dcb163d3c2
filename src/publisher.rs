//! Streams the event log to subscribers in other clusters. Keeps no state for them but their open streams:
//! each reads the log from its own position, so that one that is slow delays nobody.

mod authentication;
mod autoreconciler;
mod frames;
mod server;
mod status;
mod stream;
mod stream_end;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use self::authentication::SubscriberTable;
use self::autoreconciler::{ImageFrames, MAX_CLIENTS};
use self::frames::FrameCache;
pub use self::server::{MAX_STREAM_CONNECTIONS, start};
use self::status::Statuses;
pub use self::status::SubscriberStatus;
use crate::fleet::cursor::Cursor;
use crate::fleet::options::{PublisherOptions, Retention};
use crate::fleet::signature::PublicKey;
use crate::journal::event_log::{EventLog, LogLimits};
use crate::journal::log_follower::LogFollower;
use crate::metrics::{LogFigures, Metrics, SubscriberFigures};
use crate::service::Service;

/// A publisher: its log, who may subscribe, and who does.
pub struct Publisher {
    service: Arc<Service>,
    log: Arc<dyn EventLog>,
    table: RwLock<Arc<SubscriberTable>>,
    /// Counts the changes of the table, for the streams that are open.
    table_changes: watch::Sender<u64>,
    frames: Mutex<FrameCache>,
    statuses: Statuses,
    /// Streams that read from disk at a time.
    replays: Semaphore,
    /// Clients of flux-webhook-autoreconciler that are not there.
    client_places: Arc<Semaphore>,
    images: ImageFrames,
    /// When the last stream has to be closed, once the process is to end.
    closing: watch::Sender<Option<Instant>>,
}

/// Subscribers that were away are served from disk so many at a time.
const MAX_REPLAYS: usize = 16;

impl Publisher {
    pub fn new(service: Arc<Service>, log: Arc<dyn EventLog>, options: PublisherOptions) -> Arc<Publisher> {
        let (table_changes, closing) = (watch::Sender::new(0), watch::Sender::new(None));
        let statuses = Statuses::new(options.subscribers.iter().map(|subscriber| &subscriber.name));
        let table = RwLock::new(Arc::new(SubscriberTable::new(options, 0)));
        Arc::new(Publisher {
            service,
            log,
            table,
            table_changes,
            frames: Mutex::default(),
            statuses,
            replays: Semaphore::new(MAX_REPLAYS),
            client_places: Arc::new(Semaphore::new(MAX_CLIENTS)),
            images: ImageFrames::default(),
            closing,
        })
    }

    /// Takes changed options in force. Streams of subscribers that are gone, or authenticate in another way,
    /// or get other endpoints, end at once.
    pub fn replace(&self, options: PublisherOptions) {
        self.log.tail().set_limits(limits(&options.retention));
        self.statuses.retain(options.subscribers.iter().map(|subscriber| &subscriber.name));
        // Thousands of key sets take a while to be read, and streams look at the table meanwhile.
        let generation = self.table.read().generation + 1;
        let table = Arc::new(SubscriberTable::new(options, generation));
        *self.table.write() = table;
        self.table_changes.send_modify(|changes| *changes += 1);
    }

    /// Closes all streams within this time, one after the other, and takes no new ones.
    pub fn close(&self, window: Duration) {
        self.closing.send_replace(Some(Instant::now() + window));
    }

    /// Whether streams can begin now.
    fn takes_streams(&self) -> bool {
        self.closing.borrow().is_none() && self.log.tail().is_available()
    }

    /// Waits for the turn of a follower that is behind; one that reads from memory needs none.
    async fn replay_turn(&self, follower: &LogFollower) -> Option<SemaphorePermit<'_>> {
        match follower.is_recent() {
            true => None,
            // It is never closed.
            false => self.replays.acquire().await.ok(),
        }
    }

    /// Returns the pause after which subscribers may connect again: a thousand of them in a second.
    fn retry_after(&self) -> Duration {
        Duration::from_secs(1 + self.table.read().subscribers() as u64 / 1000)
    }

    /// Whether this process can take the place of another one that ends.
    pub fn is_ready(&self) -> bool {
        self.log.is_ready()
    }

    /// Returns what is wrong with the event log, in a line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.log.tail().is_available() {
            problems
                .push("event log in NATS: cannot be followed; the log of this instance says why".to_owned());
        }
        match self.log.unpublished() {
            0 => {}
            count => problems
                .push(format!("event log in NATS: {count} entries wait in the journal to be published")),
        }
        problems
    }

    /// Returns the number of entries that are in this process's journal alone.
    pub fn unpublished(&self) -> usize {
        self.log.unpublished()
    }

    /// Waits until all that was accepted is in the log.
    pub async fn wait_until_appended(&self) {
        self.log.wait_until_appended().await;
    }

    /// Returns the public keys, the one that signs first.
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.table.read().public_keys()
    }

    /// Returns the state of each subscriber of the config, by name.
    pub fn subscribers(&self) -> Vec<SubscriberStatus> {
        self.statuses.list(self.log.tail().range().head())
    }

    /// Returns how many clients of flux-webhook-autoreconciler are connected; none where the config has none.
    fn autoreconciler_clients(&self) -> Option<usize> {
        let connected = MAX_CLIENTS - self.client_places.available_permits();
        self.table.read().has_clients().then_some(connected)
    }

    /// Describes the log and the subscribers, without keys and tokens.
    pub fn to_json(&self) -> Value {
        let (range, limits) = (self.log.tail().range(), self.log.tail().limits());
        let cursor = Cursor { epoch: range.epoch, sequence: range.head() };
        json!({
            "publicKeys": self.public_keys().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "log": {
                "head": cursor.to_string(),
                "entries": range.entries(),
                "bytes": range.bytes,
                "maxEntries": limits.max_entries,
                "maxBytes": limits.max_bytes,
                "maxAgeSeconds": limits.max_age.as_secs(),
                "available": self.log.tail().is_available(),
                "unpublished": self.log.unpublished(),
            },
            "subscribers": self.subscribers(),
            "autoreconcilerClients": self.autoreconciler_clients(),
        })
    }

    /// Shows the log and the subscribers in the metrics.
    pub fn show(&self, metrics: &Metrics) {
        let subscribers = self.subscribers();
        let figures = subscribers.iter().map(|status| SubscriberFigures {
            name: &status.name,
            streams: status.streams,
            lag_entries: status.lag_entries,
            last_event_seconds: status.last_event_seconds,
        });
        let range = self.log.tail().range();
        let log = LogFigures {
            entries: range.entries(),
            bytes: range.bytes,
            max_bytes: self.log.tail().limits().max_bytes,
            refused_strangers: self.statuses.strangers(),
            autoreconciler_clients: self.autoreconciler_clients().unwrap_or(0) as u64,
        };
        metrics.show_publisher(&figures.collect::<Vec<_>>(), &log);
    }
}

/// Returns the limits of the log for a `retention`.
pub fn limits(retention: &Retention) -> LogLimits {
    let Retention { max_entries, max_bytes, max_age } = *retention;
    LogLimits { max_entries, max_bytes, max_age }
}
