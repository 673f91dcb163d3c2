//! Metrics of publishers and subscribers.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Metrics, Seconds, now};

/// What a publisher knows of its subscribers, and a subscriber of its publishers.
#[derive(Default)]
pub(super) struct FleetMetrics {
    connected: Family<SubscriberLabels, Gauge>,
    lag: Family<SubscriberLabels, Gauge>,
    last_event: Family<SubscriberLabels, Seconds>,
    refused_strangers: Gauge,
    autoreconciler_clients: Gauge,
    log_entries: Gauge,
    log_bytes: Gauge,
    log_limit_bytes: Gauge,
    log_available: Gauge,
    unpublished: Gauge,
    publisher_connected: Family<PublisherLabels, Gauge>,
    events: Family<PublisherLabels, Counter>,
    publisher_last_event: Family<PublisherLabels, Seconds>,
    resets: Family<PublisherLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubscriberLabels {
    subscriber: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PublisherLabels {
    publisher: Arc<str>,
}

/// A subscriber, as the metrics show it.
pub struct SubscriberFigures<'s> {
    pub name: &'s str,
    pub streams: usize,
    pub lag_entries: Option<u64>,
    pub last_event_seconds: Option<f64>,
}

/// An event log, as the metrics show it.
pub struct LogFigures {
    pub entries: u64,
    pub bytes: u64,
    pub max_bytes: u64,
    pub refused_strangers: u64,
    pub autoreconciler_clients: u64,
}

/// Subscribers that have rows of their own; beyond that there is one row for all.
const MAX_SUBSCRIBER_ROWS: usize = 1000;

/// The name of that row.
const ALL_SUBSCRIBERS: &str = "all";

impl FleetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "subscriber_connected",
            "Streams of the subscriber that are open",
            self.connected.clone(),
        );
        registry.register(
            "subscriber_lag_entries",
            "Entries of the event log that the subscriber has not been sent yet, while it is connected",
            self.lag.clone(),
        );
        registry.register_with_unit(
            "subscriber_last_event_timestamp",
            "When the subscriber was last sent an event",
            Unit::Seconds,
            self.last_event.clone(),
        );
        registry.register(
            "subscriber_strangers",
            "Requests to subscribe with a token that nobody knows, since the start",
            self.refused_strangers.clone(),
        );
        registry.register(
            "autoreconciler_clients",
            "Clients of flux-webhook-autoreconciler that are connected",
            self.autoreconciler_clients.clone(),
        );
        registry.register("event_log_entries", "Entries of the event log", self.log_entries.clone());
        registry.register_with_unit(
            "event_log_size",
            "Size of the entries of the event log",
            Unit::Bytes,
            self.log_bytes.clone(),
        );
        registry.register_with_unit(
            "event_log_limit",
            "Size at which the event log is trimmed",
            Unit::Bytes,
            self.log_limit_bytes.clone(),
        );
        // A log in the journal is always there.
        self.log_available.set(1);
        registry.register(
            "event_log_available",
            "Whether subscribers can follow the event log (1) or not (0)",
            self.log_available.clone(),
        );
        registry.register(
            "unpublished_entries",
            "Entries in the journal that the event log in JetStream has not acknowledged",
            self.unpublished.clone(),
        );
        registry.register(
            "subscribe_connected",
            "Whether the publisher is connected (1) or not (0)",
            self.publisher_connected.clone(),
        );
        registry.register("subscribe_events", "Events that came from the publisher", self.events.clone());
        registry.register_with_unit(
            "subscribe_last_event_timestamp",
            "When the last event came from the publisher",
            Unit::Seconds,
            self.publisher_last_event.clone(),
        );
        registry.register(
            "subscribe_resets",
            "Times that the event log could not be continued, each of them a catch-up",
            self.resets.clone(),
        );
    }
}

impl Metrics {
    /// Shows the subscribers of a publisher and its log, just before metrics are scraped.
    pub fn show_publisher(&self, subscribers: &[SubscriberFigures<'_>], log: &LogFigures) {
        let fleet = &self.fleet;
        fleet.connected.clear();
        fleet.lag.clear();
        fleet.last_event.clear();
        if subscribers.len() > MAX_SUBSCRIBER_ROWS {
            let last = subscribers
                .iter()
                .filter_map(|one| one.last_event_seconds)
                .fold(None, |last: Option<f64>, time| Some(last.map_or(time, |last| last.max(time))));
            fleet.show(&SubscriberFigures {
                name: ALL_SUBSCRIBERS,
                streams: subscribers.iter().map(|one| one.streams).sum(),
                lag_entries: subscribers.iter().filter_map(|one| one.lag_entries).max(),
                last_event_seconds: last,
            });
        } else {
            subscribers.iter().for_each(|one| fleet.show(one));
        }
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        fleet.log_entries.set(whole(log.entries));
        fleet.log_bytes.set(whole(log.bytes));
        fleet.log_limit_bytes.set(whole(log.max_bytes));
        fleet.refused_strangers.set(whole(log.refused_strangers));
        fleet.autoreconciler_clients.set(whole(log.autoreconciler_clients));
    }

    /// Whether the event log can be followed.
    pub fn event_log_available(&self, is_available: bool) {
        self.fleet.log_available.set(i64::from(is_available));
    }

    /// Sets how many entries wait for the event log.
    pub fn unpublished_entries(&self, count: usize) {
        self.fleet.unpublished.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The stream of a publisher has begun or ended.
    pub fn subscription_connected(&self, publisher: &Arc<str>, is_connected: bool) {
        let labels = PublisherLabels { publisher: Arc::clone(publisher) };
        self.fleet.publisher_connected.get_or_create(&labels).set(i64::from(is_connected));
        // Both are there from the start, so that rates have a beginning.
        drop(self.fleet.events.get_or_create(&labels));
        drop(self.fleet.resets.get_or_create(&labels));
    }

    /// Events came from a publisher.
    pub fn subscription_events(&self, publisher: &Arc<str>, count: u64) {
        let labels = PublisherLabels { publisher: Arc::clone(publisher) };
        self.fleet.events.get_or_create(&labels).inc_by(count);
        self.fleet.publisher_last_event.get_or_create(&labels).set(now());
    }

    /// The log of a publisher could not be continued.
    pub fn subscription_reset(&self, publisher: &Arc<str>) {
        self.fleet.resets.get_or_create(&PublisherLabels { publisher: Arc::clone(publisher) }).inc();
    }

    /// The config has no such publisher any more.
    pub fn forget_subscription(&self, publisher: &Arc<str>) {
        let labels = PublisherLabels { publisher: Arc::clone(publisher) };
        self.fleet.publisher_connected.remove(&labels);
        self.fleet.events.remove(&labels);
        self.fleet.publisher_last_event.remove(&labels);
        self.fleet.resets.remove(&labels);
    }
}

impl FleetMetrics {
    fn show(&self, one: &SubscriberFigures<'_>) {
        let labels = SubscriberLabels { subscriber: one.name.into() };
        self.connected.get_or_create(&labels).set(i64::try_from(one.streams).unwrap_or(i64::MAX));
        if let Some(lag) = one.lag_entries {
            self.lag.get_or_create(&labels).set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        if let Some(time) = one.last_event_seconds {
            self.last_event.get_or_create(&labels).set(time);
        }
    }
}
