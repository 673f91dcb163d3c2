//! Events in a line, for answers and logs.

use std::fmt;

use crate::event::Event;

/// The number of events that a summary names.
const MAX_NAMED_EVENTS: usize = 5;

/// Returns the first few events in a line, and how many more there are.
pub(super) fn summary(events: &[Event]) -> String {
    let mut summary = Summary::default();
    summary.add(events);
    summary.to_string()
}

/// Collects the summary of a delivery that is read in parts.
#[derive(Default)]
pub(super) struct Summary {
    named: Vec<String>,
    more: usize,
}

impl Summary {
    pub(super) fn add(&mut self, events: &[Event]) {
        let missing = MAX_NAMED_EVENTS - self.named.len();
        self.named.extend(events.iter().take(missing).map(Event::summary));
        self.more += events.len().saturating_sub(missing);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join("; "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}
