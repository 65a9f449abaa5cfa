//! Shared secrets: tolerant base32 (RFC 4648 section 6) to key bytes that are wiped when dropped.

use std::fmt;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use zeroize::{Zeroize, Zeroizing};

use super::fault::Fault;

/// The most base32 characters a secret may have, separators and padding not counted.
pub const CHARACTERS_MAX: usize = 1024;

/// RFC 4226 section 4 (R6) asks for a shared secret of at least this many bits.
pub const BITS_RECOMMENDED: usize = 128;

/// The key bytes of a shared secret: wiped when dropped, never shown.
///
/// They live on the heap on purpose: a moved inline array would leave copies on the stack that nobody wipes.
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a text is no secret. It carries a length at most, never any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSecret {
    /// Empty, or only white space.
    Missing,
    /// A character outside the alphabet, or `=` anywhere but at the end.
    Alphabet,
    /// 1, 3 or 6 characters after the last full group of eight cannot come from whole bytes; the number of characters.
    Length(usize),
    /// More than [`CHARACTERS_MAX`] characters.
    TooLong,
}

impl Secret {
    /// Reads base32 as people write it: ASCII letters in any case, `2` to `7`; spaces, `-`, tab, CR and LF are passed
    /// over; `=` may stand at the end, in any number. Leftover bits after the last whole byte are accepted whatever
    /// they are. Nothing is translated: `0`, `1`, `8`, `9` and every character beyond ASCII are errors.
    pub fn parse(text: &str) -> Result<Secret, NoSecret> {
        if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
            return Err(NoSecret::Missing);
        }
        let mut buffer = [0; CHARACTERS_MAX];
        let result = strip(text, &mut buffer).and_then(|length| decode(&buffer[..length]));
        buffer[..text.len().min(CHARACTERS_MAX)].zeroize();
        result.map(Secret)
    }

    /// The key.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's length in bits. Under [`BITS_RECOMMENDED`] a caller deserves a warning.
    pub fn bits(&self) -> usize {
        self.0.len() * 8
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl NoSecret {
    /// Whether only the length is wrong. The contract reports that last, when every other parameter is in order.
    pub fn is_of_length(self) -> bool {
        matches!(self, NoSecret::Length(_) | NoSecret::TooLong)
    }
}

impl From<NoSecret> for Fault {
    fn from(reason: NoSecret) -> Fault {
        match reason {
            NoSecret::Missing => Fault::MissingSecret,
            NoSecret::Alphabet => Fault::InvalidSecret,
            NoSecret::Length(length) => {
                Fault::OtpFailed(format!("secret has an impossible base32 length ({length} characters)").into())
            }
            NoSecret::TooLong => {
                Fault::OtpFailed(format!("secret is longer than {CHARACTERS_MAX} base32 characters").into())
            }
        }
    }
}

/// Copies the base32 characters of `text` into `buffer`, without separators and padding; how many there are.
fn strip(text: &str, buffer: &mut [u8; CHARACTERS_MAX]) -> Result<usize, NoSecret> {
    let mut length = 0;
    let mut padded = false;
    for byte in text.bytes() {
        match byte {
            b' ' | b'-' | b'\t' | b'\r' | b'\n' => {}
            b'=' => padded = true,
            b'A'..=b'Z' | b'a'..=b'z' | b'2'..=b'7' if !padded => {
                if let Some(slot) = buffer.get_mut(length) {
                    *slot = byte;
                }
                length += 1;
            }
            _ => return Err(NoSecret::Alphabet),
        }
    }
    match length {
        0 => Err(NoSecret::Alphabet),
        length if length > CHARACTERS_MAX => Err(NoSecret::TooLong),
        length if matches!(length % 8, 1 | 3 | 6) => Err(NoSecret::Length(length)),
        length => Ok(length),
    }
}

fn decode(characters: &[u8]) -> Result<Zeroizing<Vec<u8>>, NoSecret> {
    let mut key = Zeroizing::new(vec![0; characters.len() * 5 / 8]);
    BASE32.decode_mut(characters, &mut key).map_err(|_| NoSecret::Alphabet)?;
    Ok(key)
}

/// Base32 without padding, in any case, forgiving leftover bits: authenticator apps and generators leave them set.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    specification.translate.from.push_str("abcdefghijklmnopqrstuvwxyz");
    specification.translate.to.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    specification.check_trailing_bits = false;
    specification.encoding().expect("a fixed base32 alphabet is valid")
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Result<&[u8], NoSecret>) {
        assert_eq!(Secret::parse(text).as_ref().map(Secret::bytes).map_err(|reason| *reason), expected, "{text:?}");
    }

    #[test]
    fn reads_what_people_paste() {
        check("GEZDGNBVGY3TQOI", Ok(b"123456789"));
        check("GEZDGNBVGY3TQOI=", Ok(b"123456789"));
        check("gezd gnbv-GY3T\tqoi\r\n=", Ok(b"123456789"));
        check("GEZDGNBVGY3TQOJ", Ok(b"123456789"));
    }

    #[test]
    fn tells_the_faults_apart() {
        for text in ["", "  ", "\t\r\n"] {
            check(text, Err(NoSecret::Missing));
        }
        for text in ["=", "---", "A=B", "0", "1", "8", "9", "é", "ſECRET", "\u{212a}EY", "AB\0C", "ABCDEFG\u{200b}"] {
            check(text, Err(NoSecret::Alphabet));
        }
        for (text, length) in [("A", 1), ("A-B C=", 3), ("ABCDEF", 6), ("JBSWY3DPEHPK3PXPA", 17)] {
            check(text, Err(NoSecret::Length(length)));
        }
        assert!(Secret::parse(&"A".repeat(CHARACTERS_MAX)).is_ok());
        check(&"A".repeat(CHARACTERS_MAX + 1), Err(NoSecret::TooLong));
        check(&format!("{}!", "A".repeat(CHARACTERS_MAX + 1)), Err(NoSecret::Alphabet));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::parse("GEZDGNBV").unwrap()), "Secret(redacted)");
        assert_eq!(Secret::parse("GEZDGNBV").unwrap().bits(), 40);
    }

    proptest! {
        #[test]
        fn every_key_reads_back(
            key in prop::collection::vec(any::<u8>(), 1..=640),
            noise in prop::collection::vec(0..12u8, 64),
            padding in 0..9usize,
        ) {
            let mut text = String::new();
            for (character, noise) in data_encoding::BASE32_NOPAD.encode(&key).chars().zip(noise.iter().cycle()) {
                text.push(if noise % 2 == 0 { character.to_ascii_lowercase() } else { character });
                text.push_str(["", "", "", " ", "-", "\t", "\r\n", "", "", "", "", ""][usize::from(*noise)]);
            }
            text.push_str(&"=".repeat(padding));
            let secret = Secret::parse(&text).unwrap();
            prop_assert_eq!(secret.bytes(), &key[..]);
        }

        #[test]
        fn agrees_with_the_rules_on_any_text(text in "\\PC{0,40}|[A-Za-z2-7 =-]{0,40}") {
            let stripped: String = text.chars().filter(|c| !" -\t\r\n".contains(*c)).collect();
            let stripped = stripped.trim_end_matches('=');
            let clean = !stripped.is_empty()
                && stripped.bytes().all(|b| b.is_ascii_alphabetic() || (b'2'..=b'7').contains(&b));
            match Secret::parse(&text) {
                Ok(secret) => {
                    prop_assert!(clean);
                    prop_assert_eq!(secret.bits() / 8, stripped.len() * 5 / 8);
                }
                Err(NoSecret::Missing) => prop_assert!(text.trim().is_empty()),
                Err(NoSecret::Alphabet) => prop_assert!(!clean),
                Err(NoSecret::Length(length)) => prop_assert!(clean && length == stripped.len()),
                Err(NoSecret::TooLong) => prop_assert!(false),
            }
        }
    }
}
