//! The operator's own APIs, by their names.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method};

use super::{
    BODY_BYTES_MAX, ENTRIES_MAX, PATH_BYTES_MAX, TIME_S_MAX, access, all as each, cost, is_name, path as file,
    rate_or_none,
};
use crate::config::reader::{Block, Node};
use crate::config::{AnswerFormats, Api, Apis, Limits, RequestBodies, UpstreamApi, text_of};
use crate::pure::contract::Contract;
use crate::pure::hidden::Hidden;
use crate::pure::pointer::Pointer;
use crate::pure::upstream::target::Base;

/// The most targets of one API.
const TARGETS_MAX: usize = 64;
/// The most header lines that requests are given, and the most headers that are passed on.
const HEADERS_MAX: usize = 64;
/// The longest value of a header that requests are given, in bytes.
const VALUE_BYTES_MAX: usize = 8_192;
/// The largest that an answer can be allowed to be: 1 GiB.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// The most that an API can have under way.
const REQUESTS_AT_ONCE_MAX: u64 = 100_000;
/// The most attempts after the first.
const RETRIES_MAX: u64 = 5;
/// The most room for answers that are given again: 16 GiB.
const CACHE_BYTES_MAX: u64 = 16 << 30;
/// The longest OpenAPI document, in bytes.
const CONTRACT_BYTES_MAX: usize = 4 << 20;
/// As many of its mistakes are named.
const MISTAKES_MAX: usize = 20;

/// Where what describes all APIs lives.
const DOCUMENTS: [&str; 2] = ["/openapi.yaml", "/openapi.json"];

/// What the keys that are left in `block` name.
pub(super) fn all(block: Block<'_>) -> Option<Vec<Arc<UpstreamApi>>> {
    if block.len() > ENTRIES_MAX - Apis::BUILT_IN.len() {
        return block.wrong(&format!("must name at most {ENTRIES_MAX} APIs, those built in among them"));
    }
    let taken = Apis::BUILT_IN.into_iter().map(|(_, path)| path).chain(DOCUMENTS);
    let mut paths: Vec<String> = taken.map(str::to_owned).collect();
    each(block.into_named(), |(name, node)| api(name, node, &mut paths).map(Arc::new))
}

fn api(name: String, node: Node<'_>, paths: &mut Vec<String>) -> Option<UpstreamApi> {
    if !is_name(&name) {
        return node.wrong("an API's name has 1 to 32 characters, each a to z, 0 to 9 or hyphen");
    }
    let mut block = node.block()?;
    let enabled = block.take("enabled").given().map_or(Some(true), Node::yes_no);
    let targets = targets(block.take("upstream"));
    let path = own_path(&name, &mut block, paths);
    let access = block.take("access").given().map(access);
    let cost = block.take("cost").given().map(cost);
    let methods = block.take("methods").given().map(methods);
    let timeout = time(&mut block, "timeout_s");
    let connect_timeout = time(&mut block, "connect_timeout_s");
    let data = block.take("data").given().map(pointer);
    let error_message = block.take("error_message").given().map(pointer);
    let set_headers = block.take("set_headers").given().map(set_headers);
    let pass_headers = block.take("pass_headers").given().map(pass_headers);
    let bodies = block.take("bodies").given().map(bodies);
    let body_bytes = number(&mut block, "body_bytes", 1, BODY_BYTES_MAX).map(|bytes| bytes.map(Some));
    let answer_bytes = number(&mut block, "answer_bytes", 1, ANSWER_BYTES_MAX);
    let formats = block.take("formats").given().map(formats);
    let ca = block.take("ca").given().map(|node| node.text("the path of a PEM file", file).map(Some));
    let http2 = block.take("http2").given().map(Node::yes_no);
    let requests_at_once = number(&mut block, "requests_at_once", 1, REQUESTS_AT_ONCE_MAX);
    let rate = rate_or_none(&mut block);
    let retries = number(&mut block, "retries", 0, RETRIES_MAX);
    let health_check = block.take("health_check").given().map(|node| health_check(node).map(Some));
    let cache_bytes = number(&mut block, "cache_bytes", 0, CACHE_BYTES_MAX);
    let contract = block.take("openapi").given().map(|node| contract(node).map(Some));
    block.finish();
    let default = UpstreamApi::plain(&name, &path?, targets?);
    let api = Api { enabled: enabled?, access: or(access, default.api.access)?, cost: or(cost, default.api.cost)? };
    Some(UpstreamApi {
        api,
        methods: or(methods, default.methods)?,
        timeout: or(timeout, default.timeout)?,
        connect_timeout: or(connect_timeout, default.connect_timeout)?,
        data: or(data, default.data)?,
        error_message: or(error_message, default.error_message)?,
        set_headers: or(set_headers, default.set_headers)?,
        pass_headers: or(pass_headers, default.pass_headers)?,
        bodies: or(bodies, default.bodies)?,
        body_bytes: or(body_bytes, default.body_bytes)?,
        answer_bytes: or(answer_bytes, default.answer_bytes)?,
        formats: or(formats, default.formats)?,
        ca: or(ca, default.ca)?,
        http2: or(http2, default.http2)?,
        requests_at_once: or(requests_at_once, default.requests_at_once)?,
        rate: rate?,
        retries: or(retries, default.retries)?,
        health_check: or(health_check, default.health_check)?,
        cache_bytes: or(cache_bytes, default.cache_bytes)?,
        contract: or(contract, default.contract)?,
        name,
        path: default.path,
        targets: default.targets,
    })
}

/// What was read of a key, or the default of one that is not there. `None` when a mistake was noted.
fn or<T>(read: Option<Option<T>>, default: T) -> Option<T> {
    read.unwrap_or(Some(default))
}

/// A whole number that can be left out.
fn number<T: TryFrom<u64>>(block: &mut Block<'_>, key: &'static str, low: u64, high: u64) -> Option<Option<T>> {
    block.take(key).given().map(|node| node.whole(low, high).and_then(|number| T::try_from(number).ok()))
}

fn time(block: &mut Block<'_>, key: &'static str) -> Option<Option<Duration>> {
    number(block, key, 1, TIME_S_MAX).map(|seconds| seconds.map(Duration::from_secs))
}

/// Who waits for longer than a call may take is answered 503 and never hears of the upstream.
pub(super) fn in_time(top: &Block<'_>, apis: Apis, limits: &Limits) -> Option<Apis> {
    let late = apis.upstreams.iter().filter(|api| api.timeout >= limits.request_timeout);
    let most_s = limits.request_timeout.as_secs();
    let late = late.map(|api| format!("apis.{}.timeout_s", api.name)).collect::<Vec<_>>();
    for path in &late {
        top.wrong_below(path, &format!("must be below limits.request_timeout_s, which is {most_s}"))
    }
    late.is_empty().then_some(apis)
}

fn targets(node: Node<'_>) -> Option<Vec<Base>> {
    let base = |node: Node<'_>| {
        node.text("an http or https address, perhaps with a path, without query or user name", Base::parse)
    };
    if !node.is_list() {
        return base(node).map(|base| vec![base]);
    }
    let items = node.clone().list(TARGETS_MAX)?;
    if items.is_empty() { node.wrong("must name at least one address") } else { each(items, base) }
}

/// Where the API lives: no two in one place.
fn own_path(name: &str, block: &mut Block<'_>, paths: &mut Vec<String>) -> Option<String> {
    let node = block.take("path");
    let own = match node.clone().given() {
        None => format!("/v1/{name}"),
        Some(node) => {
            node.text("a path like /v1/name: A to Z, a to z, 0 to 9, . _ ~ - in its segments", own_path_of)?
        }
    };
    if paths.contains(&own) {
        return node.wrong("is the path of another API");
    }
    paths.push(own.clone());
    Some(own)
}

fn own_path_of(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    let good = text.len() <= PATH_BYTES_MAX && text.strip_prefix('/')?.split('/').all(segment);
    good.then(|| text.to_owned())
}

fn methods(node: Node<'_>) -> Option<Vec<Method>> {
    const KNOWN: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let items = node.clone().list(KNOWN.len())?;
    if items.is_empty() {
        return node.wrong("must name at least one method");
    }
    let of = |node: Node<'_>| {
        node.text("GET, POST, PUT, PATCH or DELETE", |name| KNOWN.into_iter().find(|method| method.as_str() == name))
    };
    let named = each(items, of)?;
    // In one order, as `Allow` tells of them.
    Some(KNOWN.into_iter().filter(|method| named.contains(method)).collect())
}

/// A place in an answer; the empty text is all of it.
fn pointer(node: Node<'_>) -> Option<Option<Pointer>> {
    if node.is_empty() {
        return Some(None);
    }
    node.text("a JSON pointer (RFC 6901), like /result/items, or empty", |text| Pointer::parse(text).ok()).map(Some)
}

fn set_headers(node: Node<'_>) -> Option<Vec<(HeaderName, Hidden<String>)>> {
    let block = node.block()?;
    if block.len() > HEADERS_MAX {
        return block.wrong(&format!("must name at most {HEADERS_MAX} headers"));
    }
    each(block.into_named(), |(name, node)| {
        let Some(name) = header(&name) else { return node.wrong("is not the name of a header") };
        if OURS.contains(&name) {
            return node.wrong("is a header that Polygate sets itself");
        }
        let value = node.clone().filled(VALUE_BYTES_MAX)?;
        match HeaderValue::from_str(value.expose()) {
            Ok(_) => Some((name, value)),
            Err(_) => node.wrong("must be printable ASCII"),
        }
    })
}

fn pass_headers(node: Node<'_>) -> Option<Vec<HeaderName>> {
    each(node.list(HEADERS_MAX)?, |node| {
        let name = node.clone().text("the name of a header", header)?;
        if OURS.contains(&name) || name == "x-api-key" {
            return node.wrong("is a header that Polygate sets itself");
        }
        if CONDITIONAL.contains(&name) {
            return node.wrong("asks for what an answer in another format cannot keep");
        }
        Some(name)
    })
}

fn header(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// What belongs to a connection (RFC 9110 section 7.6.1), or says who asks, for what and how long it is.
const OURS: [HeaderName; 20] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
    HOST,
    CONTENT_LENGTH,
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    ACCEPT,
];

/// What is about one encoding of an answer.
const CONDITIONAL: [HeaderName; 7] =
    [ACCEPT_ENCODING, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

fn bodies(node: Node<'_>) -> Option<RequestBodies> {
    node.text("untouched or json", |word| match word {
        "untouched" => Some(RequestBodies::Untouched),
        "json" => Some(RequestBodies::Json),
        _ => None,
    })
}

fn formats(node: Node<'_>) -> Option<AnswerFormats> {
    node.text("negotiated or passthrough", |word| match word {
        "negotiated" => Some(AnswerFormats::Negotiated),
        "passthrough" => Some(AnswerFormats::Passthrough),
        _ => None,
    })
}

/// The document in a file; each of its mistakes is one of the configuration's.
fn contract(node: Node<'_>) -> Option<Arc<Contract>> {
    let file = node.clone().text("the path of an OpenAPI document", file)?;
    match text_of(&file, CONTRACT_BYTES_MAX).map_err(|reason| vec![reason]).and_then(|text| Contract::parse(&text)) {
        Ok(contract) => Some(Arc::new(contract)),
        Err(mistakes) => {
            mistakes.iter().take(MISTAKES_MAX).for_each(|mistake| {
                node.wrong::<()>(&format!("{}: {mistake}", file.display()));
            });
            None
        }
    }
}

fn health_check(node: Node<'_>) -> Option<String> {
    node.text("a path like /health", |text| {
        let good = text.starts_with('/') && text.len() <= PATH_BYTES_MAX && text.parse::<http::Uri>().is_ok();
        good.then(|| text.to_owned())
    })
}
