//! Limits log lines about what strangers can cause. Their deliveries are verified each time all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines per endpoint and period.
const MAX_LINES_PER_MINUTE: u32 = 5;
const THROTTLE_PERIOD: Duration = Duration::from_secs(60);

/// Counts log lines per endpoint and period.
#[derive(Default)]
pub(super) struct LogThrottle {
    endpoints: Mutex<HashMap<Arc<str>, Period>>,
    /// Requests to hook paths that no endpoint has.
    unknown_paths: Mutex<Option<Period>>,
}

struct Period {
    began: Instant,
    logged: u32,
    suppressed: u64,
}

impl LogThrottle {
    /// Admits a line, with how many were suppressed in the period before; none if it is to be suppressed.
    pub(super) fn admit(&self, endpoint: &Arc<str>, now: Instant) -> Option<u64> {
        let mut endpoints = self.endpoints.lock();
        if !endpoints.contains_key(endpoint) {
            endpoints.insert(Arc::clone(endpoint), Period { began: now, logged: 0, suppressed: 0 });
        }
        endpoints.get_mut(endpoint)?.admit(now)
    }

    /// The same for a hook path that no endpoint has.
    pub(super) fn admit_unknown_path(&self, now: Instant) -> Option<u64> {
        let mut period = self.unknown_paths.lock();
        period.get_or_insert(Period { began: now, logged: 0, suppressed: 0 }).admit(now)
    }
}

impl Period {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut suppressed = 0;
        if now.saturating_duration_since(self.began) >= THROTTLE_PERIOD {
            suppressed = self.suppressed;
            *self = Period { began: now, logged: 0, suppressed: 0 };
        }
        if self.logged >= MAX_LINES_PER_MINUTE {
            self.suppressed += 1;
            return None;
        }
        self.logged += 1;
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Incident 18: what is throttled is the log, never the check.
    #[test]
    fn a_storm_is_a_few_lines_and_a_count() {
        let (throttle, now, endpoint) = (LogThrottle::default(), Instant::now(), Arc::from("github"));
        let logged = (0..1000).filter(|_| throttle.admit(&endpoint, now).is_some()).count();
        assert_eq!(logged, 5);
        assert_eq!(throttle.admit(&Arc::from("other"), now), Some(0));
        assert_eq!(throttle.admit(&endpoint, now + THROTTLE_PERIOD), Some(995));
        assert_eq!(throttle.admit(&endpoint, now + THROTTLE_PERIOD), Some(0));
    }
}
