//! What is known of a call, and what is written down of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::{Gateway, Head, RequestHead};
use crate::pure::accept::Choice;
use crate::pure::envelope::Dialect;
use crate::pure::format::{Format, Style};
use crate::pure::log_line::{CallLine, UNANSWERED};
use crate::pure::trace::TraceParent;
use crate::pure::usage::Outcome;
use crate::service::upstream;
use crate::state::keyring::Entry;
use crate::state::limiter::Quota;
use crate::state::meter::Caller;
use crate::state::metrics::RouteMetrics;
use crate::state::traces::{Begun, Origin};

/// What is known of a call from its first step to its answer.
pub struct Context {
    /// What all calls share.
    pub gateway: Arc<Gateway>,
    /// `X-Request-ID`: the client's own, or a UUID.
    pub request_id: HeaderValue,
    /// The format of the answer.
    pub choice: Choice,
    /// Whether the caller accepts that format; if not, it is JSON all the same.
    pub acceptable: bool,
    /// Its options.
    pub style: Style,
    /// The shape of the answer.
    pub dialect: Dialect,
    /// Who calls, as an address: the peer, or what a trusted proxy says of it.
    pub address: IpAddr,
    /// Whether its connection was encrypted, as far as we know or a trusted proxy says.
    pub is_https: bool,
    /// The time of the call, read once.
    pub now_unix_s: u64,
    /// When it came.
    pub came: Came,
    /// The trace that it is part of, as its caller says; from [`decode`](super::decode) on, what an upstream is told.
    pub parent: Option<TraceParent>,
    /// What else the caller says of that trace, in `tracestate`; read only where traces are on.
    pub trace_state: Option<String>,
    /// Its span in that trace, where an upstream is told of it.
    pub span: Option<Begun>,
    /// Its method, as the log has it.
    pub method: &'static str,
    /// Whether its client can see that a body without a length has broken off: not with HTTP/1.0 (RFC 9112 section 8).
    pub can_stream: bool,
    /// What it reaches, where it is counted.
    pub reached: Arc<RouteMetrics>,
    /// How much of a body was read.
    pub request_bytes: usize,
    /// The number of the API that is called, once that is known.
    pub api: Option<u16>,
    /// Who calls, by key; from [`authenticate`](super::authenticate) on.
    pub caller: Option<Arc<Entry>>,
    /// What is left of the per-minute limit; from [`admit`](super::admit) on, for throttled callers.
    pub quota: Option<Quota>,
    /// The request, if it has one that could be given up.
    pub head: Option<Head>,
}

/// A moment, by the clock on the wall and by the one that goes on evenly.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// In milliseconds of Unix time.
    pub unix_ms: u64,
    /// As [`Clock::monotonic`](crate::state::clock::Clock::monotonic) has it.
    pub monotonic: Duration,
}

impl Context {
    /// Writes down how the call ended: its status, the code of its fault, the format of its answer where there is a
    /// choice, and the length of the answer's body.
    pub fn ended(&mut self, status: u16, code: Option<&'static str>, format: Option<Format>, body_bytes: usize) {
        let head = self.head.take();
        let gateway = &self.gateway;
        let elapsed = gateway.clock.monotonic().saturating_sub(self.came.monotonic);
        self.reached.call(status, format, elapsed);
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let caller = self.caller.as_deref();
        let call = CallLine {
            unix_ms: self.came.unix_ms.saturating_add(elapsed_us / 1_000),
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: self.parent.map(|parent| parent.trace_id),
            method: self.method,
            route: &self.reached.name,
            status,
            code,
            format: format.map(Format::name),
            account: caller.map(|entry| entry.account.id),
            key: caller.map(|entry| entry.prefix.as_str()),
            request_bytes: self.request_bytes,
            // Answers to HEAD leave without their bodies.
            response_bytes: if self.method == "HEAD" { 0 } else { body_bytes },
            elapsed_us,
        };
        gateway.log.call(&call);
        if gateway.traces.are_on() {
            let route = head.as_ref().and_then(|head| gateway.catalog.find(head.uri.path()));
            let (path, trace_state) = (route.map(|route| &*route.path), self.trace_state.as_deref());
            gateway.traces.call(&call, &Origin { path, parent: self.parent, trace_state }, self.span.take());
        }
    }

    /// Writes down that the call ended without an answer, and in a word why.
    pub fn unanswered(&mut self, code: &'static str) {
        self.ended(UNANSWERED, Some(code), None, 0);
    }

    /// The trace as an upstream is told of it: asked by this call, if that is sampled, and in a trace that begins here if the
    /// caller has none; `None` where what the caller says will do.
    pub(super) fn trace(&mut self, head: &RequestHead) -> Option<TraceParent> {
        let origin = Origin { path: None, parent: self.parent, trace_state: self.trace_state.as_deref() };
        self.span = self.gateway.traces.begin(self.came.unix_ms, &origin);
        let trace = match (&self.span, self.parent) {
            (Some(span), _) => span.as_parent(),
            (None, Some(_)) => return None,
            (None, None) => {
                let is_own = head.headers.get("x-request-id") != Some(&self.request_id);
                upstream::new_trace(is_own.then_some(&self.request_id))
            }
        };
        self.parent = Some(trace);
        Some(trace)
    }

    /// Who calls what, as the ledger has it; `None` for callers without a key.
    pub(super) fn ledgered(&self) -> Option<Caller> {
        let entry = self.caller.as_ref()?;
        Some(Caller { account: entry.account.id, key: entry.id, api: self.api? })
    }

    /// Counts a call that costs nothing.
    pub fn count(&self, outcome: Outcome) {
        if let Some(caller) = self.ledgered() {
            self.gateway.meter.tally.count(caller, outcome, self.now_unix_s);
        }
    }
}
