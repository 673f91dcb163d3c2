//! Tells which GitRepositories to request once what they include has changed, since source-controller does
//! not watch that: pure, time handed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flux::Target;
use crate::history::DeliveryId;
use crate::matching::Inclusion;

/// How long changes are waited for after a push: a large repository takes minutes to be fetched.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// Changes of one object that a delivery leads on, should endpoints close a circle between them.
const MAX_CHANGES: u32 = 8;

/// Waits for changes, over all endpoints; beyond that, includers wait for their interval.
const MAX_WAITS: usize = 10_000;

/// How often waits that are over are dropped.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// The included objects whose changes are waited for.
#[derive(Default)]
pub(super) struct Inclusions {
    waits: HashMap<Target, Vec<InclusionWait>>,
    count: usize,
    pruned: Option<Instant>,
}

/// What to do when an object has changed, for one endpoint. It stays after a change: the next push may come while
/// the first one is fetched.
struct InclusionWait {
    delivery: DeliveryId,
    /// A hash of the artifact that was last seen.
    artifact: u64,
    includers: Arc<HashMap<Target, Vec<Target>>>,
    changes_left: u32,
    until: Instant,
}

/// An object to request, since another one that it includes has changed.
#[derive(Debug)]
pub(super) struct IncluderRequest {
    pub(super) delivery: DeliveryId,
    pub(super) included: Target,
    pub(super) includer: Target,
}

impl Inclusions {
    /// Waits for all that is included to change. Returns what to request at once: `is_shown` says whether a
    /// target shows already what was pushed.
    pub(super) fn expect(
        &mut self,
        delivery: &DeliveryId,
        inclusions: Vec<Inclusion>,
        is_shown: impl Fn(&Target) -> bool,
        now: Instant,
    ) -> Vec<IncluderRequest> {
        self.prune(now);
        let mut includers: HashMap<Target, Vec<Target>> = HashMap::new();
        let mut artifacts = HashMap::new();
        for Inclusion { included, progress, includer } in inclusions {
            artifacts.insert(included.clone(), progress.artifact);
            includers.entry(included).or_default().push(includer);
        }
        let includers = Arc::new(includers);
        let mut changes = Vec::new();
        for (included, artifact) in artifacts {
            let wait = InclusionWait {
                delivery: delivery.clone(),
                artifact,
                includers: Arc::clone(&includers),
                changes_left: MAX_CHANGES,
                until: now + CHANGE_TIMEOUT,
            };
            if is_shown(&included) {
                wait.lead_on(&included, &mut changes);
            }
            self.wait(included, wait);
        }
        changes
    }

    /// An object was seen with this artifact. Returns what to request.
    pub(super) fn observe(&mut self, target: &Target, artifact: u64, now: Instant) -> Vec<IncluderRequest> {
        let mut changes = Vec::new();
        for wait in self.waits.get_mut(target).into_iter().flatten() {
            let has_changed = std::mem::replace(&mut wait.artifact, artifact) != artifact;
            if has_changed && wait.changes_left > 0 && now <= wait.until {
                wait.changes_left -= 1;
                wait.lead_on(target, &mut changes);
            }
        }
        changes
    }

    /// An object is gone or suspended.
    pub(super) fn forget(&mut self, target: &Target) {
        self.count -= self.waits.remove(target).map_or(0, |waits| waits.len());
    }

    /// Whether no change is waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// The latest delivery of an endpoint is the one that counts; what was last seen of the object stays.
    fn wait(&mut self, target: Target, mut wait: InclusionWait) {
        let waits = self.waits.entry(target).or_default();
        match waits.iter_mut().find(|earlier| earlier.delivery.endpoint == wait.delivery.endpoint) {
            Some(earlier) => {
                wait.artifact = earlier.artifact;
                *earlier = wait;
            }
            None if self.count < MAX_WAITS => {
                waits.push(wait);
                self.count += 1;
            }
            None => {}
        }
    }

    fn prune(&mut self, now: Instant) {
        if self.pruned.is_some_and(|pruned| now < pruned + PRUNE_INTERVAL) {
            return;
        }
        self.pruned = Some(now);
        self.waits.retain(|_, waits| {
            waits.retain(|wait| now <= wait.until);
            !waits.is_empty()
        });
        self.count = self.waits.values().map(Vec::len).sum();
    }
}

impl InclusionWait {
    fn lead_on(&self, included: &Target, changes: &mut Vec<IncluderRequest>) {
        for includer in self.includers.get(included).into_iter().flatten() {
            changes.push(IncluderRequest {
                delivery: self.delivery.clone(),
                included: included.clone(),
                includer: includer.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::{Kind, Progress};
    use crate::history::History;

    fn target(name: &str) -> Target {
        Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: name.to_owned() }
    }

    /// `a<b` is an object `b` that includes `a`.
    fn inclusions(pairs: &[&str]) -> Vec<Inclusion> {
        let split = |pair: &&str| {
            let (included, includer) = pair.split_once('<').expect("a pair");
            let progress = Progress::default().with_artifact(Some("1"), None);
            Inclusion { included: target(included), progress, includer: target(includer) }
        };
        pairs.iter().map(split).collect()
    }

    fn artifact(revision: &str) -> u64 {
        Progress::default().with_artifact(Some(revision), None).artifact
    }

    fn names(changes: Vec<IncluderRequest>) -> Vec<String> {
        let mut names: Vec<String> = changes.into_iter().map(|change| change.includer.name).collect();
        names.sort();
        names
    }

    struct TestInclusions {
        inclusions: Inclusions,
        now: Instant,
    }

    impl TestInclusions {
        fn new() -> TestInclusions {
            TestInclusions { inclusions: Inclusions::default(), now: Instant::now() }
        }

        fn push(&mut self, endpoint: &str, pairs: &[&str]) {
            let delivery = History::default().new_delivery(&Arc::from(endpoint));
            let changes = self.inclusions.expect(&delivery, inclusions(pairs), |_| false, self.now);
            assert!(changes.is_empty());
        }

        fn sees(&mut self, name: &str, revision: &str) -> Vec<String> {
            names(self.inclusions.observe(&target(name), artifact(revision), self.now))
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn includers_are_requested_in_chains_as_each_link_has_changed() {
        let mut world = TestInclusions::new();
        world.push("github", &["a<b", "a<b2", "b<c"]);
        assert_eq!(world.sees("a", "1"), NOTHING, "the request itself is not a change");
        assert_eq!(world.sees("a", "2"), ["b", "b2"]);
        assert_eq!(world.sees("a", "2"), NOTHING);
        assert_eq!(world.sees("b", "1"), NOTHING);
        assert_eq!(world.sees("b", "2"), ["c"]);
        assert_eq!(world.sees("c", "2"), NOTHING);
    }

    #[test]
    fn a_push_while_the_one_before_is_fetched_reaches_the_includers_too() {
        let mut world = TestInclusions::new();
        world.push("github", &["a<b"]);
        world.push("github", &["a<b"]);
        assert_eq!(world.sees("a", "2"), ["b"]);
        world.push("github", &["a<b"]);
        assert_eq!(world.sees("a", "2"), NOTHING, "what was seen stays seen");
        assert_eq!(world.sees("a", "3"), ["b"]);
    }

    #[test]
    fn links_lead_on_in_whatever_order_they_change() {
        for order in [["a", "b"], ["b", "a"]] {
            let mut world = TestInclusions::new();
            world.push("github", &["a<b", "b<c"]);
            let requested: Vec<String> = order.iter().flat_map(|name| world.sees(name, "2")).collect();
            assert!(requested.contains(&"b".to_owned()) && requested.contains(&"c".to_owned()), "{order:?}");
            assert_eq!(world.sees("b", "3"), ["c"]);
        }
    }

    #[test]
    fn a_circle_over_two_endpoints_ends() {
        let mut world = TestInclusions::new();
        world.push("github", &["a<b"]);
        world.push("gitea", &["b<a"]);
        let mut requests = 0;
        for round in 2..100 {
            let round = round.to_string();
            requests += world.sees("a", &round).len() + world.sees("b", &round).len();
        }
        assert_eq!(requests, 2 * MAX_CHANGES as usize);
    }

    #[test]
    fn what_is_shown_already_leads_on_at_once_and_nothing_for_ever() {
        let mut world = TestInclusions::new();
        let delivery = History::default().new_delivery(&Arc::from("github"));
        let changes = world.inclusions.expect(&delivery, inclusions(&["a<b"]), |_| true, world.now);
        assert_eq!(names(changes), ["b"]);
        world.now += CHANGE_TIMEOUT + Duration::from_secs(1);
        assert_eq!(world.sees("a", "2"), NOTHING);
        world.inclusions.prune(world.now);
        assert!(world.inclusions.is_empty() && world.inclusions.count == 0);
    }

    #[test]
    fn waits_are_bounded_and_go_with_their_objects() {
        let mut world = TestInclusions::new();
        for endpoint in 0..30 {
            let pairs: Vec<String> = (0..500).map(|at| format!("a{at}<b")).collect();
            let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
            world.push(&format!("endpoint-{endpoint}"), &pairs);
        }
        assert_eq!(world.inclusions.count, MAX_WAITS);
        world.inclusions.forget(&target("a7"));
        assert_eq!(world.inclusions.count, MAX_WAITS - 20);
    }
}
