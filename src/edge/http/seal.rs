//! The last step, and the one place where answers are built.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use warp::Rejection;
use warp::reply::Response;

use crate::gateway::{Answered, Call, Context, Flow, Refused};
use crate::pure::envelope;
use crate::pure::fault::Fault;
use crate::pure::format::EncodeError;
use crate::state::limiter::Quota;
use crate::state::meter::Credits;

use super::claim;
use super::cors::EXPOSED;

/// Writes the answer of a call, commits what it costs, and says so in the headers.
///
/// The answer is encoded first and the hold committed after: whatever goes wrong on the way gives the credits back.
pub fn seal(flow: Flow<Answered>) -> Response {
    match flow {
        Ok(call) => success(call),
        Err(refused) => failure(refused),
    }
}

fn success(Call { context, state: Answered { otp, hold } }: Call<Answered>) -> Response {
    let mut body = Vec::with_capacity(BODY_BYTES);
    let written = envelope::success(context.dialect, &otp, context.choice.format, context.style, &mut body);
    if written.is_err() {
        drop(hold);
        return failure(Refused { context, fault: Fault::Internal });
    }
    if let Some(hold) = hold {
        hold.commit();
    }
    let short = (otp.secret_bits < SECRET_BITS_MIN).then_some(otp.secret_bits);
    let headers = headers(&context, context.choice.content_type, short);
    answer(StatusCode::OK, headers, body)
}

fn failure(Refused { context, fault }: Refused) -> Response {
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = Vec::with_capacity(BODY_BYTES);
    let (content_type, written) = if context.choice.problem {
        ("application/problem+json", problem(&context, &fault, status, &mut body))
    } else {
        let written = envelope::failure(context.dialect, &fault, context.choice.format, context.style, &mut body);
        (context.choice.content_type, written)
    };
    // Faults are a few short strings, which every format can hold.
    debug_assert!(written.is_ok());
    let mut headers = headers(&context, content_type, None);
    headers.insert(X_ERROR_CODE, HeaderValue::from_static(fault.code()));
    match fault {
        Fault::MethodNotAllowed(allowed) => drop(headers.insert(header::ALLOW, HeaderValue::from_static(allowed))),
        Fault::UnsupportedBody(readable) => drop(headers.insert(header::ACCEPT, HeaderValue::from_static(readable))),
        Fault::UnsupportedEncoding => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Fault::RateLimited { retry_after_s, .. } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        _ if status == StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
        }
        _ => {}
    }
    answer(status, headers, body)
}

fn problem(context: &Context, fault: &Fault, status: StatusCode, body: &mut Vec<u8>) -> Result<(), EncodeError> {
    let title = status.canonical_reason().unwrap_or_default();
    envelope::problem(fault, title, context.request_id.to_str().unwrap_or_default(), body)
}

/// An answer that is no call's: a document or a preflight.
pub fn plain(context: &Context, status: StatusCode, more: &[(HeaderName, HeaderValue)], body: Bytes) -> Response {
    let mut headers = headers(context, "", None);
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in more {
        headers.insert(name.clone(), value.clone());
    }
    answer(status, headers, body)
}

/// What no filter answered. Claim, preflight and documents share all requests among them, so that nothing is left; should
/// something be, it is our fault and not the caller's.
pub async fn unanswered(_: Rejection) -> Result<Response, std::convert::Infallible> {
    let mut response = Response::new(r#"{"status":"error","error":"Internal server error","data":null}"#.into());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    *response.headers_mut() = TEMPLATES[0].clone();
    response.headers_mut().insert(X_REQUEST_ID, claim::request_id(&HeaderMap::new()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// RFC 4226 section 4, R6.
const SECRET_BITS_MIN: usize = 128;
/// Enough for most answers.
const BODY_BYTES: usize = 320;

const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const X_TOTP_WARNING: HeaderName = HeaderName::from_static("x-totp-warning");
const X_REQUEST_ID: HeaderName = claim::X_REQUEST_ID;
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_API_CREDITS_USED: HeaderName = HeaderName::from_static("x-api-credits-used");
const X_API_MAX_CREDITS: HeaderName = HeaderName::from_static("x-api-max-credits");
const X_API_REMAINING_CREDITS: HeaderName = HeaderName::from_static("x-api-remaining-credits");
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

fn headers(context: &Context, content_type: &'static str, short_secret_bits: Option<usize>) -> HeaderMap {
    let account = context.caller.as_ref().map(|caller| &caller.account);
    let kind = [context.quota.is_some(), account.is_some(), short_secret_bits.is_some()];
    let [throttled, keyed, short] = kind.map(usize::from);
    let mut lines = TEMPLATES[throttled | keyed << 1 | short << 2].clone();

    let mut values = Values::default();
    if let Some(quota) = &context.quota {
        values.quota(quota);
    }
    if let Some(account) = account {
        values.credits(&account.plan.name, &account.balance.snapshot(context.now_unix_s));
    }
    if let Some(bits) = short_secret_bits {
        values.warning(bits);
    }
    let own = [HeaderValue::from_static(content_type), context.request_id.clone()];
    let places = lines.values_mut().skip(COMMON.len());
    for (place, value) in places.zip(own.into_iter().chain(values.all())) {
        *place = value;
    }
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

fn answer(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
