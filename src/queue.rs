//! Asks for reconciliation: a slot per object, a bounded number of patches in flight, and every
//! failure tried again until it succeeds or the object is gone.

pub mod slot;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::slot::{Ending, Next, Slot};
use crate::backoff::growing_pause;
use crate::flux::Target;

/// The role that writes. Whoever plays it is handed to [`Queue::run`].
pub trait Writer: Send + Sync {
    /// Asks Flux to reconcile the object, and logs that it did.
    fn request_reconcile<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), WriteError>>;

    /// Whether the object still exists, as far as the watch knows.
    fn exists(&self, target: &Target) -> bool;
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It may be taken next time.
    #[error("{why}")]
    Temporary {
        /// What went wrong.
        why: String,
        /// The pause that the API server asked for.
        retry_after: Option<Duration>,
    },
    /// A right is missing; someone has to grant it first.
    #[error("{0}")]
    Forbidden(String),
    /// The API server does not know the object; the watch decides whether it is gone.
    #[error("the API server does not find it")]
    NotFound,
    /// The API server refuses the request itself.
    #[error("{0}")]
    Rejected(String),
}

/// How the queue paces itself.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The least time between the starts of two patches of one object.
    pub min_interval: Duration,
    /// How many patches may be in flight.
    pub max_in_flight: usize,
    /// How long a patch may take.
    pub time_limit: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            min_interval: Duration::from_secs(1),
            // The API server's default for concurrent changes is 200, for all clients together.
            max_in_flight: 32,
            time_limit: Duration::from_secs(10),
        }
    }
}

/// The first pause after a failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after failures that may pass by themselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pauses while a right is missing.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_FORBIDDEN_PAUSE: Duration = Duration::from_secs(300);

/// The queue; clones share it.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    pace: Pace,
    slots: Mutex<Slots>,
    /// Something became due earlier than the driver knows.
    changed: Notify,
    /// No slot is busy any more.
    rests: Notify,
}

#[derive(Default)]
struct Slots {
    by_target: HashMap<Target, Slot>,
    /// When to look at which slot again: to start a patch, or to forget a slot that has rested.
    due: BTreeSet<(Instant, Target)>,
    busy: usize,
}

impl Queue {
    /// An empty queue.
    pub fn new(pace: Pace) -> Queue {
        let shared = Shared { pace, slots: Mutex::default(), changed: Notify::new(), rests: Notify::new() };
        Queue { shared: Arc::new(shared) }
    }

    /// These objects are to be reconciled, by patches that start after this call.
    pub fn want(&self, targets: &[Target]) {
        let now = Instant::now();
        let mut slots = self.slots();
        for target in targets {
            slots.want(target, now, self.shared.pace.min_interval);
        }
        drop(slots);
        self.shared.changed.notify_one();
    }

    /// How many objects wait for a patch or its end.
    pub fn pending(&self) -> usize {
        self.slots().busy
    }

    /// The objects that wait for a patch or its end.
    pub fn pending_targets(&self) -> Vec<Target> {
        let slots = self.slots();
        let busy = slots.by_target.iter().filter(|(_, slot)| slot.is_busy());
        let mut targets: Vec<Target> = busy.map(|(target, _)| target.clone()).collect();
        targets.sort();
        targets
    }

    /// Waits until nothing is pending.
    pub async fn rest(&self) {
        loop {
            let rests = self.shared.rests.notified();
            if self.pending() == 0 {
                return;
            }
            rests.await;
        }
    }

    /// Drives the queue; never ends.
    pub async fn run(self, writer: Arc<dyn Writer>) {
        let mut in_flight = JoinSet::new();
        let mut targets_in_flight = HashMap::new();
        loop {
            let room = self.shared.pace.max_in_flight.saturating_sub(in_flight.len());
            let (start, next_due) =
                self.slots().take_due(Instant::now(), room, self.shared.pace.min_interval);
            for target in start {
                let (writer, limit) = (Arc::clone(&writer), self.shared.pace.time_limit);
                let patch = in_flight.spawn({
                    let target = target.clone();
                    async move {
                        let result = request(&*writer, &target, limit).await;
                        let exists = result != Err(WriteError::NotFound) || writer.exists(&target);
                        (result, exists)
                    }
                });
                targets_in_flight.insert(patch.id(), target);
            }
            let sleep = next_due.filter(|_| in_flight.len() < self.shared.pace.max_in_flight);
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep_until(sleep) => {}
                Some(ended) = in_flight.join_next_with_id() => {
                    let (id, result, exists) = match ended {
                        Ok((id, (result, exists))) => (id, result, exists),
                        Err(err) => (err.id(), Err(panicked()), true),
                    };
                    if let Some(target) = targets_in_flight.remove(&id) {
                        self.finish(&target, result, exists);
                    }
                }
            }
        }
    }

    fn finish(&self, target: &Target, result: Result<(), WriteError>, exists: bool) {
        let mut slots = self.slots();
        let failures = slots.by_target.get(target).map_or(0, Slot::failures);
        let ending = ending(target, result, exists, failures);
        slots.finish(target, Instant::now(), ending, self.shared.pace.min_interval);
        if slots.busy == 0 {
            self.shared.rests.notify_waiters();
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn want(&mut self, target: &Target, now: Instant, min_interval: Duration) {
        if !self.by_target.contains_key(target) {
            self.by_target.insert(target.clone(), Slot::new());
        }
        let Some(slot) = self.by_target.get_mut(target) else { return };
        let was_busy = slot.is_busy();
        if let Some(due) = slot.want(now, min_interval) {
            self.due.insert((due, target.clone()));
        }
        self.busy += usize::from(!was_busy);
    }

    /// Starts what is due, as far as there is room; says when to look again.
    fn take_due(
        &mut self,
        now: Instant,
        room: usize,
        min_interval: Duration,
    ) -> (Vec<Target>, Option<Instant>) {
        let mut start = Vec::new();
        while start.len() < room {
            match self.due.first() {
                Some((due, _)) if *due <= now => {}
                _ => break,
            }
            let Some((_, target)) = self.due.pop_first() else { break };
            let Some(slot) = self.by_target.get_mut(&target) else { continue };
            if slot.start(now).is_some() {
                start.push(target);
            } else if !slot.is_busy() && slot.rests_until(min_interval).is_none_or(|until| until <= now) {
                self.by_target.remove(&target);
            }
        }
        (start, self.due.first().map(|(due, _)| *due))
    }

    fn finish(&mut self, target: &Target, now: Instant, ending: Ending, min_interval: Duration) {
        let Some(slot) = self.by_target.get_mut(target) else { return };
        let look_again = match slot.finish(now, ending, min_interval) {
            Next::StartAt(due) => due,
            Next::Rest(_) => {
                self.busy -= 1;
                slot.rests_until(min_interval).unwrap_or(now)
            }
        };
        self.due.insert((look_again, target.clone()));
    }
}

async fn request(writer: &dyn Writer, target: &Target, limit: Duration) -> Result<(), WriteError> {
    match tokio::time::timeout(limit, writer.request_reconcile(target)).await {
        Ok(result) => result,
        Err(_) => Err(WriteError::Temporary {
            why: format!("no answer within {} s", limit.as_secs()),
            retry_after: None,
        }),
    }
}

/// A panic in a writer is a bug, and no reason to lose what was wanted.
fn panicked() -> WriteError {
    WriteError::Temporary {
        why: "the request ended in a panic; please report this".to_owned(),
        retry_after: None,
    }
}

/// Decides what a result means, and says so once if it is a failure.
fn ending(target: &Target, result: Result<(), WriteError>, exists: bool, failures: u32) -> Ending {
    let Err(err) = result else { return Ending::Done };
    if !exists {
        log::info!(object:% = target; "the object is gone; nothing to ask");
        return Ending::GivenUp;
    }
    let pause = match &err {
        WriteError::Rejected(why) => {
            log::error!(object:% = target, why:%; "the API server refuses the request; given up until the next delivery");
            return Ending::GivenUp;
        }
        WriteError::Forbidden(_) => growing_pause(FORBIDDEN_PAUSE, LONGEST_FORBIDDEN_PAUSE, failures),
        WriteError::Temporary { retry_after, .. } => {
            growing_pause(FIRST_PAUSE, LONGEST_PAUSE, failures).max(retry_after.unwrap_or_default())
        }
        WriteError::NotFound => growing_pause(FIRST_PAUSE, LONGEST_PAUSE, failures),
    };
    log::warn!(object:% = target, why:% = err, retry_in_ms = pause.as_millis() as u64, failures = failures + 1; "could not ask to reconcile");
    Ending::Failed { pause }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
