//! Checks whether Flux has fetched what was pushed, and requests reconciliation again where Flux looked
//! too early. Best effort: a restart forgets the checks.

mod inclusions;
pub mod revision_check;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use self::inclusions::{IncluderRequest, Inclusions};
use self::revision_check::{DueStep, RevisionCheck, Verdict};
use crate::flux::{Progress, Target};
use crate::history::{DeliveryId, History};
use crate::matching::{ExpectedRevision, Inclusion};
use crate::metrics::{Metrics, RevisionCheckLabel};
use crate::object_event::{ObjectEvent, ObjectEventReason, ObjectEvents};
use crate::queue::Queue;

/// The pushes that are checked; clones share it.
#[derive(Clone)]
pub struct FollowThrough {
    shared: Arc<SharedFollowThrough>,
}

struct SharedFollowThrough {
    queue: Queue,
    history: Arc<History>,
    metrics: Arc<Metrics>,
    events: OnceLock<Arc<dyn ObjectEvents>>,
    checks: Mutex<HashMap<Target, PendingCheck>>,
    inclusions: Mutex<Inclusions>,
    changed: Notify,
}

struct PendingCheck {
    check: RevisionCheck,
    delivery: DeliveryId,
}

impl FollowThrough {
    pub fn new(queue: Queue, history: Arc<History>, metrics: Arc<Metrics>) -> FollowThrough {
        let (checks, inclusions, changed) = (Mutex::default(), Mutex::default(), Notify::new());
        FollowThrough {
            shared: Arc::new(SharedFollowThrough {
                queue,
                history,
                metrics,
                events: OnceLock::new(),
                checks,
                inclusions,
                changed,
            }),
        }
    }

    /// Has objects told where Flux does not show what was pushed.
    pub fn tell(&self, events: Arc<dyn ObjectEvents>) {
        let _ = self.shared.events.set(events);
    }

    /// A delivery has brought something. The latest push of an object is the one that is checked.
    pub fn expect(&self, delivery: &DeliveryId, expected: Vec<ExpectedRevision>) {
        if expected.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut checks = self.checks();
        // A new check is due later than all others, so only the first one wakes the driver.
        let was_empty = checks.is_empty();
        for ExpectedRevision { target, revision, progress } in expected {
            if checks.get(&target).is_some_and(|followed| followed.check.wants(&revision)) {
                continue;
            }
            if checks.contains_key(&target) {
                self.end(&mut checks, &target, Verdict::Superseded);
            }
            if let Some(check) = RevisionCheck::new(&revision, &progress, now) {
                checks.insert(target, PendingCheck { check, delivery: delivery.clone() });
            }
        }
        if was_empty && !checks.is_empty() {
            self.shared.changed.notify_one();
        }
    }

    /// Some targets of a delivery are included by other objects, which are requested when these have changed.
    pub fn expect_inclusions(
        &self,
        delivery: &DeliveryId,
        inclusions: Vec<Inclusion>,
        expected: &[ExpectedRevision],
    ) {
        if inclusions.is_empty() {
            return;
        }
        let shown = |target: &Target| {
            let mut expected = expected.iter().filter(|expected| expected.target == *target);
            expected.any(|expected| expected.progress.revision.as_deref() == Some(&*expected.revision))
        };
        let changes = self.inclusions().expect(delivery, inclusions, shown, Instant::now());
        self.request_includers(changes);
    }

    /// An object was seen like this.
    pub fn observe(&self, target: &Target, progress: &Progress, suspended: bool) {
        if progress.handled {
            self.shared.history.handled(target, progress.requested);
        }
        self.observe_included(target, progress, suspended);
        let mut checks = self.checks();
        let Some(PendingCheck { check, .. }) = checks.get_mut(target) else { return };
        let due = check.due();
        match check.observe(progress, suspended, Instant::now()) {
            Some(verdict) => self.end(&mut checks, target, verdict),
            None if check.due() < due => self.shared.changed.notify_one(),
            None => {}
        }
    }

    fn observe_included(&self, target: &Target, progress: &Progress, suspended: bool) {
        let mut inclusions = self.inclusions();
        if inclusions.is_empty() {
            return;
        }
        if suspended {
            return inclusions.forget(target);
        }
        let changes = inclusions.observe(target, progress.artifact, Instant::now());
        drop(inclusions);
        self.request_includers(changes);
    }

    fn request_includers(&self, changes: Vec<IncluderRequest>) {
        for IncluderRequest { delivery, included, includer } in changes {
            log::info!(
                object:% = includer, included:% = included, endpoint:% = delivery.endpoint;
                "included repository changed, requesting reconciliation"
            );
            // Nobody waits for this one, but it outlives the process.
            drop(self.shared.queue.request(&[includer]));
        }
    }

    /// An object is gone.
    pub fn forget(&self, target: &Target) {
        self.inclusions().forget(target);
        let mut checks = self.checks();
        if checks.contains_key(target) {
            self.end(&mut checks, target, Verdict::Dropped);
        }
    }

    /// Requests again what is due; never ends.
    pub async fn run(self) {
        loop {
            match self.step_all(Instant::now()) {
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due.into()) => {}
                        () = self.shared.changed.notified() => {}
                    }
                }
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// Does what is due; says when to look again.
    fn step_all(&self, now: Instant) -> Option<Instant> {
        let mut checks = self.checks();
        let due: Vec<Target> = checks
            .iter()
            .filter(|(_, followed)| followed.check.due() <= now)
            .map(|(target, _)| target.clone())
            .collect();
        for target in due {
            let Some(followed) = checks.get_mut(&target) else { continue };
            match followed.check.step(now) {
                DueStep::RequestAgain => {
                    log::info!(
                        object:% = target, endpoint:% = followed.delivery.endpoint, again = followed.check.repeats();
                        "Flux has not observed the revision yet, requesting reconciliation again"
                    );
                    self.shared.metrics.revision_checked(RevisionCheckLabel::RequestedAgain, None);
                    self.shared.queue.request_again(&target);
                }
                DueStep::End(verdict) => self.end(&mut checks, &target, verdict),
                DueStep::Wait => {}
            }
        }
        checks.values().map(|followed| followed.check.due()).min()
    }

    fn end(&self, checks: &mut HashMap<Target, PendingCheck>, target: &Target, verdict: Verdict) {
        let Some(PendingCheck { check, delivery }) = checks.remove(target) else { return };
        let again = check.repeats();
        let (result, after) = match verdict {
            Verdict::Seen(after) => (RevisionCheckLabel::Seen, Some(after)),
            Verdict::MovedOn(after) => (RevisionCheckLabel::MovedOn, Some(after)),
            Verdict::GivenUp => (RevisionCheckLabel::GivenUp, None),
            Verdict::Dropped => (RevisionCheckLabel::Dropped, None),
            Verdict::Superseded => (RevisionCheckLabel::Superseded, None),
        };
        let endpoint = &delivery.endpoint;
        match (verdict, after) {
            (_, Some(after)) => {
                log::info!(object:% = target, endpoint:%, result:%, after_ms = after.as_millis() as u64, again; "Flux shows a new revision");
            }
            (Verdict::GivenUp, None) => {
                if let Some(events) = self.shared.events.get() {
                    events.record(ObjectEvent {
                        target: target.clone(),
                        reason: ObjectEventReason::RevisionNotObserved,
                        message: format!(
                            "Flux does not show the revision that endpoint {endpoint} announced, after {again} more requests"
                        ),
                        revision: None,
                        trace: None,
                    });
                }
                log::warn!(object:% = target, endpoint:%, result:%, again; "Flux does not show the pushed revision; see the status of the object");
            }
            (_, None) => log::debug!(object:% = target, endpoint:%, result:%; "revision check ended"),
        }
        self.shared.metrics.revision_checked(result, after);
        self.shared.history.revision_checked(&delivery, target, result, after);
    }

    fn inclusions(&self) -> MutexGuard<'_, Inclusions> {
        self.shared.inclusions.lock()
    }

    fn checks(&self) -> MutexGuard<'_, HashMap<Target, PendingCheck>> {
        self.shared.checks.lock()
    }
}
