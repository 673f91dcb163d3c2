//! How often the log speaks of what strangers can cause. They are verified each time all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines per endpoint and period.
const MAX_LINES_PER_MINUTE: u32 = 5;
const PERIOD: Duration = Duration::from_secs(60);

/// Counts lines, endpoint by endpoint.
#[derive(Default)]
pub(super) struct Quiet {
    endpoints: Mutex<HashMap<Arc<str>, Period>>,
}

struct Period {
    began: Instant,
    said: u32,
    unsaid: u64,
}

impl Quiet {
    /// Whether to log now; if so, how many lines were left out in the period before.
    pub(super) fn may_speak(&self, endpoint: &Arc<str>, now: Instant) -> Option<u64> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if !endpoints.contains_key(endpoint) {
            endpoints.insert(Arc::clone(endpoint), Period { began: now, said: 0, unsaid: 0 });
        }
        let period = endpoints.get_mut(endpoint)?;
        let mut unsaid = 0;
        if now.saturating_duration_since(period.began) >= PERIOD {
            unsaid = period.unsaid;
            *period = Period { began: now, said: 0, unsaid: 0 };
        }
        if period.said >= MAX_LINES_PER_MINUTE {
            period.unsaid += 1;
            return None;
        }
        period.said += 1;
        Some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Incident 18: what is throttled is the log, never the check.
    #[test]
    fn a_storm_is_a_few_lines_and_a_count() {
        let (quiet, now, endpoint) = (Quiet::default(), Instant::now(), Arc::from("github"));
        let said = (0..1000).filter(|_| quiet.may_speak(&endpoint, now).is_some()).count();
        assert_eq!(said, 5);
        assert_eq!(quiet.may_speak(&Arc::from("other"), now), Some(0));
        assert_eq!(quiet.may_speak(&endpoint, now + PERIOD), Some(995));
        assert_eq!(quiet.may_speak(&endpoint, now + PERIOD), Some(0));
    }
}
