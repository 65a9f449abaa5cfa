//! The request that a target is sent: what of the caller's is passed on, and what is said of the caller.

use std::borrow::Cow;
use std::iter;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, FORWARDED, HOST, HeaderName,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use uuid::Uuid;

use super::Upstream;
use crate::config::AnswerFormats;
use crate::pure::accept;
use crate::pure::fault::Fault;
use crate::pure::freshness::Asked;
use crate::pure::input::{BodyKind, rewrite};
use crate::pure::key::KeyHash;
use crate::pure::trace::TraceParent;
use crate::pure::upstream::target::{Base, Rest};
use crate::state::cache::CacheKey;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a target is told of each caller and request.
pub(super) const TOLD: [HeaderName; 7] =
    [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID, TRACEPARENT, TRACESTATE];

/// Room for as many header lines as most requests have.
const LINES: usize = 12;

/// What is asked of an upstream, whichever target is sent it.
#[derive(Debug)]
pub struct Ask {
    method: Method,
    rest: Rest,
    headers: HeaderMap,
    body: Bytes,
    /// What an answer is kept under that may be given again, and what the caller wants of that.
    kept_under: Option<(CacheKey, Asked)>,
}

/// What a target is told of the caller.
#[derive(Debug)]
pub struct From<'a> {
    /// Its address.
    pub address: IpAddr,
    /// Whether its connection was encrypted.
    pub is_https: bool,
    /// The id of its request.
    pub request_id: &'a HeaderValue,
    /// Whether its `traceparent` can be read. If so, the trace is its own.
    pub is_traced: bool,
    /// The trace, and where in it the target is asked; `None` if that is what the caller says.
    pub trace: Option<TraceParent>,
}

/// A trace that begins with a request, which nobody records. Its id is that of the request where `own_id` is a UUID that we
/// have given it, so that both lead to each other.
pub fn new_trace(own_id: Option<&HeaderValue>) -> TraceParent {
    let given = own_id.and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
    // Neither half of such a UUID is ever zero.
    let (_, span) = Uuid::new_v4().as_u64_pair();
    TraceParent::new(given.unwrap_or_else(Uuid::new_v4).into_bytes(), span.to_be_bytes(), false)
}

/// A body as the caller sent it.
#[derive(Debug)]
pub struct Sent<'a> {
    /// How it is written; `None` where there is none.
    pub kind: Option<BodyKind<'a>>,
    /// Its bytes.
    pub body: Bytes,
    /// The most bytes that it may become.
    pub bytes_max: usize,
}

impl Sent<'_> {
    /// The body as JSON, and whether it was something else.
    fn into_json(self) -> Result<(Bytes, bool), Fault> {
        match self.kind.map(|kind| rewrite::json_of(kind, &self.body)).transpose()? {
            Some(Cow::Owned(json)) if json.len() > self.bytes_max => {
                Err(Fault::BodyTooLarge { limit_bytes: self.bytes_max })
            }
            Some(Cow::Owned(json)) => Ok((json.into(), true)),
            _ => Ok((self.body, false)),
        }
    }
}

impl Ask {
    /// A request of `head` and `body` to the API that lives at `path`.
    ///
    /// # Errors
    /// [`Fault::InvalidBody`] and [`Fault::BodyTooLarge`] of a body that is to become JSON, [`Fault::NotAsDescribed`] where
    /// the API says what is right, and [`Fault::InvalidPath`] where servers could disagree on what is asked for.
    pub fn new(upstream: &Upstream, path: &str, head: &Parts, body: Sent<'_>, from: &From<'_>) -> Result<Ask, Fault> {
        let below = head.uri.path().strip_prefix(path).ok_or(Fault::InvalidPath)?;
        let (body, is_rewritten) = body.into_json()?;
        upstream.check(below, head, &body)?;
        let rest = Rest::parse(below, head.uri.query())?;
        let mut headers = HeaderMap::with_capacity(LINES);
        for name in &upstream.settings().pass_headers {
            // Of a body that is not passed on, there is nothing to be said.
            if *name == CONTENT_TYPE && body.is_empty() || is_for_the_connection(name, &head.headers) {
                continue;
            }
            for value in head.headers.get_all(name).iter().filter(|value| *name != AUTHORIZATION || !is_our_key(value))
            {
                headers.append(name, value.clone());
            }
        }
        let accept = match (upstream.settings().formats, head.headers.get(ACCEPT)) {
            // What is in none of our formats is between the two of them.
            (AnswerFormats::Passthrough, Some(own)) if accept::choose(iter::once(own.as_bytes())).is_none() => {
                own.clone()
            }
            (AnswerFormats::Passthrough, _) => HeaderValue::from_static("application/json, */*;q=0.5"),
            (AnswerFormats::Negotiated, _) => HeaderValue::from_static("application/json"),
        };
        headers.insert(ACCEPT, accept);
        let kept_under = kept_under(upstream, head, from, &rest, &headers, &body);
        from.tell(&head.headers, &mut headers);
        if is_rewritten {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &upstream.set_headers {
            headers.insert(name, value.clone());
        }
        Ok(Ask { method: head.method.clone(), rest, headers, body, kept_under })
    }

    /// A question of our own, which shows whether a target works.
    pub(super) fn check(upstream: &Upstream, path: &str) -> Result<Ask, Fault> {
        let headers = upstream.set_headers.iter().cloned().collect();
        let (rest, body) = (Rest::parse(path, None)?, Bytes::new());
        Ok(Ask { method: Method::GET, rest, headers, body, kept_under: None })
    }

    /// What an answer may be kept under for others, and whether one that was kept will do.
    pub fn kept_under(&self) -> Option<(&CacheKey, Asked)> {
        self.kept_under.as_ref().map(|(key, asked)| (key, *asked))
    }

    /// Whether asking twice is as good as asking once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        [Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(&self.method)
    }

    /// The request as the target at `base` is sent it.
    pub fn request(&self, base: &Base) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = base.below(&self.rest)?;
        *request.headers_mut() = self.headers.clone();
        if self.body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&self.method) {
            // Without it, some servers wait for a body that is not to come (RFC 9110 section 8.6).
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        Ok(request)
    }
}

impl From<'_> {
    /// `Forwarded` (RFC 7239) and what was there before it; the id and the trace of the request. What the caller says of
    /// itself is not passed on.
    fn tell(&self, asked: &HeaderMap, told: &mut HeaderMap) {
        let proto = if self.is_https { "https" } else { "http" };
        let address = self.address.to_string();
        let node = if self.address.is_ipv6() { format!("\"[{address}]\"") } else { address.clone() };
        // A host has no quotation marks: that was seen to.
        let host = asked.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
        let forwarded = match host {
            Some(host) => format!("for={node};host=\"{host}\";proto={proto}"),
            None => format!("for={node};proto={proto}"),
        };
        told.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        for (name, value) in
            [(FORWARDED, Some(&*forwarded)), (X_FORWARDED_FOR, Some(&address)), (X_FORWARDED_HOST, host)]
        {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                told.insert(name, value);
            }
        }
        told.insert(X_REQUEST_ID, self.request_id.clone());
        let trace = self.trace.and_then(|trace| HeaderValue::try_from(trace.to_string()).ok());
        if let Some(trace) = trace.or_else(|| asked.get(TRACEPARENT).cloned()) {
            told.insert(TRACEPARENT, trace);
        }
        for state in asked.get_all(TRACESTATE).iter().filter(|_| self.is_traced) {
            told.append(TRACESTATE, state.clone());
        }
    }
}

/// What the answer is kept under, if this is a request whose answers are: it depends on all that is passed on, and on the
/// address that was asked (RFC 9111 section 2), of which the upstream is told. What is for one caller alone is not kept
/// (section 3.5).
fn kept_under(
    upstream: &Upstream,
    head: &Parts,
    from: &From<'_>,
    rest: &Rest,
    passed: &HeaderMap,
    body: &Bytes,
) -> Option<(CacheKey, Asked)> {
    let is_personal = passed.contains_key(AUTHORIZATION) || passed.contains_key(COOKIE);
    if upstream.settings().cache_bytes == 0 || head.method != Method::GET || is_personal || !body.is_empty() {
        return None;
    }
    let mut key = rest.as_str().as_bytes().to_vec();
    let host = head.headers.get(HOST).map(|host| (&HOST, host));
    for (name, value) in host.into_iter().chain(passed) {
        // Neither a path nor a header line has a line end in it.
        key.push(b'\n');
        key.extend_from_slice(name.as_str().as_bytes());
        key.push(b':');
        key.extend_from_slice(value.as_bytes());
    }
    key.extend_from_slice(if from.is_https { b"\nhttps" } else { b"\nhttp" });
    let lines: Vec<&[u8]> = head.headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    Some((key.into(), Asked::of(&lines)))
}

/// Whether the caller means a header for us alone (RFC 9110 section 7.6.1).
fn is_for_the_connection(name: &HeaderName, asked: &HeaderMap) -> bool {
    let listed = asked.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

/// Whether `Authorization` holds a key of ours, which is nobody else's business.
fn is_our_key(value: &HeaderValue) -> bool {
    let words = value.as_bytes().split(u8::is_ascii_whitespace);
    words.into_iter().any(|word| KeyHash::of(word).is_some())
}
