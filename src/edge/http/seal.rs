//! The last step, and the one place where answers are built.

use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use warp::Rejection;
use warp::reply::Response;

use crate::gateway::{Answered, Call, Context, Flow, Refused};
use crate::pure::envelope;
use crate::pure::fault::Fault;
use crate::pure::format::EncodeError;
use crate::state::limiter::Quota;
use crate::state::meter::Credits;

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
    let mut headers = headers(&context);
    headers.put(header::CONTENT_TYPE, HeaderValue::from_static(context.choice.content_type));
    if otp.secret_bits < SECRET_BITS_MIN {
        headers.text(X_TOTP_WARNING, |to| {
            to.put_slice(b"secret has ");
            number(to, otp.secret_bits as u64);
            to.put_slice(b" bits; RFC 4226 asks for at least 128");
        });
    }
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
    let mut headers = headers(&context);
    headers.put(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.put(X_ERROR_CODE, HeaderValue::from_static(fault.code()));
    match fault {
        Fault::MethodNotAllowed(allowed) => headers.put(header::ALLOW, HeaderValue::from_static(allowed)),
        Fault::UnsupportedBody(readable) => headers.put(header::ACCEPT, HeaderValue::from_static(readable)),
        Fault::RateLimited { retry_after_s, .. } => {
            headers.number(header::RETRY_AFTER, retry_after_s);
        }
        _ if status == StatusCode::UNAUTHORIZED => {
            headers.put(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
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
    let mut headers = headers(context);
    for (name, value) in more {
        headers.put(name.clone(), value.clone());
    }
    answer(status, headers, body)
}

/// What no filter answered. Claim, preflight and documents share all requests among them, so that nothing is left; should
/// something be, it is our fault and not the caller's.
pub async fn unanswered(_: Rejection) -> Result<Response, std::convert::Infallible> {
    let mut response = Response::new(r#"{"status":"error","error":"Internal server error","data":null}"#.into());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    *response.headers_mut() = COMMON.clone();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// RFC 4226 section 4, R6.
const SECRET_BITS_MIN: usize = 128;
/// Enough for most answers.
const BODY_BYTES: usize = 320;
/// Enough for all values that are written anew for each answer.
const VALUE_BYTES: usize = 192;

const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const X_TOTP_WARNING: HeaderName = HeaderName::from_static("x-totp-warning");
const X_REQUEST_ID: HeaderName = super::claim::X_REQUEST_ID;
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

/// What every answer says. Cloning it is cheaper than inserting its lines one by one.
static COMMON: LazyLock<HeaderMap> = LazyLock::new(|| {
    // Room for all other lines, so that a clone never grows.
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        (header::CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (header::VARY, "Accept"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
});

fn headers(context: &Context) -> Headers {
    let mut headers = Headers { map: COMMON.clone(), values: BytesMut::with_capacity(VALUE_BYTES) };
    headers.put(X_REQUEST_ID, context.request_id.clone());
    if let Some(quota) = &context.quota {
        headers.quota(quota);
    }
    if let Some(caller) = &context.caller {
        headers.credits(&caller.account.plan.name, &caller.account.balance.snapshot(context.now_unix_s));
    }
    headers
}

/// Header lines; the values that differ from answer to answer are cut from one buffer.
struct Headers {
    map: HeaderMap,
    values: BytesMut,
}

impl Headers {
    fn put(&mut self, name: HeaderName, value: HeaderValue) {
        self.map.insert(name, value);
    }

    fn text(&mut self, name: HeaderName, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.values);
        let value = HeaderValue::from_maybe_shared(self.values.split().freeze());
        self.map.insert(name, value.expect("we write printable ASCII"));
    }

    fn number(&mut self, name: HeaderName, value: u64) {
        self.text(name, |to| number(to, value));
    }

    /// `X-RateLimit-*`, and `RateLimit` with its policy as of draft-ietf-httpapi-ratelimit-headers.
    fn quota(&mut self, quota: &Quota) {
        let limit = u64::from(quota.requests_a_minute);
        let remaining = u64::from(quota.remaining);
        self.number(X_RATELIMIT_LIMIT, limit);
        self.number(X_RATELIMIT_REMAINING, remaining);
        self.number(X_RATELIMIT_RESET, quota.reset_s);
        self.text(RATELIMIT_POLICY, |to| {
            to.put_slice(b"\"minute\";q=");
            number(to, limit);
            to.put_slice(b";w=60");
        });
        self.text(RATELIMIT, |to| {
            to.put_slice(b"\"minute\";r=");
            number(to, remaining);
            to.put_slice(b";t=");
            number(to, quota.reset_s);
        });
    }

    fn credits(&mut self, plan: &str, credits: &Credits) {
        self.number(X_API_CREDITS_USED, credits.used);
        self.number(X_API_MAX_CREDITS, credits.max);
        self.number(X_API_REMAINING_CREDITS, credits.remaining);
        self.number(X_API_RENEWAL, credits.renewal_unix_s);
        self.text(X_API_CURRENT_PLAN, |to| to.put_slice(plan.as_bytes()));
    }
}

fn number(to: &mut BytesMut, value: u64) {
    to.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn answer(status: StatusCode, headers: Headers, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    *response.headers_mut() = headers.map;
    response
}
