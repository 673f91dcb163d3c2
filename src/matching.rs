//! Which Flux objects an event concerns.
//!
//! Reads nothing but an [`Inventory`]: no I/O, no clock. What an event is about is looked up through an
//! index, so that its cost does not grow with the number of objects; only what an endpoint lists is gone
//! through. When in doubt an object matches: one reconcile
//! too many is cheap, one missed costs an interval.

mod explain;
mod forge_hosts;
mod index;
mod inventory;
mod misses;
mod pattern;
mod tracking;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::pattern::CompileBudget;
pub use explain::{Candidate, CandidateVerdict, explain};
pub use forge_hosts::{OtherHost, at_other_hosts};
pub use inventory::{Inventory, KindCoverage, Object, ObjectId, Unlistable, ignored_field};
pub use misses::{MissReason, NearMiss, SelectionOf};

use crate::event::{BucketEvent, ChartEvent, Event, GitChanges, GitEvent, ImageEvent, Subject};
use crate::expression::{Budget, Expression, Variable, VariableName};
use crate::filter_input::FilterInput;
use crate::flux::selection::{Selection, SelectionResult};
use crate::flux::{Kind, Progress, Target};
use crate::outcome::SkippedTarget;

/// What an event concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MatchResult {
    /// The objects to reconcile, each once.
    pub targets: Vec<Target>,
    /// Objects that track this very change and are left alone.
    pub skipped: Vec<SkippedTarget>,
    /// What objects that track a branch, a tag or a name should show afterwards.
    pub expected: Vec<ExpectedRevision>,
    /// GitRepositories that include a target, or one another: each is requested once what it includes has
    /// changed, since source-controller does not watch that.
    pub inclusions: Vec<Inclusion>,
    /// Objects that reference the repository or image of the event and are not requested, each once.
    pub missed: Vec<NearMiss>,
    /// The kinds that the events are about and that cannot be listed: there may be objects that match.
    pub unlistable: Vec<Unlistable>,
    /// Why a filter came to no result, and about which object, the first time; nobody waits for those
    /// objects.
    pub failed: Option<(Target, String)>,
    /// How many times that happened.
    pub failures: usize,
}

/// What an object should show after a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRevision {
    pub target: Target,
    /// The commit ID or digest, in hex.
    pub revision: String,
    /// What it shows now.
    pub progress: Progress,
}

/// A GitRepository whose artifact holds that of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// The object that is included.
    pub included: Target,
    /// What it shows now.
    pub progress: Progress,
    /// The object that includes it.
    pub includer: Target,
}

/// Inclusions that one delivery reaches: beyond that, objects wait for their interval.
const MAX_INCLUSIONS: usize = 1000;

/// An object that an event concerns.
struct TargetMatch<'e> {
    object: Arc<Object>,
    /// Which of the events.
    event: usize,
    /// The revision that the event brings to it.
    brings: Option<&'e str>,
}

/// The objects that events concern, before any filter has looked at them.
pub struct Candidates<'e> {
    tracking_objects: Vec<TargetMatch<'e>>,
    /// Objects that reference what the events are about and do not come into question.
    missed: Vec<NearMiss>,
    /// Objects and those that include them, with the event that reaches them.
    inclusions: Vec<(Arc<Object>, TargetMatch<'e>)>,
    unlistable: Vec<Unlistable>,
}

/// Finds the objects of the selection that these events concern.
pub fn find(
    inventory: &Inventory,
    events: &[Event],
    selection: &Selection,
    input: &FilterInput,
) -> MatchResult {
    candidates(inventory, events, selection).decide(events, selection, input)
}

/// Reads the inventory, under its lock. Filters are slow, so [`Candidates::decide`] evaluates them afterwards,
/// without it.
pub fn candidates<'e>(inventory: &Inventory, events: &'e [Event], selection: &Selection) -> Candidates<'e> {
    let mut tracking_objects: Vec<TargetMatch<'_>> = Vec::new();
    let mut missed: Vec<NearMiss> = Vec::new();
    // The whole selection is requested once, unless filters tell the events apart.
    let tells_apart = selection.filters().any(|filter| filter.names(VariableName::Event));
    let mut has_selection = false;
    let budget = CompileBudget::default();
    for (at, event) in events.iter().enumerate() {
        if concerns_whole_selection(event, selection) && (tells_apart || !has_selection) {
            has_selection = true;
            let selected = selected(inventory, selection);
            tracking_objects.extend(selected.map(|object| TargetMatch {
                object: Arc::clone(object),
                event: at,
                brings: None,
            }));
        }
        inventory.candidates(event, &mut |object| {
            let mut miss = |why| missed.push(NearMiss { object: Arc::clone(object), why });
            if let Err(why) = selection.check(&object.target, &object.marks) {
                return miss(MissReason::NotSelected(why));
            }
            let tracks = match event {
                Event::Git(event) => tracking::git(object, event),
                Event::Image(event) => tracking::image(object, event, &budget),
                Event::Bucket(event) => tracking::bucket(object, event),
                Event::Chart(_) | Event::Anything { .. } => true,
            };
            match tracks {
                true => {
                    let brings = tracking::brings(object, event);
                    tracking_objects.push(TargetMatch { object: Arc::clone(object), event: at, brings });
                }
                false => miss(MissReason::TracksSomethingElse),
            }
        });
    }
    let inclusions = inclusions(inventory, &tracking_objects, selection);
    let is_wanted = |kind| events.iter().any(|event| concerns_kind(event, selection, kind));
    let unlistable = inventory.unlistable().filter(|unlistable| is_wanted(unlistable.kind)).collect();
    Candidates { tracking_objects, missed, inclusions, unlistable }
}

/// Finds what includes the objects that track the event, in chains too; an inclusion that closes a circle is left out.
fn inclusions<'e>(
    inventory: &Inventory,
    tracking_objects: &[TargetMatch<'e>],
    selection: &Selection,
) -> Vec<(Arc<Object>, TargetMatch<'e>)> {
    let mut found = Vec::new();
    if !inventory.has_includers() {
        return found;
    }
    let is_source =
        |object: &Arc<Object>| object.target.kind == Kind::GitRepository && object.can_be_requested();
    let mut seen = BTreeSet::new();
    for TargetMatch { object, event, .. } in
        tracking_objects.iter().filter(|tracking_objects| is_source(&tracking_objects.object))
    {
        // Depth first: what is on the way to an object is what it may not include again.
        let mut way: Vec<(Arc<Object>, Vec<&Arc<Object>>)> = Vec::new();
        if seen.insert(object.target.clone()) {
            way.push((Arc::clone(object), inventory.includers(&object.target)));
        }
        while let Some((included, includers)) = way.last_mut() {
            let Some(includer) = includers.pop() else {
                way.pop();
                continue;
            };
            let included = Arc::clone(included);
            let closes_circle = way.iter().any(|(object, _)| object.target == includer.target);
            let is_admitted =
                includer.can_be_requested() && selection.admits(&includer.target, &includer.marks);
            if closes_circle || !is_admitted {
                continue;
            }
            if found.len() == MAX_INCLUSIONS {
                log::warn!(object:% = included.target; "too many objects include this one; some are not requested");
                return found;
            }
            let tracks = TargetMatch { object: Arc::clone(includer), event: *event, brings: None };
            found.push((included, tracks));
            if seen.insert(includer.target.clone()) {
                way.push((Arc::clone(includer), inventory.includers(&includer.target)));
            }
        }
    }
    found
}

/// Remembers the pushed digest of each tracked tag, because a later push of a signature names only the
/// digest. A push without a digest clears it.
pub fn remember_digests(inventory: &Inventory, events: &[Event], matched: &MatchResult) {
    for target in matched.targets.iter().filter(|target| target.kind == Kind::OciRepository) {
        let Some(object) = inventory.object(target) else { continue };
        match matched.expected.iter().find(|expected| expected.target == *target) {
            Some(ExpectedRevision { revision, .. }) => object.was_pushed(revision),
            None if events.iter().any(|event| tracking::moves_tag_without_digest(object, event)) => {
                object.forget_pushed();
            }
            None => {}
        }
    }
}

impl Candidates<'_> {
    /// Keeps the candidates that pass the filters of the selection.
    pub fn decide(self, events: &[Event], selection: &Selection, input: &FilterInput) -> MatchResult {
        let Candidates { mut tracking_objects, mut missed, mut inclusions, unlistable } = self;
        let mut matched = MatchResult { unlistable, ..MatchResult::default() };
        if selection.filters().next().is_some() {
            let mut filters = Filters::new(events, selection, input);
            tracking_objects.retain(|tracking| {
                let passes = filters.let_through(tracking);
                if !passes {
                    missed.push(NearMiss {
                        object: Arc::clone(&tracking.object),
                        why: MissReason::FilteredOut,
                    });
                }
                passes
            });
            inclusions.retain(|(_, includer)| filters.let_through(includer));
            (matched.failed, matched.failures) = (filters.failed, filters.failures);
        }
        matched.inclusions = inclusions
            .into_iter()
            .map(|(included, includer)| Inclusion {
                included: included.target.clone(),
                progress: included.progress.clone(),
                includer: includer.object.target.clone(),
            })
            .collect();
        tracking_objects.sort_by(|first, later| first.object.target.cmp(&later.object.target));
        tracking_objects.dedup_by(|later, first| {
            let is_same = later.object.target == first.object.target;
            if is_same {
                first.brings = later.brings.or(first.brings);
            }
            is_same
        });
        for TargetMatch { object, brings, .. } in &tracking_objects {
            match object.suspended {
                false => {
                    matched.targets.push(object.target.clone());
                    matched.expected.extend(brings.map(|revision| ExpectedRevision {
                        target: object.target.clone(),
                        revision: revision.to_owned(),
                        progress: object.progress.clone(),
                    }));
                }
                true => {
                    matched.skipped.push(SkippedTarget { target: object.target.clone(), reason: "suspended" })
                }
            }
        }
        // One that several events reach counts once, with what came closest.
        missed.retain(|NearMiss { object, .. }| {
            tracking_objects.binary_search_by(|other| other.object.target.cmp(&object.target)).is_err()
        });
        missed.sort_by(|first, later| {
            first.object.target.cmp(&later.object.target).then(first.why.cmp(&later.why))
        });
        missed.dedup_by(|later, first| later.object.target == first.object.target);
        matched.missed = missed;
        matched
    }
}

/// The filters of a selection, evaluated for one object after the other. A filter without a result keeps
/// its object out and no other.
struct Filters<'a> {
    selection: &'a Selection,
    input: &'a FilterInput,
    events: Vec<Variable>,
    /// One for each filter: a filter that exhausts its own does not affect the others.
    budgets: Vec<(&'a Expression, Budget)>,
    failed: Option<(Target, String)>,
    failures: usize,
}

impl<'a> Filters<'a> {
    fn new(events: &[Event], selection: &'a Selection, input: &'a FilterInput) -> Filters<'a> {
        let count = selection.filters().count();
        Filters {
            selection,
            input,
            events: events.iter().map(|event| input.event_variable(event)).collect(),
            budgets: selection.filters().map(|filter| (filter, Budget::shared_by(count))).collect(),
            failed: None,
            failures: 0,
        }
    }

    fn let_through(&mut self, TargetMatch { object, event, .. }: &TargetMatch<'_>) -> bool {
        let filters = match self.selection.choose(&object.target, &object.marks) {
            SelectionResult::Yes => return true,
            SelectionResult::No => return false,
            SelectionResult::If(filters) => filters,
        };
        let res = object.view().map(|object| Variable::from_json(&object));
        filters.into_iter().any(|filter| {
            let Some((_, budget)) = self.budgets.iter().find(|(of, _)| std::ptr::eq(*of, filter)) else {
                return false;
            };
            let result = self.input.hold(filter, &self.events[*event], res.as_ref(), budget);
            result.unwrap_or_else(|err| {
                self.failures += 1;
                self.failed.get_or_insert_with(|| (object.target.clone(), err.to_string()));
                false
            })
        })
    }
}

/// Whether the event concerns all of `resources`. Without `resources` it concerns nothing: an endpoint never
/// requests everything there is.
fn concerns_whole_selection(event: &Event, selection: &Selection) -> bool {
    !selection.resources.is_empty() && (selection.matches_all || matches!(event, Event::Anything { .. }))
}

/// The objects of the selection, whatever they track.
fn selected<'i>(inventory: &'i Inventory, selection: &Selection) -> impl Iterator<Item = &'i Arc<Object>> {
    inventory
        .objects()
        .filter(|object| object.is_reconciled() && selection.admits(&object.target, &object.marks))
}

/// The objects that events about these subjects can concern, but for those that are suspended.
pub fn all_of(inventory: &Inventory, subjects: &[Subject], selection: &Selection) -> Vec<Target> {
    let mut kinds: Vec<Kind> = subjects.iter().flat_map(|subject| kinds_of(*subject)).copied().collect();
    if selection.matches_all || subjects.contains(&Subject::Selection) {
        kinds.extend(selection.kinds());
    }
    let wanted = inventory.objects().filter(|object| {
        kinds.contains(&object.target.kind)
            && object.can_be_requested()
            && selection.admits(&object.target, &object.marks)
    });
    wanted.map(|object| object.target.clone()).collect()
}

/// Whether the inventory holds all that it takes to say which objects of the selection these events
/// concern.
pub fn can_tell(inventory: &Inventory, events: &[Event], selection: &Selection) -> bool {
    let is_known = |kind| {
        inventory.is_known(kind) && (inventory.has_filter_fields(kind) || !selection.reads_objects_of(kind))
    };
    events.iter().all(|event| match concerns_whole_selection(event, selection) {
        true => selection.kinds().all(is_known),
        false => kinds_named_by(event).iter().copied().all(is_known),
    })
}

/// Whether it takes objects of the kind to say which of them the event concerns.
fn concerns_kind(event: &Event, selection: &Selection, kind: Kind) -> bool {
    match concerns_whole_selection(event, selection) {
        true => selection.kinds().any(|listed| listed == kind),
        false => kinds_named_by(event).contains(&kind),
    }
}

fn kinds_named_by(event: &Event) -> &'static [Kind] {
    match event {
        Event::Git(event) if !inventory::may_publish_pages(event) => &[Kind::GitRepository],
        Event::Git(_) => kinds_of(Subject::Git),
        // Charts are found through their HelmRepository, which itself is never requested.
        Event::Image(_) => {
            &[Kind::OciRepository, Kind::HelmRepository, Kind::HelmChart, Kind::ImageRepository]
        }
        Event::Chart(_) => kinds_of(Subject::Charts),
        Event::Bucket(_) => kinds_of(Subject::Buckets),
        Event::Anything { .. } => kinds_of(Subject::Selection),
    }
}

fn kinds_of(subject: Subject) -> &'static [Kind] {
    match subject {
        // The pages of a repository can hold a chart repository.
        Subject::Git => &[Kind::GitRepository, Kind::HelmRepository],
        Subject::Images => &[Kind::OciRepository, Kind::HelmChart, Kind::ImageRepository],
        Subject::Charts => &[Kind::HelmRepository],
        Subject::Buckets => &[Kind::Bucket],
        Subject::Selection => &[],
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
