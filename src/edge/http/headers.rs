//! The header lines of answers: those that all share, and what is said of limits and credits.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::gateway::Context;
use crate::pure::book::Credits;
use crate::state::limiter::Quota;

use super::claim::X_REQUEST_ID;
use super::cors::EXPOSED;

const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
/// The code of a fault, for programs.
pub const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const X_TOTP_WARNING: HeaderName = HeaderName::from_static("x-totp-warning");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_API_CREDITS_USED: HeaderName = HeaderName::from_static("x-api-credits-used");
const X_API_MAX_CREDITS: HeaderName = HeaderName::from_static("x-api-max-credits");
/// What is left of an account's credits.
pub const X_API_REMAINING_CREDITS: HeaderName = HeaderName::from_static("x-api-remaining-credits");
const X_API_CURRENT_PLAN: HeaderName = HeaderName::from_static("x-api-current-plan");
const X_API_RENEWAL: HeaderName = HeaderName::from_static("x-api-renewal");

/// The lines of an answer with room for their values, by whether the caller is throttled, has a key, and sent a short
/// secret. Cloning one and filling in the values costs a third of inserting line by line.
static TEMPLATES: LazyLock<[HeaderMap; 8]> = LazyLock::new(|| {
    std::array::from_fn(|kind| {
        let [throttled, keyed, short] = [1, 2, 4].map(|bit| kind & bit != 0);
        let mut lines = HeaderMap::from_iter(COMMON.map(|(name, value)| (name, HeaderValue::from_static(value))));
        let mut room_for = |names: &[HeaderName]| {
            lines.extend(names.iter().map(|name| (name.clone(), HeaderValue::from_static(""))));
        };
        room_for(&[header::CONTENT_TYPE, X_REQUEST_ID]);
        if throttled {
            room_for(&QUOTA);
        }
        if keyed {
            room_for(&CREDITS);
        }
        if short {
            room_for(&[X_TOTP_WARNING]);
        }
        lines
    })
});

const COMMON: [(HeaderName, &str); 6] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
    (header::CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (header::VARY, "Accept"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];
/// As [`Values::quota`] writes them.
const QUOTA: [HeaderName; 5] =
    [X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET, RATELIMIT_POLICY, RATELIMIT];
/// As [`Values::credits`] writes them.
const CREDITS: [HeaderName; 5] =
    [X_API_CREDITS_USED, X_API_MAX_CREDITS, X_API_REMAINING_CREDITS, X_API_RENEWAL, X_API_CURRENT_PLAN];

/// The lines of an answer to a call that has come as far as `context` says. `short_secret_bits` is the length of a secret
/// that deserves a warning.
pub fn of(context: &Context, content_type: &'static str, short_secret_bits: Option<usize>) -> HeaderMap {
    let account = context.caller.as_ref().map(|caller| &caller.account);
    let kind = [context.quota.is_some(), account.is_some(), short_secret_bits.is_some()];
    let [throttled, keyed, short] = kind.map(usize::from);
    let mut lines = TEMPLATES[throttled | keyed << 1 | short << 2].clone();

    let mut values = Values::default();
    if let Some(quota) = &context.quota {
        values.quota(quota);
    }
    if let Some(account) = account {
        values.credits(&account.plan.name, &account.balance.credits(context.now_unix_s));
    }
    if let Some(bits) = short_secret_bits {
        values.warning(bits);
    }
    let own = [HeaderValue::from_static(content_type), context.request_id.clone()];
    // The lines of a map from which nothing was removed come in the order of insertion; the golden calls hold it to that.
    let places = lines.values_mut().skip(COMMON.len());
    for (place, value) in places.zip(own.into_iter().chain(values.all())) {
        *place = value;
    }
    lines
}

/// The lines of an answer to what is no call.
pub fn common(content_type: &'static str, request_id: HeaderValue) -> HeaderMap {
    let mut lines = TEMPLATES[0].clone();
    lines.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    lines.insert(X_REQUEST_ID, request_id);
    lines
}

/// The values that differ from answer to answer, written one behind the other so that all share one allocation.
struct Values {
    text: [u8; VALUES_BYTES],
    bytes: usize,
    ends: [usize; VALUES_MAX],
    count: usize,
}

/// Eleven numbers of up to 20 digits, a plan's name of up to 32 and the words around them.
const VALUES_BYTES: usize = 384;
/// Those of [`QUOTA`] and [`CREDITS`], and the warning.
const VALUES_MAX: usize = 11;

impl Default for Values {
    fn default() -> Values {
        Values { text: [0; VALUES_BYTES], bytes: 0, ends: [0; VALUES_MAX], count: 0 }
    }
}

impl Values {
    /// `X-RateLimit-*`, and `RateLimit` with its policy as of draft-ietf-httpapi-ratelimit-headers.
    fn quota(&mut self, quota: &Quota) {
        self.number(quota.requests_a_minute.into()).end();
        self.number(quota.remaining.into()).end();
        self.number(quota.reset_s).end();
        self.words("\"minute\";q=").number(quota.requests_a_minute.into()).words(";w=60").end();
        self.words("\"minute\";r=").number(quota.remaining.into()).words(";t=").number(quota.reset_s).end();
    }

    fn credits(&mut self, plan: &str, credits: &Credits) {
        self.number(credits.used).end();
        self.number(credits.max).end();
        self.number(credits.remaining).end();
        self.number(credits.renewal_unix_s).end();
        self.words(plan).end();
    }

    fn warning(&mut self, secret_bits: usize) {
        self.words("secret has ").number(secret_bits as u64).words(" bits; RFC 4226 asks for at least 128").end();
    }

    fn words(&mut self, words: &str) -> &mut Values {
        self.text[self.bytes..][..words.len()].copy_from_slice(words.as_bytes());
        self.bytes += words.len();
        self
    }

    fn number(&mut self, number: u64) -> &mut Values {
        self.words(itoa::Buffer::new().format(number))
    }

    /// Ends a value; what is written next belongs to another.
    fn end(&mut self) {
        self.ends[self.count] = self.bytes;
        self.count += 1;
    }

    fn all(&self) -> impl Iterator<Item = HeaderValue> {
        let text = Bytes::copy_from_slice(&self.text[..self.bytes]);
        let mut start = 0;
        self.ends[..self.count].iter().map(move |&end| {
            let value = HeaderValue::from_maybe_shared(text.slice(start..end));
            start = end;
            value.expect("we write printable ASCII")
        })
    }
}
