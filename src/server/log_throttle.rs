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
        let period = endpoints.get_mut(endpoint)?;
        let mut suppressed = 0;
        if now.saturating_duration_since(period.began) >= THROTTLE_PERIOD {
            suppressed = period.suppressed;
            *period = Period { began: now, logged: 0, suppressed: 0 };
        }
        if period.logged >= MAX_LINES_PER_MINUTE {
            period.suppressed += 1;
            return None;
        }
        period.logged += 1;
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
