//! The bookkeeping of one account: what it was granted, has used, has set aside for calls under way, and has left.
//!
//! There are two buckets. The month's credits come with the plan and begin anew with each billing month. The bonus is
//! everything granted beside them; it is spent first, and what is left of it goes over into the next month.
//! In each bucket, at every moment, granted = used + held + free.

use super::period::Period;

/// The books of one account.
#[derive(Clone, Debug)]
pub struct Book {
    anchor_unix_s: u64,
    period: Period,
    month: Bucket,
    bonus: Bucket,
    /// What of the bonus was used in this period.
    bonus_used_in_period: u64,
    /// The most that a plan has given for this period, as far as the journal has been told.
    ceiling: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    granted: u64,
    used: u64,
    held: u64,
}

impl Bucket {
    /// Nothing is free where what was spent has been taken back, or the plan has become smaller than what was used.
    fn free(&self) -> u64 {
        self.granted.saturating_sub(self.used).saturating_sub(self.held)
    }
}

/// What an account starts from: the plan's credits, and what the ledger knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// When it signed up; its billing months run from that day.
    pub anchor_unix_s: u64,
    /// What its plan gives for a month.
    pub credits_a_month: u64,
    /// The sum of all grants.
    pub bonus_granted: u64,
    /// What of them was charged, ever.
    pub bonus_used: u64,
    /// The latest period in which something was charged.
    pub month: Option<Month>,
}

/// What was charged in one billing month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    /// Its first second, as Unix time.
    pub period_start_unix_s: u64,
    /// The most credits that a plan has given for it.
    pub ceiling: u64,
    /// Charged to the month's credits.
    pub used: u64,
    /// Charged to the bonus during it.
    pub bonus_used: u64,
}

/// Credits set aside for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is set aside is either charged or given back"]
pub struct Share {
    /// From the month's credits.
    pub month: u32,
    /// From the bonus.
    pub bonus: u32,
    /// A moment of the period that it belongs to: that of the call, unless the clock has been set back since.
    pub unix_s: u64,
    period_start_unix_s: u64,
    granted: u64,
}

/// Where an account stands. What calls under way hold is in neither `used` nor `remaining`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits {
    /// Credits charged in this period.
    pub used: u64,
    /// The plan's credits for a month, and what was left of the bonus when the period began or was granted since.
    pub max: u64,
    /// Credits that could be spent at this moment.
    pub remaining: u64,
    /// What of them is bonus.
    pub bonus: u64,
    /// When the next period begins, as Unix time.
    pub renewal_unix_s: u64,
}

impl Book {
    /// Opens the books at `now_unix_s`.
    pub fn open(opening: Opening, now_unix_s: u64) -> Book {
        // A clock that was set back does not bring a month back that had begun.
        let at = opening.month.map_or(now_unix_s, |month| now_unix_s.max(month.period_start_unix_s));
        let period = Period::containing(opening.anchor_unix_s, at);
        let month = opening.month.filter(|month| month.period_start_unix_s == period.start_unix_s);
        Book {
            anchor_unix_s: opening.anchor_unix_s,
            period,
            month: Bucket { granted: opening.credits_a_month, used: month.map_or(0, |month| month.used), held: 0 },
            bonus: Bucket { granted: opening.bonus_granted, used: opening.bonus_used, held: 0 },
            bonus_used_in_period: month.map_or(0, |month| month.bonus_used),
            ceiling: month.map_or(0, |month| month.ceiling),
        }
    }

    /// Sets what the plan gives for a month and what has been granted beside it, from this moment on. What was used
    /// stays used.
    pub fn set_granted(&mut self, credits_a_month: u64, bonus: u64) {
        self.month.granted = credits_a_month;
        self.bonus.granted = bonus;
    }

    /// Sets `cost` credits aside, of the bonus first; `None` when fewer are left.
    pub fn reserve(&mut self, cost: u32, now_unix_s: u64) -> Option<Share> {
        self.turn(now_unix_s);
        // At most `cost`, which fits.
        let bonus = u32::try_from(self.bonus.free()).unwrap_or(u32::MAX).min(cost);
        let month = cost - bonus;
        if u64::from(month) > self.month.free() {
            return None;
        }
        self.bonus.held += u64::from(bonus);
        self.month.held += u64::from(month);
        Some(Share {
            month,
            bonus,
            unix_s: now_unix_s.max(self.period.start_unix_s),
            period_start_unix_s: self.period.start_unix_s,
            granted: self.month.granted,
        })
    }

    /// Charges what was set aside. When the month has turned since, it is charged to the month it was reserved in.
    pub fn charge(&mut self, share: &Share) {
        self.give_back(share);
        self.bonus.used += u64::from(share.bonus);
        if self.is_of_this_period(share) {
            self.month.used += u64::from(share.month);
            self.bonus_used_in_period += u64::from(share.bonus);
        }
    }

    /// Gives back what was set aside.
    pub fn give_back(&mut self, share: &Share) {
        self.bonus.held -= u64::from(share.bonus);
        if self.is_of_this_period(share) {
            self.month.held -= u64::from(share.month);
        }
    }

    /// Undoes a charge that could not be kept.
    pub fn uncharge(&mut self, share: &Share) {
        self.bonus.used -= u64::from(share.bonus);
        if self.is_of_this_period(share) {
            self.month.used -= u64::from(share.month);
            self.bonus_used_in_period -= u64::from(share.bonus);
        }
    }

    /// What the journal has to be told before this share is charged, if anything: the most that a plan has given for the
    /// month. Together with that, the journal alone proves that nobody spent more than there was.
    pub fn untold_ceiling(&self, share: &Share) -> Option<u64> {
        let told = if self.is_of_this_period(share) { self.ceiling } else { 0 };
        (share.month > 0 && share.granted > told).then_some(share.granted)
    }

    /// The journal has been told.
    pub fn ceiling_told(&mut self, share: &Share) {
        if self.is_of_this_period(share) {
            self.ceiling = self.ceiling.max(share.granted);
        }
    }

    /// Where the account stands.
    pub fn credits(&mut self, now_unix_s: u64) -> Credits {
        self.turn(now_unix_s);
        let bonus = self.bonus.granted.saturating_sub(self.bonus.used) + self.bonus_used_in_period;
        Credits {
            used: self.month.used + self.bonus_used_in_period,
            max: self.month.granted + bonus,
            remaining: self.month.free() + self.bonus.free(),
            bonus: self.bonus.free(),
            renewal_unix_s: self.period.end_unix_s,
        }
    }

    /// Begins the period that holds `now_unix_s`, unless it has begun. Calls under way settle with the month they were
    /// reserved in.
    fn turn(&mut self, now_unix_s: u64) {
        if now_unix_s >= self.period.end_unix_s {
            self.period = Period::containing(self.anchor_unix_s, now_unix_s);
            self.month = Bucket { granted: self.month.granted, ..Bucket::default() };
            self.bonus_used_in_period = 0;
            self.ceiling = 0;
        }
    }

    fn is_of_this_period(&self, share: &Share) -> bool {
        share.period_start_unix_s == self.period.start_unix_s
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 16 December 2025; the period ends a month later, at midnight.
    const SIGN_UP: u64 = 1_765_924_235;
    const START: u64 = 1_765_843_200;
    const RENEWAL: u64 = 1_768_521_600;

    fn book(credits_a_month: u64, bonus: u64) -> Book {
        let opening = Opening { anchor_unix_s: SIGN_UP, credits_a_month, bonus_granted: bonus, ..Opening::default() };
        Book::open(opening, SIGN_UP)
    }

    fn spend(book: &mut Book, cost: u32, now_unix_s: u64) {
        let share = book.reserve(cost, now_unix_s).unwrap();
        book.charge(&share);
    }

    #[test]
    fn a_charge_is_used_and_what_is_given_back_is_free() {
        let mut book = book(3, 0);
        let credits = |used, remaining| Credits { used, max: 3, remaining, bonus: 0, renewal_unix_s: RENEWAL };
        assert_eq!(book.credits(SIGN_UP), credits(0, 3));
        let share = book.reserve(2, SIGN_UP).unwrap();
        assert_eq!(book.credits(SIGN_UP), credits(0, 1));
        assert_eq!(book.reserve(2, SIGN_UP), None);
        book.give_back(&share);
        assert_eq!(book.credits(SIGN_UP), credits(0, 3));
        spend(&mut book, 2, SIGN_UP);
        assert_eq!(book.credits(SIGN_UP), credits(2, 1));
        let share = book.reserve(1, SIGN_UP).unwrap();
        book.charge(&share);
        assert_eq!(book.reserve(1, SIGN_UP), None);
        assert!(book.reserve(0, SIGN_UP).is_some());
        book.uncharge(&share);
        assert_eq!(book.credits(SIGN_UP), credits(2, 1));
    }

    #[test]
    fn the_bonus_goes_first_and_over_into_the_next_month() {
        let mut book = book(10, 5);
        assert_eq!(book.credits(SIGN_UP).max, 15);
        spend(&mut book, 2, SIGN_UP);
        assert_eq!((book.credits(RENEWAL - 1).used, book.credits(RENEWAL - 1).bonus), (2, 3));
        let next = book.credits(RENEWAL);
        assert_eq!((next.used, next.max, next.remaining), (0, 13, 13));
        spend(&mut book, 13, RENEWAL);
        assert_eq!(book.reserve(1, RENEWAL), None);
        assert_eq!(book.credits(next.renewal_unix_s).max, 10);
    }

    #[test]
    fn a_grant_in_the_middle_of_a_month_outlives_it() {
        let mut book = book(10, 0);
        spend(&mut book, 9, SIGN_UP);
        book.set_granted(10, 4);
        assert_eq!((book.credits(SIGN_UP).remaining, book.credits(SIGN_UP).max), (5, 14));
        spend(&mut book, 1, SIGN_UP);
        assert_eq!((book.credits(RENEWAL).max, book.credits(RENEWAL).bonus), (13, 3));
    }

    #[test]
    fn what_was_spent_cannot_be_taken_back() {
        let mut book = book(10, 5);
        spend(&mut book, 4, SIGN_UP);
        book.set_granted(10, 2);
        let credits = book.credits(SIGN_UP);
        assert_eq!((credits.used, credits.max, credits.remaining), (4, 14, 10));
    }

    #[test]
    fn a_call_under_way_when_the_month_turns_settles_with_the_old_one() {
        let mut book = book(2, 1);
        let (one, two) = (book.reserve(2, SIGN_UP).unwrap(), book.reserve(1, SIGN_UP).unwrap());
        assert_eq!((one.bonus, one.month, two.month), (1, 1, 1));
        spend(&mut book, 2, RENEWAL);
        book.charge(&one);
        book.give_back(&two);
        let credits = book.credits(RENEWAL);
        assert_eq!((credits.used, credits.max, credits.remaining), (2, 2, 0));
        // A clock that is set back does not bring the old month back.
        assert_eq!(book.reserve(1, SIGN_UP), None);
        book.set_granted(3, 1);
        assert_eq!(book.reserve(1, SIGN_UP).unwrap().unix_s, RENEWAL);
    }

    #[test]
    fn another_plan_counts_at_once_and_keeps_what_was_used() {
        let mut book = book(5, 0);
        spend(&mut book, 4, SIGN_UP);
        book.set_granted(2, 0);
        assert_eq!((book.credits(SIGN_UP).used, book.credits(SIGN_UP).remaining), (4, 0));
        assert_eq!(book.reserve(1, SIGN_UP), None);
        book.set_granted(6, 0);
        assert_eq!(book.credits(SIGN_UP).remaining, 2);
    }

    #[test]
    fn the_journal_is_told_of_every_higher_ceiling_once() {
        let mut book = book(5, 1);
        let share = book.reserve(1, SIGN_UP).unwrap();
        assert_eq!(book.untold_ceiling(&share), None, "the bonus has its own");
        let share = book.reserve(1, SIGN_UP).unwrap();
        assert_eq!(book.untold_ceiling(&share), Some(5));
        book.ceiling_told(&share);
        assert_eq!(book.untold_ceiling(&share), None);
        book.set_granted(3, 0);
        let share = book.reserve(1, SIGN_UP).unwrap();
        assert_eq!(book.untold_ceiling(&share), None);
        book.set_granted(9, 0);
        let share = book.reserve(1, SIGN_UP).unwrap();
        assert_eq!(book.untold_ceiling(&share), Some(9));
        book.credits(RENEWAL);
        assert_eq!(book.untold_ceiling(&share), Some(9), "of the old month nothing is remembered");
    }

    #[test]
    fn books_go_on_where_the_ledger_stands() {
        let month = Month { period_start_unix_s: START, ceiling: 10, used: 4, bonus_used: 3 };
        let opening = Opening {
            anchor_unix_s: SIGN_UP,
            credits_a_month: 10,
            bonus_granted: 8,
            bonus_used: 5,
            month: Some(month),
        };
        let mut book = Book::open(opening, SIGN_UP);
        let credits = book.credits(SIGN_UP);
        assert_eq!((credits.used, credits.max, credits.remaining, credits.bonus), (7, 16, 9, 3));
        spend(&mut book, 4, SIGN_UP);
        assert_eq!(book.credits(SIGN_UP).used, 11);
        // A month later, and with a clock that is a month late.
        let credits = Book::open(opening, RENEWAL).credits(RENEWAL);
        assert_eq!((credits.used, credits.max, credits.remaining), (0, 13, 13));
        assert_eq!(Book::open(opening, START - 86_400).credits(START - 86_400).used, 7);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(u32),
        Charge(usize),
        GiveBack(usize),
        Plan(u64),
        Grant(u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u32).prop_map(Step::Reserve),
            3 => any::<usize>().prop_map(Step::Charge),
            2 => any::<usize>().prop_map(Step::GiveBack),
            1 => (0..40_u64).prop_map(Step::Plan),
            1 => (0..20_u64).prop_map(Step::Grant),
            1 => (0..40 * 86_400_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn granted_is_used_and_held_and_free(
            monthly in 0..30_u64, bonus in 0..30_u64, steps in proptest::collection::vec(step(), 0..80),
        ) {
            let mut book = book(monthly, bonus);
            let (mut plan, mut granted, mut now) = (monthly, bonus, SIGN_UP);
            let mut held: Vec<Share> = Vec::new();
            // Charged to the bonus ever, and to the months by their start.
            let mut bonus_used = 0;
            let mut months = std::collections::BTreeMap::<u64, (u64, u64)>::new();
            for step in steps {
                match step {
                    Step::Reserve(cost) => {
                        let before = book.credits(now);
                        let share = book.reserve(cost, now);
                        prop_assert_eq!(share.is_some(), u64::from(cost) <= before.remaining);
                        if let Some(share) = share {
                            prop_assert_eq!(u64::from(share.bonus), before.bonus.min(cost.into()));
                            held.push(share);
                        }
                    }
                    Step::Charge(which) if !held.is_empty() => {
                        let share = held.swap_remove(which % held.len());
                        book.charge(&share);
                        bonus_used += u64::from(share.bonus);
                        let month = months.entry(share.period_start_unix_s).or_default();
                        *month = (month.0 + u64::from(share.month), month.1 + u64::from(share.bonus));
                    }
                    Step::GiveBack(which) if !held.is_empty() => book.give_back(&held.swap_remove(which % held.len())),
                    Step::Charge(_) | Step::GiveBack(_) => {}
                    Step::Plan(credits) => {
                        plan = credits;
                        book.set_granted(plan, granted);
                    }
                    Step::Grant(more) => {
                        granted += more;
                        book.set_granted(plan, granted);
                    }
                    Step::Wait(seconds) => now += seconds,
                }
                let credits = book.credits(now);
                let period = Period::containing(SIGN_UP, now);
                let (month_used, bonus_in_month) = months.get(&period.start_unix_s).copied().unwrap_or_default();
                let month_held: u64 = held.iter()
                    .filter(|share| share.period_start_unix_s == period.start_unix_s)
                    .map(|share| u64::from(share.month)).sum();
                let bonus_held: u64 = held.iter().map(|share| u64::from(share.bonus)).sum();
                prop_assert_eq!(credits.used, month_used + bonus_in_month);
                prop_assert_eq!(granted, bonus_used + bonus_held + credits.bonus);
                prop_assert_eq!(plan.saturating_sub(month_used + month_held), credits.remaining - credits.bonus);
                // What the ledger would say opens books that say the same.
                let month = months.last_key_value().map(|(&start, &(used, bonus_used))| Month {
                    period_start_unix_s: start, ceiling: used, used, bonus_used,
                });
                if held.is_empty() && month.is_none_or(|month| month.period_start_unix_s <= period.start_unix_s) {
                    let opening = Opening {
                        anchor_unix_s: SIGN_UP, credits_a_month: plan, bonus_granted: granted, bonus_used, month,
                    };
                    prop_assert_eq!(Book::open(opening, now).credits(now), credits);
                }
            }
        }
    }
}
