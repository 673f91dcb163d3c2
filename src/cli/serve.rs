//! `flux-recv`: serves.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::{ClusterArgs, ConfigArgs, parse_duration, runtime};
use crate::cluster::connection::Connection;
use crate::cluster::inventory::Watches;
use crate::config::{self, Config};
use crate::endpoint::Endpoint;
use crate::fluxd::Fluxd;
use crate::matching::Inventory;
use crate::offline::{self, DryRun};
use crate::queue::{Pace, Queue};
use crate::receive::{FluxObjects, Receiver, Sink};
use crate::server::{self, Limits, Running, Service};
use crate::verify::fetch::{Fetch, HttpsFetch, NoFetch};
use crate::verify::{GoogleKeys, Tools};

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The address to listen on: `:port` or `host:port`.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", env = "FLUX_RECV_LISTEN")]
    listen: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Serve against the Flux objects in a folder of YAML files instead of a cluster, and patch nothing.
    #[arg(long, value_name = "DIR", env = "FLUX_RECV_MANIFESTS", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Option<PathBuf>,
    /// The least time between two reconcile requests for one object.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, env = "FLUX_RECV_MIN_INTERVAL")]
    min_interval: Duration,
    /// How long to go on asking after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = parse_duration, env = "FLUX_RECV_DRAIN")]
    drain: Duration,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = config::load(&args.config.config)?;
    let listener = server::bind(&args.listen).with_context(|| {
        format!(
            "cannot listen on {}; is another flux-recv running? --listen takes another address",
            args.listen
        )
    })?;
    runtime()?.block_on(async {
        let Backend { sink, queue, mut task, watches } = Backend::start(args, &config).await?;
        announce(&config, args);
        let receiver = Receiver::new(tools(), sink);
        let service = Arc::new(Service { endpoints: config.endpoints, receiver, limits: Limits::default() });
        tokio::spawn(open_when_known(Arc::clone(&service), watches));
        let address = server::local_address(&listener)?;
        let mut sigterm = signal(SignalKind::terminate())?;
        let mut sigint = signal(SignalKind::interrupt())?;
        let mut running = server::start(listener, Arc::clone(&service))?;
        log::info!(address:%; "listening");

        let cause = tokio::select! {
            _ = sigterm.recv() => Ok("SIGTERM"),
            _ = sigint.recv() => Ok("SIGINT"),
            why = running.ended() => Err(format!("the listener ended: {why}")),
            why = ended(&mut task) => Err(format!("the queue and the watches ended: {why}")),
        };
        match cause {
            Ok(signal) => {
                log::info!("{signal}: accepting no more, asking for what is left");
                Ok(drain(Some(running), &service, &queue, args.drain).await)
            }
            Err(why) => {
                log::error!("{why}; asking for what is left before the process ends");
                drain(None, &service, &queue, args.drain).await;
                Err(anyhow::anyhow!(why))
            }
        }
    })
}

/// What stands behind the receiver.
struct Backend {
    sink: Sink,
    queue: Queue,
    /// Drives the queue and keeps the inventory.
    task: JoinHandle<()>,
    /// The watches that tell when all objects are known; none if they are known already.
    watches: Option<Arc<Watches>>,
}

impl Backend {
    async fn start(args: &ServeArgs, config: &Config) -> anyhow::Result<Backend> {
        let queue = Queue::new(Pace { min_interval: args.min_interval, ..Pace::default() });
        if let Some(api) = &config.api {
            let sink = Sink::FluxV1(Box::new(Fluxd::new(api)?));
            return Ok(Backend { sink, queue, task: tokio::spawn(std::future::pending()), watches: None });
        }
        if let Some(folder) = &args.manifests {
            return Ok(Backend::offline(offline::load(folder)?, queue));
        }
        let connection = Connection::open(args.cluster.options()).await?;
        let inventory = Arc::new(RwLock::new(Inventory::default()));
        let watches = Watches::new(connection, Arc::clone(&inventory), args.cluster.namespaces());
        let writer = Arc::new(watches.annotator());
        let (driver, keeper) = (queue.clone(), Arc::clone(&watches));
        let task = tokio::spawn(async move {
            let keeper = tokio::spawn(keeper.run());
            tokio::select! {
                () = driver.run(writer) => {}
                _ = keeper => {}
            }
        });
        let sink = Sink::Flux(FluxObjects::new(inventory, queue.clone(), false));
        Ok(Backend { sink, queue, task, watches: Some(watches) })
    }

    fn offline(inventory: Inventory, queue: Queue) -> Backend {
        let inventory = Arc::new(RwLock::new(inventory));
        let task = tokio::spawn(queue.clone().run(Arc::new(DryRun::new(Arc::clone(&inventory)))));
        let sink = Sink::Flux(FluxObjects::new(inventory, queue.clone(), true));
        Backend { sink, queue, task, watches: None }
    }
}

/// A service over Flux objects from files, as the demo serves it. Drives its queue by itself.
pub(super) fn offline_service(config: Config, inventory: Inventory, limits: Limits) -> Arc<Service> {
    let Backend { sink, .. } = Backend::offline(inventory, Queue::new(Pace::default()));
    let service =
        Arc::new(Service { endpoints: config.endpoints, receiver: Receiver::new(tools(), sink), limits });
    service.receiver.open();
    service
}

async fn open_when_known(service: Arc<Service>, watches: Option<Arc<Watches>>) {
    if let Some(watches) = watches {
        watches.synced().await;
        log::info!("all objects are known; deliveries are matched at once");
    }
    service.receiver.open();
}

/// What checking proofs needs from outside: the real network and the real clock.
fn tools() -> Tools {
    let fetch: Arc<dyn Fetch> = match HttpsFetch::new() {
        Ok(fetch) => Arc::new(fetch),
        Err(err) => Arc::new(NoFetch(err)),
    };
    Tools { google_keys: GoogleKeys::new(fetch), now: SystemTime::now }
}

/// The startup lines: one per endpoint, then what the operator should know.
fn announce(config: &Config, args: &ServeArgs) {
    for endpoint in config.endpoints.iter() {
        let Endpoint { name, provider, key_file, .. } = &**endpoint;
        log::info!(endpoint:% = name, source = provider.name, key:% = key_file.display(), path:% = endpoint.path(); "serving");
    }
    for note in &config.notes {
        log::info!("{note}");
    }
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    match (&config.api, &args.manifests) {
        (Some(api), _) => log::info!(api:% = without_password(api); "handing events to fluxd (Flux v1)"),
        (None, Some(folder)) => {
            log::info!(folder:% = folder.display(); "matching against manifests; nothing is patched")
        }
        (None, None) => log::info!(
            "asking Flux objects through the Kubernetes API (fluxd on localhost is no longer the default: set `api:` for Flux v1)"
        ),
    }
}

fn without_password(api: &url::Url) -> String {
    let mut shown = api.clone();
    let _ = shown.set_password(None);
    shown.to_string()
}

async fn ended(task: &mut JoinHandle<()>) -> String {
    match task.await {
        Ok(()) => "they stopped".to_owned(),
        Err(err) => err.to_string(),
    }
}

/// Answers what has arrived and asks for what is left, until the time is up. What is left then is
/// said and is a failure.
async fn drain(running: Option<Running>, service: &Service, queue: &Queue, limit: Duration) -> ExitCode {
    let stopped = tokio::time::timeout(limit, async {
        if let Some(running) = running {
            running.stop().await;
        }
        service.receiver.matched().await;
        queue.rest().await;
    });
    if stopped.await.is_err() {
        log::warn!("out of time after {} s", limit.as_secs_f64());
    }
    let unmatched = service.receiver.unmatched();
    for delivery in &unmatched {
        log::error!("lost, since the objects of the cluster never became known: {delivery}");
    }
    let left: Vec<String> = queue.pending_targets().iter().map(ToString::to_string).collect();
    if !left.is_empty() {
        log::error!("{} objects were not asked to reconcile: {}", left.len(), left.join(", "));
    }
    if unmatched.is_empty() && left.is_empty() {
        log::info!("nothing is left to ask");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
