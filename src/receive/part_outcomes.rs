//! The outcome of a delivery that is taken part by part.

use super::summary::Summary;
use crate::event::Event;
use crate::outcome::Outcome;

/// Joins the outcomes of the parts of a delivery.
#[derive(Default)]
pub(super) struct PartOutcomes {
    whole: Option<Outcome>,
    events: Summary,
    resume_at: Option<usize>,
}

impl PartOutcomes {
    /// Returns the position of the part to read next; none at the end, and where the delivery has to be
    /// sent again anyway.
    pub(super) fn next_part(&self) -> Option<usize> {
        match &self.whole {
            None => Some(0),
            Some(Outcome::Unavailable { .. } | Outcome::TooMany { .. }) => None,
            Some(_) => self.resume_at,
        }
    }

    /// Names the events of a part. A delivery of one part names its events itself.
    pub(super) fn name(&mut self, events: &[Event], resume_at: Option<usize>) {
        if self.whole.is_some() || resume_at.is_some() {
            self.events.add(events);
        }
    }

    pub(super) fn add(&mut self, outcome: Outcome, resume_at: Option<usize>) {
        self.resume_at = resume_at;
        self.whole = Some(match self.whole.take() {
            Some(before) => before.with(outcome).about(self.events.to_string()),
            None => outcome,
        });
    }

    pub(super) fn into_outcome(self) -> Outcome {
        self.whole.unwrap_or(Outcome::Pong)
    }
}
