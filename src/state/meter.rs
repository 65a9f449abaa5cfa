//! Credits: what an account may still spend in its billing month, counted in memory without locks.
//!
//! A call first reserves what it costs; the [`Hold`] it gets is committed once the answer is ready, and gives the
//! credits back when it is dropped instead, be it by an error, a hang-up or a panic.
//!
//! The counts live in this process: a month that is under way begins again at zero when the process is started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::pure::period::Period;

/// The spendable credits of one account, shared by all its keys.
#[derive(Debug)]
pub struct Balance {
    anchor_unix_s: u64,
    monthly: AtomicU64,
    month: ArcSwap<Counts>,
    turning: Mutex<()>,
}

/// Where an account stands. What calls under way hold is in neither `used` nor `remaining`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits {
    /// Credits charged in this period.
    pub used: u64,
    /// The plan's credits for a month, and what was left of the sign-up bonus when the period began.
    pub max: u64,
    /// Credits that could be spent at this moment.
    pub remaining: u64,
    /// When the next period begins, as Unix time.
    pub renewal_unix_s: u64,
}

impl Balance {
    /// A balance with nothing spent, for an account that signed up at `anchor_unix_s`.
    ///
    /// The bonus is spent before the month's credits, and what is left of it goes over into the next month.
    pub fn new(anchor_unix_s: u64, credits_a_month: u64, bonus: u64, now_unix_s: u64) -> Balance {
        let period = Period::containing(anchor_unix_s, now_unix_s);
        Balance {
            anchor_unix_s,
            monthly: AtomicU64::new(credits_a_month.min(CREDITS_MAX)),
            month: ArcSwap::from_pointee(Counts::new(period, bonus.min(CREDITS_MAX))),
            turning: Mutex::new(()),
        }
    }

    /// Sets what a month is worth, from this moment on; what has been spent stays spent.
    pub fn set_credits_a_month(&self, credits: u64) {
        self.monthly.store(credits.min(CREDITS_MAX), Ordering::Release);
    }

    /// Holds `cost` credits; `None` when fewer are left. Never gives out more than there are, whoever asks at once.
    pub fn reserve(&self, cost: u64, now_unix_s: u64) -> Option<Hold> {
        loop {
            let month = self.month_at(now_unix_s);
            let max = self.max(&month);
            let held = month.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                taken.checked_add(cost).filter(|&taken| taken <= max)
            });
            match held {
                Ok(_) => return Some(Hold { month, cost }),
                // The month turned between looking and taking: look again.
                Err(taken) if taken >= CLOSED => {}
                Err(_) => return None,
            }
        }
    }

    /// Where the account stands.
    pub fn snapshot(&self, now_unix_s: u64) -> Credits {
        let month = self.month_at(now_unix_s);
        let max = self.max(&month);
        let used = month.used.load(Ordering::Acquire);
        let taken = month.taken.load(Ordering::Acquire) & !CLOSED;
        Credits { used, max, remaining: max.saturating_sub(taken), renewal_unix_s: month.period.end_unix_s }
    }

    fn max(&self, month: &Counts) -> u64 {
        self.monthly.load(Ordering::Acquire) + month.bonus
    }

    fn month_at(&self, now_unix_s: u64) -> Arc<Counts> {
        let month = self.month.load_full();
        if now_unix_s < month.period.end_unix_s { month } else { self.turn(now_unix_s) }
    }

    /// Begins the period that holds `now_unix_s`. Whoever comes first turns the month, the others find it turned.
    ///
    /// Calls that are under way at that moment settle with the old month. The bonus they hold counts as spent, so
    /// that it can never be spent twice.
    fn turn(&self, now_unix_s: u64) -> Arc<Counts> {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.month.load_full();
        if now_unix_s < old.period.end_unix_s {
            return old;
        }
        let taken = old.taken.fetch_or(CLOSED, Ordering::AcqRel);
        let period = Period::containing(self.anchor_unix_s, now_unix_s);
        let new = Arc::new(Counts::new(period, old.bonus.saturating_sub(taken)));
        self.month.store(Arc::clone(&new));
        new
    }
}

/// Credits set aside for a call under way. Dropped without [`Hold::commit`], they are given back.
#[derive(Debug)]
#[must_use = "dropping a hold gives the credits back"]
pub struct Hold {
    month: Arc<Counts>,
    cost: u64,
}

impl Hold {
    /// Charges the credits.
    pub fn commit(mut self) {
        let cost = std::mem::take(&mut self.cost);
        self.month.used.fetch_add(cost, Ordering::AcqRel);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.month.taken.fetch_sub(self.cost, Ordering::AcqRel);
    }
}

/// Above any month's worth of credits: leaves room to add two of them and [`CLOSED`] without overflow.
const CREDITS_MAX: u64 = 1 << 60;

/// Set in `taken` once the month has turned, which makes every further reservation fail and look again.
const CLOSED: u64 = 1 << 63;

#[derive(Debug)]
struct Counts {
    period: Period,
    /// What was left of the sign-up bonus when the period began.
    bonus: u64,
    /// Used and held together: the one number on which reservations compete.
    taken: AtomicU64,
    used: AtomicU64,
}

impl Counts {
    fn new(period: Period, bonus: u64) -> Counts {
        Counts { period, bonus, taken: AtomicU64::new(0), used: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// 16 December 2025; the period ends a month later, at midnight.
    const SIGN_UP: u64 = 1_765_924_235;
    const RENEWAL: u64 = 1_768_521_600;

    fn balance(monthly: u64, bonus: u64) -> Balance {
        Balance::new(SIGN_UP, monthly, bonus, SIGN_UP)
    }

    #[test]
    fn commit_charges_and_drop_gives_back() {
        let balance = balance(3, 0);
        let credits = |used, remaining| Credits { used, max: 3, remaining, renewal_unix_s: RENEWAL };
        assert_eq!(balance.snapshot(SIGN_UP), credits(0, 3));
        let hold = balance.reserve(2, SIGN_UP).unwrap();
        assert_eq!(balance.snapshot(SIGN_UP), credits(0, 1));
        assert!(balance.reserve(2, SIGN_UP).is_none());
        drop(hold);
        assert_eq!(balance.snapshot(SIGN_UP), credits(0, 3));
        balance.reserve(2, SIGN_UP).unwrap().commit();
        assert_eq!(balance.snapshot(SIGN_UP), credits(2, 1));
        balance.reserve(1, SIGN_UP).unwrap().commit();
        assert!(balance.reserve(1, SIGN_UP).is_none());
        assert!(balance.reserve(0, SIGN_UP).is_some());
    }

    #[test]
    fn a_panic_gives_back() {
        let balance = Arc::new(balance(1, 0));
        let hold = balance.reserve(1, SIGN_UP).unwrap();
        let died = thread::spawn(move || {
            let _hold = hold;
            std::panic::resume_unwind(Box::new("gone"));
        });
        assert!(died.join().is_err());
        assert_eq!(balance.snapshot(SIGN_UP).remaining, 1);
    }

    #[test]
    fn the_bonus_goes_first_and_over_into_the_next_month() {
        let balance = balance(10, 5);
        assert_eq!(balance.snapshot(SIGN_UP).max, 15);
        balance.reserve(2, SIGN_UP).unwrap().commit();
        assert_eq!(balance.snapshot(RENEWAL - 1).used, 2);
        let next = balance.snapshot(RENEWAL);
        assert_eq!((next.used, next.max, next.remaining), (0, 13, 13));
        balance.reserve(13, RENEWAL).unwrap().commit();
        assert!(balance.reserve(1, RENEWAL).is_none());
        assert_eq!(balance.snapshot(next.renewal_unix_s).max, 10);
    }

    #[test]
    fn a_call_under_way_when_the_month_turns_settles_with_the_old_one() {
        let balance = balance(2, 0);
        let (one, two) = (balance.reserve(1, SIGN_UP).unwrap(), balance.reserve(1, SIGN_UP).unwrap());
        balance.reserve(2, RENEWAL).unwrap().commit();
        one.commit();
        drop(two);
        let credits = balance.snapshot(RENEWAL);
        assert_eq!((credits.used, credits.remaining), (2, 0));
        // A clock that is set back does not bring the old month back.
        assert!(balance.reserve(1, SIGN_UP).is_none());
    }

    #[test]
    fn another_plan_counts_at_once() {
        let balance = balance(5, 0);
        balance.reserve(4, SIGN_UP).unwrap().commit();
        balance.set_credits_a_month(2);
        assert_eq!(balance.snapshot(SIGN_UP).remaining, 0);
        assert!(balance.reserve(1, SIGN_UP).is_none());
        balance.set_credits_a_month(6);
        assert_eq!(balance.snapshot(SIGN_UP).remaining, 2);
    }

    #[test]
    fn a_thousand_at_once_on_one_credit_pass_exactly_one() {
        for bonus in [0, 1] {
            let balance = balance(1 - bonus, bonus);
            let passed = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..1_000 {
                    scope.spawn(|| {
                        if let Some(hold) = balance.reserve(1, SIGN_UP) {
                            hold.commit();
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(passed.into_inner(), 1);
        }
    }

    #[test]
    fn threads_that_give_back_commit_and_turn_months_never_overspend() {
        let balance = balance(100, 50);
        let spent = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (balance, spent) = (&balance, &spent);
                scope.spawn(move || {
                    for round in 0..3_000_u64 {
                        let month = (round / 1_000) as usize;
                        let now = SIGN_UP + month as u64 * 31 * 86_400;
                        let cost = (round + thread) % 3;
                        let Some(hold) = balance.reserve(cost, now) else { continue };
                        if (round * 7 + thread) % 5 == 0 {
                            drop(hold);
                        } else {
                            hold.commit();
                            spent[month].fetch_add(cost, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let spent = spent.map(AtomicU64::into_inner);
        // Threads are in different months for a moment, and a late one spends of the newer; so it is the sum that
        // is bounded: three months, and the bonus once.
        assert!(spent.iter().sum::<u64>() <= 350, "{spent:?}");
        let last = balance.snapshot(SIGN_UP + 62 * 86_400);
        assert_eq!(last.used + last.remaining, last.max);
    }

    proptest! {
        #[test]
        fn any_sequence_of_calls_adds_up(
            monthly in 0..30_u64, bonus in 0..30_u64, calls in proptest::collection::vec((0..5_u64, any::<bool>()), 0..60),
        ) {
            let balance = balance(monthly, bonus);
            let mut used = 0;
            for (cost, commit) in calls {
                let hold = balance.reserve(cost, SIGN_UP);
                prop_assert_eq!(hold.is_some(), used + cost <= monthly + bonus);
                if let (Some(hold), true) = (hold, commit) {
                    hold.commit();
                    used += cost;
                }
                let credits = balance.snapshot(SIGN_UP);
                prop_assert_eq!((credits.used, credits.remaining), (used, monthly + bonus - used));
            }
        }
    }
}
