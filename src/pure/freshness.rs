//! For how long an upstream's answer may be given again: the part of RFC 9111 that a shared cache in front of one API needs.
//!
//! What is left out is left out on the safe side: an answer that would have to be validated, or whose age would have to be
//! guessed, is not kept.

use http::HeaderName;

/// The longest that an answer is given again, seconds, whatever the upstream says.
pub const LIFETIME_S_MAX: u64 = 24 * 3_600;

/// What the headers of an upstream's answer say that matters here. Each holds all lines of its name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// `Cache-Control`.
    pub cache_control: &'a [&'a [u8]],
    /// `Vary`.
    pub vary: &'a [&'a [u8]],
    /// `Age`.
    pub age: &'a [&'a [u8]],
    /// Whether there is a `Set-Cookie`.
    pub sets_cookie: bool,
    /// The headers that no two requests have alike, whatever they ask for.
    pub told: &'a [HeaderName],
}

impl Answer<'_> {
    /// Seconds for which the answer may be given again from now on; `None` when it must not be kept.
    ///
    /// `s-maxage` goes before `max-age`, and what the answer has aged already is taken off (RFC 9111 sections 4.2.1 and
    /// 4.2.3). `no-store`, `private` and `no-cache` forbid it (section 5.2.2), in their forms with field names too. So do
    /// a cookie, which is for one client, and `Vary` by `*` or by what is told of each request (section 4.1). Directives that contradict each other count by the
    /// shortest, and one that cannot be read as none left (section 4.2.1).
    pub fn lifetime_s(&self) -> Option<u64> {
        let is_told = |name: &[u8]| self.told.iter().any(|told| name.eq_ignore_ascii_case(told.as_str().as_bytes()));
        if self.sets_cookie || elements(self.vary).any(|name| name == b"*" || is_told(name)) {
            return None;
        }
        let (mut own, mut shared) = (None, None);
        for directive in elements(self.cache_control) {
            let (name, value) = split(directive);
            let shortest = |known: Option<u64>| Some(seconds(value).min(known.unwrap_or(LIFETIME_S_MAX)));
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" | b"private" | b"no-cache" => return None,
                b"s-maxage" => shared = shortest(shared),
                b"max-age" => own = shortest(own),
                _ => {}
            }
        }
        let age_s = match self.age {
            [] => 0,
            // One that cannot be read could be any.
            lines => lines.iter().map(|line| number(line).unwrap_or(u64::MAX)).max().unwrap_or_default(),
        };
        shared.or(own)?.checked_sub(age_s).filter(|left_s| *left_s > 0)
    }
}

/// What the `Cache-Control` lines of a request ask of a cache (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// An answer that was kept will do.
    pub take: bool,
    /// The answer may be kept for others.
    pub keep: bool,
}

impl Asked {
    /// `no-store` asks for neither, `no-cache` and `max-age=0` for a new answer, everything else is fine with both.
    pub fn of(cache_control: &[&[u8]]) -> Asked {
        let mut asked = Asked { take: true, keep: true };
        for directive in elements(cache_control) {
            let (name, value) = split(directive);
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" => return Asked { take: false, keep: false },
                b"no-cache" => asked.take = false,
                b"max-age" if seconds(value) == 0 => asked.take = false,
                _ => {}
            }
        }
        asked
    }
}

/// The elements of a list that may go over several lines (RFC 9110 section 5.6.1); a comma between quotes separates nothing.
fn elements<'a>(lines: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    lines.iter().flat_map(|line| {
        let (mut quoted, mut escaped) = (false, false);
        line.split(move |byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        })
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
    })
}

/// Name and value of a directive.
fn split(directive: &[u8]) -> (&[u8], &[u8]) {
    match directive.iter().position(|byte| *byte == b'=') {
        Some(at) => (directive[..at].trim_ascii(), directive[at + 1..].trim_ascii()),
        None => (directive, b""),
    }
}

/// Delta seconds (RFC 9111 section 1.2.2), with or without quotes, at most [`LIFETIME_S_MAX`]; 0 for what is none.
fn seconds(value: &[u8]) -> u64 {
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    number(value).unwrap_or(0).min(LIFETIME_S_MAX)
}

/// Digits alone; too many of them are the largest number.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lifetime_s(cache_control: &str) -> Option<u64> {
        Answer { cache_control: &[cache_control.as_bytes()], ..Answer::default() }.lifetime_s()
    }

    #[test]
    fn answers_last_as_long_as_they_say() {
        for (line, wanted) in [
            ("max-age=60", Some(60)),
            ("Max-Age = 60", Some(60)),
            ("public, max-age=\"60\"", Some(60)),
            ("max-age=60, s-maxage=5", Some(5)),
            ("s-maxage=90, max-age=60", Some(90)),
            ("max-age=60, max-age=10", Some(10)),
            ("foo=\"a, no-store\", max-age=3", Some(3)),
            ("foo=\"a\\\", no-store\", max-age=3", Some(3)),
            (",, max-age=3 ,", Some(3)),
            ("max-age=99999999999999999999", Some(LIFETIME_S_MAX)),
            ("max-age=0", None),
            ("max-age=-1", None),
            ("max-age=6.5", None),
            ("max-age", None),
            ("max-age=60, max-age=x", None),
            ("", None),
            ("public", None),
            ("max-age=60, no-store", None),
            ("max-age=60, PRIVATE", None),
            ("max-age=60, private=\"set-cookie\"", None),
            ("no-cache, max-age=60", None),
        ] {
            assert_eq!(lifetime_s(line), wanted, "{line}");
        }
    }

    #[test]
    fn lines_are_one_list() {
        let answer = Answer { cache_control: &[b"max-age=60", b"no-store"], ..Answer::default() };
        assert_eq!(answer.lifetime_s(), None);
    }

    #[test]
    fn what_varies_by_anything_and_what_sets_a_cookie_is_for_one_client() {
        let lasting = Answer { cache_control: &[b"max-age=60"], ..Answer::default() };
        assert_eq!(Answer { vary: &[b"Accept-Encoding, *"], ..lasting }.lifetime_s(), None);
        assert_eq!(Answer { vary: &[b"Accept-Encoding"], ..lasting }.lifetime_s(), Some(60));
        assert_eq!(Answer { sets_cookie: true, ..lasting }.lifetime_s(), None);
    }

    #[test]
    fn age_is_taken_off() {
        let aged = |age: &[&[u8]]| Answer { cache_control: &[b"max-age=60"], age, ..Answer::default() }.lifetime_s();
        assert_eq!(aged(&[b"20"]), Some(40));
        assert_eq!(aged(&[b"20", b"30"]), Some(30));
        assert_eq!(aged(&[b"60"]), None);
        assert_eq!(aged(&[b"old"]), None);
    }

    #[test]
    fn requests_may_ask_for_new_answers() {
        for (line, take, keep) in [
            ("", true, true),
            ("max-age=60", true, true),
            ("no-cache", false, true),
            ("max-age=0", false, true),
            ("No-Store, max-age=60", false, false),
        ] {
            assert_eq!(Asked::of(&[line.as_bytes()]), Asked { take, keep }, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_lasts_longer_than_a_day(line in proptest::collection::vec(any::<u8>(), 0..64), age in any::<u64>()) {
            let age = age.to_string();
            let line = [b"max-age=100000,".as_slice(), &line].concat();
            let answer = Answer { cache_control: &[&line], age: &[age.as_bytes()], ..Answer::default() };
            prop_assert!(answer.lifetime_s().is_none_or(|s| (1..=LIFETIME_S_MAX).contains(&s)));
        }
    }
}
