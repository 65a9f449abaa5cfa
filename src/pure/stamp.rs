//! A point in time as text, in the two spellings of the seeds, and its day.

use time::OffsetDateTime;

/// A second in UTC between the years 1970 and 9999, ready to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `YYYY-MM-DDTHH:MM:SSZ`
    text: [u8; 20],
}

/// A [`Stamp`] in one of its spellings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampText {
    text: [u8; 20],
    len: usize,
}

impl Stamp {
    /// The stamp of `unix_s` seconds since 1970; `None` past the year 9999, which neither spelling can hold.
    pub fn at(unix_s: u64) -> Option<Stamp> {
        let at = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_s).ok()?).ok()?;
        let mut text = *b"0000-00-00T00:00:00Z";
        let year = u16::try_from(at.year()).ok().filter(|year| *year <= 9999)?;
        two_digits(&mut text[0..2], (year / 100) as u8);
        two_digits(&mut text[2..4], (year % 100) as u8);
        two_digits(&mut text[5..7], u8::from(at.month()));
        two_digits(&mut text[8..10], at.day());
        two_digits(&mut text[11..13], at.hour());
        two_digits(&mut text[14..16], at.minute());
        two_digits(&mut text[17..19], at.second());
        Some(Stamp { text })
    }

    /// RFC 3339 section 5.6: `2025-12-16T22:31:00Z`.
    pub fn rfc3339(&self) -> StampText {
        StampText { text: self.text, len: 20 }
    }

    /// Its day, as RFC 3339 has it: `2025-12-16`.
    pub fn date(&self) -> StampText {
        StampText { text: self.text, len: 10 }
    }

    /// The seed `key2otp`: `2025-12-16 22:31:00`.
    pub fn spaced(&self) -> StampText {
        let mut text = self.text;
        text[10] = b' ';
        StampText { text, len: 19 }
    }
}

impl StampText {
    /// The text, ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len]).expect("stamps are ASCII")
    }
}

fn two_digits(to: &mut [u8], number: u8) {
    to[0] = b'0' + number / 10;
    to[1] = b'0' + number % 10;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings() {
        let stamp = Stamp::at(1_765_924_260).unwrap();
        assert_eq!(stamp.rfc3339().as_str(), "2025-12-16T22:31:00Z");
        assert_eq!(stamp.spaced().as_str(), "2025-12-16 22:31:00");
        assert_eq!(stamp.date().as_str(), "2025-12-16");
        assert_eq!(Stamp::at(0).unwrap().rfc3339().as_str(), "1970-01-01T00:00:00Z");
        assert_eq!(Stamp::at(253_402_300_799).unwrap().rfc3339().as_str(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn past_9999_there_is_none() {
        assert_eq!(Stamp::at(253_402_300_800), None);
        assert_eq!(Stamp::at(u64::MAX), None);
    }
}
