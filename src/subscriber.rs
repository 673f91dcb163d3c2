//! Follows publishers in other clusters: connects outwards, resumes where it was, and gives each event to the
//! same matching and queue as deliveries. A publisher that is gone costs its webhooks and nothing else.

mod connection;
mod offer;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub use self::connection::SubscribeError;
use crate::cluster::watches::Watches;
use crate::event::Subject;
use crate::fleet::cursor::Cursor;
use crate::fleet::hello::Hello;
use crate::fleet::options::{SubscribedEndpoint, SubscriptionOptions};
use crate::flux::Target;
use crate::journal::contents::{JournalChange, SubscriptionRecord};
use crate::journal::{Journal, JournalCommit};
use crate::provider::Provider;
use crate::receive::NotTaken;
use crate::service::Service;

/// The subscriptions of an instance.
pub struct Subscriptions {
    service: Arc<Service>,
    journal: Journal,
    /// None where the objects are known already.
    watches: Option<Arc<Watches>>,
    running: Mutex<BTreeMap<Arc<str>, RunningSubscription>>,
    /// What an earlier process has left, until its subscription starts.
    left: Mutex<BTreeMap<String, SubscriptionRecord>>,
}

struct RunningSubscription {
    subscription: Arc<Subscription>,
    tasks: [AbortHandle; 2],
}

/// One publisher that is followed.
struct Subscription {
    options: SubscriptionOptions,
    service: Arc<Service>,
    journal: Journal,
    record: Mutex<SubscriptionRecord>,
    /// Told when a catch-up is due.
    must_catch_up: Notify,
    /// Counts the times that one became due, so that one that becomes due while another runs is not missed.
    demands: AtomicU64,
    /// Told whenever `demands` has grown.
    demanded: Notify,
    /// How long requests are delayed, as the last `hello` has said.
    stagger: Mutex<Duration>,
    /// The providers of the endpoints, as the last `hello` has named them.
    sources: Mutex<BTreeMap<String, String>>,
    status: Mutex<ConnectionStatus>,
}

#[derive(Default)]
struct ConnectionStatus {
    connected: Option<Timestamp>,
    last_event: Option<Timestamp>,
    failure: Option<String>,
}

/// The state of a subscription, for pages and commands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    pub name: String,
    pub url: String,
    /// Since when it is connected.
    pub connected: Option<String>,
    /// Why it is not.
    pub failure: Option<String>,
    pub cursor: Option<String>,
    pub last_event: Option<String>,
    pub must_catch_up: bool,
}

/// The first connection is made within this time, so that a fleet that starts at once is spread.
const FIRST_CONNECT_DELAY: Duration = Duration::from_secs(1);
/// The maximum pause between two tries.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(60);
/// A stream that has lived for this long was a good one: the next pause is a first one.
const GOOD_STREAM_AGE: Duration = Duration::from_secs(10);

/// The pause after a catch-up that could not be written to the journal.
const CATCH_UP_RETRY_DELAY: Duration = Duration::from_secs(10);

impl Subscriptions {
    /// The names of the endpoints that subscriptions take.
    pub fn endpoint_names(&self) -> Vec<Arc<str>> {
        let running = self.running.lock();
        let endpoints = running.values().flat_map(|running| &running.subscription.options.endpoints);
        endpoints.map(|endpoint| Arc::clone(&endpoint.name)).collect()
    }

    /// The endpoint of this name that a subscription takes.
    pub fn endpoint(&self, name: &str) -> Option<Arc<SubscribedEndpoint>> {
        let running = self.running.lock();
        let mut endpoints = running.values().flat_map(|running| &running.subscription.options.endpoints);
        endpoints.find(|endpoint| &*endpoint.name == name).cloned()
    }

    /// Prepares the subscriptions of a config; `left` is how far an earlier process has come.
    pub fn new(
        service: Arc<Service>,
        journal: Journal,
        left: BTreeMap<String, SubscriptionRecord>,
        watches: Option<Arc<Watches>>,
    ) -> Subscriptions {
        Subscriptions { service, journal, watches, running: Mutex::default(), left: Mutex::new(left) }
    }

    /// Takes a config in force: subscriptions that have changed connect anew, others go on. Has to be called
    /// within a Tokio runtime.
    pub fn replace(&self, all: Vec<SubscriptionOptions>) {
        let mut running = self.running.lock();
        let mut left = self.left.lock();
        let is_listed = |name: &str| all.iter().any(|options| &*options.name == name);
        let unlisted = left.keys().filter(|name| !is_listed(name));
        let unlisted: Vec<JournalChange> =
            unlisted.map(|name| JournalChange::RemoveCursor(name.clone())).collect();
        self.journal.write_later(unlisted);
        running.retain(|name, subscription| {
            let is_same = all.iter().any(|options| {
                options.name == *name && options.digest == subscription.subscription.options.digest
            });
            if !is_same {
                subscription.tasks.iter().for_each(AbortHandle::abort);
                // It goes on from where it was, if it is still there.
                left.insert(name.to_string(), *subscription.subscription.record.lock());
            }
            if !is_listed(name) {
                left.remove(&**name);
                let endpoints = subscription.subscription.options.endpoints.iter();
                endpoints.for_each(|endpoint| self.service.history.forget(&endpoint.name));
                self.journal.write_later([JournalChange::RemoveCursor(name.to_string())]);
                self.service.metrics.forget_subscription(name);
            }
            is_same
        });
        for options in all {
            if !running.contains_key(&options.name) {
                let record = left.remove(&*options.name).unwrap_or_default();
                running.insert(Arc::clone(&options.name), self.start(options, record));
            }
        }
        left.clear();
    }

    fn start(&self, options: SubscriptionOptions, record: SubscriptionRecord) -> RunningSubscription {
        let subscription = Arc::new(Subscription {
            options,
            service: Arc::clone(&self.service),
            journal: self.journal.clone(),
            record: Mutex::new(record),
            must_catch_up: Notify::new(),
            demands: AtomicU64::new(0),
            demanded: Notify::new(),
            stagger: Mutex::default(),
            sources: Mutex::default(),
            status: Mutex::default(),
        });
        self.service.metrics.subscription_connected(&subscription.options.name, false);
        let stream = tokio::spawn(Arc::clone(&subscription).follow());
        let catch_up = tokio::spawn(Arc::clone(&subscription).catch_up(self.watches.clone()));
        RunningSubscription { subscription, tasks: [stream.abort_handle(), catch_up.abort_handle()] }
    }

    /// Requests objects that were created or changed while nobody watched, as far as events can concern them.
    ///
    /// # Errors
    /// When the journal does not hold all of them.
    pub async fn catch_up_targets(&self, missed: &BTreeSet<Target>) -> Result<(), NotTaken> {
        let all: Vec<Arc<Subscription>> =
            self.running.lock().values().map(|running| Arc::clone(&running.subscription)).collect();
        for subscription in all {
            subscription.request_where(|target| missed.contains(target)).await?;
        }
        Ok(())
    }

    /// Returns the state of each subscription.
    pub fn statuses(&self) -> Vec<SubscriptionStatus> {
        self.running.lock().values().map(|running| running.subscription.status()).collect()
    }
}

impl Subscription {
    /// Connects, and connects again whenever the stream ends; never ends.
    async fn follow(self: Arc<Subscription>) {
        let name = &self.options.name;
        let mut failures = 0_u32;
        tokio::time::sleep(FIRST_CONNECT_DELAY.mul_f64(fastrand::f64())).await;
        loop {
            let started = Instant::now();
            let failure = self.session().await;
            self.service.metrics.subscription_connected(name, false);
            let why = failure.to_string();
            let was_connected = {
                let mut status = self.status.lock();
                status.failure = Some(why.clone());
                status.connected.take().is_some()
            };
            failures = match was_connected {
                true if started.elapsed() >= GOOD_STREAM_AGE => 0,
                // A publisher that can be connected to is not one that is gone: it may have lost its log for a moment.
                true if failure.is_end_of_stream() => (failures + 1).min(MAX_FAILURES_AFTER_STREAM),
                _ => failures + 1,
            };
            let pause = match failure.retry_after() {
                // Another replica of it may answer, and the publisher knows how many ask.
                Some(after) if failures < MAX_HINTED_FAILURES => {
                    after.clamp(FIRST_CONNECT_DELAY, MAX_RECONNECT_DELAY / 2).mul_f64(1.0 + fastrand::f64())
                }
                _ => reconnect_delay(failures).mul_f64(fastrand::f64()),
            };
            let retry_in_ms = pause.as_millis() as u64;
            if was_connected && failure.is_end_of_stream() {
                log::info!(publisher:% = name, retry_in_ms; "disconnected from the publisher");
            } else {
                log::warn!(publisher:% = name, why:%, retry_in_ms; "publisher cannot be followed, retrying");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Requests every object once whenever events were missed; never ends.
    async fn catch_up(self: Arc<Subscription>, watches: Option<Arc<Watches>>) {
        loop {
            let due = self.must_catch_up.notified();
            if !self.record.lock().must_catch_up {
                due.await;
                continue;
            }
            if let Some(watches) = &watches {
                watches.wait_until_synced().await;
            }
            let demands = self.demands.load(Ordering::Relaxed);
            let knows_all = watches.as_ref().is_none_or(|watches| watches.is_all_known());
            match self.request_where(|_| true).await {
                Ok(_) if !knows_all => {
                    // A kind is broken: what is known was requested, and all of it is once more when it works.
                    // Another catch-up that becomes due meanwhile does not wait for that.
                    let is_newer = self.demanded.notified();
                    if self.demands.load(Ordering::Relaxed) == demands
                        && let Some(watches) = &watches
                    {
                        tokio::select! {
                            () = watches.wait_until_known() => {}
                            () = is_newer => {}
                        }
                    }
                }
                Ok(objects) => {
                    log::info!(publisher:% = self.options.name, objects; "caught up: each object was requested once");
                    // Within the lock of the record, where it becomes due as well.
                    drop(self.change(|record| {
                        record.must_catch_up &= self.demands.load(Ordering::Relaxed) != demands;
                    }));
                }
                Err(why) => {
                    log::warn!(publisher:% = self.options.name, why:%; "the catch-up could not be written to the journal, retrying");
                    tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Requests the objects that events can concern, as far as they are wanted; returns how many.
    async fn request_where(&self, is_wanted: impl Fn(&Target) -> bool) -> Result<usize, NotTaken> {
        let endpoints = self.options.endpoints.iter();
        let with_subjects = endpoints.map(|endpoint| (&**endpoint, self.subjects(&endpoint.endpoint)));
        let stagger = *self.stagger.lock();
        self.service.handler.catch_up_subscription(with_subjects, is_wanted, stagger).await
    }

    /// What events of an endpoint can be about; anything where the provider is not known.
    fn subjects(&self, endpoint: &str) -> Vec<Subject> {
        let sources = self.sources.lock();
        let provider = sources.get(endpoint).and_then(|source| Provider::named(source));
        match provider {
            Some(provider) => provider.subjects.to_vec(),
            None => Subject::ALL.to_vec(),
        }
    }

    /// Moves the cursor, and makes a catch-up due. It is durable with the commit: from there on nobody else knows
    /// that it is due.
    fn advance(&self, cursor: Option<Cursor>, must_catch_up: bool) -> Option<JournalCommit> {
        self.change(|record| {
            record.cursor = cursor.or(record.cursor);
            if must_catch_up {
                self.demands.fetch_add(1, Ordering::Relaxed);
                self.demanded.notify_waiters();
                record.must_catch_up = true;
            }
        })
    }

    /// Changes how far it has come, in the journal as well.
    fn change(&self, change: impl FnOnce(&mut SubscriptionRecord)) -> Option<JournalCommit> {
        let mut record = self.record.lock();
        let before = *record;
        change(&mut record);
        if *record == before {
            return None;
        }
        if record.must_catch_up {
            self.must_catch_up.notify_one();
        }
        // Within the lock, so that the journal sees the changes in their order.
        self.journal.write(vec![JournalChange::SetCursor(self.options.name.to_string(), *record)])
    }

    fn status(&self) -> SubscriptionStatus {
        let (status, record) = (self.status.lock(), *self.record.lock());
        SubscriptionStatus {
            name: self.options.name.to_string(),
            url: self.options.url.to_string(),
            connected: status.connected.map(|time| time.to_string()),
            failure: status.failure.clone().filter(|_| status.connected.is_none()),
            cursor: record.cursor.map(|cursor| cursor.to_string()),
            last_event: status.last_event.map(|time| time.to_string()),
            must_catch_up: record.must_catch_up,
        }
    }
}

/// Connects once, and returns what the publisher offers, if that is what the options take.
///
/// # Errors
/// Why it cannot be followed, for people.
pub async fn examine(options: &SubscriptionOptions) -> Result<Hello, SubscribeError> {
    let hello = connection::connect(options, None).await?.hello;
    offer::check(options, &hello).map(|()| hello)
}

/// After a stream that ended soon, the next try is at most four seconds away.
const MAX_FAILURES_AFTER_STREAM: u32 = 2;

/// Refusals in a row whose `Retry-After` is honoured. After that it is not a question of seconds.
const MAX_HINTED_FAILURES: u32 = 8;

/// Returns the maximum pause before the next try.
fn reconnect_delay(failures: u32) -> Duration {
    FIRST_CONNECT_DELAY.saturating_mul(1 << failures.min(6)).min(MAX_RECONNECT_DELAY)
}
