//! The time. This is the only file that reads it, so that everything else can be tested at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The system's time, one that stands still until it is told to go on, or one that somebody tells. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        start: Instant,
    },
    /// Microseconds of Unix time.
    Fixed(Arc<AtomicU64>),
    /// Unix time, asked for each time.
    Told(fn() -> Duration),
}

impl Clock {
    /// The time of the machine.
    #[expect(clippy::disallowed_methods, reason = "this is where the time is read")]
    pub fn system() -> Clock {
        Clock(Source::System { start: Instant::now() })
    }

    /// A clock that stands at a moment of Unix time, in seconds.
    pub fn fixed(unix_s: u64) -> Clock {
        Clock(Source::Fixed(Arc::new(AtomicU64::new(microseconds(Duration::from_secs(unix_s))))))
    }

    /// A clock that shows what `unix_time` returns.
    pub fn told(unix_time: fn() -> Duration) -> Clock {
        Clock(Source::Told(unix_time))
    }

    /// Moves a fixed clock forward; others take no orders.
    pub fn advance(&self, by: Duration) {
        if let Source::Fixed(now) = &self.0 {
            now.fetch_add(microseconds(by), Ordering::AcqRel);
        }
    }

    /// Whole seconds of Unix time, rounded down; zero for a machine that believes in a time before 1970.
    pub fn unix_s(&self) -> u64 {
        self.unix_ms() / 1_000
    }

    /// The same in milliseconds.
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is where the time is read")]
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Source::Fixed(now) => now.load(Ordering::Acquire) / 1_000,
            Source::Told(unix_time) => u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The monotonic time since some moment: it goes on evenly even when the machine's date is corrected.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Fixed(now) => Duration::from_micros(now.load(Ordering::Acquire)),
            Source::Told(unix_time) => unix_time(),
        }
    }
}

/// What limiters count in is monotonic.
impl governor::clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.monotonic()
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use governor::clock::Clock as _;

    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told_and_clones_follow() {
        let clock = Clock::fixed(1_765_924_235);
        let other = clock.clone();
        assert_eq!(other.unix_s(), 1_765_924_235);
        let before = other.now();
        clock.advance(Duration::from_millis(2_500));
        assert_eq!((other.unix_s(), other.unix_ms()), (1_765_924_237, 1_765_924_237_500));
        assert_eq!(other.now() - before, Duration::from_millis(2_500));
    }

    #[test]
    fn the_system_clock_runs() {
        let clock = Clock::system();
        let before = clock.now();
        clock.advance(Duration::from_secs(1_000_000));
        assert!(clock.unix_s() > 1_700_000_000);
        assert!(clock.now() >= before && clock.now() < Duration::from_secs(1_000));
    }
}
