//! Whether the server can do its work, as those who send it calls want to know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock::Clock;

/// Folding is tried each second: after so long without an end of it, something hangs.
const FOLD_AGE_MAX: Duration = Duration::from_secs(15);
/// No machine that runs this program has seen an earlier time than the start of 2025.
const EARLIEST_UNIX_S: u64 = 1_735_689_600;
/// How far the clock may stand before the last charge: more than a correction of a clock that runs well.
const BACK_S_MAX: u64 = 60;

/// What is known of the server's state. Those who do the work write it down here.
#[derive(Debug, Default)]
pub struct Health {
    /// When the last fold ended, in milliseconds of [`Clock::monotonic`].
    folded_ms: AtomicU64,
    fold_fails: AtomicBool,
    journal_fails: AtomicBool,
    last_charge_unix_s: AtomicU64,
    stopping: AtomicBool,
}

/// What is wrong: with what, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// One word.
    pub what: &'static str,
    /// A few words, without a path, a key or anything a caller sent.
    pub how: String,
}

impl Health {
    /// A fold has ended.
    pub fn folded(&self, succeeded: bool, clock: &Clock) {
        self.fold_fails.store(!succeeded, Relaxed);
        self.folded_ms.store(milliseconds(clock), Relaxed);
    }

    /// Charges can be written to the journal, or cannot.
    pub fn journal_works(&self, works: bool) {
        self.journal_fails.store(!works, Relaxed);
    }

    /// Something was charged at this moment.
    pub fn charged(&self, unix_s: u64) {
        self.last_charge_unix_s.fetch_max(unix_s, Relaxed);
    }

    /// From now on no more calls are wanted.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Whether that has been said.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Everything that is wrong now; nothing when calls are welcome.
    pub fn wrong(&self, clock: &Clock) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mut note = |what, how: String| wrong.push(Wrong { what, how });
        if self.is_stopping() {
            note("server", "it is stopping".to_owned());
        }
        let age = Duration::from_millis(milliseconds(clock).saturating_sub(self.folded_ms.load(Relaxed)));
        if self.fold_fails.load(Relaxed) {
            note("database", "it cannot be written".to_owned());
        } else if age > FOLD_AGE_MAX {
            note("database", format!("it has not been written for {} s", age.as_secs()));
        }
        if self.journal_fails.load(Relaxed) {
            note("journal", "charges cannot be written".to_owned());
        }
        let (now_unix_s, last_charge_unix_s) = (clock.unix_s(), self.last_charge_unix_s.load(Relaxed));
        let back_s = last_charge_unix_s.saturating_sub(now_unix_s);
        if now_unix_s < EARLIEST_UNIX_S {
            note("clock", "it stands before the year 2025".to_owned());
        } else if back_s > BACK_S_MAX {
            note("clock", format!("it stands {back_s} s before the last charge"));
        }
        wrong
    }
}

fn milliseconds(clock: &Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_765_924_235;

    fn told(health: &Health, clock: &Clock) -> Vec<String> {
        health.wrong(clock).into_iter().map(|Wrong { what, how }| format!("{what}: {how}")).collect()
    }

    #[test]
    fn a_server_that_works_has_nothing_wrong() {
        let (health, clock) = (Health::default(), Clock::fixed(NOW));
        health.folded(true, &clock);
        health.charged(NOW + BACK_S_MAX);
        health.journal_works(true);
        assert_eq!(told(&health, &clock), [""; 0]);
        clock.advance(FOLD_AGE_MAX);
        assert_eq!(told(&health, &clock), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_until_it_is_right_again() {
        let (health, clock) = (Health::default(), Clock::fixed(NOW));
        health.folded(false, &clock);
        health.journal_works(false);
        health.charged(NOW + 61);
        health.charged(NOW);
        health.stop();
        let wanted = [
            "server: it is stopping",
            "database: it cannot be written",
            "journal: charges cannot be written",
            "clock: it stands 61 s before the last charge",
        ];
        assert_eq!(told(&health, &clock), wanted);
        health.folded(true, &clock);
        health.journal_works(true);
        clock.advance(Duration::from_secs(16));
        assert_eq!(told(&health, &clock), ["server: it is stopping", "database: it has not been written for 16 s"]);
        assert_eq!(told(&Health::default(), &Clock::fixed(0)), ["clock: it stands before the year 2025"]);
    }
}
