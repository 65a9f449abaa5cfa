//! The first step: from a request's head to a claimed call.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use uuid::Uuid;
use warp::{Filter, Rejection};

use crate::config::Access;
use crate::gateway::{Call, Came, Claimed, Context, Credential, Flow, Gateway, Head, Kept, Refused, Request};
use crate::pure::accept::{self, Choice};
use crate::pure::address::client_address;
use crate::pure::envelope::Dialect;
use crate::pure::fault::Fault;
use crate::pure::format::{Format, Style};
use crate::pure::key::KeyHash;
use crate::pure::log_line::{self, UNKNOWN_METHOD};
use crate::pure::trace::TraceParent;
use crate::service::catalog::{METHODS, Route};

use super::documents;
use super::framing::DoubtfulFraming;

/// Names of the headers that are ours.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The id of a request, on every answer.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What is carried of `tracestate`: as much as everybody has to (W3C Trace Context, section 3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;

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
    lifted(Head::new(head.into()), body)
}

/// A lifted request of these parts.
pub fn lifted<B>(head: Head, body: B) -> http::Request<B> {
    let mut lifted = http::Request::new(body);
    lifted.extensions_mut().insert(head);
    lifted
}

/// The head of a request that was lifted.
pub fn head() -> impl Filter<Extract = (Head,), Error = Rejection> + Copy {
    warp::ext::get::<Head>()
}

/// What the answer to `head` needs, before anything else is known.
pub fn context(gateway: &Arc<Gateway>, headers: &HeaderMap, peer: IpAddr) -> Kept {
    let lines_of = |name: HeaderName| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let accepted = accept::choose(lines_of(header::ACCEPT));
    let mut parents = lines_of(TRACEPARENT);
    // Of two, nobody knows which one counts.
    let parent = parents.next().filter(|_| parents.next().is_none()).and_then(TraceParent::parse);
    let came = Came { unix_ms: gateway.clock.unix_ms(), monotonic: gateway.clock.monotonic() };
    Kept::new(Context {
        gateway: gateway.clone(),
        request_id: request_id(headers),
        choice: accepted.unwrap_or(Choice::JSON),
        acceptable: accepted.is_some(),
        style: Style::default(),
        dialect: Dialect::Enveloped,
        address: client_address(peer, lines_of(X_FORWARDED_FOR), &gateway.config.trusted_proxies),
        is_https: is_https(gateway, headers, peer),
        now_unix_s: came.unix_ms / 1_000,
        came,
        parent,
        trace_state: parent.filter(|_| gateway.traces.are_on()).and_then(|_| trace_state(headers)),
        span: None,
        method: UNKNOWN_METHOD,
        can_stream: true,
        reached: gateway.catalog.unknown.clone(),
        request_bytes: 0,
        api: None,
        caller: None,
        quota: None,
        head: None,
    })
}

/// Whether the client's connection is encrypted: ours, or that to a proxy that is believed.
fn is_https(gateway: &Gateway, headers: &HeaderMap, peer: IpAddr) -> bool {
    let says_so =
        || headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let trusted = &gateway.config.trusted_proxies;
    gateway.config.tls.is_some() || says_so() && trusted.iter().any(|network| network.contains(&peer.to_canonical()))
}

/// The lines of `tracestate` as one, unless they are too long or no text.
fn trace_state(headers: &HeaderMap) -> Option<String> {
    let lines: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|line| line.to_str().ok()).collect();
    lines.map(|lines| lines.join(",")).filter(|state| !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX)
}

/// Path, then method, then format: whatever is wrong with the head of a call is found here.
pub fn open(gateway: &Arc<Gateway>, head: Head, peer: IpAddr) -> Flow<Claimed> {
    let mut context = context(gateway, &head.headers, peer);
    context.method = log_line::method(head.method.as_str());
    context.can_stream = head.version > Version::HTTP_10;
    context.head = Some(head.clone());
    let refuse = |context, fault| Err(Refused { context, fault });

    // CONNECT alone names no path (RFC 9110 section 9.3.6).
    if head.method == Method::CONNECT {
        return refuse(context, Fault::MethodNotAllowed(METHODS.into()));
    }
    let route = gateway.catalog.find(head.uri.path());
    if let Some(route) = route {
        context.dialect = route.dialect;
        context.api = Some(route.number);
        context.reached = route.metrics.clone();
    }
    if let Some(fault) = flaw(gateway, &head) {
        return refuse(context, fault);
    }
    let Some(route) = route else {
        return refuse(context, Fault::UnknownApi);
    };
    if let Some(fault) = route.refusal(&head.method, head.uri.path()) {
        return refuse(context, fault);
    }
    let may_have_body = !matches!(head.method, Method::GET | Method::HEAD);
    if route.has_options() {
        options(&mut context, head.uri.query().unwrap_or_default());
    }
    if !context.acceptable && route.refuses_other_types(&gateway.config) {
        return refuse(context, Fault::NotAcceptable);
    }
    let credential = credential(route, &head);
    let request = Request { route: route.clone(), head, may_have_body };
    Ok(Call { context, state: Claimed { request, credential } })
}

/// What the query says of the answer. `?format=` beats `Accept`.
fn options(context: &mut Context, query: &str) {
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "format" => {
                let format = Format::parse_name(&value);
                context.choice = format.map_or(Choice::JSON, Choice::of);
                context.acceptable = format.is_some();
            }
            "pretty" => context.style.pretty = is_on(&value),
            "csv_guard" => context.style.csv_guard = is_on(&value),
            _ => {}
        }
    }
}

/// `?pretty`, `?pretty=1`, `?pretty=true`.
fn is_on(value: &str) -> bool {
    !matches!(value, "0" | "false")
}

/// The client's own id, if it is one that can be repeated safely; else a new UUID. A key of ours is not to be repeated: ids
/// are written down.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fits = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && KeyHash::of(bytes).is_none()
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

/// `X-API-Key`, or else `Authorization: Bearer KEY`. A key in the query string is refused wherever it stands.
fn credential(route: &Route, head: &Head) -> Credential {
    if head.uri.query().is_some_and(|query| query_has_key(route, query)) {
        return Credential::InQuery;
    }
    if route.access == Access::Open {
        return Credential::Missing;
    }
    let own = head.headers.get(X_API_KEY).map(|key| key.as_bytes().trim_ascii()).filter(|key| !key.is_empty());
    let key = own.or_else(|| head.headers.get_all(header::AUTHORIZATION).iter().find_map(bearer)).unwrap_or_default();
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

/// Whether some value is a key of ours, or, on a route of ours that wants one, some name says it is.
fn query_has_key(route: &Route, query: &str) -> bool {
    const NAMES: [&str; 5] = ["x-api-key", "api_key", "api-key", "apikey", "access_token"];
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        KeyHash::of(value.as_bytes()).is_some()
            || (route.access == Access::Key
                && route.has_options()
                && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))
    })
}

/// What is wrong with a head whatever it asks for, if anything is.
pub fn flaw(gateway: &Gateway, head: &Head) -> Option<Fault> {
    if !fits(gateway, head) {
        Some(Fault::HeadersTooLarge)
    } else if is_ambiguous(head) {
        Some(Fault::MalformedRequest)
    } else {
        None
    }
}

/// Whether the head is within the limits: few enough lines, and few enough bytes in all.
fn fits(gateway: &Gateway, head: &Head) -> bool {
    let lines: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = head.uri.path().len() + head.uri.query().unwrap_or_default().len();
    let limits = &gateway.config.limits;
    head.headers.len() <= limits.header_count && head.method.as_str().len() + target + lines <= limits.header_bytes
}

/// Whether a proxy before us could read the head differently, which is how requests are smuggled past one of the two.
fn is_ambiguous(head: &Head) -> bool {
    let lines = &head.headers;
    let is_twice = |name| lines.get_all(name).iter().nth(1).is_some();
    head.extensions.get::<DoubtfulFraming>().is_some()
        // Before HTTP/1.1 there was no Host, after it there is `:authority` (RFC 9112 section 3.2).
        || lines.get(header::HOST).map_or(head.version == Version::HTTP_11, |host| !is_host(host.as_bytes()))
        // No other coding is read here (section 6.1), and none goes with a length (section 6.3).
        || lines.get(header::TRANSFER_ENCODING).is_some_and(|coding| {
            !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || lines.contains_key(header::CONTENT_LENGTH)
        })
        // Hardly any request has two lines of one name, and that is quickly seen.
        || lines.len() != lines.keys_len() && SINGLE.into_iter().any(is_twice)
}

/// What may be said once only, because it would be anybody's guess which line counts.
const SINGLE: [HeaderName; 4] = [header::HOST, header::TRANSFER_ENCODING, header::CONTENT_TYPE, X_API_KEY];

/// Whether `value` is `uri-host [ ":" port ]` (RFC 9110 section 7.2); the host may be empty.
fn is_host(value: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_of_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let (fits, rest) = match value.strip_prefix(b"[") {
        Some(value) => {
            let end = value.iter().position(|byte| *byte == b']').unwrap_or(value.len());
            (end < value.len() && value[..end].iter().all(is_of_address), value.get(end + 1..).unwrap_or_default())
        }
        None => {
            let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
            (value[..end].iter().all(is_of_name), &value[end..])
        }
    };
    fits && (rest.is_empty() || rest[0] == b':' && rest[1..].iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::pure::key::ApiKey;

    #[test]
    fn ids_are_the_clients_own_unless_they_are_keys() {
        let id = |text: &str| request_id(&HeaderMap::from_iter([(X_REQUEST_ID, text.parse().unwrap())]));
        assert_eq!(id("a-B_1.2"), "a-B_1.2");
        let key = ApiKey::generate(&SystemRandom::new()).unwrap();
        for text in [key.as_str(), "a b", "", &"a".repeat(129)] {
            assert!(Uuid::try_parse(id(text).to_str().unwrap()).is_ok());
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for host in ["", "a", "a.example:80", "a:", "127.0.0.1:8080", "[::1]", "[::ffff:1.2.3.4]:80", "a%20b", "x_y"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in
            ["a b", "a/b", "a@b", "a:80:80", "a:b", "[::1", "[::1]x", "[g]", "::1", "a\tb", "a\"", "\u{e9}", "a,b:c"]
        {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
