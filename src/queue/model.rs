//! Slots and journal against a simple reference, with random faults: time and commits are handed in.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::slot::{PatchFailure, PatchResult};
use super::slots::{CommitStatus, DueWork, RequestPlan, Slots};
use crate::flux::{Kind, Target};
use crate::journal::contents::{Contents, JournalChange};

const INTERVAL: Duration = Duration::from_secs(1);
const OBJECTS: usize = 4;

impl CommitStatus for Arc<OnceLock<bool>> {
    fn is_durable(&self) -> Option<bool> {
        self.get().copied()
    }
}

#[derive(Debug, Clone)]
enum ModelStep {
    /// A delivery for these objects, spread over so many milliseconds.
    Deliver(Vec<usize>, u64),
    Wait(u64),
    /// The oldest patch in flight ends.
    EndPatch(PatchResult),
    /// What has been gathered is written, or is not.
    Commit(bool),
    /// The process is killed and started again.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let failed = |sort| PatchResult::Failed { pause: Duration::from_millis(700), sort };
    let ending = prop_oneof![
        4 => Just(PatchResult::Done),
        1 => Just(failed(PatchFailure::Transient)),
        1 => Just(failed(PatchFailure::Blocked)),
    ];
    let step = prop_oneof![
        4 => (prop::collection::vec(0..OBJECTS, 1..4), 0_u64..3000).prop_map(|(objects, spread)| ModelStep::Deliver(objects, spread)),
        3 => (1_u64..2500).prop_map(ModelStep::Wait),
        4 => ending.prop_map(ModelStep::EndPatch),
        4 => prop::bool::weighted(0.8).prop_map(ModelStep::Commit),
        1 => Just(ModelStep::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

fn target(at: usize) -> Target {
    Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: format!("object-{at}") }
}

/// A delivery that waits for its commits, or was accepted.
struct ModelDelivery {
    objects: Vec<usize>,
    received: Instant,
    commits: Vec<Arc<OnceLock<bool>>>,
}

struct Model {
    now: Instant,
    slots: Slots<Arc<OnceLock<bool>>>,
    disk: Contents,
    gathered: Vec<JournalChange>,
    commit: Arc<OnceLock<bool>>,
    in_flight: Vec<(Target, Instant)>,
    unanswered: Vec<ModelDelivery>,
    accepted: Vec<(usize, Instant)>,
    /// The start of the last successful patch of each object.
    patched: BTreeMap<Target, Instant>,
}

/// One less than may be in flight, so that some have to wait for others of their kind.
const MAX_PER_KIND: usize = 1;

impl Model {
    fn new() -> Model {
        Model {
            now: Instant::now(),
            slots: Slots::new(INTERVAL, MAX_PER_KIND),
            disk: Contents::default(),
            gathered: Vec::new(),
            commit: Arc::default(),
            in_flight: Vec::new(),
            unanswered: Vec::new(),
            accepted: Vec::new(),
            patched: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: ModelStep) {
        // No two things happen at one time, so that before and after are clear.
        self.now += Duration::from_micros(1);
        match step {
            ModelStep::Deliver(objects, spread) => self.deliver(objects, Duration::from_millis(spread)),
            ModelStep::Wait(millis) => self.now += Duration::from_millis(millis),
            ModelStep::EndPatch(ending) if !self.in_flight.is_empty() => {
                let (target, started) = self.in_flight.remove(0);
                if ending == PatchResult::Done {
                    self.patched.insert(target.clone(), started);
                }
                self.slots.finish(&target, self.now, ending);
            }
            ModelStep::EndPatch(_) => {}
            ModelStep::Commit(success) => self.write(success),
            ModelStep::Crash => {
                self.slots = Slots::new(INTERVAL, MAX_PER_KIND);
                let pending = self.disk.pending.iter();
                let pending = pending.map(|(target, round)| (target.clone(), *round));
                self.slots.restore(pending, self.now, || self.now);
                self.gathered.clear();
                self.commit = Arc::default();
                self.in_flight.clear();
                self.unanswered.clear();
            }
        }
        self.answer();
        self.now += Duration::from_micros(1);
        let (DueWork { start, .. }, forget) = self.slots.take_due(self.now, 2 - self.in_flight.len().min(2));
        self.gathered
            .extend(forget.into_iter().map(|(target, round)| JournalChange::RemovePending(target, round)));
        for target in start {
            assert!(self.in_flight.iter().all(|(other, _)| *other != target), "one patch at a time");
            self.in_flight.push((target, self.now));
        }
    }

    fn deliver(&mut self, objects: Vec<usize>, spread: Duration) {
        let targets: Vec<Target> = objects.iter().map(|at| target(*at)).collect();
        let requested = targets.iter().map(|target| (target, self.now + spread));
        let RequestPlan { write, mut await_commits, .. } = self.slots.request(requested, self.now);
        if !write.is_empty() {
            let changes =
                write.iter().map(|(target, round)| JournalChange::AddPending(target.clone(), *round));
            self.gathered.extend(changes);
            self.slots.writing(&write, &self.commit);
            await_commits.push(Arc::clone(&self.commit));
        }
        self.unanswered.push(ModelDelivery { objects, received: self.now, commits: await_commits });
    }

    /// As the journal: a failed commit keeps what was there, and what has gone is gone all the same.
    fn write(&mut self, success: bool) {
        for change in std::mem::take(&mut self.gathered) {
            if success || change.outlives_failure() {
                self.disk.apply(change);
            }
        }
        self.commit.set(success).expect("a commit ends once");
        self.commit = Arc::default();
    }

    fn answer(&mut self) {
        for delivery in std::mem::take(&mut self.unanswered) {
            if delivery.commits.iter().any(|commit| commit.is_durable() == Some(false)) {
                continue;
            }
            if delivery.commits.iter().all(|commit| commit.is_durable() == Some(true)) {
                self.accepted.extend(delivery.objects.iter().map(|at| (*at, delivery.received)));
                continue;
            }
            self.unanswered.push(delivery);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_accepted_is_lost_and_nothing_is_left_behind(steps in steps()) {
        let mut world = Model::new();
        for step in steps {
            world.step(step);
        }
        for _ in 0..40 {
            world.step(ModelStep::Wait(1500));
            world.step(ModelStep::EndPatch(PatchResult::Done));
            world.step(ModelStep::EndPatch(PatchResult::Done));
            world.step(ModelStep::Commit(true));
        }
        for (at, received) in &world.accepted {
            let patched = world.patched.get(&target(*at));
            prop_assert!(patched.is_some_and(|started| started > received), "object-{at}");
        }
        prop_assert!(world.slots.entries.is_empty());
        prop_assert_eq!(&world.disk.pending, &BTreeMap::new());
        prop_assert_eq!(world.slots.busy(), 0);
    }
}
