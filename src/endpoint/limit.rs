//! The limit of deliveries per minute of an endpoint. A delivery is charged after it was verified,
//! so that strangers cannot use the limit up.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A limit of deliveries per minute, all of which may come at once: a bucket that fills evenly.
pub struct RateLimit {
    per_minute: u32,
    bucket: Mutex<TokenBucket>,
}

struct TokenBucket {
    tokens: f64,
    filled: Option<Instant>,
}

/// Charges a limit for a delivery, which may come in parts, at most once.
pub struct Charge<'l> {
    limit: Option<&'l RateLimit>,
}

impl<'l> Charge<'l> {
    /// A charge that is due, if there is a limit.
    pub fn new(limit: Option<&'l RateLimit>) -> Charge<'l> {
        Charge { limit }
    }

    /// Charges the limit if that has not happened.
    ///
    /// # Errors
    /// When the limit is used up; returns the time until it is not.
    pub fn once(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(limit) = self.limit else { return Ok(()) };
        limit.charge(now)?;
        self.limit = None;
        Ok(())
    }
}

const REFILL_PERIOD: Duration = Duration::from_secs(60);

impl RateLimit {
    /// A limit that has not been used.
    pub fn new(per_minute: u32) -> RateLimit {
        RateLimit {
            per_minute,
            bucket: Mutex::new(TokenBucket { tokens: f64::from(per_minute), filled: None }),
        }
    }

    /// Returns the number of deliveries per minute.
    pub fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Takes one delivery, or says when there is room again.
    pub fn charge(&self, now: Instant) -> Result<(), Duration> {
        let most = f64::from(self.per_minute);
        let per_second = most / REFILL_PERIOD.as_secs_f64();
        let mut bucket = self.bucket.lock();
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

    // Incident 18: only what is verified is charged; see also `tests/it/limits.rs`.
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

    #[test]
    fn a_delivery_in_parts_is_charged_once() {
        let (limit, now) = (RateLimit::new(1), Instant::now());
        let mut charge = Charge::new(Some(&limit));
        assert_eq!((charge.once(now), charge.once(now)), (Ok(()), Ok(())));
        assert!(Charge::new(Some(&limit)).once(now).is_err(), "the next delivery");
        assert_eq!(Charge::new(None).once(now), Ok(()));
    }
}
