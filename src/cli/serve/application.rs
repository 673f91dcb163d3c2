//! Everything that serves, put together once and then run.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::announce::announce;
use super::backend::{Backend, Tasks};
use super::fleet::{Fleet, FleetOptions};
use super::reloading::ReloadTask;
use super::shutdown::drain;
use super::{ServeArgs, background, file_limit, receivers};
use crate::admin::{self, AdminState, Viewers};
use crate::cli::keygen::random_hex;
use crate::config::{Config, Rules};
use crate::endpoint::registry::{EndpointRegistry, Serving};
use crate::endpoint::{Endpoint, EndpointOrigin};
use crate::history::History;
use crate::journal::Journal;
use crate::journal::contents::JournalChange;
use crate::listener::{self, RunningServer};
use crate::matching::Inventory;
use crate::metrics::{EndpointLabelSet, Metrics};
use crate::publisher;
use crate::queue::Queue;
use crate::receive::DeliveryHandler;
use crate::reload::ConfigWatcher;
use crate::server;
use crate::service::{Limits, Service};
use crate::verify::VerifyContext;
use crate::verify::fetch::HttpFetch;

/// A flux-recv that is ready to serve: its ports are bound, its background tasks run.
pub(super) struct Application {
    service: Arc<Service>,
    queue: Queue,
    journal: Journal,
    tasks: Tasks,
    fleet: Arc<Fleet>,
    /// None with `--listen none`.
    public: Option<TcpListener>,
    operators: TcpListener,
    /// None if this is not a publisher.
    subscribers: Option<TcpListener>,
    admin_state: Arc<AdminState>,
    debug_listen: String,
    sigterm: Signal,
    sigint: Signal,
    shutdown_delay: Duration,
    drain_limit: Duration,
}

/// The reason why serving ends.
enum Stop {
    Signal(&'static str),
    /// Something ended that should not; without the listener if that is what ended.
    Failure {
        why: String,
        listens: bool,
    },
}

impl Application {
    /// Loads the config, binds the ports, and starts everything but the listeners.
    pub(super) async fn build(args: &ServeArgs) -> anyhow::Result<Application> {
        let rules = Rules {
            allows_missing_keys: false,
            require_opt_in: args.require_opt_in,
            serves_receivers: args.receivers.namespaces().is_some(),
        };
        let (changes, mut config) = ConfigWatcher::load(&args.config.config, rules)?;
        let limits = Limits::default();
        let limits = Limits { max_connections: file_limit::fit(limits.max_connections), ..limits };
        let public = match args.listen.as_str() {
            "none" => None,
            address => Some(bind(address, "--listen")?),
        };
        let subscribers = Fleet::bind(config.publish.is_some(), &args.subscribe_listen)?;
        let operators = bind(&args.admin_listen, "--admin-listen")?;
        let metrics = Metrics::new();
        let history = Arc::new(History::default());
        let backend = Backend::start(args, &config, &history, &metrics).await?;
        announce(&config, args, &backend.journal);
        let mut reloading = ReloadTask::new(&args.config.config, changes, &config)?;
        reloading.watches.clone_from(&backend.watches);
        let fleet_options =
            FleetOptions { publish: config.publish.take(), subscribe: std::mem::take(&mut config.subscribe) };
        let warnings = std::mem::take(&mut config.warnings);
        let registry = EndpointRegistry::new(serving(config, &metrics));
        let handler = DeliveryHandler::new(verify_context(), backend.sink, Arc::clone(&metrics));
        let service = Arc::new(Service::new(registry, handler, history, metrics, limits));
        service.config_state.in_force(warnings);
        let (queue, journal, mut tasks) = (backend.queue, backend.journal, backend.tasks);
        let (event_log, cursors) = (backend.event_log, backend.cursors);
        let events = event_log.as_ref().map(|(_, events)| Arc::clone(events));
        let log = event_log.as_ref().map(|(log, _)| Arc::clone(log));
        let absent_publisher = events.filter(|_| backend.must_announce);
        let watches = backend.watches.clone();
        let fleet = Arc::new(Fleet::start(fleet_options, &service, &journal, event_log, cursors, watches));
        let matching = Arc::clone(&service);
        match backend.watches {
            Some(watches) => {
                let became_known = watches.became_known();
                tasks.spawn("the matching", async move {
                    matching.handler.match_waiting(&became_known).await;
                });
                let subscriptions = Arc::clone(&fleet.subscriptions);
                let gaps = background::catch_up_after_gaps(
                    Arc::clone(&service),
                    Arc::clone(&watches),
                    subscriptions,
                );
                tasks.spawn("the catch-up after gaps", gaps);
                let must_catch_up = backend.must_catch_up;
                let (service, journal) = (Arc::clone(&service), journal.clone());
                let synced = background::when_synced(service, watches, journal, must_catch_up);
                tasks.spawn("the first catch-up", synced);
            }
            None => {
                // Nothing is known of a cluster here.
                journal.write_later([JournalChange::CaughtUp]);
                matching.handler.match_ready().await;
                tasks.spawn("the matching", async move {
                    matching.handler.match_waiting(&Notify::new()).await;
                });
            }
        }
        if let Some(receivers) = backend.receivers {
            service.registry.expect_receivers();
            let put_in_force = receivers::put_in_force(Arc::clone(&service), reloading.watches.clone());
            tasks.spawn("the watch of Receivers", receivers.run(put_in_force));
        }
        let interval = background::alive_interval(args.catch_up_after);
        let alive = background::record_alive(journal.clone(), interval);
        tasks.spawn("the signs of life", async move {
            // Before the first sign, so that a crash in between does not forget the absence.
            background::announce_absence(absent_publisher).await;
            if let Some(log) = log {
                log.wait_until_reached().await;
            }
            alive.await;
        });
        tasks.spawn("the config reload", reloading.run(Arc::clone(&service), Arc::clone(&fleet)));
        let admin_state = Arc::new(AdminState {
            service: Arc::clone(&service),
            journal: journal.clone(),
            publisher: fleet.publisher.as_ref().map(|running| Arc::clone(&running.publisher)),
            subscriptions: Arc::clone(&fleet.subscriptions),
            options: options(args, &backend.journal_folder),
            replica: std::env::var("HOSTNAME").unwrap_or_else(|_| "of this machine".to_owned()),
            started: jiff::Timestamp::now(),
            form_token: args.allow_request_again.then(random_hex).transpose()?,
            viewers: Viewers::default(),
        });
        Ok(Application {
            service,
            queue,
            journal,
            tasks,
            fleet,
            public,
            operators,
            subscribers,
            admin_state,
            debug_listen: args.debug_listen.clone(),
            sigterm: signal(SignalKind::terminate())?,
            sigint: signal(SignalKind::interrupt())?,
            shutdown_delay: args.shutdown_delay,
            drain_limit: args.drain,
        })
    }

    /// Serves until a signal or a failure ends it, then drains.
    pub(super) async fn run(mut self) -> anyhow::Result<ExitCode> {
        let address = listener::local_address(&self.operators)?;
        let mut admin = admin::start(self.operators, Arc::clone(&self.admin_state))?;
        log::info!(address:%; "serving probes and metrics");
        let _debug = start_debug(&self.debug_listen, self.admin_state);
        let publisher = self.fleet.publisher.as_ref().map(|running| Arc::clone(&running.publisher));
        let mut streaming = None;
        if let (Some(listener), Some(publisher)) = (self.subscribers, &publisher) {
            let address = listener::local_address(&listener)?;
            let max_connections = file_limit::fit(publisher::MAX_STREAM_CONNECTIONS);
            streaming = Some(publisher::start(listener, Arc::clone(publisher), max_connections)?);
            log::info!(address:%; "listening for subscribers");
        }
        let mut running = None;
        if let Some(listener) = self.public {
            let address = listener::local_address(&listener)?;
            running = Some(server::start(listener, Arc::clone(&self.service))?);
            log::info!(address:%; "listening");
        }

        let failure = |why: String| Stop::Failure { why, listens: true };
        let stop = tokio::select! {
            _ = self.sigterm.recv() => Stop::Signal("SIGTERM"),
            _ = self.sigint.recv() => Stop::Signal("SIGINT"),
            why = ended(&mut running) => Stop::Failure { why: format!("the listener ended: {why}"), listens: false },
            why = ended(&mut streaming) => failure(format!("the listener for subscribers ended: {why}")),
            why = admin.ended() => failure(format!("the admin listener ended: {why}")),
            why = self.tasks.ended() => failure(why),
            () = self.journal.wait_until_ended() => failure("the journal ended".to_owned()),
        };
        let drain = |running| {
            drain(running, &self.service, publisher.as_deref(), &self.queue, &self.journal, self.drain_limit)
        };
        if let Some(publisher) = &publisher {
            publisher.close(self.shutdown_delay);
        }
        match stop {
            Stop::Signal(signal) => {
                if signal == "SIGTERM" && !self.shutdown_delay.is_zero() {
                    self.service.shut_down();
                    let delay_s = self.shutdown_delay.as_secs_f64();
                    log::info!(signal, delay_s; "shutting down: not ready, still accepting deliveries");
                    tokio::select! {
                        () = tokio::time::sleep(self.shutdown_delay) => {}
                        _ = self.sigterm.recv() => {}
                        _ = self.sigint.recv() => {}
                    }
                }
                log::info!(signal; "shutting down: draining pending reconcile requests");
                Ok(drain(running).await)
            }
            Stop::Failure { why, listens } => {
                log::error!(why:%; "a task ended; draining pending reconcile requests");
                // A listener that still runs would go on taking deliveries.
                drain(running.filter(|_| listens)).await;
                Err(anyhow::anyhow!(why))
            }
        }
    }
}

/// Ends when a server has ended by itself; one that was not started never does.
async fn ended(server: &mut Option<RunningServer>) -> String {
    match server {
        Some(server) => server.ended().await,
        None => std::future::pending().await,
    }
}

/// Returns a service over Flux objects from files, as the demo and tests serve it. It drives its queue by
/// itself.
pub async fn offline_service(
    config: Config,
    inventory: Inventory,
    limits: Limits,
    verify_context: VerifyContext,
) -> Arc<Service> {
    let (metrics, history) = (Metrics::new(), Arc::default());
    let Backend { sink, tasks, .. } = Backend::offline(inventory, &history, &metrics);
    tasks.detach();
    let handler = DeliveryHandler::new(verify_context, sink, Arc::clone(&metrics));
    let registry = EndpointRegistry::new(serving(config, &metrics));
    handler.match_ready().await;
    Arc::new(Service::new(registry, handler, history, metrics, limits))
}

/// Returns what verification needs from outside: the real network and the real clock.
pub(in crate::cli) fn verify_context() -> VerifyContext {
    VerifyContext::new(Arc::new(HttpFetch::default()), SystemTime::now)
}

pub(super) fn bind(address: &str, option: &str) -> anyhow::Result<TcpListener> {
    listener::bind(address).map_err(|err| {
        let fix = match err.kind() {
            ErrorKind::AddrInUse => "is another flux-recv running? The option takes another address",
            ErrorKind::PermissionDenied => "ports below 1024 need a right; take a higher one",
            _ if address.parse::<u16>().is_ok() => "write the port with a colon, like :8080",
            _ => "write it like :8080 or 127.0.0.1:8080",
        };
        anyhow::anyhow!("{option} {address}: cannot listen there: {err}; {fix}")
    })
}

/// Serves the pages with details. Nothing depends on them, so a port that is in use does not keep it from
/// start.
fn start_debug(address: &str, admin_state: Arc<AdminState>) -> Option<RunningServer> {
    if address == "none" {
        return None;
    }
    let started = listener::bind(address).and_then(|listener| {
        let bound = listener::local_address(&listener)?;
        admin::start_debug(listener, admin_state).map(|running| (bound, running))
    });
    match started {
        Ok((address, running)) => {
            log::info!(address:%; "serving config and deliveries");
            Some(running)
        }
        Err(err) => {
            log::warn!(address, why:% = err; "config and deliveries are not served; set --debug-listen to another address or to none");
            None
        }
    }
}

/// Returns the part of a config that can change while serving, once the metrics show its endpoints.
pub(super) fn serving(config: Config, metrics: &Metrics) -> Serving {
    config.endpoints.iter().for_each(|endpoint| metrics.show(&shown(endpoint)));
    Serving { endpoints: config.endpoints, trusted_proxies: config.trusted_proxies }
}

/// Returns the labels under which the metrics show an endpoint.
pub(super) fn shown(endpoint: &Endpoint) -> EndpointLabelSet<'_> {
    let Endpoint { name, provider, .. } = endpoint;
    let is_one_of_many = matches!(endpoint.origin, EndpointOrigin::Receiver { .. });
    EndpointLabelSet {
        name,
        source: provider.name,
        is_one_of_many,
        keys: endpoint.key_names().cloned().collect(),
    }
}

fn options(args: &ServeArgs, journal_folder: &Option<PathBuf>) -> serde_json::Value {
    json!({
        "config": args.config.config,
        "listen": args.listen,
        "adminListen": args.admin_listen,
        "subscribeListen": args.subscribe_listen,
        "noCluster": args.no_cluster,
        "debugListen": args.debug_listen,
        "namespaces": args.cluster.namespaces(),
        "manifests": args.manifests,
        "requireOptIn": args.require_opt_in,
        "receivers": args.receivers.namespaces(),
        "journal": journal_folder,
        "catchUp": args.catch_up,
        "catchUpAfterMillis": args.catch_up_after.map(|after| after.as_millis() as u64),
        "minIntervalMillis": args.min_interval.as_millis() as u64,
        "spreadMillis": args.spread.as_millis() as u64,
        "shutdownDelayMillis": args.shutdown_delay.as_millis() as u64,
        "drainMillis": args.drain.as_millis() as u64,
    })
}
