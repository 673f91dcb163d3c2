//! Which Flux objects an event concerns.
//!
//! Reads nothing but an [`Inventory`]: no I/O, no clock. Every look-up goes through an index, so its
//! cost does not grow with the number of objects. When in doubt an object matches: one reconcile
//! too many is cheap, one missed costs an interval.

mod follow;
mod inventory;

pub use inventory::{Inventory, Object};

use crate::event::{BucketEvent, ChartEvent, Event, GitChanges, GitEvent, ImageEvent, Subject};
use crate::flux::selection::Selection;
use crate::flux::{Kind, Progress, Target};
use crate::outcome::Skipped;

/// What an event concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The objects to reconcile, each once.
    pub targets: Vec<Target>,
    /// Objects that follow this very change and are left alone.
    pub skipped: Vec<Skipped>,
    /// What objects that follow a branch, a tag or a name should show afterwards.
    pub expected: Vec<Expected>,
    /// How many objects follow the repository or image of the event, but something else of it.
    pub follow_something_else: usize,
}

/// What an object should show after a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The object.
    pub target: Target,
    /// The commit ID or digest, in hex.
    pub revision: String,
    /// What it shows now.
    pub progress: Progress,
}

/// Finds the objects of the selection that these events concern.
pub fn find(inventory: &Inventory, events: &[Event], selection: &Selection) -> Matched {
    // Each with the revision that the event brings to it.
    let mut following: Vec<(&Object, Option<&str>)> = Vec::new();
    let mut elsewhere: Vec<&Object> = Vec::new();
    for event in events {
        if concerns_all_listed(event, selection) {
            following.extend(listed(inventory, selection).map(|object| (object, None)));
        }
        inventory.candidates(event, &mut |object| {
            if !selection.admits(&object.target, &object.labels) {
                return;
            }
            let follows = match event {
                Event::Git(event) => follow::git(object, event),
                Event::Image(event) => follow::image(object, event),
                Event::Bucket(event) => follow::bucket(object, event),
                Event::Chart(_) | Event::Anything { .. } => true,
            };
            match follows {
                true => following.push((object, follow::brings(object, event))),
                false => elsewhere.push(object),
            }
        });
    }
    following.sort_by_key(|(object, _)| &object.target);
    following.dedup_by(|(later, brings), (object, brought)| {
        let is_same = later.target == object.target;
        if is_same {
            *brought = brings.or(*brought);
        }
        is_same
    });
    elsewhere.sort_unstable_by_key(|object| &object.target);
    elsewhere.dedup_by_key(|object| &object.target);
    let mut matched = Matched::default();
    for (object, brought) in &following {
        match object.suspended {
            false => {
                matched.targets.push(object.target.clone());
                matched.expected.extend(brought.map(|revision| Expected {
                    target: object.target.clone(),
                    revision: revision.to_owned(),
                    progress: object.progress.clone(),
                }));
            }
            true => matched.skipped.push(Skipped { target: object.target.clone(), reason: "suspended" }),
        }
    }
    let follows = |object: &&&Object| {
        following.binary_search_by_key(&&object.target, |(object, _)| &object.target).is_ok()
    };
    matched.follow_something_else = elsewhere.iter().filter(|object| !follows(object)).count();
    matched
}

/// Without a list of its own an endpoint never asks for everything.
fn concerns_all_listed(event: &Event, selection: &Selection) -> bool {
    !selection.resources.is_empty() && (selection.matches_all || matches!(event, Event::Anything { .. }))
}

/// The objects that the selection lists, whatever they follow.
fn listed<'i>(inventory: &'i Inventory, selection: &Selection) -> impl Iterator<Item = &'i Object> {
    inventory
        .objects()
        .filter(|object| object.is_reconciled() && selection.admits(&object.target, &object.labels))
}

/// The objects that events about these subjects can concern, but for those that are suspended.
pub fn all_of(inventory: &Inventory, subjects: &[Subject], selection: &Selection) -> Vec<Target> {
    let mut kinds: Vec<Kind> = subjects.iter().flat_map(|subject| kinds_of(*subject)).copied().collect();
    if selection.matches_all || subjects.contains(&Subject::Listed) {
        kinds.extend(selection.kinds());
    }
    let wanted = inventory.objects().filter(|object| {
        kinds.contains(&object.target.kind)
            && object.can_be_asked()
            && selection.admits(&object.target, &object.labels)
    });
    wanted.map(|object| object.target.clone()).collect()
}

/// Whether the inventory holds all that it takes to say which objects of the selection these events
/// concern.
pub fn can_tell(inventory: &Inventory, events: &[Event], selection: &Selection) -> bool {
    events.iter().all(|event| match concerns_all_listed(event, selection) {
        true => selection.kinds().all(|kind| inventory.knows(kind)),
        false => kinds_asked_by(event).iter().all(|kind| inventory.knows(*kind)),
    })
}

fn kinds_asked_by(event: &Event) -> &'static [Kind] {
    match event {
        Event::Git(event) if !inventory::may_publish_pages(event) => &[Kind::GitRepository],
        Event::Git(_) => kinds_of(Subject::Git),
        // Charts are found through their HelmRepository, which itself is never asked.
        Event::Image(_) => {
            &[Kind::OciRepository, Kind::HelmRepository, Kind::HelmChart, Kind::ImageRepository]
        }
        Event::Chart(_) => kinds_of(Subject::Charts),
        Event::Bucket(_) => kinds_of(Subject::Buckets),
        Event::Anything { .. } => kinds_of(Subject::Listed),
    }
}

fn kinds_of(subject: Subject) -> &'static [Kind] {
    match subject {
        // The pages of a repository can hold a chart repository.
        Subject::Git => &[Kind::GitRepository, Kind::HelmRepository],
        Subject::Images => &[Kind::OciRepository, Kind::HelmChart, Kind::ImageRepository],
        Subject::Charts => &[Kind::HelmRepository],
        Subject::Buckets => &[Kind::Bucket],
        Subject::Listed => &[],
    }
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
        Some(Event::Anything { .. }) => "endpoint",
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
        Event::Chart(ChartEvent { .. }) | Event::Bucket(BucketEvent { .. }) | Event::Anything { .. } => false,
    })
}

#[cfg(test)]
mod tests;
