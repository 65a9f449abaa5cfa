//! Webhooks as the receiver sees them: where they go, and how they are signed (<https://www.standardwebhooks.com>).

use std::fmt;

use data_encoding::BASE64;
use http::Uri;
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::hidden::Hidden;

/// What every signing secret begins with, in text.
const SECRET_START: &str = "whsec_";
/// The lengths that a signing secret can have, in bytes (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How many bytes a new secret has: as many as the hash gives.
const NEW_SECRET_BYTES: usize = 32;
/// The longest address of a receiver, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// What messages are signed with; sender and receiver know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecret(Hidden<Vec<u8>>);

impl SigningSecret {
    /// Reads `whsec_` and 24 to 64 bytes in base64 (RFC 4648, section 4, padded).
    pub fn parse(text: &str) -> Option<SigningSecret> {
        let key = Hidden::new(BASE64.decode(text.strip_prefix(SECRET_START)?.as_bytes()).ok()?);
        SECRET_BYTES.contains(&key.expose().len()).then_some(SigningSecret(key))
    }

    /// The text of a new secret, from a source of secure randomness; fails when the source does.
    pub fn generate(random: &dyn SecureRandom) -> Result<Zeroizing<String>, Unspecified> {
        let mut key = Zeroizing::new([0; NEW_SECRET_BYTES]);
        random.fill(&mut key[..])?;
        // The whole capacity at once: a string that grew would leave copies behind that nobody wipes.
        let length = SECRET_START.len() + BASE64.encode_len(key.len());
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.push_str(SECRET_START);
        BASE64.encode_append(&key[..], &mut text);
        Ok(text)
    }

    /// The value of the header `webhook-signature`: `v1,` and the HMAC-SHA256 of `{id}.{timestamp}.{body}` in base64.
    ///
    /// `id` and `unix_s`, when the message is sent, go into the headers `webhook-id` and `webhook-timestamp`.
    pub fn sign(&self, id: &str, unix_s: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()));
        context.update(format!("{id}.{unix_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign().as_ref()))
    }
}

/// Where messages are posted to. Its path and query may be a secret of their own, so `Debug` shows the host alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl Endpoint {
    /// Reads an address with `http` or `https`, a host, and no user name.
    pub fn parse(text: &str) -> Option<Endpoint> {
        let uri: Uri = text.parse().ok().filter(|_| text.len() <= URL_BYTES_MAX)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host();
        // A port that is no number would be passed over.
        let port = authority.as_str().len() == host.len() || authority.port_u16().is_some();
        let good = matches!(uri.scheme_str(), Some("http" | "https")) && !host.is_empty() && port;
        good.then_some(Endpoint(uri))
    }

    /// The address.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}://{}/…)", self.0.scheme_str().unwrap_or_default(), self.0.host().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    /// From the tests of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn signs_as_the_specifications_own_libraries_do() {
        let secret = SigningSecret::parse(SECRET).unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_have_a_shape_and_a_length() {
        let of = |length: usize| format!("whsec_{}", BASE64.encode(&vec![7; length]));
        for length in [24, 32, 64] {
            assert!(SigningSecret::parse(&of(length)).is_some(), "{length}");
        }
        for wrong in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!w"] {
            assert_eq!(SigningSecret::parse(wrong), None, "{wrong}");
        }
        assert_eq!((SigningSecret::parse(&of(23)), SigningSecret::parse(&of(65))), (None, None));
        assert_eq!(format!("{:?}", SigningSecret::parse(SECRET).unwrap()), "SigningSecret(hidden)");
    }

    #[test]
    fn new_secrets_are_good_and_differ() {
        let new = || SigningSecret::generate(&SystemRandom::new()).unwrap();
        let (one, two) = (new(), new());
        assert_ne!(*one, *two);
        assert!(SigningSecret::parse(&one).is_some() && one.capacity() == one.len(), "{}", one.len());
    }

    #[test]
    fn endpoints_are_http_and_show_their_host_alone() {
        for good in ["http://127.0.0.1:8080", "https://example.org/hook?token=x", "http://[::1]:1/"] {
            assert!(Endpoint::parse(good).is_some(), "{good}");
        }
        let long = format!("https://example.org/{}", "x".repeat(2_048));
        for wrong in [
            "",
            "/hook",
            "example.org",
            "ftp://example.org/",
            "https://",
            "https://a:b@example.org/",
            "http://a:/",
            &long,
        ] {
            assert_eq!(Endpoint::parse(wrong), None, "{wrong}");
        }
        let shown = format!("{:?}", Endpoint::parse("https://example.org/hook?token=x").unwrap());
        assert_eq!(shown, "Endpoint(https://example.org/…)");
    }
}
