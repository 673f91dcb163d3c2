//! Pauses after failures.

use std::time::Duration;

/// A pause that doubles with every failure before this one, up to the maximum, and varies by a
/// quarter either way so that a herd disperses.
pub fn growing_pause(first: Duration, longest: Duration, failures_before: u32) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures_before).unwrap_or(u32::MAX)).min(longest);
    doubled.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        for (failures, seconds) in
            [(0, 1.0), (1, 2.0), (4, 16.0), (5, 30.0), (31, 30.0), (32, 30.0), (u32::MAX, 30.0)]
        {
            let pause = growing_pause(first, longest, failures).as_secs_f64();
            assert!((seconds * 0.75..=seconds * 1.25).contains(&pause), "{failures}: {pause}");
        }
    }
}
