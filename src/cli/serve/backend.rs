//! The backend of the receiver: a cluster, manifest files or Flux v1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use parking_lot::RwLock;
use tokio::task::JoinSet;

use super::{FluxEventSeverityArg, ServeArgs};
use crate::cluster::connection::ApiConnection;
use crate::cluster::event_recorder::EventRecorder;
use crate::cluster::receivers::{ReceiverRules, Receivers};
use crate::cluster::watches::Watches;
use crate::config::Config;
use crate::fleet::options::{NatsOptions, PublisherOptions};
use crate::flux_events::{FluxEventSender, FluxEventSeverity, watch_silence};
use crate::flux_v1::FluxV1Client;
use crate::follow_through::FollowThrough;
use crate::history::History;
use crate::journal::Journal;
use crate::journal::contents::{Contents, JournalChange, JournalOrigin, SubscriptionRecord};
use crate::journal::event_log::{EventLog, MissedEvents, NewEntry};
use crate::journal::journal_log::{JournalLog, LogFile};
use crate::journal::store::JournalFolder;
use crate::matching::Inventory;
use crate::metrics::Metrics;
use crate::object_event::{AllObjectEvents, ObjectEvents};
use crate::offline::{self, DryRun};
use crate::publisher;
use crate::queue::{Pace, Queue};
use crate::receive::{EventPublisher, FluxObjects, Sink};

/// The destination of deliveries, and the tasks that drive it.
pub(super) struct Backend {
    pub(super) sink: Sink,
    pub(super) queue: Queue,
    pub(super) journal: Journal,
    /// Where the journal is, if there is one.
    pub(super) journal_folder: Option<PathBuf>,
    pub(super) tasks: Tasks,
    /// The watches that tell when all objects are known; none if they are known already.
    pub(super) watches: Option<Arc<Watches>>,
    /// The Receivers of the cluster, if they are to be served.
    pub(super) receivers: Option<Receivers>,
    /// Whether it is unknown what this start has missed, and that matters.
    pub(super) must_catch_up: bool,
    /// Whether subscribers have to be told that deliveries may have been missed.
    pub(super) must_announce: bool,
    /// The event log and what appends to it, if this is a publisher.
    pub(super) event_log: Option<PublisherLog>,
    /// How far an earlier process has come with each publisher.
    pub(super) cursors: BTreeMap<String, SubscriptionRecord>,
}

/// Tasks that run for as long as the process serves.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<&'static str>,
}

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // A panic would take the name with it.
        let task = tokio::spawn(task);
        self.running.spawn(async move {
            let _ = task.await;
            name
        });
    }

    /// Lets them run without anyone who looks after them.
    pub(super) fn detach(mut self) {
        self.running.detach_all();
    }

    /// Ends when one of them has ended, which it should not; says which.
    pub(super) async fn ended(&mut self) -> String {
        match self.running.join_next().await {
            Some(Ok(name)) => format!("{name} ended"),
            Some(Err(err)) => err.to_string(),
            None => std::future::pending().await,
        }
    }
}

impl Backend {
    pub(super) async fn start(
        args: &ServeArgs,
        config: &Config,
        history: &Arc<History>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Backend> {
        if let Some(api) = &config.api {
            let offline = Backend::offline(Inventory::default(), history, metrics);
            return Ok(Backend { sink: Sink::FluxV1(Box::new(FluxV1Client::new(api)?)), ..offline });
        }
        let is_in_fleet = config.publish.is_some() || !config.subscribe.is_empty();
        if let Some(folder) = &args.manifests
            && !is_in_fleet
        {
            return Ok(Backend::offline(offline::load(folder)?, history, metrics));
        }
        let journal_folder = journal_folder(args.journal.as_deref());
        let (journal, left) = open_journal(journal_folder.as_deref(), config, metrics)?;
        if !left.pending.is_empty() || !left.deliveries.is_empty() {
            log::info!(
                objects = left.pending.len(), deliveries = left.deliveries.len();
                "resuming pending reconcile requests of an earlier process"
            );
        }
        let must_catch_up = match left.origin {
            JournalOrigin::Restored => was_absent(&left, args.catch_up_after),
            JournalOrigin::New => args.catch_up,
            JournalOrigin::Corrupt | JournalOrigin::RestoredAfterDowntime => true,
        };
        if must_catch_up && left.origin == JournalOrigin::Restored {
            log::warn!("flux-recv was away for longer than --catch-up-after; requesting every object once");
            // Before the first sign of life, so that a crash in between does not forget it.
            journal.write_later([JournalChange::DowntimeDetected]);
        }
        let mut tasks = Tasks::default();
        let was_away = was_absent(&left, args.catch_up_after);
        let log_elsewhere = config.publish.as_ref().and_then(|options| options.nats.as_ref());
        let log_elsewhere = log_elsewhere.map(NatsOptions::log_id);
        let missed = missed_events(&left, log_elsewhere, was_away, args.catch_up_after.is_some());
        if left.reached_log.is_some() && log_elsewhere.is_none() {
            journal.write_later([JournalChange::LogLeft]);
        }
        let event_log = event_log(config, &journal, &left, missed, metrics, &mut tasks).await?;
        let events = event_log.as_ref().map(|(_, events)| Arc::clone(events));
        // Whatever has been caught up with here; a log that is new makes subscribers catch up by itself.
        // A log elsewhere knows whether other replicas were there.
        let has_own_log = config.publish.as_ref().is_some_and(|options| options.nats.is_none());
        let must_announce = has_own_log && was_away;
        let pace = Pace { min_interval: args.min_interval, spread: args.spread, ..Pace::default() };
        let queue = Queue::new(pace, journal.clone(), &left, Arc::clone(metrics));
        let cursors = left.cursors.clone();
        if args.no_cluster || args.manifests.is_some() {
            let inventory = match &args.manifests {
                Some(folder) => offline::load(folder)?,
                None => offline::known_to_be_empty(),
            };
            let inventory = Arc::new(RwLock::new(inventory));
            tasks.spawn("the queue", queue.clone().run(Arc::new(DryRun::new(Arc::clone(&inventory)))));
            let mut objects =
                FluxObjects::new(inventory, queue.clone(), journal.clone(), &left, Arc::clone(metrics));
            objects.dry_run = args.manifests.is_some();
            objects.remember_in(Arc::clone(history), None);
            objects.publisher.clone_from(&events);
            return Ok(Backend {
                sink: Sink::Flux(objects),
                queue,
                journal,
                journal_folder,
                tasks,
                watches: None,
                receivers: None,
                must_catch_up: false,
                must_announce,
                event_log,
                cursors,
            });
        }
        let connection = ApiConnection::open(args.cluster.options()).await?;
        // On a laptop it is easily another one than was meant.
        let context = connection.context();
        log::info!(server:% = connection.server(), context = context.as_deref().unwrap_or("none"); "using the cluster");
        let events_connection = connection.clone();
        let inventory = Arc::new(RwLock::new(Inventory::default()));
        let follow_through = FollowThrough::new(queue.clone(), Arc::clone(history), Arc::clone(metrics));
        let receivers = args.receivers.namespaces().map(|namespaces| {
            let namespaces = if namespaces.is_empty() { args.cluster.namespaces() } else { namespaces };
            let rules = ReceiverRules {
                cross_namespace_refs: args.receivers.cross_namespace_refs,
                require_opt_in: args.require_opt_in,
                allowed_issuers: args.receivers.allowed_issuers.clone(),
            };
            Receivers::new(connection.clone(), namespaces, rules)
        });
        let watches = Watches::new(
            connection,
            Arc::clone(&inventory),
            config.needs(),
            args.cluster.namespaces(),
            follow_through.clone(),
            Arc::clone(metrics),
        );
        let recorder = args.events.then(|| EventRecorder::new(events_connection, Arc::clone(metrics)));
        let (recorder, event_writer) = recorder.unzip();
        if let Some(writer) = event_writer {
            tasks.spawn("the Kubernetes Events", writer.run());
        }
        let mut told: Vec<Arc<dyn ObjectEvents>> = Vec::new();
        told.extend(recorder.clone().map(|recorder| recorder as Arc<dyn ObjectEvents>));
        if let Some(url) = &args.flux_events {
            let (sender, poster) =
                FluxEventSender::new(url.clone(), args.flux_events_severity.into(), Arc::clone(metrics))?;
            tasks.spawn("the events for notification-controller", poster.run());
            let silence = watch_silence(Arc::clone(history), Arc::clone(&sender) as Arc<dyn ObjectEvents>);
            tasks.spawn("the watch for silent endpoints", silence);
            told.push(sender);
        }
        let object_events =
            (!told.is_empty()).then(|| Arc::new(AllObjectEvents(told)) as Arc<dyn ObjectEvents>);
        if let Some(events) = &object_events {
            follow_through.tell(Arc::clone(events));
        }
        tasks.spawn("the queue", queue.clone().run(Arc::new(watches.annotator(recorder))));
        tasks.spawn("the watches", Arc::clone(&watches).run());
        tasks.spawn("the follow-through", follow_through.clone().run());
        let mut objects =
            FluxObjects::new(inventory, queue.clone(), journal.clone(), &left, Arc::clone(metrics));
        // Whatever endpoints there are by now.
        let mut needs = objects.needs();
        needs.kinds.extend(left.pending.keys().map(|target| target.kind));
        watches.also_watch(needs);
        objects.follow_through = Some(follow_through);
        objects.publisher.clone_from(&events);
        objects.remember_in(Arc::clone(history), object_events);
        let (sink, watches) = (Sink::Flux(objects), Some(watches));
        Ok(Backend {
            sink,
            queue,
            journal,
            journal_folder,
            tasks,
            watches,
            receivers,
            must_catch_up,
            must_announce,
            event_log,
            cursors,
        })
    }

    /// Over objects from files; keeps nothing, since nothing is requested.
    pub(super) fn offline(inventory: Inventory, history: &Arc<History>, metrics: &Arc<Metrics>) -> Backend {
        let (journal, nothing) = (Journal::none(), Contents::default());
        let inventory = Arc::new(RwLock::new(inventory));
        let queue = Queue::new(Pace::default(), journal.clone(), &nothing, Arc::clone(metrics));
        let mut tasks = Tasks::default();
        tasks.spawn("the queue", queue.clone().run(Arc::new(DryRun::new(Arc::clone(&inventory)))));
        let mut objects =
            FluxObjects::new(inventory, queue.clone(), journal.clone(), &nothing, Arc::clone(metrics));
        objects.dry_run = true;
        objects.remember_in(Arc::clone(history), None);
        Backend {
            sink: Sink::Flux(objects),
            queue,
            journal,
            journal_folder: None,
            tasks,
            watches: None,
            receivers: None,
            must_catch_up: false,
            must_announce: false,
            event_log: None,
            cursors: BTreeMap::new(),
        }
    }
}

/// The event log of a publisher, and what appends to it.
type PublisherLog = (Arc<dyn EventLog>, Arc<EventPublisher>);

/// Opens the event log of a publisher.
async fn event_log(
    config: &Config,
    journal: &Journal,
    left: &Contents,
    missed: MissedEvents,
    metrics: &Arc<Metrics>,
    tasks: &mut Tasks,
) -> anyhow::Result<Option<PublisherLog>> {
    let Some(options) = &config.publish else {
        if !left.unpublished.is_empty() {
            log::warn!(entries = left.unpublished.len(); "journal has entries of an event log, and the config has no `publish`; keeping them");
        }
        return Ok(None);
    };
    let log: Arc<dyn EventLog> = match &options.nats {
        Some(nats) => jetstream_log(nats, options, journal, left, missed, metrics, tasks).await?,
        None => {
            let log = JournalLog::of(journal).context("the journal has no event log")?;
            take_over(&log, journal, left).await?;
            log
        }
    };
    let events = Arc::new(EventPublisher::new(Arc::clone(&log), options));
    Ok(Some((log, events)))
}

#[cfg(feature = "nats")]
async fn jetstream_log(
    nats: &NatsOptions,
    options: &PublisherOptions,
    journal: &Journal,
    left: &Contents,
    missed: MissedEvents,
    metrics: &Arc<Metrics>,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<dyn EventLog>> {
    use crate::jetstream::JetStreamLog;
    let limits = publisher::limits(&options.retention);
    let log = JetStreamLog::start(nats, limits, journal.clone(), left, missed, Arc::clone(metrics)).await?;
    tasks.spawn("the event log", Arc::clone(&log).run());
    Ok(log)
}

#[cfg(not(feature = "nats"))]
async fn jetstream_log(
    _: &NatsOptions,
    _: &PublisherOptions,
    _: &Journal,
    _: &Contents,
    _: MissedEvents,
    _: &Arc<Metrics>,
    _: &mut Tasks,
) -> anyhow::Result<Arc<dyn EventLog>> {
    anyhow::bail!("publish: nats: this flux-recv was built without the feature `nats`")
}

/// Appends what waited for an event log elsewhere, from which the config has moved.
async fn take_over(log: &JournalLog, journal: &Journal, left: &Contents) -> anyhow::Result<()> {
    let entries: Vec<NewEntry> =
        left.unpublished.values().filter_map(|bytes| NewEntry::from_bytes(bytes)).collect();
    if entries.is_empty() {
        return Ok(());
    }
    log.append(entries).wait_until_durable().await?;
    journal.write_later(left.unpublished.keys().map(|number| JournalChange::RemoveUnpublished(*number)));
    Ok(())
}

/// Opens the journal, with the event log of a publisher.
fn open_journal(
    folder: Option<&Path>,
    config: &Config,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Journal, Contents)> {
    let has_log = config.publish.as_ref().is_some_and(|options| options.nats.is_none());
    let Some(folder) = folder else {
        anyhow::ensure!(
            !has_log,
            "`publish` keeps its event log in the journal; give a folder on a volume with --journal"
        );
        return Ok((Journal::none(), Contents::default()));
    };
    let medium = JournalFolder::new(folder);
    let opened = match &config.publish {
        Some(options) if has_log => {
            let log = LogFile::new(publisher::limits(&options.retention));
            let opened = Journal::open(Box::new(medium.with_event_log(log)), Arc::clone(metrics));
            return opened.context("a publisher is one process: a second one would have a log of its own");
        }
        _ => Journal::open(Box::new(medium), Arc::clone(metrics)),
    };
    Ok(opened?)
}

/// What a log that is elsewhere may have missed before this start.
fn missed_events(left: &Contents, log: Option<u64>, was_away: bool, absences_matter: bool) -> MissedEvents {
    match left.last_alive {
        Some(_) if left.reached_log != log => MissedEvents::Some,
        // The journal of a replica comes and goes with it, so a new one tells nothing.
        None if absences_matter => MissedEvents::UnlessOthers,
        _ if was_away => MissedEvents::UnlessOthers,
        _ => MissedEvents::None,
    }
}

/// Whether nobody was there to accept deliveries for longer than this before the start.
fn was_absent(left: &Contents, limit: Option<Duration>) -> bool {
    let (Some(limit), Some(last_alive)) = (limit, left.last_alive) else { return false };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(last_alive)) > limit
}

/// The folder at which the manifests mount a volume.
const DEFAULT_JOURNAL_FOLDER: &str = "/var/lib/flux-recv";

/// The folder of the option, or the user's state folder by the XDG specification; a container
/// has no home, so there it is the one that the manifests mount.
fn journal_folder(option: Option<&Path>) -> Option<PathBuf> {
    match option {
        Some(folder) if folder == Path::new("none") => None,
        Some(folder) => Some(folder.to_owned()),
        None => {
            let folder = |variable: &str| {
                std::env::var_os(variable)
                    .map(PathBuf::from)
                    .filter(|folder| folder.is_absolute() && folder.parent().is_some())
            };
            let state =
                folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
            Some(state.map_or_else(|| PathBuf::from(DEFAULT_JOURNAL_FOLDER), |state| state.join("flux-recv")))
        }
    }
}

impl From<FluxEventSeverityArg> for FluxEventSeverity {
    fn from(severity: FluxEventSeverityArg) -> FluxEventSeverity {
        match severity {
            FluxEventSeverityArg::Error => FluxEventSeverity::Error,
            FluxEventSeverityArg::Info => FluxEventSeverity::Info,
        }
    }
}
