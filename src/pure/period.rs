//! Billing months: they run from the day of sign-up, in UTC.

use time::{Date, Month, OffsetDateTime};

/// One billing month: from its first second to just before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first second, midnight UTC, as Unix time.
    pub start_unix_s: u64,
    /// The first second of the next period, midnight UTC, as Unix time.
    pub end_unix_s: u64,
}

impl Period {
    /// The period that holds `now_unix_s` for an account that signed up at `anchor_unix_s`.
    ///
    /// Every period begins on the day of the month of the sign-up; a month too short for that day begins it on its
    /// last day, and the month after returns to the day itself (31 January, 28 February, 31 March). Years end with
    /// 9998 here, and anything later counts as its last day.
    pub fn containing(anchor_unix_s: u64, now_unix_s: u64) -> Period {
        let anchor_day = date(anchor_unix_s).day();
        let today = date(now_unix_s);
        let this_month = (today.year(), today.month());
        let (first, next) = if today >= begin(this_month, anchor_day) {
            (this_month, month_after(this_month))
        } else {
            (month_before(this_month), this_month)
        };
        Period { start_unix_s: unix_s(begin(first, anchor_day)), end_unix_s: unix_s(begin(next, anchor_day)) }
    }
}

/// The day on which a period begins in the given month.
fn begin((year, month): (i32, Month), anchor_day: u8) -> Date {
    let day = anchor_day.min(month.length(year));
    Date::from_calendar_date(year, month, day).unwrap_or(LAST_DAY)
}

fn month_after((year, month): (i32, Month)) -> (i32, Month) {
    (if month == Month::December { year + 1 } else { year }, month.next())
}

fn month_before((year, month): (i32, Month)) -> (i32, Month) {
    (if month == Month::January { year - 1 } else { year }, month.previous())
}

/// A year short of what dates can hold, so that the period after the last still has a date.
const LAST_DAY: Date = time::macros::date!(9998 - 12 - 31);

fn date(unix_s: u64) -> Date {
    let moment = i64::try_from(unix_s).ok().and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
    moment.map_or(LAST_DAY, OffsetDateTime::date).min(LAST_DAY)
}

/// Days before 1970 can only be the start of a period that began in 1969; the count starts at zero there.
fn unix_s(date: Date) -> u64 {
    date.midnight().assume_utc().unix_timestamp().try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn at(text: &str) -> u64 {
        OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp().try_into().unwrap()
    }

    fn check(anchor: &str, now: &str, start: &str, end: &str) {
        let period = Period::containing(at(anchor), at(now));
        let day = |text: &str| at(&format!("{text}T00:00:00Z"));
        assert_eq!(period, Period { start_unix_s: day(start), end_unix_s: day(end) }, "{anchor} {now}");
    }

    #[test]
    fn months_run_from_the_day_of_sign_up() {
        check("2025-12-16T22:31:00Z", "2025-12-16T22:31:00Z", "2025-12-16", "2026-01-16");
        check("2025-12-16T22:31:00Z", "2026-01-15T23:59:59Z", "2025-12-16", "2026-01-16");
        check("2025-12-16T22:31:00Z", "2026-01-16T00:00:00Z", "2026-01-16", "2026-02-16");
        check("2025-05-01T00:00:00Z", "2025-06-01T00:00:00Z", "2025-06-01", "2025-07-01");
    }

    #[test]
    fn the_31st_falls_back_and_returns() {
        let anchor = "2025-01-31T09:00:00Z";
        check(anchor, "2025-02-27T23:59:59Z", "2025-01-31", "2025-02-28");
        check(anchor, "2025-02-28T00:00:00Z", "2025-02-28", "2025-03-31");
        check(anchor, "2025-03-30T12:00:00Z", "2025-02-28", "2025-03-31");
        check(anchor, "2025-03-31T00:00:00Z", "2025-03-31", "2025-04-30");
        check(anchor, "2028-02-29T00:00:00Z", "2028-02-29", "2028-03-31");
        check("2024-02-29T00:00:00Z", "2025-03-01T00:00:00Z", "2025-02-28", "2025-03-29");
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for (anchor, now) in [(0, 0), (0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            let period = Period::containing(anchor, now);
            assert!(period.start_unix_s < period.end_unix_s, "{period:?}");
        }
    }

    proptest! {
        #[test]
        fn periods_hold_their_moment_and_meet_without_gap(anchor in 0..8_000_000_000_u64, now in 0..8_000_000_000_u64) {
            let period = Period::containing(anchor, now);
            prop_assert!((period.start_unix_s..period.end_unix_s).contains(&now));
            let days = (period.end_unix_s - period.start_unix_s) / 86_400;
            // The very first may begin before 1970, where the count starts at zero.
            prop_assert!((28..=31).contains(&days) || period.start_unix_s == 0);
            prop_assert_eq!(Period::containing(anchor, period.start_unix_s), period);
            prop_assert_eq!(Period::containing(anchor, period.end_unix_s - 1), period);
            prop_assert_eq!(Period::containing(anchor, period.end_unix_s).start_unix_s, period.end_unix_s);
        }

        #[test]
        fn a_period_begins_on_the_day_of_sign_up_or_the_last_of_the_month(anchor in any::<u32>(), now in any::<u32>()) {
            let start = date(Period::containing(anchor.into(), now.into()).end_unix_s);
            let wanted = date(anchor.into()).day();
            prop_assert!(start.day() == wanted || (start.day() < wanted && start.next_day().unwrap().day() == 1));
        }
    }
}
