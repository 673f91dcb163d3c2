//! Which Flux objects an event concerns.
//!
//! Reads nothing but an [`Inventory`]: no I/O, no clock. Every look-up goes through an index, so its
//! cost does not grow with the number of objects. When in doubt an object matches: one reconcile
//! too many is cheap, one missed costs an interval.

mod follow;
mod inventory;

use std::collections::{HashMap, HashSet};

pub use inventory::{Inventory, Object};

use crate::event::{BucketEvent, ChartEvent, Event, GitChanges, GitEvent, ImageEvent};
use crate::flux::Target;
use crate::outcome::Skipped;

/// What an event concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The objects to reconcile, each once.
    pub targets: Vec<Target>,
    /// Objects that follow this very change and are left alone.
    pub skipped: Vec<Skipped>,
    /// How many objects follow the repository or image of the event, but something else of it.
    pub follow_something_else: usize,
}

/// Finds the objects that these events concern; `namespaces` limits where (empty: everywhere).
pub fn find(inventory: &Inventory, events: &[Event], namespaces: &[String]) -> Matched {
    let mut following: HashMap<&Target, &Object> = HashMap::new();
    let mut elsewhere: HashSet<&Target> = HashSet::new();
    for event in events {
        inventory.candidates(event, &mut |object| {
            if !namespaces.is_empty() && !namespaces.contains(&object.target.namespace) {
                return;
            }
            let follows = match event {
                Event::Git(event) => follow::git(object, event),
                Event::Image(event) => follow::image(object, event),
                Event::Chart(_) => true,
                Event::Bucket(event) => follow::bucket(object, event),
            };
            match follows {
                true => drop(following.insert(&object.target, object)),
                false => drop(elsewhere.insert(&object.target)),
            }
        });
    }
    let mut matched = Matched::default();
    for object in following.values() {
        match object.suspended {
            false => matched.targets.push(object.target.clone()),
            true => matched.skipped.push(Skipped { target: object.target.clone(), reason: "suspended" }),
        }
    }
    matched.targets.sort_unstable();
    matched.skipped.sort_unstable_by(|left, right| left.target.cmp(&right.target));
    matched.follow_something_else =
        elsewhere.iter().filter(|target| !following.contains_key(*target)).count();
    matched
}

impl Matched {
    /// Why nothing is asked, for an answer that helps whoever set up the hook.
    pub fn why_nothing(&self, events: &[Event]) -> String {
        if !self.skipped.is_empty() {
            return "every object that follows it is suspended".to_owned();
        }
        match self.follow_something_else {
            0 => format!("no object here follows this {}", subject(events)),
            1 => format!("one object follows this {}, but not what changed in it", subject(events)),
            several => {
                format!("{several} objects follow this {}, but not what changed in it", subject(events))
            }
        }
    }
}

fn subject(events: &[Event]) -> &'static str {
    match events.first() {
        Some(Event::Git(_)) | None => "repository",
        Some(Event::Image(_)) => "image",
        Some(Event::Chart(_)) => "chart repository",
        Some(Event::Bucket(_)) => "bucket",
    }
}

/// Whether all that happened is that something went away.
pub fn only_deletions(events: &[Event]) -> bool {
    events.iter().all(|event| match event {
        Event::Git(GitEvent { changes: GitChanges::Refs(refs), .. }) => {
            refs.iter().all(|change| change.deleted)
        }
        Event::Git(GitEvent { changes: GitChanges::Unknown, .. }) => false,
        Event::Image(ImageEvent { deleted, .. }) => *deleted,
        Event::Chart(ChartEvent { .. }) | Event::Bucket(BucketEvent { .. }) => false,
    })
}

#[cfg(test)]
mod tests;
