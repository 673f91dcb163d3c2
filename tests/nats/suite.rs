//! The suite of event logs, over JetStream, with the rights that the documents list and no others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_recv::internals::event_log::{EventLog, JetStreamLog, MissedEvents, NatsCredentials, NatsOptions};
use flux_recv::internals::{Contents, Journal, Metrics};

use super::common::event_log_suite::{self, LIMITS};
use super::publishing::{documented_rights, servers, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_jetstream_passes_the_suite_of_event_logs() {
    let (key, rights) = user(&documented_rights());
    let Some(servers) = servers(1, &rights) else { return };
    let seed = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(seed.path(), key.seed().expect("a seed")).expect("a seed");
    let options = NatsOptions {
        urls: vec![servers.urls()],
        stream: "flux-recv".to_owned(),
        credentials: Some(NatsCredentials::NKey(seed.path().to_owned())),
        ca: None,
        replicas: 1,
    };
    let nothing = Contents::default();
    let missed = MissedEvents::None;
    let log = JetStreamLog::start(&options, LIMITS, Journal::none(), &nothing, missed, Metrics::new()).await;
    let log = log.expect("a log");
    tokio::spawn(Arc::clone(&log).run());
    let log: Arc<dyn EventLog> = log;
    let started = Instant::now();
    while !log.tail().is_available() {
        assert!(started.elapsed() < Duration::from_secs(10), "the log is not followed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    event_log_suite::run(log).await;
    assert!(!servers.log(0).contains("Violation"), "{}", servers.log(0));
}
