//! Tells which GitRepositories to request once what they include has changed, since source-controller does
//! not watch that: pure, time handed in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flux::Target;
use crate::history::DeliveryId;
use crate::matching::Inclusion;

/// How long a change is waited for: a large repository takes minutes to be fetched.
const PATIENCE: Duration = Duration::from_secs(600);

/// Included objects whose change is waited for; beyond that, includers wait for their interval.
const MAX_WAITING: usize = 10_000;

/// The included objects whose change is waited for.
#[derive(Default)]
pub(super) struct Inclusions {
    waiting: HashMap<Target, Vec<Waiting>>,
}

/// What to do once an object has changed, for one endpoint.
struct Waiting {
    delivery: DeliveryId,
    /// A hash of the artifact before the change; none if it is the next one that is seen.
    before: Option<u64>,
    includers: Arc<HashMap<Target, Vec<Target>>>,
    /// What led here, which closes a circle.
    requested: BTreeSet<Target>,
    until: Instant,
}

/// An object to request, since another one that it includes has changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) delivery: DeliveryId,
    pub(super) included: Target,
    pub(super) includer: Target,
}

impl Inclusions {
    /// Waits for the targets of a delivery to change. Returns what to request at once: `shown` says whether
    /// an object shows already what was pushed.
    pub(super) fn expect(
        &mut self,
        delivery: &DeliveryId,
        targets: &[Target],
        inclusions: Vec<Inclusion>,
        shown: impl Fn(&Target) -> bool,
        now: Instant,
    ) -> Vec<Change> {
        let mut includers: HashMap<Target, Vec<Target>> = HashMap::new();
        let mut roots = HashMap::new();
        for Inclusion { included, progress, includer } in inclusions {
            if targets.contains(&included) {
                roots.insert(included.clone(), progress.artifact);
            }
            includers.entry(included).or_default().push(includer);
        }
        let includers = Arc::new(includers);
        let mut changes = Vec::new();
        for (root, artifact) in roots {
            let waiting = Waiting {
                delivery: delivery.clone(),
                before: Some(artifact),
                includers: Arc::clone(&includers),
                requested: BTreeSet::from([root.clone()]),
                until: now + PATIENCE,
            };
            match shown(&root) {
                true => self.request_includers(&root, waiting, now, &mut changes),
                false => self.wait(root, waiting, now),
            }
        }
        changes
    }

    /// An object was seen with this artifact. Returns what to request.
    pub(super) fn observe(&mut self, target: &Target, artifact: u64, now: Instant) -> Vec<Change> {
        let Some(all) = self.waiting.get_mut(target) else { return Vec::new() };
        let mut changed = Vec::new();
        for mut waiting in std::mem::take(all) {
            let before = *waiting.before.get_or_insert(artifact);
            if waiting.until < now {
                continue;
            }
            if before == artifact { all.push(waiting) } else { changed.push(waiting) }
        }
        if all.is_empty() {
            self.waiting.remove(target);
        }
        let mut changes = Vec::new();
        for waiting in changed {
            self.request_includers(target, waiting, now, &mut changes);
        }
        changes
    }

    /// An object is gone or suspended.
    pub(super) fn forget(&mut self, target: &Target) {
        self.waiting.remove(target);
    }

    /// Whether any change is waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn request_includers(
        &mut self,
        included: &Target,
        waiting: Waiting,
        now: Instant,
        changes: &mut Vec<Change>,
    ) {
        let Waiting { delivery, includers, mut requested, .. } = waiting;
        let all = includers.get(included).map(Vec::as_slice).unwrap_or_default();
        let new: Vec<&Target> = all.iter().filter(|includer| !requested.contains(*includer)).collect();
        requested.extend(new.iter().copied().cloned());
        for includer in new {
            changes.push(Change {
                delivery: delivery.clone(),
                included: included.clone(),
                includer: includer.clone(),
            });
            if includers.contains_key(includer) {
                let next = Waiting {
                    delivery: delivery.clone(),
                    before: None,
                    includers: Arc::clone(&includers),
                    requested: requested.clone(),
                    until: now + PATIENCE,
                };
                self.wait(includer.clone(), next, now);
            }
        }
    }

    /// Waits for a change of the object; the latest delivery of an endpoint is the one that counts.
    fn wait(&mut self, target: Target, waiting: Waiting, now: Instant) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.retain(|_, all| all.iter().any(|waiting| waiting.until >= now));
            if self.waiting.len() >= MAX_WAITING {
                return;
            }
        }
        let all = self.waiting.entry(target).or_default();
        all.retain(|earlier| earlier.delivery.endpoint != waiting.delivery.endpoint);
        all.push(waiting);
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

    fn names(changes: Vec<Change>) -> Vec<String> {
        let mut names: Vec<String> = changes.into_iter().map(|change| change.includer.name).collect();
        names.sort();
        names
    }

    struct World {
        inclusions: Inclusions,
        now: Instant,
    }

    impl World {
        fn pushed(targets: &[&str], pairs: &[&str]) -> World {
            let mut world = World { inclusions: Inclusions::default(), now: Instant::now() };
            let delivery = History::default().new_delivery(&Arc::from("github"));
            let targets: Vec<Target> = targets.iter().map(|name| target(name)).collect();
            let changes =
                world.inclusions.expect(&delivery, &targets, inclusions(pairs), |_| false, world.now);
            assert!(changes.is_empty());
            world
        }

        fn sees(&mut self, name: &str, revision: &str) -> Vec<String> {
            names(self.inclusions.observe(&target(name), artifact(revision), self.now))
        }
    }

    #[test]
    fn includers_are_requested_in_chains_as_each_link_has_changed() {
        let mut world = World::pushed(&["a"], &["a<b", "a<b2", "b<c"]);
        assert_eq!(world.sees("a", "1"), [""; 0], "the request itself is no change");
        assert_eq!(world.sees("a", "2"), ["b", "b2"]);
        assert_eq!(world.sees("a", "3"), [""; 0], "once for a delivery");
        assert_eq!(world.sees("b", "1"), [""; 0], "as it was when it was requested");
        assert_eq!(world.sees("b", "2"), ["c"]);
        assert!(world.inclusions.is_empty());
    }

    #[test]
    fn circles_end() {
        let mut world = World::pushed(&["a"], &["a<b", "b<a", "a<a"]);
        assert_eq!(world.sees("a", "2"), ["b"]);
        assert_eq!(world.sees("b", "1"), [""; 0]);
        assert_eq!(world.sees("b", "2"), [""; 0]);
        assert!(world.inclusions.is_empty());
    }

    #[test]
    fn an_includer_that_was_pushed_itself_is_requested_after_what_it_includes() {
        let mut world = World::pushed(&["a", "b"], &["a<b", "b<c"]);
        assert_eq!(world.sees("b", "2"), ["c"]);
        assert_eq!(world.sees("a", "2"), ["b"]);
        assert_eq!(world.sees("b", "2"), [""; 0]);
        assert_eq!(world.sees("b", "3"), ["c"]);
    }

    #[test]
    fn what_is_shown_already_is_not_waited_for_and_nothing_for_ever() {
        let mut inclusions_ = Inclusions::default();
        let (delivery, now) = (History::default().new_delivery(&Arc::from("github")), Instant::now());
        let changes = inclusions_.expect(&delivery, &[target("a")], inclusions(&["a<b"]), |_| true, now);
        assert_eq!(names(changes), ["b"]);
        assert!(inclusions_.is_empty());
        let mut world = World::pushed(&["a"], &["a<b"]);
        world.now += PATIENCE + Duration::from_secs(1);
        assert_eq!(world.sees("a", "2"), [""; 0]);
    }
}
