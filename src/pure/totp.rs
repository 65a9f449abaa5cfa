//! One-time passwords: HOTP (RFC 4226) and TOTP (RFC 6238) over ring. The time is a parameter.

use std::fmt;

use ring::hmac;

use super::fault::Fault;
use super::input::{Input, Sent};
use super::secret::{NoSecret, Secret};
use super::stamp::Stamp;

/// The hash under the HMAC (RFC 6238 section 1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-1, the default of RFC 4226 and of both dialects.
    #[default]
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

impl Algorithm {
    /// Reads a name as clients write it: any case, with or without `-` or `_`, with or without a leading `hmac`.
    pub fn parse(text: &str) -> Option<Algorithm> {
        let mut buffer = [0; 10];
        let mut length = 0;
        for byte in text.trim_ascii().bytes().filter(|byte| !matches!(byte, b'-' | b'_')) {
            *buffer.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
        let name = &buffer[..length];
        match name.strip_prefix(b"hmac").unwrap_or(name) {
            b"sha1" => Some(Algorithm::Sha1),
            b"sha256" => Some(Algorithm::Sha256),
            b"sha512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }

    /// The name that answers carry: lower case, without a hyphen.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// A one-time password: 6 to 8 ASCII digits, leading zeros kept, never shown by Debug.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    digits: [u8; DIGITS_MAX as usize],
    length: u8,
}

impl Token {
    /// HOTP of RFC 4226 section 5.3: the HMAC of the counter, cut dynamically to a number of `digits` digits
    /// (taken as 8 when it is more).
    pub fn at_counter(secret: &Secret, algorithm: Algorithm, digits: u8, counter: u64) -> Token {
        let key = hmac::Key::new(algorithm.hmac(), secret.bytes());
        let tag = hmac::sign(&key, &counter.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 0x0f);
        let word = [tag[offset], tag[offset + 1], tag[offset + 2], tag[offset + 3]];
        let mut rest = u32::from_be_bytes(word) & 0x7fff_ffff;

        let mut token = Token { digits: [b'0'; DIGITS_MAX as usize], length: digits.min(DIGITS_MAX) };
        for slot in token.digits[..usize::from(token.length)].iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        token
    }

    /// The digits as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// The time step a moment lies in (RFC 6238 section 4.2, with T0 = 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many whole periods have passed since 1970; the moving factor of HOTP.
    pub counter: u64,
    /// Seconds until the token changes, from 1 to the period: on the boundary it is the whole period.
    pub remaining_s: u64,
    /// The Unix second at which the token changes.
    pub expires_at: u64,
}

impl Window {
    /// The window around `unix_s` (seconds since 1970) for a period of `period_s` seconds; a period of 0 counts as 1.
    pub fn at(unix_s: u64, period_s: u32) -> Window {
        let period_s = u64::from(period_s.max(1));
        let remaining_s = period_s - unix_s % period_s;
        Window { counter: unix_s / period_s, remaining_s, expires_at: unix_s.saturating_add(remaining_s) }
    }
}

/// What a call for a token asks for, checked. Debug leaves the secret out.
#[derive(Debug)]
pub struct Params {
    /// The key.
    pub secret: Secret,
    /// The hash.
    pub algorithm: Algorithm,
    /// Whether the caller named the hash: one dialect echoes it only then.
    pub algorithm_sent: bool,
    /// Digits in the token, 6 to 8.
    pub digits: u8,
    /// The period in seconds, 1 to 300.
    pub period: u32,
}

impl Params {
    /// The parameters this service knows.
    pub const NAMES: &'static [&'static str] = &["secret", "algorithm", "digits", "period"];

    /// Checks the parameters in the contract's order and reports the first fault: the secret's characters, the
    /// algorithm, the digits, the period, and last the secret's length.
    pub fn read(input: &Input<'_>) -> Result<Params, Fault> {
        let secret = match input.text("secret") {
            Sent::Absent => Err(NoSecret::Missing),
            Sent::Text(text) => Secret::parse(text),
            Sent::WrongType => Err(NoSecret::Alphabet),
        };
        if let Err(reason) = secret.as_ref()
            && !reason.is_of_length()
        {
            return Err((*reason).into());
        }
        let algorithm = match input.text("algorithm") {
            Sent::Absent => None,
            Sent::Text(text) if text.trim_ascii().is_empty() => None,
            Sent::Text(text) => Some(Algorithm::parse(text).ok_or(Fault::InvalidAlgorithm)?),
            Sent::WrongType => return Err(Fault::InvalidAlgorithm),
        };
        let digits = input.integer("digits", 6..=DIGITS_MAX.into(), Fault::InvalidDigits)?;
        let period = input.integer("period", 1..=300, Fault::InvalidPeriod)?;
        Ok(Params {
            secret: secret?,
            algorithm: algorithm.unwrap_or_default(),
            algorithm_sent: algorithm.is_some(),
            digits: digits.map_or(6, |digits| digits as u8),
            period: period.unwrap_or(30),
        })
    }
}

/// RFC 4226 section 5.3 gives 31 bits, enough for nine digits; the contract stops at eight.
/// A one-time password, and what is said about it.
#[derive(Clone, Debug)]
pub struct Otp {
    /// The password.
    pub token: Token,
    /// The hash function it was made with.
    pub algorithm: Algorithm,
    /// Whether the caller named that function.
    pub algorithm_sent: bool,
    /// Its length.
    pub digits: u8,
    /// How long a password is valid, in seconds.
    pub period_s: u32,
    /// How long this one still is, in seconds: from 1 to the period.
    pub remaining_s: u64,
    /// When it ends.
    pub expires_at: Stamp,
    /// The length of the secret, in bits.
    pub secret_bits: usize,
}

impl Params {
    /// The password at `unix_s`, with all that is said about it; `None` past the year 9999, which no stamp can hold.
    pub fn otp_at(&self, unix_s: u64) -> Option<Otp> {
        let window = Window::at(unix_s, self.period);
        Some(Otp {
            token: Token::at_counter(&self.secret, self.algorithm, self.digits, window.counter),
            algorithm: self.algorithm,
            algorithm_sent: self.algorithm_sent,
            digits: self.digits,
            period_s: self.period,
            remaining_s: window.remaining_s,
            expires_at: Stamp::at(window.expires_at)?,
            secret_bits: self.secret.bits(),
        })
    }
}

const DIGITS_MAX: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn params(secret: &str, algorithm: &str, digits: u64, period: u64) -> Params {
        Params {
            secret: Secret::parse(secret).unwrap(),
            algorithm: Algorithm::parse(algorithm).unwrap(),
            algorithm_sent: true,
            digits: digits as u8,
            period: period as u32,
        }
    }

    fn fixture(name: &str) -> Value {
        let path = format!("{}/fixtures/totp/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn rfc_4226_appendix_d() {
        let secret = Secret::parse("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        let expected =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, expected) in expected.into_iter().enumerate() {
            assert_eq!(Token::at_counter(&secret, Algorithm::Sha1, 6, counter as u64).as_str(), expected);
        }
    }

    #[test]
    fn rfc_6238_appendix_b() {
        let table = [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ];
        let key = |bytes: usize| data_encoding::BASE32.encode(&b"1234567890".repeat(7)[..bytes]);
        for (time, sha1, sha256, sha512) in table {
            assert_eq!(params(&key(20), "sha1", 8, 30).otp_at(time).unwrap().token.as_str(), sha1);
            assert_eq!(params(&key(32), "sha256", 8, 30).otp_at(time).unwrap().token.as_str(), sha256);
            assert_eq!(params(&key(64), "sha512", 8, 30).otp_at(time).unwrap().token.as_str(), sha512);
        }
    }

    #[test]
    fn vectors() {
        let rows = fixture("vectors.json");
        for row in rows.as_array().unwrap() {
            let (text, number) = (|name: &str| row[name].as_str().unwrap(), |name: &str| row[name].as_u64().unwrap());
            let params = params(text("secret"), text("algorithm"), number("digits"), number("period"));
            let window = Window::at(number("time"), params.period);
            assert_eq!(params.otp_at(number("time")).unwrap().token.as_str(), text("token"), "{}", text("id"));
            assert_eq!(params.secret.bits() as u64, number("key_bits"), "{}", text("id"));
            assert_eq!(window.counter, number("counter"), "{}", text("id"));
            assert_eq!(window.remaining_s, number("timeRemaining"), "{}", text("id"));
            assert_eq!(window.expires_at, (window.counter + 1) * number("period"), "{}", text("id"));
        }
        assert_eq!(rows.as_array().unwrap().len(), 240);
    }

    #[test]
    fn seed_matrix() {
        let rows = fixture("seed_matrix_full.json")["rows"].take();
        for row in rows.as_array().unwrap() {
            let (text, number) = (|at: usize| row[at].as_str().unwrap(), |at: usize| row[at].as_u64().unwrap());
            let params = params(text(0), text(1), number(2), number(3));
            assert_eq!(params.otp_at(number(4)).unwrap().token.as_str(), text(5), "{row}");
        }
        assert_eq!(rows.as_array().unwrap().len(), 432);
    }

    #[test]
    fn hotp_vectors() {
        for row in fixture("hotp_vectors.json").as_array().unwrap() {
            let (text, number) = (|name: &str| row[name].as_str().unwrap(), |name: &str| row[name].as_u64().unwrap());
            let params = params(text("secret"), text("algorithm"), number("digits"), 30);
            let token = Token::at_counter(&params.secret, params.algorithm, params.digits, number("counter"));
            assert_eq!(token.as_str(), text("token"), "{row}");
        }
    }

    #[test]
    fn windows_touch_without_a_gap() {
        assert_eq!(Window::at(0, 30), Window { counter: 0, remaining_s: 30, expires_at: 30 });
        assert_eq!(Window::at(29, 30), Window { counter: 0, remaining_s: 1, expires_at: 30 });
        assert_eq!(Window::at(30, 30), Window { counter: 1, remaining_s: 30, expires_at: 60 });
        assert_eq!(Window::at(1_765_924_235, 30).remaining_s, 25);
        assert_eq!(Window::at(u64::MAX, 300).expires_at, u64::MAX);
    }

    #[test]
    fn algorithm_names() {
        for text in ["sha1", "SHA1", "SHA-1", "HmacSHA1", "HMAC-SHA-1", "hmac_sha_1", " Sha1 "] {
            assert_eq!(Algorithm::parse(text), Some(Algorithm::Sha1), "{text}");
        }
        assert_eq!(Algorithm::parse("HMAC-SHA-512"), Some(Algorithm::Sha512));
        for text in ["", "sha", "md5", "sha384", "sha3-256", "sha-512/256", "hmachmacsha1", "hmac-sha-512-and-more"] {
            assert_eq!(Algorithm::parse(text), None, "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret_and_no_token() {
        let params = params("JBSWY3DPEHPK3PXP", "sha1", 6, 30);
        let shown = format!("{params:?} {:?}", params.otp_at(1_765_924_235).unwrap().token);
        assert!(shown.contains("redacted") && !shown.contains("935324") && !shown.contains("JBSWY3"), "{shown}");
    }
}
