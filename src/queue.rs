//! Requests reconciliation: a slot per object, a bounded number of patches in flight, and every
//! failure tried again until it succeeds or the object is gone.

pub mod slot;
mod slots;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::slot::{PatchFailure, PatchResult, Slot};
use self::slots::{CommitStatus, DueWork, RequestPlan, Slots};
use crate::backoff::growing_pause;
use crate::flux::Target;
use crate::journal::contents::{Contents, JournalChange};
use crate::journal::{Journal, JournalCommit, NotDurable};
use crate::metrics::{Metrics, PatchResultLabel};

/// Writes reconcile requests; passed to [`Queue::run`].
pub trait Writer: Send + Sync {
    /// Requests the reconciliation of the object, and logs that it did.
    fn request_reconcile<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), WriteError>>;

    /// Whether the object is known not to exist any more.
    fn is_gone(&self, target: &Target) -> bool;
}

/// Is told what becomes of requests.
pub trait RequestObserver: Send + Sync {
    /// The API server has taken a request, whose patch began so long ago: what came since is not covered.
    fn requested(&self, target: &Target, age: Duration);

    /// It has not; the request is tried again.
    fn failed(&self, target: &Target, error: &WriteError);

    /// The object does not exist any more; the request is dropped.
    fn gone(&self, target: &Target);
}

/// A reconcile request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It may be taken next time.
    #[error("{why}")]
    Transient {
        /// The reason, for the log.
        why: String,
        /// The pause of the API server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A right is missing; someone has to grant it first.
    #[error("{0}")]
    Forbidden(String),
    /// The API server does not know the object; the watch decides whether it is gone.
    #[error("the API server does not find it")]
    NotFound,
    /// The API server calls the request invalid; someone has to correct the object first.
    #[error("{0}")]
    Rejected(String),
}

impl WriteError {
    /// The error's name, one of a closed set.
    fn label(&self) -> PatchResultLabel {
        match self {
            WriteError::Transient { .. } => PatchResultLabel::Failure,
            WriteError::Forbidden(_) => PatchResultLabel::Forbidden,
            WriteError::NotFound => PatchResultLabel::NotFound,
            WriteError::Rejected(_) => PatchResultLabel::Rejected,
        }
    }
}

/// The pace of the queue.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The least time between the starts of two patches of one object.
    pub min_interval: Duration,
    /// How many patches may be in flight.
    pub max_in_flight: usize,
    /// How long a patch may take.
    pub time_limit: Duration,
    /// Over how long the patches of a delivery that matches many objects are spread, at most.
    pub spread: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            min_interval: Duration::from_secs(1),
            // The API server's default for concurrent changes is 200, for all clients together.
            max_in_flight: 64,
            time_limit: Duration::from_secs(10),
            spread: Duration::from_secs(5),
        }
    }
}

/// The first pause after a failure; it doubles with every further one.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The maximum pause after failures that may pass by themselves.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// The maximum pause while someone has to grant a right or correct an object.
const MAX_BLOCKED_RETRY_DELAY: Duration = Duration::from_secs(300);

/// A delivery that matches no more objects than this requests all of them at once.
const MAX_UNSPREAD_TARGETS: usize = 8;
/// Beyond that, each object makes the spread longer by this, up to [`Pace::spread`].
const SPREAD_PER_TARGET: Duration = Duration::from_millis(25);

/// The queue; clones share it.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<SharedQueue>,
}

struct SharedQueue {
    pace: Pace,
    journal: Journal,
    metrics: Arc<Metrics>,
    slots: Mutex<Slots<JournalCommit>>,
    observer: OnceLock<Arc<dyn RequestObserver>>,
    /// Something became due earlier than the driver knows.
    changed: Notify,
    /// No slot is busy any more.
    rests: Notify,
}

impl CommitStatus for JournalCommit {
    fn is_durable(&self) -> Option<bool> {
        JournalCommit::is_durable(self)
    }
}

/// The journal commits that a delivery waits for before it is answered.
#[must_use = "what is not durable yet must not be acknowledged"]
#[derive(Default)]
pub struct PendingCommits {
    commits: Vec<JournalCommit>,
}

impl PendingCommits {
    /// These and one more.
    pub fn and(mut self, commit: Option<JournalCommit>) -> PendingCommits {
        self.commits.extend(commit);
        self
    }

    /// Waits until everything is durable.
    ///
    /// # Errors
    /// When the journal cannot be written. The objects may be requested all the same.
    pub async fn wait_until_durable(self) -> Result<(), NotDurable> {
        for commit in self.commits {
            commit.wait_until_durable().await?;
        }
        Ok(())
    }
}

impl Queue {
    /// A queue over what an earlier process has left in the journal.
    pub fn new(pace: Pace, journal: Journal, left: &Contents, metrics: Arc<Metrics>) -> Queue {
        let mut slots = Slots::new(pace.min_interval, pace.max_per_kind());
        let pending = left.pending.iter().map(|(target, round)| (target.clone(), *round));
        let (now, window) = (Instant::now(), pace.window(left.pending.len()));
        slots.restore(pending, now, || now + random_part_of(window));
        metrics.pending(slots.busy());
        let (slots, changed, rests) = (Mutex::new(slots), Notify::new(), Notify::new());
        let observer = OnceLock::new();
        Queue { shared: Arc::new(SharedQueue { pace, journal, metrics, slots, observer, changed, rests }) }
    }

    /// Has somebody told what becomes of requests. The first one stays.
    pub fn observe(&self, observer: Arc<dyn RequestObserver>) {
        let _ = self.shared.observer.set(observer);
    }

    /// Requests the reconciliation of these objects, by patches that start after this call.
    pub fn request(&self, targets: &[Target]) -> PendingCommits {
        self.request_spread(targets, self.shared.pace.window(targets.len()))
    }

    /// Requests the reconciliation of these objects, by patches that start after this time has passed.
    pub fn request_later(&self, targets: &[Target], not_before: Duration) -> PendingCommits {
        self.request_within(targets, not_before, self.shared.pace.window(targets.len()))
    }

    /// Requests the reconciliation of these objects some time within the window.
    pub fn request_spread(&self, targets: &[Target], window: Duration) -> PendingCommits {
        self.request_within(targets, Duration::ZERO, window)
    }

    /// Requests the reconciliation of these objects some time within the window, which begins after this time.
    pub fn request_within(
        &self,
        targets: &[Target],
        not_before: Duration,
        window: Duration,
    ) -> PendingCommits {
        let now = Instant::now();
        let spread = |target| (target, now + not_before + random_part_of(window));
        let mut slots = self.slots();
        let RequestPlan { write, mut await_commits, is_sooner } =
            slots.request(targets.iter().map(spread), now);
        if !write.is_empty() {
            let changes =
                write.iter().map(|(target, round)| JournalChange::AddPending(target.clone(), *round));
            // Within the lock, so that the journal sees the rounds of an object in their order.
            if let Some(commit) = self.shared.journal.write(changes.collect()) {
                slots.writing(&write, &commit);
                await_commits.push(commit);
            }
        }
        self.shared.metrics.pending(slots.busy());
        drop(slots);
        if is_sooner {
            self.shared.changed.notify_one();
        }
        PendingCommits { commits: await_commits }
    }

    /// Requests once more, for no delivery: nothing was acknowledged, so the journal does not record it.
    pub fn request_again(&self, target: &Target) {
        let now = Instant::now();
        if self.slots().request([(target, now)].into_iter(), now).is_sooner {
            self.shared.changed.notify_one();
        }
    }

    /// Whether each of these objects waits for a patch that has not started: another delivery for
    /// them costs nothing.
    pub fn all_pending(&self, targets: &[Target]) -> bool {
        let slots = self.slots();
        targets.iter().all(|target| slots.slot(target).is_some_and(Slot::is_pending))
    }

    /// Returns the number of objects that wait for a patch or its end.
    pub fn pending(&self) -> usize {
        self.slots().busy()
    }

    /// The objects that wait for a patch or its end.
    pub fn pending_targets(&self) -> Vec<Target> {
        self.slots().busy_targets()
    }

    /// Waits until nothing is pending.
    pub async fn wait_until_idle(&self) {
        loop {
            let rests = self.shared.rests.notified();
            if self.pending() == 0 {
                return;
            }
            rests.await;
        }
    }

    /// Tells the journal which objects the next process need not request.
    pub fn remove_rested_records(&self) {
        let mut slots = self.slots();
        let rested = slots
            .forget_rested()
            .into_iter()
            .map(|(target, round)| JournalChange::RemovePending(target, round));
        self.shared.journal.write_later(rested);
    }

    /// Drives the queue; never ends.
    pub async fn run(self, writer: Arc<dyn Writer>) {
        let mut in_flight = JoinSet::new();
        let mut targets_in_flight = HashMap::new();
        loop {
            let room = self.shared.pace.max_in_flight.saturating_sub(in_flight.len());
            let DueWork { start, next } = self.take_due(room);
            for target in start {
                let (writer, limit) = (Arc::clone(&writer), self.shared.pace.time_limit);
                let patch = in_flight.spawn({
                    let target = target.clone();
                    async move {
                        let result = request(&*writer, &target, limit).await;
                        let is_gone = result == Err(WriteError::NotFound) && writer.is_gone(&target);
                        (result, is_gone)
                    }
                });
                targets_in_flight.insert(patch.id(), target);
            }
            let sleep = next.filter(|_| in_flight.len() < self.shared.pace.max_in_flight);
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep_until(sleep) => {}
                Some(ended) = in_flight.join_next_with_id() => {
                    let (id, result, is_gone) = match ended {
                        Ok((id, (result, is_gone))) => (id, result, is_gone),
                        Err(err) => (err.id(), Err(panicked()), false),
                    };
                    if let Some(target) = targets_in_flight.remove(&id) {
                        self.finish(&target, result, is_gone);
                    }
                }
            }
        }
    }

    fn take_due(&self, room: usize) -> DueWork {
        let mut slots = self.slots();
        let (due, forget) = slots.take_due(Instant::now(), room);
        // Within the lock, as in `request_within`.
        let settled = forget.into_iter().map(|(target, round)| JournalChange::RemovePending(target, round));
        self.shared.journal.write_later(settled);
        due
    }

    fn finish(&self, target: &Target, result: Result<(), WriteError>, is_gone: bool) {
        let now = Instant::now();
        if let Some(observer) = self.shared.observer.get() {
            let began = self.slots().slot(target).and_then(Slot::in_flight_since);
            match &result {
                Ok(()) => observer.requested(target, began.map_or(Duration::ZERO, |began| now - began)),
                Err(_) if is_gone => observer.gone(target),
                Err(err) => observer.failed(target, err),
            }
        }
        let mut slots = self.slots();
        let since = slots.slot(target).and_then(Slot::in_flight_since);
        let metrics = &self.shared.metrics;
        let ending = match result {
            Ok(()) => {
                metrics.patched(target.kind, since.map(|since| now - since));
                PatchResult::Done
            }
            Err(err) => {
                metrics.patch_failed(
                    target.kind,
                    if is_gone { PatchResultLabel::Gone } else { err.label() },
                    !is_gone,
                );
                let failures = |sort| slots.slot(target).map_or(0, |slot| slot.failures(sort));
                after_failure(target, &err, is_gone, failures)
            }
        };
        slots.finish(target, now, ending);
        metrics.pending(slots.busy());
        if slots.busy() == 0 {
            self.shared.rests.notify_waiters();
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots<JournalCommit>> {
        self.shared.slots.lock()
    }
}

impl Pace {
    /// Returns the number of patches of one kind that may be in flight: an admission webhook that hangs is one for a kind, and
    /// must not keep the others waiting.
    fn max_per_kind(&self) -> usize {
        (self.max_in_flight / 2).max(1)
    }

    /// Over how long so many objects are spread.
    fn window(&self, objects: usize) -> Duration {
        match objects {
            0..=MAX_UNSPREAD_TARGETS => Duration::ZERO,
            many => {
                let many = u32::try_from(many).unwrap_or(u32::MAX);
                self.spread.min(SPREAD_PER_TARGET.saturating_mul(many))
            }
        }
    }
}

fn random_part_of(window: Duration) -> Duration {
    if window.is_zero() { Duration::ZERO } else { window.mul_f64(fastrand::f64()) }
}

async fn request(writer: &dyn Writer, target: &Target, limit: Duration) -> Result<(), WriteError> {
    match tokio::time::timeout(limit, writer.request_reconcile(target)).await {
        Ok(result) => result,
        Err(_) => Err(WriteError::Transient {
            why: format!("no answer within {} s", limit.as_secs()),
            retry_after: None,
        }),
    }
}

/// A panic in a writer is a bug, and no reason to lose what was wanted.
fn panicked() -> WriteError {
    WriteError::Transient {
        why: "the request ended in a panic; please report this".to_owned(),
        retry_after: None,
    }
}

/// Decides what a failure means, and says so.
fn after_failure(
    target: &Target,
    err: &WriteError,
    is_gone: bool,
    failures: impl Fn(PatchFailure) -> u32,
) -> PatchResult {
    if is_gone {
        log::info!(object:% = target; "object deleted; reconcile request dropped");
        return PatchResult::Gone;
    }
    let (sort, longest, at_least) = match err {
        WriteError::Forbidden(_) | WriteError::Rejected(_) => {
            (PatchFailure::Blocked, MAX_BLOCKED_RETRY_DELAY, Duration::ZERO)
        }
        WriteError::Transient { retry_after, .. } => {
            (PatchFailure::Transient, MAX_RETRY_DELAY, retry_after.unwrap_or_default())
        }
        WriteError::NotFound => (PatchFailure::Transient, MAX_RETRY_DELAY, Duration::ZERO),
    };
    let failures = failures(sort);
    let pause = growing_pause(FIRST_RETRY_DELAY, longest, failures).max(at_least);
    log::warn!(object:% = target, why:% = err, retry_in_ms = pause.as_millis() as u64, failures = failures + 1; "reconciliation request failed, retrying");
    PatchResult::Failed { pause, sort }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
