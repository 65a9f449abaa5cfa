//! The last step, and the one place where answers are built.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{self, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Body as _;
use warp::reply::Response;
use warp::{Rejection, Reply as _};

use crate::gateway::{Body, Call, Committed, Context, Flow, Refused, Reply};
use crate::pure::envelope::{self, Dialect};
use crate::pure::fault::Fault;
use crate::pure::format::{EncodeError, Format, Style};
use crate::pure::usage::Outcome;
use crate::service::upstream::Content;

use super::claim;
use super::headers::{self, X_API_REMAINING_CREDITS, X_ERROR_CODE};

/// The answer of a call that is paid for, or of one that was refused.
pub fn seal(flow: Flow<Committed>) -> Response {
    match flow {
        Ok(call) => success(call),
        Err(refused) => failure(refused),
    }
}

fn success(Call { mut context, state: Committed { reply, hold } }: Call<Committed>) -> Response {
    let Reply { status, body, content, short_secret_bits } = reply;
    let mut headers = headers::of(&context, context.choice.content_type, short_secret_bits);
    if let Some(Content::Other { content_type, disposition }) = content {
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(disposition) = disposition {
            headers.insert(header::CONTENT_DISPOSITION, disposition);
        }
    }
    match body {
        Body::Whole(body) => {
            let format = context.choice.format;
            ended(&mut context, None, Some(format), answer(status, headers, body))
        }
        Body::Streamed(streamed) => {
            let body = Shared(Mutex::new(Box::pin(streamed.leave(context, hold, status.as_u16()))));
            let mut response = warp::reply::stream(body).into_response();
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
    }
}

/// warp wants bodies that threads could share, which none does: this one is only ever reached by the one that has it.
struct Shared<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Shared<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(context)
    }
}

fn failure(Refused { mut context, fault }: Refused) -> Response {
    context.count(Outcome::of(&fault));
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
    let mut headers = headers::of(&context, content_type, None);
    headers.insert(X_ERROR_CODE, HeaderValue::from_static(fault.code()));
    if matches!(fault, Fault::CreditsExhausted { .. }) {
        // Where fewer are left than the call costs, for this call there are none.
        headers.insert(X_API_REMAINING_CREDITS, HeaderValue::from(0));
    }
    match &fault {
        Fault::MethodNotAllowed(allowed) => {
            let allowed = HeaderValue::from_str(allowed).expect("methods are tokens");
            headers.insert(header::ALLOW, allowed);
        }
        Fault::UnsupportedBody(readable) => drop(headers.insert(header::ACCEPT, HeaderValue::from_static(readable))),
        Fault::UnsupportedEncoding => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Fault::RateLimited { retry_after_s, .. }
        | Fault::CreditsExhausted { status: 429, renewal_in_s: retry_after_s }
        | Fault::UpstreamRejected { retry_after_s: Some(retry_after_s), .. } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
        }
        // Nobody can say where the next request begins.
        Fault::MalformedRequest => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
        Fault::Unavailable | Fault::UpstreamBusy => {
            drop(headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S)))
        }
        _ if status == StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
        }
        _ => {}
    }
    let format = context.choice.format;
    ended(&mut context, Some(fault.code()), Some(format), answer(status, headers, body))
}

fn problem(context: &Context, fault: &Fault, status: StatusCode, body: &mut Vec<u8>) -> Result<(), EncodeError> {
    let title = status.canonical_reason().unwrap_or_default();
    envelope::problem(fault, title, context.request_id.to_str().unwrap_or_default(), body)
}

/// An answer that is no call's: a document or a preflight.
pub fn plain(context: &mut Context, status: StatusCode, more: &[(HeaderName, HeaderValue)], body: Bytes) -> Response {
    let mut headers = headers::of(context, "", None);
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in more {
        headers.insert(name.clone(), value.clone());
    }
    ended(context, None, None, answer(status, headers, body))
}

/// What no filter answered. Claim, preflight and documents share all requests among them, so that nothing is left; should
/// something be, it is our fault and not the caller's.
pub async fn unanswered(_: Rejection) -> Result<Response, std::convert::Infallible> {
    Ok(last_resort(&HeaderMap::new()))
}

/// A 500 that takes nothing but the headers of the request to make, and the id in them.
pub fn last_resort(request: &HeaderMap) -> Response {
    let mut body = Vec::new();
    let written = envelope::failure(Dialect::Enveloped, &Fault::Internal, Format::Json, Style::default(), &mut body);
    debug_assert!(written.is_ok());
    let mut headers = headers::common("application/json", claim::request_id(request));
    headers.insert(X_ERROR_CODE, HeaderValue::from_static(Fault::Internal.code()));
    answer(StatusCode::INTERNAL_SERVER_ERROR, headers, body)
}

/// When to try again after a 503, in seconds: what is wrong is looked at as often.
const RETRY_AFTER_S: u64 = 1;

/// Enough for most refusals.
const BODY_BYTES: usize = 512;

/// Writes the call down as one that ended in `response`.
fn ended(context: &mut Context, code: Option<&'static str>, format: Option<Format>, response: Response) -> Response {
    let body_bytes = response.body().size_hint().exact().unwrap_or_default();
    context.ended(response.status().as_u16(), code, format, usize::try_from(body_bytes).unwrap_or(usize::MAX));
    response
}

fn answer(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
