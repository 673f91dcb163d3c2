//! Which objects a delivery concerns, once the filters of its endpoint have been asked.

use std::sync::{Arc, PoisonError, RwLock};

use crate::event::Event;
use crate::expression::Expression;
use crate::facts::Facts;
use crate::filter;
use crate::flux::selection::Selection;
use crate::matching::{self, Inventory, MatchResult};

/// What is to be found out.
pub(super) struct FilterTask {
    pub(super) events: Vec<Event>,
    pub(super) facts: Facts,
    /// What has to hold of an event.
    pub(super) condition: Option<Expression>,
    pub(super) selection: Selection,
    /// Where to look; not at all for Flux v1, which knows its objects itself.
    pub(super) inventory: Option<Arc<RwLock<Inventory>>>,
}

/// What was found out.
pub(super) struct Evaluation {
    /// The events of which the condition holds.
    pub(super) events: Vec<Event>,
    pub(super) facts: Facts,
    /// What matches, and whether these are all, or why no event is left.
    pub(super) result: Result<(MatchResult, bool), String>,
    /// Why a filter came to no result, the first time.
    pub(super) failure: Option<String>,
}

impl FilterTask {
    pub(super) fn evaluate(self) -> Evaluation {
        let FilterTask { mut events, facts, condition, selection, inventory } = self;
        let mut failure = None;
        if let Some(condition) = &condition {
            let failed = &mut |why: String| failure = failure.take().or(Some(why));
            match filter::fulfilling(condition, events, &facts, failed) {
                Ok(left) => events = left,
                Err(reason) => {
                    return Evaluation { events: Vec::new(), facts, result: Err(reason), failure };
                }
            }
        }
        let (found, is_all) = match &inventory {
            Some(inventory) => find(inventory, &events, &selection, &facts),
            None => (MatchResult::default(), true),
        };
        // Before all objects are known, filters are asked again.
        if is_all {
            failure = failure.or_else(|| describe_failure(&found));
        }
        Evaluation { events, facts, result: Ok((found, is_all)), failure }
    }
}

/// The objects that are known to match, and whether these are all.
pub(super) fn find(
    inventory: &RwLock<Inventory>,
    events: &[Event],
    selection: &Selection,
    facts: &Facts,
) -> (MatchResult, bool) {
    let (candidates, is_all) = {
        let inventory = inventory.read().unwrap_or_else(PoisonError::into_inner);
        let candidates = matching::candidates(&inventory, events, selection);
        (candidates, matching::can_tell(&inventory, events, selection))
    };
    (candidates.decide(events, selection, facts), is_all)
}

/// Why filters came to no result, in a line.
fn describe_failure(found: &MatchResult) -> Option<String> {
    let (target, why) = found.failed.as_ref()?;
    let others = match found.failures - 1 {
        0 => String::new(),
        more => format!(" (and {more} more times)"),
    };
    Some(format!("resources: filter: {target}: {why}{others}"))
}
