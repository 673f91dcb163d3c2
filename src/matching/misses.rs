//! Objects that reference what an event is about and are not requested, each with the reason.

use std::fmt;
use std::sync::Arc;

use super::inventory::{GitReference, Object, OciReference, Tracked};
use super::{MatchResult, subject};
use crate::event::{Event, GitChanges, GitEvent, ImageEvent};
use crate::flux::selection::{ALLOW_ANNOTATION, Selection, SelectionMiss};

/// An object that references what an event is about and is not requested.
pub struct NearMiss {
    pub object: Arc<Object>,
    pub why: MissReason,
}

/// Why an object is not requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissReason {
    /// It tracks the event, but the filters of `resources` are false.
    FilteredOut,
    /// It tracks something else of the repository or image.
    TracksSomethingElse,
    /// The endpoint may not request it.
    NotSelected(SelectionMiss),
}

/// Two that say the same about the same object are equal.
impl PartialEq for NearMiss {
    fn eq(&self, other: &NearMiss) -> bool {
        self.object.target == other.object.target && self.why == other.why
    }
}

impl Eq for NearMiss {}

impl fmt::Debug for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.object.target, self.why)
    }
}

/// The endpoint's name and what it may request, for reasons that name them.
#[derive(Clone, Copy)]
pub struct SelectionOf<'s> {
    pub endpoint: &'s str,
    pub selection: &'s Selection,
}

/// Objects that a reason names; the others are counted.
const MAX_NAMED_MISSES: usize = 3;

impl MatchResult {
    /// How many objects were missed for this reason.
    pub fn missed_for(&self, is_reason: impl Fn(MissReason) -> bool) -> usize {
        self.missed.iter().filter(|miss| is_reason(miss.why)).count()
    }

    /// Why nothing is requested, for the person who set up the webhook.
    pub fn why_nothing(&self, events: &[Event], of: SelectionOf<'_>) -> String {
        let reason = self.why_nothing_known(events, of);
        self.unlistable.iter().fold(reason, |reason, unlistable| format!("{reason}; {unlistable}"))
    }

    fn why_nothing_known(&self, events: &[Event], of: SelectionOf<'_>) -> String {
        if !self.skipped.is_empty() {
            let names = self.skipped.iter().take(MAX_NAMED_MISSES).map(|skipped| skipped.target.to_string());
            let names = names.collect::<Vec<_>>().join(", ");
            return format!("every object that tracks this change is suspended: {names}");
        }
        let subject = subject(events);
        let filtered_out: Vec<&NearMiss> = self.for_reason(|why| why == MissReason::FilteredOut);
        if !filtered_out.is_empty() {
            let objects = counted(filtered_out.len());
            let names = named(&filtered_out, |miss| miss.object.target.to_string());
            return format!(
                "no object passed the filters of `resources` ({objects} this {subject}: {names})"
            );
        }
        let elsewhere = self.for_reason(|why| why == MissReason::TracksSomethingElse);
        let not_selected = self.for_reason(|why| matches!(why, MissReason::NotSelected(_)));
        let mut reasons = Vec::new();
        if !elsewhere.is_empty() {
            let tracks =
                named(&elsewhere, |miss| format!("{} tracks {}", miss.object.target, tracked(&miss.object)));
            let none = if elsewhere.len() == 1 { "but does not track" } else { "none tracks" };
            let separator = if elsewhere.len() == 1 { "," } else { ";" };
            let objects = counted(elsewhere.len());
            reasons.push(format!("{objects} this {subject}{separator} {none} {}: {tracks}", changed(events)));
        }
        if !not_selected.is_empty() {
            reasons.push(named(&not_selected, |miss| {
                format!("{} references it, but {}", miss.object.target, describe_selection_miss(miss.why, of))
            }));
        }
        match reasons.is_empty() {
            true if matches!(events.first(), Some(Event::Anything { .. })) => {
                "no object is selected by the `resources` of this endpoint".to_owned()
            }
            true => format!("no object references this {subject}"),
            false => reasons.join("; "),
        }
    }

    fn for_reason(&self, is_reason: impl Fn(MissReason) -> bool) -> Vec<&NearMiss> {
        self.missed.iter().filter(|miss| is_reason(miss.why)).collect()
    }
}

/// Why the endpoint may not request an object, after "but".
pub(super) fn describe_selection_miss(why: MissReason, of: SelectionOf<'_>) -> String {
    let SelectionOf { endpoint, selection } = of;
    match why {
        MissReason::NotSelected(SelectionMiss::Namespace) => {
            format!("endpoint {endpoint} is limited to namespaces {}", selection.namespaces.join(", "))
        }
        MissReason::NotSelected(SelectionMiss::Consent) => {
            format!("does not name endpoint {endpoint} in its annotation {ALLOW_ANNOTATION}")
        }
        _ => format!("the `resources` of endpoint {endpoint} do not list it"),
    }
}

/// `1 object references`, `2 objects reference`.
fn counted(objects: usize) -> String {
    if objects == 1 { "1 object references".to_owned() } else { format!("{objects} objects reference") }
}

/// The first few, and how many more there are.
fn named(misses: &[&NearMiss], describe: impl Fn(&NearMiss) -> String) -> String {
    let text = misses.iter().take(MAX_NAMED_MISSES).map(|miss| describe(miss)).collect::<Vec<_>>().join(", ");
    match misses.len().saturating_sub(MAX_NAMED_MISSES) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// What of its repository or image has changed.
fn changed(events: &[Event]) -> String {
    match events {
        [Event::Git(GitEvent { changes: GitChanges::Refs(refs), .. })] => match refs.as_slice() {
            [change] => match (change.name.as_branch(), change.name.as_tag()) {
                (Some(branch), _) => format!("branch {branch}"),
                (_, Some(tag)) => format!("tag {tag}"),
                _ => change.name.as_str().to_owned(),
            },
            _ => "what changed".to_owned(),
        },
        [Event::Image(ImageEvent { tags, .. })] => match tags.as_slice() {
            [tag] => format!("tag {tag}"),
            _ => "what changed".to_owned(),
        },
        _ => "what changed".to_owned(),
    }
}

/// What an object tracks of what it references.
pub(super) fn tracked(object: &Object) -> String {
    match &object.tracked {
        Tracked::Git { reference, .. } => match reference {
            GitReference::Commit(commit) => format!("commit {commit}"),
            GitReference::Name(name) => name.as_str().to_owned(),
            GitReference::Anything => "a ref that cannot be read".to_owned(),
            GitReference::TagOrRange { tag, range } => match (tag, range) {
                (_, Some(range)) => format!("semver {}", range.text()),
                (Some(tag), None) => format!("tag {tag}"),
                (None, None) => "no ref".to_owned(),
            },
            GitReference::Branch(branch) => format!("branch {branch}"),
        },
        Tracked::OciArtifact { reference, .. } => match reference {
            OciReference::Anything => "a tag that cannot be read".to_owned(),
            OciReference::Digest(digest) => format!("digest {digest}"),
            OciReference::Range { range, .. } => format!("semver {}", range.text()),
            OciReference::Tag(tag) => format!("tag {tag}"),
        },
        Tracked::Image { .. } => "tags that are not excluded".to_owned(),
        Tracked::Chart { version, .. } => match version {
            Some(version) => format!("version {}", version.text()),
            None => "any version".to_owned(),
        },
        Tracked::Bucket { endpoint, prefix, .. } => match prefix {
            Some(prefix) => format!("prefix {prefix} at {endpoint}"),
            None => format!("the bucket at {endpoint}"),
        },
        Tracked::Registry { .. } | Tracked::ChartIndex { .. } | Tracked::Nothing => "nothing".to_owned(),
    }
}
