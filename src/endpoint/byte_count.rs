//! A count of bytes that several share under a limit.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are in use.
#[derive(Debug, Default)]
pub struct ByteCount(AtomicUsize);

impl ByteCount {
    /// Takes bytes, unless more than `limit` would be in use then.
    pub fn try_take(&self, bytes: usize, limit: usize) -> bool {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_taken() {
        let count = ByteCount::default();
        assert!(count.try_take(6, 10));
        assert!(!count.try_take(5, 10));
        assert!(!count.try_take(usize::MAX, 10));
        assert!(count.try_take(4, 10));
        count.give_back(6);
        assert!(count.try_take(6, 10));
    }
}
