//! Keeps the inventory current: one watch per kind, and per namespace where only some are wanted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::annotate::Annotator;
use super::connection::ApiConnection;
use super::extent::Extent;
use super::gap::{Gap, MissedChanges};
use super::knowledge::Knowledge;
use super::resources::Resources;
use super::watch::{Scope, Watch, WatchEvent, WatchedObject};
use super::{describe, lock, status_code};
use crate::backoff::growing_pause;
use crate::flux::needs::InventoryNeeds;
use crate::flux::{Kind, Spec, Target};
use crate::follow_through::FollowThrough;
use crate::matching::{Inventory, Object, ignored_field};
use crate::metrics::Metrics;

/// The watches of one cluster.
pub struct Watches {
    connection: ApiConnection,
    resources: Arc<Resources>,
    inventory: Arc<RwLock<Inventory>>,
    scopes: Vec<Scope>,
    extent: Arc<Extent>,
    follow_through: FollowThrough,
    metrics: Arc<Metrics>,
    knowledge: Knowledge,
    /// What is watched or about to be.
    needs: Mutex<InventoryNeeds>,
    /// The kinds that were listed before filters read their objects.
    outdated: Mutex<BTreeSet<Kind>>,
    more_needs: Notify,
    /// Objects of which it was logged that something in them cannot be used.
    faulty: Mutex<HashSet<Target>>,
    missed: MissedChanges,
}

/// When to look again for what is missing or forbidden.
const REFUSED_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// When to ask again after the API server did not answer; varied so that replicas spread.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// A "forbidden" or "no such kind" may be a slip of an API server that has just started, so often;
/// the pauses after it double.
const MAX_TRANSIENT_REFUSALS: u32 = 3;
const FIRST_REFUSAL_DELAY: Duration = Duration::from_secs(2);

/// How long a list may be silent, and a question about what is served may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// So many failures in a row with an API server that does answer mean that one kind is broken; the
/// others do not wait for it any longer.
const MAX_ANSWERED_FAILURES: u32 = 5;

/// So many times in a row without an answer, the address and CA of the API server are read again.
const FAILURES_BEFORE_RELOAD: u32 = 3;

/// Why a watch ended.
#[derive(Debug, PartialEq, Eq)]
enum WatchEnd {
    Forbidden,
    NotServed,
    Unauthorized,
    /// No answer came so often that the address or its CA may have changed.
    Unreachable,
    Silent,
}

impl Watches {
    /// Watches of a cluster, in these namespaces or everywhere; nothing is asked until
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
            extent: Arc::new(Extent::new(scopes.clone())),
            scopes,
            follow_through,
            knowledge: Knowledge::new(Arc::clone(&inventory), Arc::clone(&metrics)),
            inventory,
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

    /// Watches this as well. What is watched once stays so until the process ends. From here on
    /// deliveries wait for what of it is not known yet.
    pub fn also_watch(&self, more: InventoryNeeds) {
        let mut needs = lock(&self.needs);
        for kind in more.kinds.into_iter().filter(|kind| needs.kinds.insert(*kind)) {
            self.scopes.iter().for_each(|scope| self.knowledge.expect(kind, scope));
        }
        for kind in more.read_by_filters.into_iter().filter(|kind| needs.read_by_filters.insert(*kind)) {
            self.scopes.iter().for_each(|scope| self.knowledge.unknow_details(kind, scope));
            lock(&self.outdated).insert(kind);
        }
        drop(needs);
        self.more_needs.notify_one();
    }

    /// The writer that asks objects of this cluster.
    pub fn annotator(&self) -> Annotator {
        Annotator {
            connection: self.connection.clone(),
            resources: Arc::clone(&self.resources),
            inventory: Arc::clone(&self.inventory),
            extent: Arc::clone(&self.extent),
        }
    }

    /// Waits for objects that were made or changed while their watch was interrupted.
    pub async fn missed_changes(&self) -> BTreeSet<Target> {
        self.missed.take().await
    }

    /// Watches all kinds; never ends. A watch that panics is started again, and so is one that has to
    /// list once more what filters read.
    pub async fn run(self: Arc<Watches>) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<Id, KindWatch> = HashMap::new();
        let start = |tasks: &mut JoinSet<()>, kind: Kind, scope: Scope, after: Duration| {
            let (watches, of) = (Arc::clone(&self), scope.clone());
            let task = tasks.spawn(async move {
                tokio::time::sleep(after).await;
                watches.keep(kind, of).await;
            });
            (task.id(), KindWatch { kind, scope, task })
        };
        loop {
            let outdated = std::mem::take(&mut *lock(&self.outdated));
            let to_end = running.values().filter(|watch| outdated.contains(&watch.kind));
            to_end.for_each(|watch| watch.task.abort());
            let wanted = lock(&self.needs).kinds.clone();
            for kind in wanted {
                if !running.values().any(|watch| watch.kind == kind) {
                    let scopes = self.scopes.iter().cloned();
                    running.extend(scopes.map(|scope| start(&mut tasks, kind, scope, Duration::ZERO)));
                }
            }
            let ended = tokio::select! {
                () = self.more_needs.notified() => continue,
                Some(ended) = tasks.join_next_with_id() => ended,
            };
            let Err(err) = ended else { continue };
            let Some(KindWatch { kind, scope, .. }) = running.remove(&err.id()) else { continue };
            let mut pause = Duration::ZERO;
            if err.is_panic() {
                log::error!(kind:%, scope:%; "watch panicked, restarting; please report this");
                pause = MAX_RETRY_DELAY;
            }
            running.extend([start(&mut tasks, kind, scope, pause)]);
        }
    }

    /// Waits until it is known of every kind which objects there are, or that nobody may know. Longer
    /// than [`Watches::synced`], which does not wait for what is broken.
    pub async fn all_known(&self) {
        while !self.is_all_known() {
            tokio::time::sleep(FIRST_REFUSAL_DELAY).await;
        }
    }

    /// Whether [`Watches::all_known`] would end at once.
    pub fn is_all_known(&self) -> bool {
        self.knowledge.is_all_known()
    }

    /// Tells whenever more is known than before.
    pub fn became_known(&self) -> Arc<Notify> {
        self.knowledge.became_known()
    }

    /// The kinds of which objects may exist that cannot be listed.
    pub fn unlistable_kinds(&self) -> BTreeSet<Kind> {
        self.knowledge.unlistable_kinds()
    }

    /// Waits until every kind is known, missing, forbidden or broken.
    pub async fn synced(&self) {
        self.knowledge.all_settled().await;
    }

    async fn keep(&self, kind: Kind, scope: Scope) {
        let mut trouble = WatchFailures::default();
        loop {
            let client = self.connection.client();
            let resource = match self.discover(&client, kind).await {
                Ok(Some(resource)) => resource,
                Ok(None) => {
                    trouble.missing += 1;
                    self.not_served(kind, &scope, trouble.missing).await;
                    continue;
                }
                Err(failure) => {
                    trouble.failures += 1;
                    trouble.answered_failures += u32::from(failure.code.is_some());
                    self.after_failed_discovery(kind, &scope, &failure, &trouble).await;
                    continue;
                }
            };
            (trouble.missing, trouble.failures) = (0, 0);
            let ended = self.watch(kind, &client, &resource, &scope, &scope, &mut trouble).await;
            match ended {
                WatchEnd::Forbidden if trouble.forbidden < self.slips(kind, &scope) => {
                    tokio::time::sleep(FIRST_REFUSAL_DELAY * 2_u32.saturating_pow(trouble.forbidden)).await;
                    trouble.forbidden += 1;
                }
                WatchEnd::Forbidden if scope == Scope::Cluster => {
                    self.keep_own_namespace(kind, &client, &resource).await;
                    trouble = WatchFailures::default();
                }
                WatchEnd::Forbidden => self.forbidden(kind, &scope, &scope).await,
                // Read again, since either may have been exchanged.
                WatchEnd::Unreachable => self.connection.reload_credentials().await,
                WatchEnd::NotServed | WatchEnd::Unauthorized | WatchEnd::Silent => {
                    trouble.answered_failures += 1;
                    self.settle_if_broken(kind, &scope, trouble.answered_failures);
                    if ended == WatchEnd::Unauthorized {
                        self.connection.reload_credentials().await;
                    }
                    tokio::time::sleep(FIRST_RETRY_DELAY).await;
                }
            }
        }
    }

    /// How often "forbidden" may be a slip: what was listed before mostly comes back when an API
    /// server that has just started knows its roles.
    fn slips(&self, kind: Kind, scope: &Scope) -> u32 {
        if self.extent.was_listed(kind, scope) { MAX_TRANSIENT_REFUSALS + 1 } else { MAX_TRANSIENT_REFUSALS }
    }

    async fn discover(&self, client: &Client, kind: Kind) -> Result<Option<ApiResource>, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.resources.discover(client, kind)).await {
            Ok(found) => found.map_err(|err| Failure { code: status_code(&err), why: describe(&err) }),
            Err(_) => {
                Err(Failure { code: None, why: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()) })
            }
        }
    }

    async fn forbidden(&self, kind: Kind, scope: &Scope, stands_for: &Scope) {
        log::warn!(
            kind:%, scope:%, retry_in_s = REFUSED_RETRY_INTERVAL.as_secs();
            "kind cannot be listed; grant the ClusterRole flux-recv (`flux-recv check` names the missing rights)"
        );
        self.knowledge.forbidden(kind, stands_for, stands_for.place());
        tokio::time::sleep(REFUSED_RETRY_INTERVAL).await;
    }

    /// Watches the own namespace until the whole cluster may be listed. What was known of the rest
    /// stays: a right that is missing for a moment must not look like deletions.
    async fn keep_own_namespace(&self, kind: Kind, client: &Client, resource: &ApiResource) {
        let own = Scope::Namespace(client.default_namespace().to_owned());
        log::warn!(
            kind:%, scope:% = own, retry_in_s = REFUSED_RETRY_INTERVAL.as_secs();
            "kind cannot be listed in the whole cluster, watching the own namespace"
        );
        let mut trouble = WatchFailures::default();
        tokio::select! {
            () = self.until_the_cluster_may_be_listed(client, resource) => {
                log::info!(kind:%; "kind can be listed in the whole cluster again");
            }
            ended = self.watch(kind, client, resource, &own, &Scope::Cluster, &mut trouble) => match ended {
                WatchEnd::Forbidden => self.forbidden(kind, &own, &Scope::Cluster).await,
                _ => tokio::time::sleep(FIRST_RETRY_DELAY).await,
            }
        }
    }

    async fn until_the_cluster_may_be_listed(&self, client: &Client, resource: &ApiResource) {
        let everywhere: Api<DynamicObject> = Api::all_with(client.clone(), resource);
        loop {
            tokio::time::sleep(REFUSED_RETRY_INTERVAL).await;
            let first = ListParams::default().limit(1);
            if let Ok(Ok(_)) = tokio::time::timeout(ANSWER_TIMEOUT, everywhere.list_metadata(&first)).await {
                return;
            }
        }
    }

    /// The first few "no such kind" may be slips; then it is a fact, and a minute later the objects
    /// went with the kind.
    async fn not_served(&self, kind: Kind, scope: &Scope, times: u32) {
        if times <= MAX_TRANSIENT_REFUSALS {
            tokio::time::sleep(FIRST_REFUSAL_DELAY * 2_u32.saturating_pow(times - 1)).await;
            if times > 1 {
                self.knowledge.settled(kind, scope);
            }
            return;
        }
        if times == MAX_TRANSIENT_REFUSALS + 1 {
            log::warn!(kind:%, retry_in_s = REFUSED_RETRY_INTERVAL.as_secs(); "kind is not served by the cluster, retrying");
        } else {
            self.write().retain(kind, |target| !scope.covers(target));
            self.extent.absent(kind, scope);
            self.count(kind);
        }
        self.knowledge.known(kind, scope, true);
        tokio::time::sleep(REFUSED_RETRY_INTERVAL).await;
    }

    async fn after_failed_discovery(
        &self,
        kind: Kind,
        scope: &Scope,
        failure: &Failure,
        trouble: &WatchFailures,
    ) {
        if failure.code == Some(401) {
            self.connection.reload_credentials().await;
        }
        let pause = trouble.pause();
        log::warn!(kind:%, why:% = failure.why, retry_in_s = pause.as_secs(); "API discovery failed, retrying");
        self.settle_if_broken(kind, scope, trouble.answered_failures);
        tokio::time::sleep(pause).await;
    }

    /// Watches a kind in `scope` until the way of watching it has to change; `stands_for` is the
    /// scope that is known then.
    async fn watch(
        &self,
        kind: Kind,
        client: &Client,
        resource: &ApiResource,
        scope: &Scope,
        stands_for: &Scope,
        trouble: &mut WatchFailures,
    ) -> WatchEnd {
        let mut watch = Watch::new(client.clone(), resource, scope);
        let mut listed = HashSet::new();
        let mut gap = Gap::default();
        // Of the list, from its beginning: filters may come to read the kind in its middle.
        let mut with_details = false;
        loop {
            let seen = match watch.is_listing() {
                true => match tokio::time::timeout(ANSWER_TIMEOUT, watch.next()).await {
                    Ok(seen) => seen,
                    Err(_) => {
                        log::warn!(kind:%, scope:%, after_s = ANSWER_TIMEOUT.as_secs(); "list timed out, retrying");
                        return WatchEnd::Silent;
                    }
                },
                // Once it stands, a watch may be silent; the client has a limit of its own for that.
                false => watch.next().await,
            };
            match seen {
                Ok(seen) => {
                    match seen {
                        // A new list or watch only begins with this; it may fail like the one before.
                        WatchEvent::Opened(unwatched) => gap.opened(unwatched, Instant::now()),
                        WatchEvent::Listing => {
                            with_details = self.keeps_details(kind);
                            // Deliveries wait for the first list, unless they were told that there is no such kind.
                            let nobody_waits = !self.knowledge.is_awaited(kind, stands_for);
                            gap.listing(self.extent.was_listed(kind, scope) || nobody_waits);
                            // A kind that was missing or forbidden is there now.
                            if !self.extent.was_listed(kind, scope) {
                                self.knowledge.unknow(kind, stands_for);
                            }
                        }
                        _ => *trouble = WatchFailures::default(),
                    }
                    if self.apply(kind, scope, seen, &mut listed, &gap) {
                        self.extent.listed(kind, scope);
                        // The own namespace stands for the cluster only once that is sure to be forbidden.
                        if scope == stands_for {
                            self.knowledge.allowed(kind, stands_for);
                            self.knowledge.known(kind, stands_for, with_details);
                        } else {
                            let place = format!("outside of namespace {scope}");
                            self.knowledge.forbidden(kind, stands_for, place);
                        }
                    }
                }
                Err(interruption) => {
                    match interruption.code {
                        Some(401) => return WatchEnd::Unauthorized,
                        Some(403) => return WatchEnd::Forbidden,
                        Some(404) => return WatchEnd::NotServed,
                        code => trouble.answered_failures += u32::from(code.is_some()),
                    }
                    trouble.failures += 1;
                    if trouble.failures == 1 {
                        log::warn!(kind:%, scope:%, why:% = interruption.why; "watch interrupted, retrying");
                    }
                    if interruption.code.is_none() && trouble.failures.is_multiple_of(FAILURES_BEFORE_RELOAD)
                    {
                        return WatchEnd::Unreachable;
                    }
                    self.settle_if_broken(kind, stands_for, trouble.answered_failures);
                    tokio::time::sleep(trouble.pause()).await;
                }
            }
        }
    }

    /// Applies what was seen; says whether it ended a list. What a list does not hold any more is gone.
    fn apply(
        &self,
        kind: Kind,
        scope: &Scope,
        seen: WatchEvent<WatchedObject>,
        listed: &mut HashSet<Target>,
        gap: &Gap,
    ) -> bool {
        let mut is_complete = false;
        match seen {
            WatchEvent::Opened(_) | WatchEvent::Unchanged => {}
            WatchEvent::Listing => listed.clear(),
            WatchEvent::Listed(object) => {
                let target = object.target(kind);
                self.put(&target, object, gap);
                listed.insert(target);
                // A list is counted when it is complete.
                return false;
            }
            WatchEvent::Complete => {
                let listed = std::mem::take(listed);
                self.write().retain(kind, |target| !scope.covers(target) || listed.contains(target));
                is_complete = true;
            }
            WatchEvent::Changed(object) => self.put(&object.target(kind), object, gap),
            WatchEvent::Gone(object) => {
                let target = object.target(kind);
                self.follow_through.forget(&target);
                lock(&self.faulty).remove(&target);
                self.write().remove(&target);
            }
        }
        self.metrics.inventory_seen(kind);
        self.count(kind);
        is_complete
    }

    fn count(&self, kind: Kind) {
        let objects = self.inventory.read().unwrap_or_else(PoisonError::into_inner).count(kind);
        self.metrics.inventory(kind, objects);
    }

    /// An object that cannot be read hides only itself; it is still there.
    fn put(&self, target: &Target, mut object: WatchedObject, gap: &Gap) {
        let progress = object.progress();
        let details = self.keeps_details(target.kind).then(|| object.details());
        let marks = object.take_marks();
        let spec = Spec::read(target.kind, object.spec.as_deref());
        let ignored = spec.as_ref().ok().and_then(ignored_field);
        let read = spec.and_then(|spec| Object::new(target.clone(), &spec));
        // Once for each object: whoever writes it can change it as often as they like.
        if read.is_ok() && ignored.is_none() {
            lock(&self.faulty).remove(target);
        } else if lock(&self.faulty).insert(target.clone()) {
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
        inventory.put(object);
    }

    fn settle_if_broken(&self, kind: Kind, scope: &Scope, answered_failures: u32) {
        if answered_failures < MAX_ANSWERED_FAILURES {
            return;
        }
        if !self.knowledge.is_settled(kind, scope) {
            log::error!(kind:%, scope:%; "kind cannot be listed; continuing without it");
            self.knowledge.settled(kind, scope);
        } else if answered_failures == MAX_ANSWERED_FAILURES && self.knowledge.is_awaited(kind, scope) {
            log::error!(kind:%, scope:%; "kind cannot be listed; its deliveries wait");
        }
    }

    fn keeps_details(&self, kind: Kind) -> bool {
        lock(&self.needs).read_by_filters.contains(&kind)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inventory> {
        self.inventory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch of one kind in one scope.
struct KindWatch {
    kind: Kind,
    scope: Scope,
    task: AbortHandle,
}

/// What has gone wrong with a kind since it was last listed.
#[derive(Default)]
struct WatchFailures {
    /// Failures of any kind.
    failures: u32,
    /// Failures with an API server that did answer.
    answered_failures: u32,
    missing: u32,
    forbidden: u32,
}

impl WatchFailures {
    /// How long to wait after the last failure.
    fn pause(&self) -> Duration {
        growing_pause(FIRST_RETRY_DELAY, MAX_RETRY_DELAY, self.failures.saturating_sub(1))
    }
}

/// Why the API server did not say what it serves.
struct Failure {
    code: Option<u16>,
    why: String,
}
