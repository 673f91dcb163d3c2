//! Metrics, in OpenMetrics names.
//!
//! Labels come from closed sets: endpoints and key files of the config, providers, outcomes, kinds.
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::flux::Kind;

use self::fleet::FleetMetrics;
pub use self::fleet::{LogFigures, SubscriberFigures};
use self::labels::ResultLabel;
pub use self::labels::{
    EndedConnectionLabel, EventResultLabel, OutcomeLabel, PatchResultLabel, RevisionCheckLabel,
};

mod fleet;
mod labels;

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    deliveries: Family<DeliveryLabels, Counter>,
    last_delivery: Family<EndpointLabels, Seconds>,
    keys: Family<KeyLabels, Counter>,
    answer_time: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    filter_failures: Family<EndpointLabels, Counter>,
    ended_connections: Family<ReasonLabels, Counter>,
    patch_delay: Histogram,
    patches: Family<PatchLabels, Counter>,
    kubernetes_events: Family<EventLabels, Counter>,
    flux_events: Family<EventLabels, Counter>,
    retries: Counter,
    pending: Gauge,
    waiting_deliveries: Gauge,
    follow_through: Family<RevisionCheckLabels, Counter>,
    follow_through_time: Histogram,
    inventory_objects: Family<KindLabels, Gauge>,
    inventory_synced: Family<KindLabels, Gauge>,
    inventory_listable: Family<KindLabels, Gauge>,
    inventory_last_seen: Family<KindLabels, Seconds>,
    journal_size: Gauge,
    journal_commits: Family<ResultLabels, Counter>,
    journal_writable: Gauge,
    reloads: Family<ResultLabels, Counter>,
    reload_ok: Gauge,
    reload_time: Seconds,
    fleet: FleetMetrics,
}

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    endpoint: Arc<str>,
    source: &'static str,
    outcome: OutcomeLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    endpoint: Arc<str>,
    key: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PatchLabels {
    kind: Kind,
    result: PatchResultLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: EndedConnectionLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: ResultLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    result: EventResultLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RevisionCheckLabels {
    result: RevisionCheckLabel,
}

/// The endpoint of deliveries to no endpoint.
const UNMATCHED_LABEL: &str = "unmatched";

/// From half a millisecond to what the slowest provider waits.
const ANSWER_BUCKETS_SECONDS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0];
/// From an idle API server to one that is being upgraded.
const PATCH_BUCKETS_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
/// From a quick fetch to the end of patience.
const FOLLOW_BUCKETS_SECONDS: [f64; 8] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The labels under which an endpoint is shown while it is served.
pub struct EndpointLabelSet<'e> {
    pub name: &'e Arc<str>,
    pub source: &'static str,
    /// Whether there can be thousands of its sort: only what tells a silent one begins with zero then, the
    /// rest with its first event.
    pub is_one_of_many: bool,
    /// The names of its keys.
    pub keys: Vec<Arc<str>>,
}

impl EndpointLabelSet<'_> {
    fn deliveries(&self) -> impl Iterator<Item = DeliveryLabels> {
        let outcomes = OutcomeLabel::ALL.iter().copied();
        outcomes.filter(|outcome| *outcome != OutcomeLabel::UnknownPath).map(|outcome| DeliveryLabels {
            endpoint: Arc::clone(self.name),
            source: self.source,
            outcome,
        })
    }

    fn keys(&self) -> impl Iterator<Item = KeyLabels> {
        let labels = |key: &Arc<str>| KeyLabels { endpoint: Arc::clone(self.name), key: Arc::clone(key) };
        self.keys.iter().map(labels)
    }
}

impl Metrics {
    /// Metrics that have counted nothing.
    pub fn new() -> Arc<Metrics> {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("flux_recv"),
            deliveries: Family::default(),
            last_delivery: Family::default(),
            keys: Family::default(),
            answer_time: Family::new_with_constructor(|| Histogram::new(ANSWER_BUCKETS_SECONDS)),
            filter_failures: Family::default(),
            ended_connections: Family::default(),
            patch_delay: Histogram::new(PATCH_BUCKETS_SECONDS),
            patches: Family::default(),
            kubernetes_events: Family::default(),
            flux_events: Family::default(),
            retries: Counter::default(),
            pending: Gauge::default(),
            waiting_deliveries: Gauge::default(),
            follow_through: Family::default(),
            follow_through_time: Histogram::new(FOLLOW_BUCKETS_SECONDS),
            inventory_objects: Family::default(),
            inventory_synced: Family::default(),
            inventory_listable: Family::default(),
            inventory_last_seen: Family::default(),
            journal_size: Gauge::default(),
            journal_commits: Family::default(),
            journal_writable: Gauge::default(),
            reloads: Family::default(),
            reload_ok: Gauge::default(),
            reload_time: Seconds::default(),
            fleet: FleetMetrics::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics.reload_ok.set(1);
        metrics.reload_time.set(now());
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let Metrics { registry, .. } = self;
        registry.register(
            "deliveries",
            "Requests to hook paths, by what became of them",
            self.deliveries.clone(),
        );
        registry.register_with_unit(
            "last_delivery_timestamp",
            "When the last verified delivery came; the start of the process if none has come since",
            Unit::Seconds,
            self.last_delivery.clone(),
        );
        registry.register(
            "key_uses",
            "Verified deliveries, by the key file that verified them",
            self.keys.clone(),
        );
        registry.register_with_unit(
            "answer_duration",
            "From the last byte of the head of a request to its answer",
            Unit::Seconds,
            self.answer_time.clone(),
        );
        registry.register(
            "filter_failures",
            "Deliveries for which a filter failed, which counts as false",
            self.filter_failures.clone(),
        );
        registry.register(
            "ended_connections",
            "Connections that were ended or refused for what their clients did",
            self.ended_connections.clone(),
        );
        registry.register_with_unit(
            "patch_delay",
            "From the first delivery that a patch covers to the API server's answer to that patch",
            Unit::Seconds,
            self.patch_delay.clone(),
        );
        registry.register("patches", "Reconcile requests sent to the API server", self.patches.clone());
        registry.register("retries", "Reconcile requests that have to be sent again", self.retries.clone());
        registry.register(
            "pending_objects",
            "Objects that wait for a patch or its end",
            self.pending.clone(),
        );
        registry.register(
            "waiting_deliveries",
            "Deliveries that wait for the first look at the cluster",
            self.waiting_deliveries.clone(),
        );
        registry.register(
            "follow_through",
            "Pushes whose fetch by Flux was followed to its end",
            self.follow_through.clone(),
        );
        registry.register_with_unit(
            "follow_through_duration",
            "From a delivery to the status that shows its revision",
            Unit::Seconds,
            self.follow_through_time.clone(),
        );
        registry.register("inventory_objects", "Flux objects that are known", self.inventory_objects.clone());
        registry.register(
            "inventory_synced",
            "Whether the kind was listed or is known to be missing (1) or not (0)",
            self.inventory_synced.clone(),
        );
        registry.register(
            "inventory_listable",
            "Whether all objects of the kind may be listed where they are watched (1) or not (0)",
            self.inventory_listable.clone(),
        );
        registry.register_with_unit(
            "inventory_last_seen_timestamp",
            "When the API server last said something about the kind",
            Unit::Seconds,
            self.inventory_last_seen.clone(),
        );
        registry.register_with_unit(
            "journal_size",
            "Size of the journal's file",
            Unit::Bytes,
            self.journal_size.clone(),
        );
        registry.register("journal_commits", "Commits of the journal", self.journal_commits.clone());
        registry.register(
            "journal_writable",
            "Whether the last commit of the journal went through (1) or not (0)",
            self.journal_writable.clone(),
        );
        registry.register(
            "kubernetes_events",
            "Kubernetes Events about objects, by what became of them",
            self.kubernetes_events.clone(),
        );
        registry.register(
            "flux_events",
            "Events for notification-controller, by what became of them",
            self.flux_events.clone(),
        );
        registry.register("config_reloads", "Attempts to load a changed config", self.reloads.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether what is in force is what lies in the config's folder (1) or not (0)",
            self.reload_ok.clone(),
        );
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When the config in force was loaded",
            Unit::Seconds,
            self.reload_time.clone(),
        );
        registry.register(
            "build",
            "The running version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        self.fleet.register(registry);
        registry.register_collector(Box::new(MemoryCollector));
    }

    /// A counter that appears with its first event hides that event from `increase()`.
    fn begin_at_zero(&self) {
        Kind::payload_kinds().for_each(|kind| self.kind(kind));
        for result in RevisionCheckLabel::ALL.iter().copied() {
            drop(self.follow_through.get_or_create(&RevisionCheckLabels { result }));
        }
        for result in ResultLabel::ALL.iter().copied() {
            drop(self.journal_commits.get_or_create(&ResultLabels { result }));
            drop(self.reloads.get_or_create(&ResultLabels { result }));
        }
        self.journal_writable(true);
    }

    /// Shows a kind that begins to be watched.
    pub fn kind(&self, kind: Kind) {
        for result in PatchResultLabel::ALL.iter().copied() {
            drop(self.patches.get_or_create(&PatchLabels { kind, result }));
        }
        self.inventory(kind, 0);
        self.inventory_synced(kind, false);
        self.inventory_listable(kind, true);
        self.inventory_seen(kind);
    }

    /// Returns the counter of the connections that were ended for this reason.
    pub fn ended_connections(&self, reason: EndedConnectionLabel) -> Counter {
        self.ended_connections.get_or_create(&ReasonLabels { reason }).clone()
    }

    /// The text of all metrics.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Shows an endpoint before its first delivery, so that a silent one can be noticed.
    pub fn show(&self, endpoint: &EndpointLabelSet<'_>) {
        if !endpoint.is_one_of_many {
            endpoint.deliveries().for_each(|labels| drop(self.deliveries.get_or_create(&labels)));
        }
        endpoint.keys().for_each(|labels| drop(self.keys.get_or_create(&labels)));
        let labels = EndpointLabels { endpoint: Arc::clone(endpoint.name) };
        if !endpoint.is_one_of_many {
            drop(self.answer_time.get_or_create(&labels));
            drop(self.filter_failures.get_or_create(&labels));
        }
        let last = self.last_delivery.get_or_create(&labels);
        if last.get() == 0.0 {
            last.set(now());
        }
    }

    /// Forgets an endpoint that is served no more. Receivers come and go, and each has a name of its own.
    pub fn forget(&self, endpoint: &EndpointLabelSet<'_>) {
        for labels in endpoint.deliveries() {
            self.deliveries.remove(&labels);
        }
        for labels in endpoint.keys() {
            self.keys.remove(&labels);
        }
        let labels = EndpointLabels { endpoint: Arc::clone(endpoint.name) };
        self.answer_time.remove(&labels);
        self.filter_failures.remove(&labels);
        self.last_delivery.remove(&labels);
    }

    /// A delivery to an endpoint was answered.
    pub fn delivery(&self, endpoint: &Arc<str>, source: &'static str, outcome: OutcomeLabel, took: Duration) {
        let labels = DeliveryLabels { endpoint: Arc::clone(endpoint), source, outcome };
        self.deliveries.get_or_create(&labels).inc();
        let labels = EndpointLabels { endpoint: labels.endpoint };
        self.answer_time.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A delivery was verified, with this key if it was a key that verified it.
    pub fn verified(&self, endpoint: &Arc<str>, key: Option<&Arc<str>>) {
        // One that a reload has removed meanwhile stays forgotten.
        if let Some(last) = self.last_delivery.get(&EndpointLabels { endpoint: Arc::clone(endpoint) }) {
            last.set(now());
        }
        if let Some(key) = key {
            let labels = KeyLabels { endpoint: Arc::clone(endpoint), key: Arc::clone(key) };
            self.keys.get_or_create(&labels).inc();
        }
    }

    /// A filter of the endpoint failed.
    pub fn filter_failed(&self, endpoint: &Arc<str>) {
        self.filter_failures.get_or_create(&EndpointLabels { endpoint: Arc::clone(endpoint) }).inc();
    }

    /// A request came for a path that nobody serves.
    pub fn unknown_path(&self) {
        static NAME: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(UNMATCHED_LABEL));
        let labels = DeliveryLabels {
            endpoint: Arc::clone(&NAME),
            source: UNMATCHED_LABEL,
            outcome: OutcomeLabel::UnknownPath,
        };
        self.deliveries.get_or_create(&labels).inc();
    }

    /// A patch was answered with success, so long after the first delivery that it covers.
    pub fn patched(&self, kind: Kind, delay: Option<Duration>) {
        self.patches.get_or_create(&PatchLabels { kind, result: PatchResultLabel::Success }).inc();
        if let Some(delay) = delay {
            self.patch_delay.observe(delay.as_secs_f64());
        }
    }

    /// Counts a patch that failed, and whether it is tried again.
    pub fn patch_failed(&self, kind: Kind, result: PatchResultLabel, again: bool) {
        self.patches.get_or_create(&PatchLabels { kind, result }).inc();
        self.retries.inc_by(u64::from(again));
    }

    /// Counts an event for notification-controller.
    pub fn flux_event(&self, result: EventResultLabel) {
        self.flux_events.get_or_create(&EventLabels { result }).inc();
    }

    /// Counts a Kubernetes Event.
    pub fn kubernetes_event(&self, result: EventResultLabel) {
        self.kubernetes_events.get_or_create(&EventLabels { result }).inc();
    }

    /// Sets the number of objects that wait for a patch.
    pub fn pending(&self, objects: usize) {
        self.pending.set(whole(objects));
    }

    /// Sets the number of deliveries that wait to be matched.
    pub fn waiting_deliveries(&self, deliveries: usize) {
        self.waiting_deliveries.set(whole(deliveries));
    }

    /// A push was followed to its end.
    pub fn revision_checked(&self, result: RevisionCheckLabel, after: Option<Duration>) {
        self.follow_through.get_or_create(&RevisionCheckLabels { result }).inc();
        if let Some(after) = after {
            self.follow_through_time.observe(after.as_secs_f64());
        }
    }

    /// Sets the number of objects of a kind.
    pub fn inventory(&self, kind: Kind, objects: usize) {
        let labels = KindLabels { kind };
        self.inventory_objects.get_or_create(&labels).set(whole(objects));
    }

    /// Whether all objects of the kind may be listed where they are watched.
    pub fn inventory_listable(&self, kind: Kind, listable: bool) {
        let labels = KindLabels { kind };
        self.inventory_listable.get_or_create(&labels).set(i64::from(listable));
    }

    /// Whether a kind is known, as far as it can be.
    pub fn inventory_synced(&self, kind: Kind, synced: bool) {
        self.inventory_synced.get_or_create(&KindLabels { kind }).set(i64::from(synced));
    }

    /// The API server said something about a kind.
    pub fn inventory_seen(&self, kind: Kind) {
        self.inventory_last_seen.get_or_create(&KindLabels { kind }).set(now());
    }

    /// Sets the size of the journal, in bytes.
    pub fn journal_size(&self, bytes: u64) {
        self.journal_size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The journal has written, or tried to.
    pub fn journal_commit(&self, success: bool) {
        self.journal_commits.get_or_create(&result(success)).inc();
        self.journal_writable(success);
    }

    /// Whether the journal can be written.
    pub fn journal_writable(&self, writable: bool) {
        self.journal_writable.set(i64::from(writable));
    }

    /// A changed config was loaded, or could not be.
    pub fn reloaded(&self, success: bool) {
        self.reloads.get_or_create(&result(success)).inc();
        self.reload_ok.set(i64::from(success));
        if success {
            self.reload_time.set(now());
        }
    }
}

fn result(success: bool) -> ResultLabels {
    ResultLabels { result: ResultLabel::new(success) }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The memory of the process, read when metrics are scraped.
#[derive(Debug)]
struct MemoryCollector;

impl Collector for MemoryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(bytes) = resident_bytes() else { return Ok(()) };
        let gauge = prometheus_client::metrics::gauge::ConstGauge::new(bytes);
        let metric = encoder.encode_descriptor(
            "resident_memory",
            "Resident memory of the process",
            Some(&Unit::Bytes),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        prometheus_client::encoding::EncodeMetric::encode(&gauge, metric)
    }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_open_metrics() {
        let metrics = Metrics::new();
        let endpoint = Arc::from("git\"hub");
        metrics.show(&EndpointLabelSet {
            name: &endpoint,
            source: "GitHub",
            is_one_of_many: false,
            keys: Vec::new(),
        });
        metrics.delivery(&endpoint, "GitHub", OutcomeLabel::Accepted, Duration::from_micros(70));
        metrics.unknown_path();
        let text = metrics.encode();
        assert!(text.ends_with("# EOF\n"));
        assert!(
            text.contains(
                "flux_recv_deliveries_total{endpoint=\"git\\\"hub\",source=\"GitHub\",outcome=\"accepted\"} 1"
            ),
            "{text}"
        );
        assert!(text.contains("flux_recv_deliveries_total{endpoint=\"unmatched\",source=\"unmatched\",outcome=\"unknown_path\"} 1"));
        assert!(text.contains("flux_recv_build_info{version="), "{text}");
        assert!(text.contains("# UNIT flux_recv_journal_size_bytes bytes"), "{text}");
    }
}
