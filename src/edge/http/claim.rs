//! The first step: from a request's head to a claimed call.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use uuid::Uuid;
use warp::{Filter, Rejection};

use crate::config::{Access, NotAcceptable};
use crate::gateway::{Call, Claimed, Context, Credential, Flow, Gateway, Head, Refused, Request};
use crate::pure::accept::{self, Choice};
use crate::pure::address::client_address;
use crate::pure::envelope::Dialect;
use crate::pure::fault::Fault;
use crate::pure::format::{Format, Style};
use crate::pure::key::KeyHash;
use crate::service::catalog::{METHODS, Route};

use super::documents;

/// Names of the headers that are ours.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The id of a request, on every answer.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Claims every request that is a call. It rejects the two kinds that are none, preflights and documents, before anything
/// is counted, so that the filters after the chain answer them.
pub fn claim(
    gateway: Arc<Gateway>,
    peer: IpAddr,
) -> impl Filter<Extract = (Flow<Claimed>,), Error = Rejection> + Clone + Send + Sync + 'static {
    head().and_then(move |head: Head| {
        let mine = head.method != Method::OPTIONS && !documents::is_one(head.uri.path());
        std::future::ready(if mine { Ok(open(&gateway, head, peer)) } else { Err(warp::reject()) })
    })
}

/// A request as the chain wants it: its head moves to where [`head`] finds it. warp's own filters would copy every header
/// line and the path, and reject, for want of a query, most of what is posted.
pub fn lift<B>(request: http::Request<B>) -> http::Request<B> {
    let (head, body) = request.into_parts();
    let mut lifted = http::Request::new(body);
    lifted.extensions_mut().insert(Head::new(head));
    lifted
}

/// The head of a request that was lifted.
pub fn head() -> impl Filter<Extract = (Head,), Error = Rejection> + Copy {
    warp::ext::get::<Head>()
}

/// What the answer to `head` needs, before anything else is known.
pub fn context(gateway: &Arc<Gateway>, headers: &HeaderMap, peer: IpAddr) -> Box<Context> {
    let forwarded = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    Box::new(Context {
        gateway: gateway.clone(),
        request_id: request_id(headers),
        choice: Choice::JSON,
        style: Style::default(),
        dialect: Dialect::Enveloped,
        address: client_address(peer, forwarded, &gateway.config.trusted_proxies),
        now_unix_s: gateway.clock.unix_s(),
        caller: None,
        quota: None,
    })
}

/// Path, then method, then format: whatever is wrong with the head of a call is found here.
pub fn open(gateway: &Arc<Gateway>, head: Head, peer: IpAddr) -> Flow<Claimed> {
    let mut context = context(gateway, &head.headers, peer);
    let asked = accept::choose(head.headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes));
    context.choice = asked.unwrap_or(Choice::JSON);
    let refuse = |context, fault| Err(Refused { context, fault });

    let limits = &gateway.config.limits;
    if head.headers.len() > limits.header_count || head_bytes(&head) > limits.header_bytes {
        return refuse(context, Fault::HeadersTooLarge);
    }
    // CONNECT alone names no path (RFC 9110 section 9.3.6).
    if head.method == Method::CONNECT {
        return refuse(context, Fault::MethodNotAllowed(METHODS));
    }
    let Some(route) = gateway.catalog.find(head.uri.path()) else {
        return refuse(context, Fault::UnknownApi);
    };
    context.dialect = route.dialect;
    let may_have_body = match head.method {
        Method::POST => true,
        Method::GET | Method::HEAD => false,
        _ => return refuse(context, Fault::MethodNotAllowed(METHODS)),
    };
    if !format(&mut context, asked, head.uri.query().unwrap_or_default())
        && gateway.config.not_acceptable == NotAcceptable::Refuse
    {
        return refuse(context, Fault::NotAcceptable);
    }
    let credential = credential(route, &head);
    let request = Request { route: route.clone(), head, may_have_body };
    Ok(Call { context, state: Claimed { request, credential } })
}

/// Settles the format and its options; false when the caller accepts none that there is. `?format=` beats `Accept`.
fn format(context: &mut Context, asked: Option<Choice>, query: &str) -> bool {
    if query.is_empty() {
        return asked.is_some();
    }
    let mut acceptable = asked.is_some();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "format" => {
                acceptable = match Format::parse_name(&value) {
                    Some(format) => {
                        context.choice = Choice { problem: context.choice.problem, ..Choice::of(format) };
                        true
                    }
                    None => false,
                };
            }
            "pretty" => context.style.pretty = is_on(&value),
            "csv_guard" => context.style.csv_guard = is_on(&value),
            _ => {}
        }
    }
    acceptable
}

/// `?pretty`, `?pretty=1`, `?pretty=true`.
fn is_on(value: &str) -> bool {
    !matches!(value, "0" | "false")
}

/// The client's own id, if it is one that can be repeated safely; else a new UUID.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fits = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    match headers.get(X_REQUEST_ID).filter(fits) {
        Some(own) => own.clone(),
        None => {
            let mut text = Uuid::encode_buffer();
            let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(text).expect("a UUID is a header value")
        }
    }
}

/// `X-API-Key`, or `Authorization: Bearer KEY`. A key in the query string is refused wherever it stands.
fn credential(route: &Route, head: &Head) -> Credential {
    if head.uri.query().is_some_and(|query| query_has_key(route, query)) {
        return Credential::InQuery;
    }
    if route.access == Access::Open {
        return Credential::Missing;
    }
    let key = match head.headers.get(X_API_KEY) {
        Some(key) => key.as_bytes().trim_ascii(),
        None => head.headers.get(header::AUTHORIZATION).and_then(bearer).unwrap_or_default(),
    };
    match KeyHash::of(key) {
        Some(hash) => Credential::Key(hash),
        None if key.is_empty() => Credential::Missing,
        None => Credential::Malformed,
    }
}

/// The token of RFC 6750 section 2.1.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether some value is a key of ours, or, on a route that wants one, some name says it is.
fn query_has_key(route: &Route, query: &str) -> bool {
    const NAMES: [&str; 5] = ["x-api-key", "api_key", "api-key", "apikey", "access_token"];
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        KeyHash::of(value.as_bytes()).is_some()
            || (route.access == Access::Key && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))
    })
}

fn head_bytes(head: &Head) -> usize {
    let lines: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    lines + head.uri.path().len() + head.uri.query().unwrap_or_default().len()
}
