//! Keeps the inventory current: one watch per kind, and per namespace where only some are wanted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::annotate::Annotator;
use super::connection::ApiConnection;
use super::event_recorder::EventRecorder;
use super::gap::{Gap, MissedChanges};
use super::kind_state::KindChange;
use super::kind_states::KindStates;
use super::resources::Resources;
use super::watch::{Scope, WatchEvent, WatchedObject};
use super::watch_driver::{
    Interruption, REFUSED_RETRY_INTERVAL, WatchDriver, WatchSource, WatchVerdict, WatchedResource,
    spawn_watch,
};
use crate::flux::needs::InventoryNeeds;
use crate::flux::{Kind, Spec, Target};
use crate::follow_through::FollowThrough;
use crate::matching::{Inventory, Object, ObjectId, ignored_field};
use crate::metrics::Metrics;

/// The watches of one cluster.
pub struct Watches {
    connection: ApiConnection,
    resources: Arc<Resources>,
    inventory: Arc<RwLock<Inventory>>,
    states: Arc<KindStates>,
    follow_through: FollowThrough,
    metrics: Arc<Metrics>,
    /// The kinds that are watched or about to be, and those whose objects filters read.
    needs: Mutex<InventoryNeeds>,
    /// The kinds that have to be listed again, since filters read their objects from now on.
    outdated: Mutex<BTreeSet<Kind>>,
    more_needs: Notify,
    /// Objects of which it was logged that something in them cannot be used.
    faulty: Mutex<HashSet<Target>>,
    missed: MissedChanges,
}

/// The time between two checks whether all kinds are known.
const KNOWN_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The answer to the question whether the whole cluster may be listed has to come in this time.
const PERMISSION_CHECK_TIMEOUT: Duration = Duration::from_secs(60);

impl Watches {
    /// Creates the watches of a cluster, in these namespaces or everywhere. Nothing is requested until
    /// [`Watches::run`].
    pub fn new(
        connection: ApiConnection,
        inventory: Arc<RwLock<Inventory>>,
        needs: InventoryNeeds,
        namespaces: Vec<String>,
        follow_through: FollowThrough,
        metrics: Arc<Metrics>,
    ) -> Arc<Watches> {
        let scopes = Scope::from_namespaces(namespaces);
        let watches = Watches {
            connection,
            resources: Arc::default(),
            states: Arc::new(KindStates::new(scopes, Arc::clone(&inventory), Arc::clone(&metrics))),
            inventory,
            follow_through,
            metrics,
            needs: Mutex::default(),
            outdated: Mutex::default(),
            more_needs: Notify::new(),
            faulty: Mutex::default(),
            missed: MissedChanges::default(),
        };
        watches.also_watch(needs);
        Arc::new(watches)
    }

    /// Watches this as well, until the process ends. From here on deliveries wait for what of it is not
    /// known yet.
    pub fn also_watch(&self, more: InventoryNeeds) {
        let mut needs = self.needs.lock();
        for kind in more.kinds.into_iter().filter(|kind| needs.kinds.insert(*kind)) {
            self.states.add(kind);
        }
        for kind in more.read_by_filters.into_iter().filter(|kind| needs.read_by_filters.insert(*kind)) {
            self.states.need_filter_fields(kind);
            self.outdated.lock().insert(kind);
        }
        drop(needs);
        self.more_needs.notify_one();
    }

    /// Returns the writer that patches objects of this cluster.
    pub fn annotator(&self, events: Option<Arc<EventRecorder>>) -> Annotator {
        Annotator {
            events,
            connection: self.connection.clone(),
            resources: Arc::clone(&self.resources),
            inventory: Arc::clone(&self.inventory),
            states: Arc::clone(&self.states),
        }
    }

    /// Waits for objects that were created or changed while their watch was interrupted.
    pub async fn missed_changes(&self) -> BTreeSet<Target> {
        self.missed.take().await
    }

    /// Watches all kinds; never ends. A kind whose objects filters come to read is listed again.
    pub async fn run(self: Arc<Watches>) {
        let mut running: BTreeMap<Kind, Vec<AbortHandle>> = BTreeMap::new();
        loop {
            for kind in std::mem::take(&mut *self.outdated.lock()) {
                running.remove(&kind).into_iter().flatten().for_each(|watch| watch.abort());
            }
            let wanted = self.needs.lock().kinds.clone();
            for kind in wanted {
                running.entry(kind).or_insert_with(|| self.start(kind));
            }
            self.more_needs.notified().await;
        }
    }

    /// Starts a watch of the kind for each scope.
    fn start(self: &Arc<Watches>, kind: Kind) -> Vec<AbortHandle> {
        let start = |scope: &Scope| {
            let (watches, of_watch) = (Arc::clone(self), scope.clone());
            spawn_watch(
                kind.to_string(),
                scope.clone(),
                || {},
                move || {
                    let (watches, scope) = (Arc::clone(&watches), of_watch.clone());
                    async move { watches.watch(kind, scope).await }
                },
            )
        };
        self.states.scopes().iter().map(start).collect()
    }

    /// Waits until events of every kind can be matched. Longer than [`Watches::wait_until_synced`], which does not
    /// wait for what is broken.
    pub async fn wait_until_known(&self) {
        while !self.is_all_known() {
            tokio::time::sleep(KNOWN_CHECK_INTERVAL).await;
        }
    }

    /// Whether [`Watches::wait_until_known`] would end at once.
    pub fn is_all_known(&self) -> bool {
        self.states.is_all_known()
    }

    /// Is notified whenever events can be matched that could not be before.
    pub fn became_known(&self) -> Arc<Notify> {
        self.states.became_known()
    }

    /// Returns the kinds of which objects may exist that cannot be listed.
    pub fn unlistable_kinds(&self) -> BTreeSet<Kind> {
        self.states.unlistable_kinds()
    }

    /// Waits until every kind is listed, absent, forbidden or broken.
    pub async fn wait_until_synced(&self) {
        self.states.all_settled().await;
    }

    /// Watches a kind in a scope; never ends.
    async fn watch(&self, kind: Kind, scope: Scope) {
        let mut driver = WatchDriver::new(&self.connection, self.source(kind, &scope));
        let mut reader = ListReader::new(kind, scope.clone(), None);
        loop {
            let Interruption { verdict, failure } = match driver.next().await {
                Ok(event) => {
                    self.take(&mut reader, event);
                    continue;
                }
                Err(interruption) => interruption,
            };
            match verdict {
                WatchVerdict::Transient => {}
                // A 403 is reported as `Forbidden` if it persists.
                WatchVerdict::Broken if failure.code == Some(403) => {}
                WatchVerdict::Broken => self.broken(kind, &scope, failure.code == Some(404)),
                WatchVerdict::Forbidden if scope == Scope::Cluster => {
                    self.watch_own_namespace(kind).await;
                    driver = WatchDriver::new(&self.connection, self.source(kind, &scope));
                }
                WatchVerdict::Forbidden => self.forbidden(kind, &scope, &scope),
                WatchVerdict::Absent { is_confirmed } => self.absent(kind, &scope, is_confirmed),
            }
        }
    }

    fn source(&self, kind: Kind, scope: &Scope) -> WatchSource {
        let resource = WatchedResource::Discovered(kind, Arc::clone(&self.resources));
        WatchSource { kind: kind.to_string(), resource, scope: scope.clone(), name: None }
    }

    /// Watches the own namespace until the whole cluster can be listed. What was known of the rest stays:
    /// a right that is missing for a moment must not look like deletions.
    async fn watch_own_namespace(&self, kind: Kind) {
        let namespace = self.connection.client().default_namespace().to_owned();
        let own = Scope::Namespace(namespace.clone());
        log::warn!(
            kind:%, scope:% = own, retry_in_s = REFUSED_RETRY_INTERVAL.as_secs();
            "kind cannot be listed in the whole cluster, watching the own namespace"
        );
        let mut driver = WatchDriver::new(&self.connection, self.source(kind, &own)).with_final_refusals();
        let mut reader = ListReader::new(kind, Scope::Cluster, Some(namespace));
        let watch = async {
            loop {
                match driver.next().await {
                    Ok(event) => self.take(&mut reader, event),
                    Err(Interruption { verdict: WatchVerdict::Transient, .. }) => {}
                    Err(Interruption { verdict: WatchVerdict::Broken, failure }) => {
                        self.broken(kind, &Scope::Cluster, failure.code == Some(404));
                    }
                    Err(Interruption { verdict: WatchVerdict::Forbidden, .. }) => {
                        self.forbidden(kind, &own, &Scope::Cluster);
                    }
                    Err(_) => return,
                }
            }
        };
        tokio::select! {
            () = self.until_the_cluster_can_be_listed(kind) => {
                log::info!(kind:%; "kind can be listed in the whole cluster again");
            }
            () = watch => {}
        }
    }

    async fn until_the_cluster_can_be_listed(&self, kind: Kind) {
        loop {
            tokio::time::sleep(REFUSED_RETRY_INTERVAL).await;
            let Some(resource) = self.resources.get(kind) else { continue };
            let everywhere: Api<DynamicObject> = Api::all_with(self.connection.client(), &resource);
            let first = ListParams::default().limit(1);
            let listed = everywhere.list_metadata(&first);
            if let Ok(Ok(_)) = tokio::time::timeout(PERMISSION_CHECK_TIMEOUT, listed).await {
                return;
            }
        }
    }

    fn forbidden(&self, kind: Kind, scope: &Scope, stands_for: &Scope) {
        log::warn!(
            kind:%, scope:%, retry_in_s = REFUSED_RETRY_INTERVAL.as_secs();
            "kind cannot be listed; grant the ClusterRole flux-recv (`flux-recv check` names the missing rights)"
        );
        self.states.apply(kind, stands_for, KindChange::Forbidden { place: stands_for.place() });
    }

    /// A minute after the first final answer the objects are gone with their kind.
    fn absent(&self, kind: Kind, scope: &Scope, is_confirmed: bool) {
        if is_confirmed {
            self.write().retain(kind, |_, target| !scope.covers(target));
            self.count(kind);
        } else {
            log::warn!(kind:%, retry_in_s = REFUSED_RETRY_INTERVAL.as_secs(); "kind is not served by the cluster, retrying");
        }
        self.states.apply(kind, scope, KindChange::Absent { is_confirmed });
    }

    fn broken(&self, kind: Kind, scope: &Scope, is_absent: bool) {
        let before = self.states.get(kind, scope);
        self.states.apply(kind, scope, KindChange::Broken);
        if is_absent {
            return;
        }
        if !before.is_settled() {
            log::error!(kind:%, scope:%; "kind cannot be listed; continuing without it");
        } else if before.is_awaited() {
            log::warn!(kind:%, scope:%; "kind cannot be listed; its deliveries wait");
        }
    }

    /// Applies an event to the inventory, and to the state of the kind.
    fn take(&self, reader: &mut ListReader, event: WatchEvent<WatchedObject>) {
        let kind = reader.kind;
        match event {
            WatchEvent::Opened(unwatched) => reader.gap.opened(unwatched, Instant::now()),
            WatchEvent::Listing => self.list_began(reader),
            WatchEvent::Listed(object) => {
                let id = self.put(&object.target(kind), object, &reader.gap);
                reader.listed.insert(id);
                // A list is counted when it is complete.
                return;
            }
            WatchEvent::Complete => self.list_ended(reader),
            WatchEvent::Changed(object) => {
                self.put(&object.target(kind), object, &reader.gap);
            }
            WatchEvent::Gone(object) => {
                let target = object.target(kind);
                self.follow_through.forget(&target);
                self.faulty.lock().remove(&target);
                self.write().remove(&target);
            }
            WatchEvent::Unchanged => {}
        }
        self.metrics.inventory_seen(kind);
        self.count(kind);
    }

    fn list_began(&self, reader: &mut ListReader) {
        let ListReader { kind, scope, namespace, listed, gap, has_filter_fields } = reader;
        gap.listing(self.states.get(*kind, scope).may_have_missed_changes(namespace.as_deref()));
        self.states.apply(*kind, scope, KindChange::ListBegan { namespace: namespace.clone() });
        *has_filter_fields = self.keeps_filter_fields(*kind);
        listed.clear();
    }

    /// Removes the objects that the list does not hold, and marks the kind as listed.
    fn list_ended(&self, reader: &mut ListReader) {
        let (listed, covered) = (std::mem::take(&mut reader.listed), reader.covered());
        let ListReader { kind, scope, namespace, has_filter_fields, .. } = &*reader;
        self.write().retain(*kind, |id, target| !covered.covers(target) || listed.contains(&id));
        let objects = self.count(*kind);
        if namespace.is_none() && !self.states.get(*kind, scope).is_known() {
            log::info!(kind:%, scope:%, objects; "kind listed");
        }
        let ended =
            KindChange::ListEnded { namespace: namespace.clone(), has_filter_fields: *has_filter_fields };
        self.states.apply(*kind, scope, ended);
    }

    fn count(&self, kind: Kind) -> usize {
        let objects = self.inventory.read().count(kind);
        self.metrics.inventory(kind, objects);
        objects
    }

    /// An object that cannot be read hides only itself; it is still there.
    fn put(&self, target: &Target, mut object: WatchedObject, gap: &Gap) -> ObjectId {
        let progress = object.progress();
        let details = self.keeps_filter_fields(target.kind).then(|| Box::new(object.details()));
        let marks = object.take_marks();
        let spec = Spec::read(target.kind, object.spec.as_deref());
        let ignored = spec.as_ref().ok().and_then(ignored_field);
        let read = spec.and_then(|spec| Object::new(target.clone(), &spec));
        // Once for each object: its author can change it any number of times.
        if read.is_ok() && ignored.is_none() {
            self.faulty.lock().remove(target);
        } else if self.faulty.lock().insert(target.clone()) {
            match &read {
                Ok(_) => {
                    let field = ignored.unwrap_or_default();
                    log::warn!(object:% = target, field; "field is too long; the object is matched without it");
                }
                Err(why) => log::warn!(object:% = target, why:%; "object cannot be matched"),
            }
        }
        let mut object = read.unwrap_or_else(|_| Object::unreadable(target.clone()));
        self.follow_through.observe(target, &progress, object.suspended);
        object.progress = progress;
        object.marks = marks;
        object.details = details;
        let mut inventory = self.write();
        if gap.covers(Instant::now())
            && !inventory.object(target).is_some_and(|before| before.is_matched_like(&object))
        {
            self.missed.add(target.clone());
        }
        inventory.put(object)
    }

    fn keeps_filter_fields(&self, kind: Kind) -> bool {
        self.needs.lock().read_by_filters.contains(&kind)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inventory> {
        self.inventory.write()
    }
}

/// The state between the events of one watch.
struct ListReader {
    kind: Kind,
    /// The scope whose state changes.
    scope: Scope,
    /// The namespace that is watched in place of that scope.
    namespace: Option<String>,
    listed: HashSet<ObjectId>,
    gap: Gap,
    /// The list holds what filters read, from its beginning: filters may come to read the kind in its
    /// middle.
    has_filter_fields: bool,
}

impl ListReader {
    fn new(kind: Kind, scope: Scope, namespace: Option<String>) -> ListReader {
        let (listed, gap) = (HashSet::new(), Gap::default());
        ListReader { kind, scope, namespace, listed, gap, has_filter_fields: false }
    }

    /// The scope that is really watched.
    fn covered(&self) -> Scope {
        self.namespace.clone().map_or_else(|| self.scope.clone(), Scope::Namespace)
    }
}
