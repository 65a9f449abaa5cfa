//! `polygate try`: one call through an API, step by step, from the path that is asked for to what the caller would get. It
//! needs no server, asks for no key and charges nobody.

use std::fmt::Write;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use tokio::runtime;
use uuid::Uuid;

use crate::config::{Access, Config};
use crate::pure::accept::{self, Choice};
use crate::pure::envelope::{self, Dialect};
use crate::pure::fault::Fault;
use crate::pure::format::Style;
use crate::pure::input::BodyKind;
use crate::pure::trace::TraceParent;
use crate::pure::transcode::{PIECE_BYTES, Transcoder};
use crate::service::catalog::{Catalog, Route};
use crate::service::upstream::{Ask, Content, From, Sent, Tried, Upstream, new_trace};
use crate::state::clock::Clock;
use crate::state::metrics::Metrics;

use super::Failure;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The API: one that has an upstream.
    name: String,
    /// What is asked for below its path, with its query: '/latest?n=3'.
    #[arg(default_value = "", hide_default_value = true)]
    below: String,
    /// The method.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: Method,
    /// The body.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// What the body is.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    /// What the caller accepts.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    accept: String,
    /// A header line of the caller's: 'Accept-Language: de'; repeat for more.
    #[arg(long = "header", value_name = "LINE", value_parser = line)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A header line as it is typed. What is wrong with it is said without it: it may hold a secret.
fn line(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = text.split_once(':').ok_or("must be a name and a value, like 'Accept-Language: de'")?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| "must begin with the name of a header")?;
    Ok((name, HeaderValue::try_from(value.trim()).map_err(|_| "must have a value without control characters")?))
}

/// What is shown of a body, in bytes.
const SHOWN_BYTES: usize = 4_096;

/// All that can be called, as a server with this configuration would have it; nothing of the ledger is in it.
pub(super) fn catalog(config: &Config, clock: &Clock) -> Result<Catalog, Failure> {
    let numbers: Vec<u16> = (1..).take(config.apis.names().count()).collect();
    Ok(Catalog::of(config, &numbers, &Metrics::new(clock.unix_s()), clock).map_err(crate::RunError::from)?)
}

/// What came of the steps, and the fault that the call ended in, if it did.
pub(super) fn attempt(config: &Config, options: &Options, clock: &Clock) -> Result<(String, Option<Fault>), Failure> {
    let catalog = catalog(config, clock)?;
    let Some((route, upstream)) = catalog.own(&options.name) else {
        let names: Vec<&str> = config.apis.upstreams.iter().map(|api| &*api.name).collect();
        let others = if names.is_empty() { "the configuration has none".to_owned() } else { names.join(", ") };
        let message = format!("{} is no API with an upstream that is enabled: {others}", options.name);
        return Err(io::Error::new(io::ErrorKind::NotFound, message).into());
    };
    let mut steps = Steps(String::new());
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(steps.go(config, route, upstream, options, clock));
    let fault = match outcome {
        Ok(()) => None,
        Err(fault) => {
            steps.refused(&fault, options);
            Some(fault)
        }
    };
    Ok((steps.0, fault))
}

/// What was seen up to now.
struct Steps(String);

impl Steps {
    async fn go(
        &mut self,
        config: &Config,
        route: &Route,
        upstream: &Upstream,
        options: &Options,
        clock: &Clock,
    ) -> Result<(), Fault> {
        let target = format!("{}{}", route.path, options.below);
        let mut request =
            Request::builder().method(&options.method).uri(&*target).body(()).map_err(|_| Fault::InvalidPath)?;
        let body = options.body.clone().unwrap_or_default();
        request.headers_mut().extend(options.headers.iter().cloned());
        let accept = HeaderValue::try_from(&*options.accept);
        request.headers_mut().insert(header::ACCEPT, accept.map_err(|_| Fault::MalformedRequest)?);
        if options.body.is_some() {
            let kind = HeaderValue::try_from(&*options.content_type);
            request.headers_mut().insert(header::CONTENT_TYPE, kind.map_err(|_| Fault::MalformedRequest)?);
        }
        let (head, ()) = request.into_parts();

        self.step("route", &format!("{} {target}", options.method));
        let settings = upstream.settings();
        self.detail(&match (route.access, route.cost) {
            (Access::Open, _) => format!("{}: open to all", route.name),
            (Access::Key, cost) => format!("{}: needs a key, a success costs {cost}", route.name),
        });
        self.detail(&format!("answers to {}", upstream.allowed()));
        if let Some(fault) = route.refusal(&head.method, head.uri.path()) {
            return Err(fault);
        }
        let accepted = accept::choose(iter::once(options.accept.as_bytes()));
        if accepted.is_none() && route.refuses_other_types(config) {
            return Err(Fault::NotAcceptable);
        }
        let accepted = accepted.unwrap_or(Choice::JSON);
        let kind = match &*body {
            "" => None,
            _ => {
                let kind = BodyKind::from_content_type(options.content_type.as_bytes());
                let kind = kind.filter(|kind| route.bodies.include(*kind));
                Some(kind.ok_or(Fault::UnsupportedBody(route.bodies.media_types()))?)
            }
        };

        let id = HeaderValue::try_from(Uuid::new_v4().to_string()).map_err(|_| Fault::Internal)?;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let is_traced =
            head.headers.get("traceparent").is_some_and(|line| TraceParent::parse(line.as_bytes()).is_some());
        let trace = (!is_traced).then(|| new_trace(Some(&id)));
        let from = From { address, is_https: false, request_id: &id, is_traced, trace };
        let sent = Sent { kind, body: body.into(), bytes_max: route.body_bytes };
        let ask = Ask::new(upstream, &route.path, &head, sent, &from)?;
        if settings.contract.is_some() {
            self.step("contract", "the request is as the API describes it");
        }
        let trial = upstream.trial(&ask)?;
        let sent = trial.request();
        self.step("request", &format!("{} {}", sent.method(), sent.uri()));
        self.headers(sent.headers());

        let tried = trial.send(clock).await.map_err(|(fault, reason)| {
            self.step("failure", &reason);
            fault
        });
        let Tried { status, headers, head_took, body } = tried?;
        self.step("answer", &format!("{status} after {:.1} ms", head_took.as_secs_f64() * 1e3));
        self.headers(&headers);
        let (content, body, took) = body?;
        let kind = if content == Content::Json { "JSON" } else { "another kind, which is passed on as it is" };
        self.step("body", &format!("{} bytes of {kind} after {:.1} ms", body.len(), took.as_secs_f64() * 1e3));
        if content != Content::Json {
            return Ok(());
        }

        let (pointer, bytes_max) = (settings.data.clone().filter(|_| !body.is_empty()), settings.answer_bytes);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut transcoder = Transcoder::new(route.dialect, accepted.format, Style::default(), pointer, bytes_max);
        let mut out = Vec::new();
        let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
        let written = body.chunks(PIECE_BYTES).try_for_each(|piece| transcoder.feed(piece, &mut out));
        if let Err(flaw) = written.and_then(|()| transcoder.finish(&mut out)) {
            self.step("flaw", &flaw.to_string());
            return Err(Fault::UpstreamUnreadable);
        }
        self.caller(200, accepted.content_type, &out);
        Ok(())
    }

    /// A step, by a name of at most eight letters.
    fn step(&mut self, name: &str, what: &str) {
        // Writing to memory does not fail.
        let _ = writeln!(self.0, "{name:<10}{what}");
    }

    fn detail(&mut self, what: &str) {
        self.step("", what);
    }

    fn headers(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if value.is_sensitive() {
                self.detail(&format!("{name}: (hidden, {} bytes)", value.len()));
            } else {
                self.detail(&format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()).escape_debug()));
            }
        }
    }

    fn refused(&mut self, fault: &Fault, options: &Options) {
        let choice = accept::choose(iter::once(options.accept.as_bytes())).unwrap_or(Choice::JSON);
        let mut out = Vec::new();
        // A fault is a few short texts, which every format can hold.
        let _ = envelope::failure(Dialect::Enveloped, fault, choice.format, Style::default(), &mut out);
        self.caller(fault.status(), choice.content_type, &out);
        self.detail(&format!("x-error-code: {}; charged nothing", fault.code()));
    }

    /// What the caller gets.
    fn caller(&mut self, status: u16, content_type: &str, body: &[u8]) {
        self.step("caller", &format!("{status}, {} bytes of {content_type}", body.len()));
        let shown = &body[..body.len().min(SHOWN_BYTES)];
        self.0.push_str(&String::from_utf8_lossy(shown));
        if !shown.ends_with(b"\n") {
            self.0.push('\n');
        }
        if shown.len() < body.len() {
            self.detail(&format!("and {} bytes more", body.len() - shown.len()));
        }
    }
}
