//! Slots and journal against a simple reference, with random faults: time and commits are handed in.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::slot::{Ending, Failure};
use super::slots::{CommitStatus, Due, Slots, Wanted};
use crate::flux::{Kind, Target};
use crate::journal::contents::{Change, Contents};

const INTERVAL: Duration = Duration::from_secs(1);
const OBJECTS: usize = 4;

impl CommitStatus for Arc<OnceLock<bool>> {
    fn kept(&self) -> Option<bool> {
        self.get().copied()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A delivery for these objects, spread over so many milliseconds.
    Deliver(Vec<usize>, u64),
    Wait(u64),
    /// The oldest patch in flight ends.
    EndPatch(Ending),
    /// What has been gathered is written, or is not.
    Commit(bool),
    /// The process is killed and started again.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let failed = |sort| Ending::Failed { pause: Duration::from_millis(700), sort };
    let ending = prop_oneof![
        4 => Just(Ending::Done),
        1 => Just(failed(Failure::Passing)),
        1 => Just(failed(Failure::Blocked)),
    ];
    let step = prop_oneof![
        4 => (prop::collection::vec(0..OBJECTS, 1..4), 0_u64..3000).prop_map(|(objects, spread)| Step::Deliver(objects, spread)),
        3 => (1_u64..2500).prop_map(Step::Wait),
        4 => ending.prop_map(Step::EndPatch),
        4 => prop::bool::weighted(0.8).prop_map(Step::Commit),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

fn target(at: usize) -> Target {
    Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: format!("object-{at}") }
}

/// A delivery that waits for its commits, or was accepted.
struct Delivery {
    objects: Vec<usize>,
    received: Instant,
    commits: Vec<Arc<OnceLock<bool>>>,
}

struct World {
    now: Instant,
    slots: Slots<Arc<OnceLock<bool>>>,
    disk: Contents,
    gathered: Vec<Change>,
    commit: Arc<OnceLock<bool>>,
    in_flight: Vec<(Target, Instant)>,
    unanswered: Vec<Delivery>,
    accepted: Vec<(usize, Instant)>,
    /// The start of the last successful patch of each object.
    patched: BTreeMap<Target, Instant>,
}

/// One less than may be in flight, so that some have to wait for others of their kind.
const MAX_PER_KIND: usize = 1;

impl World {
    fn new() -> World {
        World {
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

    fn step(&mut self, step: Step) {
        // No two things happen at one time, so that before and after are clear.
        self.now += Duration::from_micros(1);
        match step {
            Step::Deliver(objects, spread) => self.deliver(objects, Duration::from_millis(spread)),
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::EndPatch(ending) if !self.in_flight.is_empty() => {
                let (target, started) = self.in_flight.remove(0);
                if ending == Ending::Done {
                    self.patched.insert(target.clone(), started);
                }
                self.slots.finish(&target, self.now, ending);
            }
            Step::EndPatch(_) => {}
            Step::Commit(success) => self.write(success),
            Step::Crash => {
                self.slots = Slots::new(INTERVAL, MAX_PER_KIND);
                let pending = self.disk.pending.iter();
                let pending = pending.map(|(target, generation)| (target.clone(), *generation));
                self.slots.restore(pending, self.now, || self.now);
                self.gathered.clear();
                self.commit = Arc::default();
                self.in_flight.clear();
                self.unanswered.clear();
            }
        }
        self.answer();
        self.now += Duration::from_micros(1);
        let (Due { start, .. }, forget) = self.slots.take_due(self.now, 2 - self.in_flight.len().min(2));
        self.gathered
            .extend(forget.into_iter().map(|(target, generation)| Change::Settle(target, generation)));
        for target in start {
            assert!(self.in_flight.iter().all(|(other, _)| *other != target), "one patch at a time");
            self.in_flight.push((target, self.now));
        }
    }

    fn deliver(&mut self, objects: Vec<usize>, spread: Duration) {
        let targets: Vec<Target> = objects.iter().map(|at| target(*at)).collect();
        let wanted = targets.iter().map(|target| (target, self.now + spread));
        let Wanted { write, mut await_commits, .. } = self.slots.want(wanted, self.now);
        if !write.is_empty() {
            let changes = write.iter().map(|(target, generation)| Change::Pend(target.clone(), *generation));
            self.gathered.extend(changes);
            self.slots.writing(&write, &self.commit);
            await_commits.push(Arc::clone(&self.commit));
        }
        self.unanswered.push(Delivery { objects, received: self.now, commits: await_commits });
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
            if delivery.commits.iter().any(|commit| commit.kept() == Some(false)) {
                continue;
            }
            if delivery.commits.iter().all(|commit| commit.kept() == Some(true)) {
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
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for _ in 0..40 {
            world.step(Step::Wait(1500));
            world.step(Step::EndPatch(Ending::Done));
            world.step(Step::EndPatch(Ending::Done));
            world.step(Step::Commit(true));
        }
        for (at, received) in &world.accepted {
            let patched = world.patched.get(&target(*at));
            prop_assert!(patched.is_some_and(|started| started > received), "object-{at}");
        }
        prop_assert!(world.slots.is_empty());
        prop_assert_eq!(&world.disk.pending, &BTreeMap::new());
        prop_assert_eq!(world.slots.busy(), 0);
    }
}
