//! How many deliveries an endpoint takes, for whoever wants a limit. Charged after a delivery has
//! proved itself, so that strangers cannot use it up.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many deliveries per minute, all of which may come at once: a bucket that fills evenly.
pub struct RateLimit {
    per_minute: u32,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Option<Instant>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl RateLimit {
    /// A limit that has not been used.
    pub fn new(per_minute: u32) -> RateLimit {
        RateLimit { per_minute, bucket: Mutex::new(Bucket { tokens: f64::from(per_minute), filled: None }) }
    }

    /// How many deliveries per minute.
    pub fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Takes one delivery, or says when there is room again.
    pub fn charge(&self, now: Instant) -> Result<(), Duration> {
        let most = f64::from(self.per_minute);
        let per_second = most / MINUTE.as_secs_f64();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = bucket.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        bucket.tokens = (bucket.tokens + elapsed.as_secs_f64() * per_second).min(most);
        bucket.filled = Some(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Incident 18: only what has proved itself is charged; see also `tests/it/limits.rs`.
    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (limit, now) = (RateLimit::new(6), Instant::now());
        for _ in 0..6 {
            assert_eq!(limit.charge(now), Ok(()));
        }
        let wait = limit.charge(now).expect_err("the bucket is empty");
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
        assert_eq!(limit.charge(now + wait), Ok(()));
        assert!(limit.charge(now + wait).is_err());
        assert_eq!(limit.charge(now), Err(limit.charge(now).expect_err("time does not run back")));
    }
}
