//! API keys: how one is made, how junk is told from a possible key without asking anybody, and what is kept of it.
//!
//! A key is `pg-`, 34 random base62 characters (over 200 bits), and 6 base62 characters of the CRC-32 of all that
//! stands before them. The hyphen and the length suit clients that refuse `_` and anything under 32 characters.

use std::fmt;
use std::hash::{Hash, Hasher};

use ring::digest;
use ring::error::Unspecified;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

/// What every key begins with.
pub const START: &str = "pg-";
/// How many characters [`ApiKey::prefix`] has.
pub const PREFIX_CHARS: usize = START.len() + 6;
/// How many characters a key has.
pub const KEY_CHARS: usize = START.len() + RANDOM_CHARS + CHECKSUM_CHARS;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 34;
const CHECKSUM_CHARS: usize = 6;
const LAST_CHARS: usize = 4;

/// The whole text of a key. It exists only while a key is being made and shown; memory is wiped afterwards.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// A new key from a source of secure randomness; fails when the source does.
    pub fn generate(random: &dyn SecureRandom) -> Result<ApiKey, Unspecified> {
        // The whole capacity at once: a string that grew would leave copies behind that nobody wipes.
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        text.push_str(START);
        let mut bytes = Zeroizing::new([0; 2 * RANDOM_CHARS]);
        while text.len() < START.len() + RANDOM_CHARS {
            random.fill(&mut bytes[..])?;
            let missing = START.len() + RANDOM_CHARS - text.len();
            text.extend(bytes.iter().copied().filter_map(unbiased).take(missing));
        }
        let sum = checksum(text.as_bytes());
        text.extend(sum.map(char::from));
        Ok(ApiKey(text))
    }

    /// The key itself. Shown once, to its owner, and stored nowhere.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first characters, by which people tell keys apart. Safe to store and to show.
    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX_CHARS]
    }

    /// The last four characters. Safe to store and to show.
    pub fn last_four(&self) -> &str {
        &self.0[KEY_CHARS - LAST_CHARS..]
    }

    /// What is stored of the key.
    pub fn hash(&self) -> KeyHash {
        KeyHash::digest(self.0.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}…)", self.prefix())
    }
}

/// The SHA-256 of a key, which is all that is stored: from over 200 random bits nothing can be guessed back, so a
/// slow hash would add nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of what a caller sent as a key; `None` when it has not the shape or the checksum of one, so that junk
    /// is refused before any hashing or look-up.
    pub fn of(key: &[u8]) -> Option<KeyHash> {
        let (body, sum) = key.split_last_chunk::<CHECKSUM_CHARS>()?;
        let random = body.strip_prefix(START.as_bytes())?;
        let well_formed =
            random.len() == RANDOM_CHARS && random.iter().all(u8::is_ascii_alphanumeric) && *sum == checksum(body);
        well_formed.then(|| KeyHash::digest(key))
    }

    fn digest(key: &[u8]) -> KeyHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        KeyHash(hash)
    }
}

/// Hashes to its own first eight bytes: they are uniform already.
impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// A character for a random byte; bytes past the last whole multiple of 62 give none, or the first characters of the
/// alphabet would come up more often.
fn unbiased(byte: u8) -> Option<char> {
    (byte < 248).then(|| char::from(ALPHABET[usize::from(byte % 62)]))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(body);
    let mut sum = [0; CHECKSUM_CHARS];
    for char in sum.iter_mut().rev() {
        *char = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    use super::*;

    fn new_key() -> ApiKey {
        ApiKey::generate(&SystemRandom::new()).unwrap()
    }

    #[test]
    fn a_key_has_its_shape_and_is_recognised() {
        let key = new_key();
        assert_eq!(key.as_str().len(), 43);
        assert!(key.as_str().starts_with("pg-"));
        assert!(key.as_str()[3..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(KeyHash::of(key.as_str().as_bytes()), Some(key.hash()));
        assert!(key.as_str().starts_with(key.prefix()) && key.prefix().len() == 9);
        assert!(key.as_str().ends_with(key.last_four()) && key.last_four().len() == 4);
    }

    #[test]
    fn a_known_key_has_its_checksum_and_sha_256() {
        // Computed apart, with Python's zlib and hashlib.
        let hash = KeyHash::of(KNOWN_KEY.as_bytes()).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(&hash.0), KNOWN_SHA_256);
    }

    const KNOWN_KEY: &str = "pg-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1Xlp41";
    const KNOWN_SHA_256: &str = "6c55f656fe0440e8393355ad4bac492a84ca2e5e781b6bd24a1c2175c2e8255b";

    #[test]
    fn debug_shows_the_prefix_only() {
        let key = new_key();
        assert_eq!(format!("{key:?}"), format!("ApiKey({}…)", key.prefix()));
        assert_eq!(format!("{:?}", key.hash()), "KeyHash(…)");
    }

    #[test]
    fn keys_differ_and_use_the_whole_alphabet_evenly() {
        let keys: BTreeSet<String> = (0..2_000).map(|_| new_key().as_str().to_owned()).collect();
        assert_eq!(keys.len(), 2_000);
        let mut counts = [0_u32; 128];
        for byte in keys.iter().flat_map(|key| key[3..37].bytes()) {
            counts[usize::from(byte)] += 1;
        }
        // 68,000 characters over 62: 1,097 each, standard deviation 33; eight of them either way never happen by luck.
        for &char in ALPHABET {
            assert!((833..1361).contains(&counts[usize::from(char)]), "{}", char::from(char));
        }
    }

    #[test]
    fn any_changed_character_is_noticed_offline() {
        let key = new_key();
        for at in 0..KEY_CHARS {
            let mut other = key.as_str().as_bytes().to_vec();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(KeyHash::of(&other), None, "at {at}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_or_passes_by_chance(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(KeyHash::of(&bytes), None);
        }

        #[test]
        fn the_right_shape_without_the_checksum_is_refused(text in "pg-[A-Za-z0-9]{40}") {
            prop_assert_eq!(KeyHash::of(text.as_bytes()), None);
        }
    }
}
