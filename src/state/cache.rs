//! Answers of upstreams that may be given again, as the JSON they came as: every format is made of it anew.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Bounded;

use super::clock::Clock;

/// What an answer depends on: the rest of the path, the query, and the headers that are passed on, in one text that no two
/// different requests share.
pub type CacheKey = Box<[u8]>;

/// The answers of one API, within a number of bytes. Those that are asked for stay, others make room.
pub struct Cache {
    kept: Bounded<CacheKey, Kept, Bytewise, ahash::RandomState>,
    answer_bytes_max: usize,
    clock: Clock,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// An answer, until it is too old.
#[derive(Clone)]
struct Kept {
    json: Bytes,
    /// As [`Clock::monotonic`] has it.
    until: Duration,
}

/// Counts what an entry holds, and something for what holds it.
#[derive(Clone)]
struct Bytewise;

/// What an entry takes beside its bytes: two pointers with lengths, a time, and its place in the table.
const ENTRY_BYTES: u64 = 128;
/// No answer may take more than this part of the room, or one would push out all the others.
const SHARE: usize = 16;
/// How large an answer is thought to be before any is known.
const ANSWER_BYTES: usize = 4_096;

impl Weighter<CacheKey, Kept> for Bytewise {
    fn weight(&self, key: &CacheKey, kept: &Kept) -> u64 {
        (key.len() + kept.json.len()) as u64 + ENTRY_BYTES
    }
}

impl Cache {
    /// Empty, with room for so many bytes.
    pub fn new(bytes: usize, clock: Clock) -> Cache {
        let hasher = ahash::RandomState::new();
        let kept = Bounded::with(bytes / ANSWER_BYTES, bytes as u64, Bytewise, hasher, Default::default());
        Cache { kept, answer_bytes_max: bytes / SHARE, clock }
    }

    /// The largest answer that is kept.
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// The answer to a request like this one, if one is kept and young enough.
    pub fn find(&self, key: &[u8]) -> Option<Bytes> {
        let kept = self.kept.get(key)?;
        if self.clock.monotonic() < kept.until {
            return Some(kept.json);
        }
        self.kept.remove(key);
        None
    }

    /// Keeps an answer for so many seconds, unless it is too large.
    pub fn keep(&self, key: CacheKey, json: Bytes, lifetime_s: u64) {
        if json.len() <= self.answer_bytes_max {
            let until = self.clock.monotonic().saturating_add(Duration::from_secs(lifetime_s));
            self.kept.insert(key, Kept { json, until });
        }
    }

    /// Bytes that are taken up.
    pub fn bytes(&self) -> u64 {
        self.kept.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes: usize) -> (Cache, Clock) {
        let clock = Clock::fixed(1_765_924_235);
        (Cache::new(bytes, clock.clone()), clock)
    }

    fn key(number: usize) -> CacheKey {
        number.to_string().into_bytes().into()
    }

    #[test]
    fn answers_are_given_again_until_they_are_too_old() {
        let (cache, clock) = cache(1 << 20);
        cache.keep(key(1), Bytes::from_static(b"{}"), 60);
        clock.advance(Duration::from_secs(59));
        assert_eq!(cache.find(&key(1)).as_deref(), Some(b"{}".as_slice()));
        assert_eq!(cache.find(&key(2)), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(cache.find(&key(1)), None);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn the_room_is_never_exceeded_and_what_is_asked_for_stays() {
        let (cache, _) = cache(1 << 20);
        let json = Bytes::from(vec![b' '; 1_000]);
        cache.keep(key(0), json.clone(), 60);
        for number in 1..10_000 {
            cache.keep(key(number), json.clone(), 60);
            assert!(cache.find(&key(0)).is_some(), "asked for all the time, and gone after {number}");
            assert!(cache.bytes() <= 1 << 20);
        }
        assert!(cache.bytes() > 1 << 19);
    }

    #[test]
    fn no_answer_takes_most_of_the_room() {
        let (cache, _) = cache(1 << 20);
        cache.keep(key(1), Bytes::from(vec![b' '; (1 << 16) + 1]), 60);
        assert_eq!(cache.find(&key(1)), None);
        cache.keep(key(1), Bytes::from(vec![b' '; 1 << 16]), 60);
        assert!(cache.find(&key(1)).is_some());
    }
}
