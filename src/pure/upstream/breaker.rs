//! A circuit breaker: an upstream that fails nearly always is left alone for a while.

use std::time::Duration;

/// How far back calls are looked at, in seconds.
const WINDOW_S: usize = 10;
/// With fewer calls in the window, nothing is concluded from them.
const CALLS_MIN: u32 = 20;
/// How long the upstream is left alone.
const OPEN: Duration = Duration::from_secs(5);
/// How long is waited to hear of the call that then tries it, whose client may have gone, before another may.
const PROBE: Duration = Duration::from_secs(5);

/// Whether an upstream is asked at all. Times are those of a clock that only goes forward.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
    /// Calls by the second, and how many of them failed.
    seconds: [(u32, u32); WINDOW_S],
    /// The latest second that is counted.
    now_s: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// All calls pass.
    #[default]
    Closed,
    /// None does, until then.
    Open(Duration),
    /// One has, and nobody else may until then, unless it is heard of earlier.
    Probing(Duration),
}

impl Breaker {
    /// Whether a call may pass.
    pub fn may_ask(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) | State::Probing(until) if now < until => false,
            _ => {
                self.state = State::Probing(now + PROBE);
                true
            }
        }
    }

    /// Whether calls pass now.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// `closed`, `open` or `half-open`, and for how long it stays open.
    pub fn standing(&self, now: Duration) -> (&'static str, Option<Duration>) {
        match self.state {
            State::Closed => ("closed", None),
            State::Open(until) if now < until => ("open", Some(until - now)),
            State::Open(_) | State::Probing(_) => ("half-open", None),
        }
    }

    /// A call has ended well.
    pub fn succeeded(&mut self, now: Duration) {
        if !self.is_closed() {
            *self = Breaker { now_s: now.as_secs(), ..Breaker::default() };
        }
        self.second(now).0 += 1;
    }

    /// A call has failed. At least half of those in the window must have, for the upstream to be left alone.
    pub fn failed(&mut self, now: Duration) {
        let second = self.second(now);
        (second.0, second.1) = (second.0 + 1, second.1 + 1);
        let (calls, failed) = self.seconds.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let is_bad = calls >= CALLS_MIN && failed * 2 >= calls;
        if matches!(self.state, State::Probing(_)) || self.is_closed() && is_bad {
            self.state = State::Open(now + OPEN);
        }
    }

    fn second(&mut self, now: Duration) -> &mut (u32, u32) {
        let now_s = now.as_secs().max(self.now_s);
        let passed = (now_s - self.now_s).min(WINDOW_S as u64);
        for at in 0..passed {
            self.seconds[place(now_s - at)] = (0, 0);
        }
        self.now_s = now_s;
        &mut self.seconds[place(now_s)]
    }
}

fn place(second: u64) -> usize {
    (second % WINDOW_S as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_at_half_of_twenty_and_closes_after_one_that_goes_well() {
        let mut breaker = Breaker::default();
        for second in 0..10 {
            breaker.succeeded(s(second));
        }
        for _ in 0..9 {
            breaker.failed(s(9));
        }
        assert!(breaker.may_ask(s(9)), "9 of 19");
        breaker.failed(s(9));
        assert!(!breaker.may_ask(s(9)) && !breaker.may_ask(s(13)), "10 of 20");
        assert_eq!(breaker.standing(s(13)), ("open", Some(s(1))));
        assert_eq!(breaker.standing(s(14)), ("half-open", None));
        assert!(breaker.may_ask(s(14)), "one may try");
        assert_eq!(breaker.standing(s(14)), ("half-open", None));
        assert!(!breaker.may_ask(s(14)), "and one only");
        breaker.failed(s(15));
        assert!(!breaker.may_ask(s(19)));
        assert!(breaker.may_ask(s(20)));
        breaker.succeeded(s(21));
        assert_eq!(breaker.standing(s(21)), ("closed", None));
        assert!(breaker.is_closed() && breaker.may_ask(s(21)) && breaker.may_ask(s(21)));
        breaker.failed(s(21));
        assert!(breaker.is_closed(), "what was before is forgotten");
    }

    #[test]
    fn a_try_that_is_never_heard_of_does_not_last() {
        let mut breaker = Breaker::default();
        (0..20).for_each(|_| breaker.failed(s(1)));
        assert!(breaker.may_ask(s(6)));
        assert!(!breaker.may_ask(s(10)));
        assert!(breaker.may_ask(s(11)));
    }

    #[test]
    fn old_calls_do_not_count() {
        let mut breaker = Breaker::default();
        (0..19).for_each(|_| breaker.failed(s(5)));
        breaker.failed(s(15));
        assert!(breaker.is_closed());
    }

    proptest! {
        #[test]
        fn it_always_opens_again_for_a_try(calls in proptest::collection::vec((0_u64..4, any::<bool>()), 0..200)) {
            let (mut breaker, mut now) = (Breaker::default(), 0);
            for (later, goes_well) in calls {
                now += later;
                if breaker.may_ask(s(now)) {
                    if goes_well { breaker.succeeded(s(now)) } else { breaker.failed(s(now)) }
                    prop_assert!(!goes_well || breaker.is_closed());
                }
            }
            prop_assert!(breaker.may_ask(s(now) + PROBE));
        }
    }
}
