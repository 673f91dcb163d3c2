//! Evaluates the filters of an endpoint, and matches what they let through.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::event::Event;
use crate::expression::Expression;
use crate::filter::{self, FilteredOut};
use crate::filter_input::FilterInput;
use crate::flux::selection::Selection;
use crate::matching::{self, Inventory, MatchResult};

/// What is to be evaluated.
pub(super) struct FilterTask {
    pub(super) events: Vec<Event>,
    pub(super) input: FilterInput,
    /// The condition on an event.
    pub(super) condition: Option<Expression>,
    pub(super) selection: Selection,
    /// Where to look; not at all for Flux v1, which knows its objects itself.
    pub(super) inventory: Option<Arc<RwLock<Inventory>>>,
}

/// The result of an evaluation.
pub(super) struct Evaluation {
    /// The events of which the condition holds.
    pub(super) events: Vec<Event>,
    pub(super) input: FilterInput,
    /// What matches, or why no event is left.
    pub(super) result: Result<InventoryMatch, FilteredOut>,
    /// Why a filter failed, the first time.
    pub(super) failure: Option<String>,
}

/// The objects that match, as far as they are known.
pub(super) struct InventoryMatch {
    pub(super) matched: MatchResult,
    /// No other object can match.
    pub(super) is_complete: bool,
}

impl InventoryMatch {
    /// Matches without an inventory: Flux v1 matches the events itself.
    pub(super) fn everything() -> InventoryMatch {
        InventoryMatch { matched: MatchResult::default(), is_complete: true }
    }
}

impl FilterTask {
    pub(super) fn evaluate(self) -> Evaluation {
        let FilterTask { mut events, input, condition, selection, inventory } = self;
        let mut failure = None;
        if let Some(condition) = &condition {
            let failed = &mut |why: String| failure = failure.take().or(Some(why));
            match filter::fulfilling(condition, events, &input, failed) {
                Ok(left) => events = left,
                Err(reason) => {
                    return Evaluation { events: Vec::new(), input, result: Err(reason), failure };
                }
            }
        }
        let found = match &inventory {
            Some(inventory) => find(inventory, &events, &selection, &input),
            None => InventoryMatch::everything(),
        };
        // Before all objects are known, filters are evaluated again.
        if found.is_complete {
            failure = failure.or_else(|| describe_failure(&found.matched));
        }
        Evaluation { events, input, result: Ok(found), failure }
    }
}

/// Finds the objects that match, among those that are known.
pub(super) fn find(
    inventory: &RwLock<Inventory>,
    events: &[Event],
    selection: &Selection,
    input: &FilterInput,
) -> InventoryMatch {
    let (candidates, is_complete) = {
        let inventory = inventory.read();
        let candidates = matching::candidates(&inventory, events, selection);
        (candidates, matching::can_tell(&inventory, events, selection))
    };
    InventoryMatch { matched: candidates.decide(events, selection, input), is_complete }
}

/// Describes why filters failed, in a line.
fn describe_failure(matched: &MatchResult) -> Option<String> {
    let (target, why) = matched.failed.as_ref()?;
    let others = match matched.failures - 1 {
        0 => String::new(),
        more => format!(" (and {more} more times)"),
    };
    Some(format!("resources: filter: {target}: {why}{others}"))
}
