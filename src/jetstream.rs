//! A publisher's event log in NATS JetStream: any number of replicas append to one stream, and each follows it.
//! Replication and election are JetStream's; what it does not acknowledge waits in the journal.
//! <https://docs.nats.io/nats-concepts/jetstream>

mod connection;
mod credentials;
mod following;
mod publishing;
mod stream_config;
mod unpublished;
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::connection::ConnectError;
use self::connection::{ConnectionErrors, connect};
use self::stream_config::StreamConfig;
pub use self::stream_config::StreamFault;
use self::unpublished::Unpublished;
use self::watching::{Generation, LimitsCheck};
use crate::fleet::options::NatsOptions;
use crate::journal::contents::Contents;
use crate::journal::event_log::{EventLog, LogEntry, LogLimits, LogUnreadable, MissedEvents, NewEntry};
use crate::journal::log_tail::LogTail;
use crate::journal::{Journal, JournalCommit};
use crate::metrics::Metrics;

/// An event log in JetStream.
pub struct JetStreamLog {
    shared: Arc<SharedLog>,
}

struct SharedLog {
    context: Context,
    config: StreamConfig,
    tail: LogTail,
    unpublished: Unpublished,
    /// Whether the last entry was acknowledged, or none was tried since.
    acknowledges: AtomicBool,
    /// The last entry of this stream that was acknowledged here.
    acknowledged_up_to: AtomicU64,
    /// What was last wrong with the connection.
    errors: ConnectionErrors,
    /// Tells the log from the one before it.
    generation: Mutex<Generation>,
    /// Whether the stream is as it has to be, as far as is known.
    is_usable: AtomicBool,
    /// Whether the consumer has found another entry where one was before.
    has_gone_back: AtomicBool,
    /// The entry up to which sequences may have stood for others, as long as the stream has not come to it again.
    lost_up_to: AtomicU64,
    /// The limits of the stream that are others than those of the config, as they were last reported.
    other_limits: Mutex<Vec<String>>,
    /// The ID by which the journal knows the log.
    id: u64,
    /// Whether no process with this journal has reached the stream before.
    is_new: bool,
    /// Whether the stream was followed since the start.
    has_followed: AtomicBool,
    /// Whether there is a consumer.
    has_consumer: AtomicBool,
    /// Told when it has come to the end of the stream.
    settled: Notify,
    /// Told when the consumer has to be made anew.
    restart: Notify,
    /// What the log has missed, as long as it is not told of that.
    missed: Mutex<MissedEvents>,
    metrics: Arc<Metrics>,
}

/// How long the start waits for the stream. Deliveries are taken all the same after that.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request to JetStream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

impl JetStreamLog {
    /// Connects, and makes the stream if it is not there. What an earlier process has left in the journal is
    /// published by [`JetStreamLog::run`]. Subscribers catch up with what it has missed.
    ///
    /// # Errors
    /// When the options cannot be used, or the stream is another one than they say and nothing waits that could be
    /// lost. A server that does not answer is none: entries wait in the journal until it does.
    pub async fn start(
        options: &NatsOptions,
        limits: LogLimits,
        journal: Journal,
        left: &Contents,
        missed: MissedEvents,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<JetStreamLog>, ConnectError> {
        let errors = ConnectionErrors::default();
        let client = connect(options, errors.clone(), true).await?;
        let context = ContextBuilder::new().timeout(publishing::ACK_TIMEOUT).build(client);
        let tail = LogTail::new(limits);
        tail.set_available(false);
        metrics.event_log_available(false);
        let shared = SharedLog {
            context,
            config: StreamConfig::new(options, limits),
            tail,
            unpublished: Unpublished::new(journal, left, Arc::clone(&metrics)),
            acknowledges: AtomicBool::new(true),
            acknowledged_up_to: AtomicU64::new(0),
            errors,
            generation: Mutex::default(),
            is_usable: AtomicBool::new(true),
            has_gone_back: AtomicBool::new(false),
            lost_up_to: AtomicU64::new(0),
            other_limits: Mutex::default(),
            id: options.log_id(),
            is_new: left.reached_log != Some(options.log_id()),
            has_followed: AtomicBool::new(false),
            has_consumer: AtomicBool::new(false),
            settled: Notify::new(),
            restart: Notify::new(),
            missed: Mutex::new(missed),
            metrics,
        };
        match tokio::time::timeout(START_TIMEOUT, shared.prepare(LimitsCheck::Strict)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault @ StreamFault::Differs { .. })) if shared.unpublished.is_empty() => {
                return Err(ConnectError::Stream(fault));
            }
            Ok(Err(fault)) => shared.report(&fault),
            Err(_) => shared.report(&StreamFault::Silent(shared.errors.connecting())),
        }
        Ok(Arc::new(JetStreamLog { shared: Arc::new(shared) }))
    }

    /// Looks at the stream as a start would, and makes nothing. Describes it in a line.
    ///
    /// # Errors
    /// What a start would say.
    pub async fn examine(options: &NatsOptions, limits: LogLimits) -> Result<String, ConnectError> {
        let client = connect(options, ConnectionErrors::default(), false).await?;
        let context = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client);
        let config = StreamConfig::new(options, limits);
        match stream_config::info(&context, &config.name).await {
            Ok(info) => {
                config.check(&info.config).map_err(ConnectError::Stream)?;
                let (messages, copies) = (info.state.messages, info.config.num_replicas);
                Ok(format!("stream {}: {messages} entries, copies: {copies}", config.name))
            }
            Err(StreamFault::Missing(name)) => {
                Ok(format!("stream {name} is not there yet; flux-recv makes it"))
            }
            Err(fault) => Err(ConnectError::Stream(fault)),
        }
    }

    /// Follows the stream and publishes what waits; never ends.
    pub async fn run(self: Arc<Self>) {
        let shared = &self.shared;
        tokio::join!(shared.watch_stream(), shared.follow(), shared.publish_waiting());
    }
}

impl SharedLog {
    /// What is sent without a connection waits in the client, which has no limit of bytes.
    fn is_connected(&self) -> bool {
        self.context.client().connection_state() == State::Connected
    }
}

impl EventLog for JetStreamLog {
    fn append(&self, entries: Vec<NewEntry>) -> JournalCommit {
        let commit = JournalCommit::new();
        let (shared, ended) = (Arc::clone(&self.shared), commit.clone());
        // On a task of its own: a client that goes away does not take the entry with it.
        tokio::spawn(async move { ended.end(shared.append(entries).await) });
        commit
    }

    fn tail(&self) -> &LogTail {
        &self.shared.tail
    }

    fn read_older(&self, from: u64) -> BoxFuture<'_, Result<Vec<LogEntry>, LogUnreadable>> {
        Box::pin(self.shared.read_older(from))
    }

    fn reach(&self, sequence: u64) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.reach(sequence))
    }

    fn is_ready(&self) -> bool {
        // A process that starts again has its journal still, and nobody else has what is in it.
        !self.shared.is_new || self.shared.has_followed.load(Ordering::Relaxed)
    }

    fn wait_until_reached(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // What happens before is remembered already.
            if !self.shared.is_new && *self.shared.missed.lock() == MissedEvents::None {
                return;
            }
            let mut availability = self.shared.tail.watch_availability();
            let _ = availability.wait_for(|now| now.is_available).await;
            self.shared.unpublished.log_reached(self.shared.id);
        })
    }

    fn unpublished(&self) -> usize {
        self.shared.unpublished.len()
    }

    fn refusal(&self) -> &'static str {
        match self.shared.takes_entries() {
            true => "the journal cannot be written now",
            false => "NATS acknowledges no entry, and the journal has no room or is not there",
        }
    }

    fn wait_until_appended(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.unpublished.wait_until_empty())
    }
}
