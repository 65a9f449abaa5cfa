//! Ejection of targets: one that fails again and again is passed over for a while, and for longer each time.

use std::time::Duration;

/// So many failures in a row eject.
const FAILURES: u32 = 5;
/// How long the first ejection lasts. Each further one lasts twice as long as the one before.
const SHORTEST: Duration = Duration::from_secs(5);
/// How long none is exceeded by.
const LONGEST: Duration = Duration::from_secs(300);

/// How one target is doing. Times are those of a clock that only goes forward.
#[derive(Debug, Default)]
pub struct Ejection {
    /// Failures since the last success.
    failures: u32,
    /// Ejections since the last success.
    ejections: u32,
    until: Duration,
}

impl Ejection {
    /// Whether it is to be passed over.
    pub fn is_out(&self, now: Duration) -> bool {
        now < self.until
    }

    /// For how long, if it is.
    pub fn lasts(&self, now: Duration) -> Option<Duration> {
        self.until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// It has answered.
    pub fn succeeded(&mut self) {
        *self = Ejection { until: self.until, ..Ejection::default() };
    }

    /// It has not. Once it was ejected, a single failure after its return ejects it again.
    pub fn failed(&mut self, now: Duration) {
        self.failures += 1;
        // Calls that were under way when it was ejected tell nothing new.
        if !self.is_out(now) && (self.failures >= FAILURES || self.ejections > 0) {
            let lasts = SHORTEST.saturating_mul(1 << self.ejections.min(16)).min(LONGEST);
            self.until = now + lasts;
            self.ejections += 1;
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_forgives() {
        let mut target = Ejection::default();
        for _ in 0..4 {
            target.failed(s(1));
        }
        target.succeeded();
        for _ in 0..4 {
            target.failed(s(1));
        }
        assert!(!target.is_out(s(1)));
        target.failed(s(1));
        assert!(target.is_out(s(1)) && target.is_out(s(5)) && !target.is_out(s(6)));
        assert_eq!([1, 5, 6, 7].map(|now| target.lasts(s(now))), [Some(s(5)), Some(s(1)), None, None]);
    }

    #[test]
    fn each_ejection_lasts_twice_as_long_up_to_five_minutes() {
        let (mut target, mut now, mut lasted) = (Ejection::default(), s(0), Vec::new());
        (0..4).for_each(|_| target.failed(now));
        for _ in 0..9 {
            target.failed(now);
            target.failed(now);
            let start = now;
            while target.is_out(now) {
                now += s(1);
            }
            lasted.push((now - start).as_secs());
        }
        assert_eq!(lasted, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        target.succeeded();
        target.failed(now);
        assert!(!target.is_out(now));
    }
}
