//! `flux-recv` without a command: serves the endpoints of a config until it is told to stop.

mod backend;
mod change;
mod file_limit;
mod receivers;
mod reloading;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify as Signal;

use self::backend::Backend;
use self::reloading::ReloadTask;
use super::{
    ClusterArgs, ConfigArgs, OptionalDuration, ReceiverArgs, parse_duration, parse_duration_or_never, runtime,
};
use crate::admin::{self, AdminState};
use crate::cluster::inventory::Watches;
use crate::config::{self, Config, Rules};
use crate::endpoint::{Endpoint, EndpointOrigin, EndpointRegistry, Endpoints, Serving};
use crate::history::History;
use crate::journal::Journal;
use crate::journal::contents::JournalChange;
use crate::listener::{self, RunningServer};
use crate::matching::Inventory;
use crate::metrics::{EndpointLabelSet, Metrics};
use crate::outcome;
use crate::queue::Queue;
use crate::receive::Receiver;
use crate::reload::ConfigWatcher;
use crate::server::{self, Limits, Service};
use crate::verify::VerifyContext;
use crate::verify::fetch::HttpFetch;

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The address to listen on: `:port` or `host:port`.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", env = "FLUX_RECV_LISTEN")]
    listen: String,
    /// The address for probes and metrics; not for the outside.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", env = "FLUX_RECV_ADMIN_LISTEN")]
    admin_listen: String,
    /// The address for the config in force and the last deliveries, for `kubectl port-forward`; `none`
    /// switches it off.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082", env = "FLUX_RECV_DEBUG_LISTEN")]
    debug_listen: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Serve against the Flux objects in a folder of YAML files instead of a cluster, and patch nothing.
    #[arg(long, value_name = "DIR", env = "FLUX_RECV_MANIFESTS", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Option<PathBuf>,
    /// Outside of an endpoint's own namespaces, ask only for objects that name it in their annotation
    /// `flux-recv.fluxcd.io/allow`.
    #[arg(long, env = "FLUX_RECV_REQUIRE_OPT_IN")]
    require_opt_in: bool,
    #[command(flatten)]
    receivers: ReceiverArgs,
    /// Where to keep what was accepted and not asked yet; `none` keeps it in memory only [default: the
    /// user's state folder, else /var/lib/flux-recv].
    #[arg(long, value_name = "DIR", env = "FLUX_RECV_JOURNAL")]
    journal: Option<PathBuf>,
    /// Ask every object once after a start that finds no journal.
    #[arg(long, env = "FLUX_RECV_CATCH_UP")]
    catch_up: bool,
    /// Request every object once after a start that nobody was there before for longer than this: senders
    /// do not send again what was refused; `never` switches it off.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration_or_never, env = "FLUX_RECV_CATCH_UP_AFTER")]
    catch_up_after: OptionalDuration,
    /// The least time between two reconcile requests for one object.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, env = "FLUX_RECV_MIN_INTERVAL")]
    min_interval: Duration,
    /// Over how long the requests of a delivery for many objects are spread, at most; 0 sends them at once.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, env = "FLUX_RECV_SPREAD")]
    spread: Duration,
    /// How long to go on accepting deliveries after SIGTERM, so that load balancers notice; a second
    /// signal ends it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, env = "FLUX_RECV_SHUTDOWN_DELAY")]
    shutdown_delay: Duration,
    /// How long to go on requesting reconciliation after that.
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = parse_duration, env = "FLUX_RECV_DRAIN")]
    drain: Duration,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    // Before the config is read, so that no change of it can fall between the two.
    let rules = Rules { require_opt_in: args.require_opt_in };
    let changes = ConfigWatcher::new(&args.config.config, rules);
    let config = config::load(&args.config.config, rules)?;
    let bind = |address: &str, option: &str| {
        listener::bind(address).with_context(|| {
            format!(
                "cannot listen on {address}; is another flux-recv running? {option} takes another address"
            )
        })
    };
    let limits = Limits::default();
    let limits = Limits { max_connections: file_limit::fit(limits.max_connections), ..limits };
    let public = bind(&args.listen, "--listen")?;
    let operators = bind(&args.admin_listen, "--admin-listen")?;
    runtime()?.block_on(async {
        let metrics = Metrics::new();
        let history = Arc::new(History::default());
        let mut backend = Backend::start(args, &config, &history, &metrics).await?;
        announce(&config, args, &backend.journal);
        let mut reloading = ReloadTask::new(&args.config.config, changes, &config)?;
        reloading.watches.clone_from(&backend.watches);
        let service = Arc::new(Service {
            registry: EndpointRegistry::new(serving(config, &metrics)),
            receiver: Receiver::new(tools(), backend.sink, Arc::clone(&metrics)),
            history,
            metrics,
            limits,
            shutting_down: AtomicBool::new(false),
        });
        match backend.watches {
            Some(watches) => {
                let (matching, became_known) = (Arc::clone(&service), watches.became_known());
                backend.tasks.spawn("the matching", async move {
                    matching.receiver.match_what_waits(&became_known).await;
                });
                let journal = backend.journal.clone();
                let missed = catch_up_after_gaps(Arc::clone(&service), Arc::clone(&watches));
                backend.tasks.spawn("the look at gaps", missed);
                let synced = when_synced(Arc::clone(&service), watches, journal, backend.must_catch_up);
                backend.tasks.spawn("the first look at the cluster", synced);
            }
            None => {
                service.receiver.match_what_can_be().await;
                let matching = Arc::clone(&service);
                backend.tasks.spawn("the matching", async move {
                    matching.receiver.match_what_waits(&Signal::new()).await;
                });
            }
        }
        if let Some(receivers) = backend.receivers {
            service.registry.expect_receivers();
            let put_in_force = receivers::put_in_force(Arc::clone(&service), reloading.watches.clone());
            backend.tasks.spawn("the watch of Receivers", receivers.run(put_in_force));
        }
        backend.tasks.spawn(
            "the signs of life",
            tell_that_it_lives(backend.journal.clone(), sign_of_life(args.catch_up_after)),
        );
        backend.tasks.spawn("the reloading", reloading.run(Arc::clone(&service)));
        let mut sigterm = signal(SignalKind::terminate())?;
        let mut sigint = signal(SignalKind::interrupt())?;

        let admin_state = AdminState {
            service: Arc::clone(&service),
            journal: backend.journal.clone(),
            options: options(args, &backend.journal_folder),
        };
        let admin_state = Arc::new(admin_state);
        let address = listener::local_address(&operators)?;
        let mut admin = admin::start(operators, Arc::clone(&admin_state))?;
        log::info!(address:%; "serving probes and metrics");
        let _debug = start_debug(&args.debug_listen, admin_state);
        let address = listener::local_address(&public)?;
        let mut running = server::start(public, Arc::clone(&service))?;
        log::info!(address:%; "listening");

        let cause = tokio::select! {
            _ = sigterm.recv() => Ok("SIGTERM"),
            _ = sigint.recv() => Ok("SIGINT"),
            why = running.ended() => Err((format!("the listener ended: {why}"), false)),
            why = admin.ended() => Err((format!("the admin listener ended: {why}"), true)),
            why = backend.tasks.ended() => Err((why, true)),
            () = backend.journal.ended() => Err(("the journal ended".to_owned(), true)),
        };
        let left = |running| drain(running, &service, &backend.queue, &backend.journal, args.drain);
        match cause {
            Ok(signal) => {
                if signal == "SIGTERM" && !args.shutdown_delay.is_zero() {
                    service.shut_down();
                    let delay_s = args.shutdown_delay.as_secs_f64();
                    log::info!(signal, delay_s; "shutting down: not ready, still accepting deliveries");
                    tokio::select! {
                        () = tokio::time::sleep(args.shutdown_delay) => {}
                        _ = sigterm.recv() => {}
                        _ = sigint.recv() => {}
                    }
                }
                log::info!(signal; "shutting down: draining pending reconcile requests");
                Ok(left(Some(running)).await)
            }
            Err((why, listens)) => {
                log::error!(why:%; "a task ended; draining pending reconcile requests");
                // A listener that still runs would go on taking deliveries.
                left(listens.then_some(running)).await;
                Err(anyhow::anyhow!(why))
            }
        }
    })
}

/// Serves the pages with details. Nothing depends on them, so a port that is taken is no reason not to
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

/// A service over Flux objects from files, as the demo serves it. Drives its queue by itself.
pub(super) async fn offline_service(config: Config, inventory: Inventory, limits: Limits) -> Arc<Service> {
    let (metrics, history) = (Metrics::new(), Arc::default());
    let Backend { sink, tasks, .. } = Backend::offline(inventory, &history, &metrics);
    tasks.detach();
    let receiver = Receiver::new(tools(), sink, Arc::clone(&metrics));
    let registry = EndpointRegistry::new(serving(config, &metrics));
    receiver.match_what_can_be().await;
    Arc::new(Service { registry, receiver, history, metrics, limits, shutting_down: AtomicBool::new(false) })
}

/// What of a config can be put in force.
fn serving(config: Config, metrics: &Metrics) -> Serving {
    config.endpoints.iter().for_each(|endpoint| metrics.show(&shown(endpoint)));
    Serving { endpoints: config.endpoints, trusted_proxies: config.trusted_proxies }
}

/// What the metrics show of an endpoint.
fn shown(endpoint: &Endpoint) -> EndpointLabelSet<'_> {
    let Endpoint { name, provider, key_names, .. } = endpoint;
    let is_one_of_many = matches!(endpoint.origin, EndpointOrigin::Receiver { .. });
    EndpointLabelSet {
        name,
        source: provider.name,
        outcomes: &outcome::OUTCOME_LABELS,
        is_one_of_many,
        keys: key_names,
    }
}

/// Says that all objects are known, and catches up if that has to be; never ends.
async fn when_synced(service: Arc<Service>, watches: Arc<Watches>, journal: Journal, catch_up: bool) {
    watches.synced().await;
    let unlistable = watches.unlistable_kinds();
    if unlistable.is_empty() {
        log::info!("inventory complete; matching deliveries as they arrive");
    } else {
        let kinds: Vec<String> = unlistable.iter().map(ToString::to_string).collect();
        log::warn!(
            kinds = kinds.join(",");
            "inventory complete but for kinds that cannot be listed; matching deliveries as they arrive"
        );
    }
    if catch_up {
        let is_all = watches.is_all_known() && service.registry.knows_all();
        catch_up_with(&service).await;
        if !is_all {
            // Receivers can name kinds that nobody has watched before.
            service.registry.all_known(Duration::MAX).await;
            watches.all_known().await;
            catch_up_with(&service).await;
        }
    }
    // Until here a restart would have to catch up as well.
    journal.write_later([JournalChange::CaughtUp]);
    std::future::pending().await
}

async fn catch_up_with(service: &Service) {
    while service.receiver.catch_up(service.registry.get().endpoints.iter()).await.is_err() {
        log::warn!("the catch-up could not be written to the journal, retrying");
        tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
    }
}

/// Requests objects that were made or changed while their watch was interrupted; never ends.
async fn catch_up_after_gaps(service: Arc<Service>, watches: Arc<Watches>) {
    loop {
        let missed = watches.missed_changes().await;
        // Those of one list come together.
        tokio::time::sleep(GAP_BATCH_DELAY).await;
        while service.receiver.catch_up_with(&service.registry.get().endpoints, &missed).await.is_err() {
            tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
        }
    }
}

/// Requests the objects of endpoints whose deliveries were answered as to unknown paths.
async fn catch_up_late(service: &Service, watches: Option<&Watches>, came_late: &[Arc<Endpoint>]) {
    if let Some(watches) = watches {
        watches.synced().await;
    }
    while service.receiver.catch_up(came_late.iter()).await.is_err() {
        tokio::time::sleep(CATCH_UP_RETRY_DELAY).await;
    }
}

const GAP_BATCH_DELAY: Duration = Duration::from_secs(1);

/// How often the journal is told that deliveries are accepted, at the least.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Several times within the absence that matters, so that a quick restart never looks like one.
fn sign_of_life(catch_up_after: Option<Duration>) -> Duration {
    let most = catch_up_after.map_or(ALIVE_INTERVAL, |after| after / 3);
    most.clamp(Duration::from_secs(1), ALIVE_INTERVAL)
}

/// Tells the journal that deliveries are accepted; never ends.
async fn tell_that_it_lives(journal: Journal, interval: Duration) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        journal.write_later([JournalChange::Alive(now.as_secs())]);
        tokio::time::sleep(interval).await;
    }
}

const CATCH_UP_RETRY_DELAY: Duration = Duration::from_secs(10);

/// What checking proofs needs from outside: the real network and the real clock.
fn tools() -> VerifyContext {
    VerifyContext::new(Arc::new(HttpFetch::default()), SystemTime::now)
}

/// The startup lines: one per endpoint, then what the operator should know.
fn announce(config: &Config, args: &ServeArgs, journal: &Journal) {
    announce_endpoints(&config.endpoints);
    for note in &config.notes {
        log::info!(note:%; "config note");
    }
    for warning in &config.warnings {
        log::warn!(warning:%; "config warning");
    }
    if args.receivers.namespaces().is_some() && (config.api.is_some() || args.manifests.is_some()) {
        log::warn!("--receivers has no effect with `api:` or --manifests; Receivers are in a cluster");
    }
    match (&config.api, &args.manifests) {
        (Some(api), _) => log::info!(api:% = without_password(api); "forwarding events to Flux v1"),
        (None, Some(folder)) => {
            log::info!(folder:% = folder.display(); "matching against manifests; no object is patched");
        }
        (None, None) => {
            log::info!(
                "requesting reconciliation through the Kubernetes API; set `api:` to forward events to Flux v1"
            );
            if !journal.keeps() {
                log::warn!("no journal: pending reconcile requests are lost when the process ends");
            }
        }
    }
}

/// At startup and after a reload; the only lines that hold hook paths.
fn announce_endpoints(endpoints: &Endpoints) {
    endpoints.iter().for_each(|endpoint| announce_endpoint(endpoint));
}

fn announce_endpoint(endpoint: &Endpoint) {
    let Endpoint { name, provider, key_file, .. } = endpoint;
    match endpoint.origin {
        EndpointOrigin::Config => {
            log::info!(endpoint:% = name, source = provider.name, key:% = key_file.display(), path:% = endpoint.path(); "serving endpoint");
        }
        // Its status has the path; the log of one tenant's Receiver is read by all.
        EndpointOrigin::Receiver { .. } => {
            log::info!(endpoint:% = name, source = provider.name, key:% = key_file.display(); "serving endpoint");
        }
    }
}

fn options(args: &ServeArgs, journal_folder: &Option<PathBuf>) -> serde_json::Value {
    json!({
        "config": args.config.config,
        "listen": args.listen,
        "adminListen": args.admin_listen,
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

fn without_password(api: &url::Url) -> String {
    let mut shown = api.clone();
    let _ = shown.set_password(None);
    shown.to_string()
}

/// Stops accepting, then waits until no reconcile request is pending or the time is over.
async fn drain(
    running: Option<RunningServer>,
    service: &Service,
    queue: &Queue,
    journal: &Journal,
    limit: Duration,
) -> ExitCode {
    let stopped = tokio::time::timeout(limit, async {
        if let Some(running) = running {
            running.stop().await;
        }
        service.receiver.matched().await;
        queue.rest().await;
    });
    if stopped.await.is_err() {
        log::warn!(limit_s = limit.as_secs_f64(); "drain timed out");
    }
    queue.settle();
    let unmatched = service.receiver.unmatched();
    let left: Vec<String> = queue.pending_targets().iter().map(ToString::to_string).collect();
    let is_kept = journal.keeps() && journal.is_writable();
    if !journal.close().await {
        log::error!("the journal cannot be closed; its disk does not respond");
    }
    if unmatched.is_empty() && left.is_empty() {
        log::info!("drained; no reconcile request is pending");
        return ExitCode::SUCCESS;
    }
    if is_kept {
        log::warn!(
            deliveries = unmatched.len(), targets = left.len(), objects = left.join(", ");
            "pending reconcile requests stay in the journal for the next start"
        );
        return ExitCode::SUCCESS;
    }
    for delivery in &unmatched {
        log::error!(delivery:%; "delivery lost: the inventory never became complete");
    }
    if !left.is_empty() {
        log::error!(targets = left.len(), objects = left.join(", "); "pending reconcile requests lost");
    }
    ExitCode::FAILURE
}
