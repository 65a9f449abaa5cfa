//! The targets of an API: which one is asked next, and whether any is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::config::UpstreamApi;
use crate::pure::upstream::breaker::Breaker;
use crate::pure::upstream::budget::Budget;
use crate::pure::upstream::ejection::Ejection;
use crate::pure::upstream::target::Base;
use crate::state::clock::Clock;
use crate::state::events::PROGRAM;

/// All targets of an API, and what was learnt from asking them.
#[derive(Debug)]
pub struct Targets {
    targets: Vec<Target>,
    /// The next to be looked at first, so that those that are equal are asked in turn.
    next: AtomicUsize,
    health: Mutex<Health>,
    clock: Clock,
    /// Whose they are.
    api: String,
}

#[derive(Debug)]
struct Target {
    base: Base,
    /// Calls under way to it.
    under_way: AtomicUsize,
    ejection: Mutex<Ejection>,
    /// What the last checks of its health came to.
    is_well: AtomicBool,
}

#[derive(Debug, Default)]
struct Health {
    breaker: Breaker,
    budget: Budget,
}

impl Targets {
    /// Those of an API, none of which has been asked.
    pub fn new(settings: &UpstreamApi, clock: Clock) -> Targets {
        let target = |base: &Base| Target {
            base: base.clone(),
            under_way: AtomicUsize::new(0),
            ejection: Mutex::default(),
            is_well: AtomicBool::new(true),
        };
        let targets = settings.targets.iter().map(target).collect();
        Targets { targets, next: AtomicUsize::new(0), health: Mutex::default(), clock, api: settings.name.clone() }
    }

    /// Whether a call may be sent to any: not, if nearly all have failed of late.
    pub fn may_ask(&self) -> bool {
        let mut health = self.health();
        health.budget.call();
        health.breaker.may_ask(self.clock.monotonic())
    }

    /// Whether a failed call may be tried again.
    pub fn may_retry(&self) -> bool {
        self.health().budget.retry()
    }

    /// The target with the fewest calls under way among those that are fit, and that have not been `tried`. Where none is
    /// fit, the rule is dropped: one that may work is better than none.
    pub fn choose(self: &Arc<Self>, tried: &[usize]) -> Chosen {
        let (count, now) = (self.targets.len(), self.clock.monotonic());
        let first = if count > 1 { self.next.fetch_add(1, Relaxed) } else { 0 };
        let places = || (0..count).map(|at| first.wrapping_add(at) % count);
        let fewest = |fits: &dyn Fn(usize) -> bool| {
            places().filter(|at| fits(*at)).min_by_key(|at| self.targets[*at].under_way.load(Relaxed))
        };
        let is_new = |at: usize| !tried.contains(&at);
        let at = fewest(&|at| is_new(at) && self.targets[at].is_fit(now))
            .or_else(|| fewest(&is_new))
            .or_else(|| fewest(&|_| true))
            .unwrap_or_default();
        self.targets[at].under_way.fetch_add(1, Relaxed);
        Chosen { targets: Arc::clone(self), at, has_ended: AtomicBool::new(false) }
    }

    /// The addresses of all, in the order of the configuration.
    pub fn bases(&self) -> impl Iterator<Item = &Base> {
        self.targets.iter().map(|target| &target.base)
    }

    /// What a check of the health of the one at `at` came to; whether that is news.
    pub fn checked(&self, at: usize, is_well: bool) -> bool {
        self.targets[at].is_well.swap(is_well, Relaxed) != is_well
    }

    /// How they are doing.
    pub fn standing(&self) -> Standing {
        let now = self.clock.monotonic();
        let target = |target: &Target| TargetStanding {
            address: format!("{}://{}", if target.base.is_https() { "https" } else { "http" }, target.base.authority()),
            is_well: target.is_well.load(Relaxed),
            ejected_for: target.ejection().lasts(now),
            under_way: target.under_way.load(Relaxed),
        };
        let targets = self.targets.iter().map(target).collect();
        let (breaker, open_for) = self.health().breaker.standing(now);
        Standing { breaker, open_for, targets }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn is_fit(&self, now: Duration) -> bool {
        self.is_well.load(Relaxed) && !self.ejection().is_out(now)
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the targets of an API are doing.
#[derive(Debug)]
pub struct Standing {
    /// Whether calls pass: `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// For how long none does, while it is open.
    pub open_for: Option<Duration>,
    /// Each of them, by the order of the configuration.
    pub targets: Vec<TargetStanding>,
}

/// How a target is doing.
#[derive(Debug)]
pub struct TargetStanding {
    /// Scheme, host and port.
    pub address: String,
    /// Whether it passes its health check, where there is one.
    pub is_well: bool,
    /// For how long it is passed over yet, after it has failed.
    pub ejected_for: Option<Duration>,
    /// Calls under way to it.
    pub under_way: usize,
}

/// A target that is being asked, until this is dropped.
#[derive(Debug)]
pub struct Chosen {
    targets: Arc<Targets>,
    at: usize,
    has_ended: AtomicBool,
}

impl Chosen {
    /// Its address.
    pub fn base(&self) -> &Base {
        &self.target().base
    }

    /// Its place among the targets.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Tells the operator what is wrong with it, or with its answer; none of that answer.
    pub fn tell(&self, reason: &str) {
        warn!(target: PROGRAM, "{}, a server of {}: {reason}", self.base().authority(), self.targets.api);
    }

    /// It has answered, to the end, or else it has failed to. What is said first counts.
    pub fn ended(&self, well: bool) {
        if self.has_ended.swap(true, Relaxed) {
            return;
        }
        let now = self.targets.clock.monotonic();
        let mut ejection = self.target().ejection();
        let breaker = &mut self.targets.health().breaker;
        if well {
            ejection.succeeded();
            breaker.succeeded(now);
        } else {
            ejection.failed(now);
            breaker.failed(now);
        }
    }

    fn target(&self) -> &Target {
        &self.targets.targets[self.at]
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.target().under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(count: usize, clock: &Clock) -> Arc<Targets> {
        let bases = (0..count).map(|at| Base::parse(&format!("http://127.0.0.1:{}", 1 + at)).unwrap()).collect();
        Arc::new(Targets::new(&UpstreamApi::plain("a", "/v1/a", bases), clock.clone()))
    }

    #[test]
    fn the_target_with_the_fewest_calls_is_asked() {
        let targets = targets(3, &Clock::fixed(0));
        let asked: Vec<Chosen> = (0..6).map(|_| targets.choose(&[])).collect();
        assert_eq!(asked.iter().map(Chosen::at).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        drop(asked.into_iter().filter(|chosen| chosen.at() == 1).collect::<Vec<_>>());
    }

    #[test]
    fn those_that_fail_are_passed_over_unless_all_do() {
        let clock = Clock::fixed(0);
        let targets = targets(2, &clock);
        let fail = |at: usize| {
            for _ in 0..5 {
                targets.choose(&[1 - at]).ended(false);
            }
        };
        fail(0);
        assert!((0..10).all(|_| targets.choose(&[]).at() == 1));
        assert_eq!(targets.choose(&[1]).at(), 0, "before the same is asked again, another is");
        fail(1);
        assert!((0..10).any(|_| targets.choose(&[]).at() == 0));
        clock.advance(Duration::from_secs(5));
        assert!((0..10).any(|_| targets.choose(&[]).at() == 0));
        assert!(targets.checked(0, false) && !targets.checked(0, false));
        assert!((0..10).all(|_| targets.choose(&[]).at() == 1));
    }
}
