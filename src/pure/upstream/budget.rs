//! A budget for retries: a fifth of all calls may be tried again, so that retries do not become a flood of their own.

use std::time::Duration;

/// What a call adds, in thousandths of a retry.
const A_CALL: u32 = 200;
const A_RETRY: u32 = 1_000;
/// What there is at first, and the most there is: ten retries.
const MOST: u32 = 10 * A_RETRY;
/// The longest pause before the first retry; each further one is up to twice as long.
const PAUSE: Duration = Duration::from_millis(25);

/// How many retries are left.
#[derive(Debug)]
pub struct Budget(u32);

impl Default for Budget {
    fn default() -> Budget {
        Budget(MOST)
    }
}

impl Budget {
    /// There is a call.
    pub fn call(&mut self) {
        self.0 = (self.0 + A_CALL).min(MOST);
    }

    /// Takes a retry, if there is one left.
    pub fn retry(&mut self) -> bool {
        let left = self.0.checked_sub(A_RETRY);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// How long to wait before the next attempt after so many, at least one. `random` can be any number: what failed together
/// is not tried again together.
pub fn pause(attempts: usize, random: u64) -> Duration {
    let longest = PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(6));
    longest.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_and_then_one_for_five_calls() {
        let mut budget = Budget::default();
        let take = |budget: &mut Budget| (0..100).take_while(|_| budget.retry()).count();
        assert_eq!(take(&mut budget), 10);
        (0..23).for_each(|_| budget.call());
        assert_eq!(take(&mut budget), 4);
        (0..1_000_000).for_each(|_| budget.call());
        assert_eq!(take(&mut budget), 10);
    }

    #[test]
    fn pauses_are_random_and_grow() {
        assert_eq!((pause(1, 0), pause(5, 0)), (Duration::ZERO, Duration::ZERO));
        for (attempts, longest_ms) in [(1, 25), (2, 50), (3, 100), (7, 1_600), (99, 1_600)] {
            let longest = Duration::from_millis(longest_ms);
            let wait = pause(attempts, u64::MAX);
            assert!(wait <= longest && wait > longest * 9 / 10, "{attempts} {wait:?}");
        }
    }
}
