//! Traces: the calls that are sampled become spans, which OpenTelemetry's SDK gathers and sends from a thread of its own.
//!
//! A span is made where a call ends, of what its line in the log has; it is begun before only where somebody else is told of
//! it. Nobody waits for a collector: spans beyond those
//! that may wait are dropped and counted.

use std::fmt;
use std::future::{self, Future};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanLimits, SpanProcessor,
};

use super::metrics::Metrics;
use super::report::Report;
use crate::pure::log_line::{CallLine, UNANSWERED, UNKNOWN_METHOD};
use crate::pure::trace::TraceParent;

/// How long a span may wait for others to be sent with.
const INTERVAL: Duration = Duration::from_secs(5);
/// With so many of them waiting, they are sent at once, and at most so many together.
const BATCH_MAX: usize = 512;
/// The most that wait.
const WAITING_MAX: usize = 2_048;
/// How long the program waits for its last spans to be sent when it ends.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes calls that have ended. Clones share it.
#[derive(Clone, Debug)]
pub struct Traces(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    scheme: &'static str,
}

/// What a span has that is not in the log.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The path of the API, where there is one.
    pub path: Option<&'a str>,
    /// The span of the caller.
    pub parent: Option<TraceParent>,
    /// The `tracestate` that came with it.
    pub trace_state: Option<&'a str>,
}

/// The span of a call that is sampled and under way. It has to be ended by [`Traces::call`].
#[derive(Debug)]
pub struct Begun(Box<Span>);

impl Begun {
    /// What those are told whom the call asks: that they are asked by this span.
    pub fn as_parent(&self) -> TraceParent {
        let span = self.0.span_context();
        TraceParent::new(span.trace_id().to_bytes(), span.span_id().to_bytes(), true)
    }
}

/// Sends spans to a collector, and waits for its answer: how many of them it has rejected, or why nothing could be sent.
pub type SendSpans = Box<dyn Fn(Vec<SpanData>) -> Result<u64, String> + Send + Sync>;

impl Traces {
    /// Takes nothing.
    pub fn off() -> Traces {
        Traces(None)
    }

    /// What calls are sampled by, and the thread that sends them by `send`. Those that begin a trace are sampled by
    /// `sample_ratio`, and others as their callers were. `scheme` is `http` or `https`. `report` is told when sending begins
    /// to fail, and when it works again.
    pub fn start(
        send: SendSpans,
        sample_ratio: f64,
        scheme: &'static str,
        metrics: Arc<Metrics>,
        report: Report,
    ) -> Traces {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = Exporter { send, waiting: waiting.clone(), metrics: metrics.clone(), report, fails: 0.into() };
        // Everything is set here: the SDK would otherwise look for it in environment variables of its own.
        let config = BatchConfigBuilder::default()
            .with_scheduled_delay(INTERVAL)
            .with_max_export_batch_size(BATCH_MAX)
            .with_max_queue_size(WAITING_MAX)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio))))
            .with_span_limits(SpanLimits::default())
            .with_span_processor(Bounded { batches, waiting, metrics })
            .with_resource(resource())
            .build();
        Traces(Some(Arc::new(On { tracer: provider.tracer("polygate"), provider, scheme })))
    }

    /// Whether calls are taken at all.
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a call that came at `unix_ms`, if it is sampled.
    pub fn begin(&self, unix_ms: u64, origin: &Origin<'_>) -> Option<Begun> {
        Some(Begun(Box::new(self.0.as_ref()?.span(start(unix_ms), origin)?)))
    }

    /// Makes a span of a call that has ended, if it is sampled, or ends the one that was begun.
    pub fn call(&self, call: &CallLine<'_>, origin: &Origin<'_>, begun: Option<Begun>) {
        let Some(on) = &self.0 else { return };
        let start = start(call.unix_ms.saturating_sub(call.elapsed_us / 1_000));
        if let Some(mut span) = begun.map(|begun| *begun.0).or_else(|| on.span(start, origin)) {
            describe(&mut span, call, origin, on.scheme);
            span.end_with_timestamp(start + Duration::from_micros(call.elapsed_us));
        }
    }

    /// Sends what is waiting, as far as that takes no longer than some seconds, and takes nothing more.
    pub fn end(&self) {
        if let Some(on) = &self.0 {
            // What could not be sent has been told of.
            let _ = on.provider.shutdown_with_timeout(END_TIMEOUT);
        }
    }
}

impl On {
    /// A span, if it is sampled.
    fn span(&self, start: SystemTime, origin: &Origin<'_>) -> Option<Span> {
        let builder = SpanBuilder::from_name("").with_kind(SpanKind::Server).with_start_time(start);
        Some(self.tracer.build_with_context(builder, &parent(origin))).filter(Span::is_recording)
    }
}

fn start(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

/// Who sends the spans.
pub fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder_empty().with_service_name("polygate").with_attribute(version).build()
}

fn parent(Origin { parent, trace_state, .. }: &Origin<'_>) -> Context {
    let Some(parent) = parent else { return Context::new() };
    let (trace_id, span_id) = (parent.trace_id.as_str(), parent.span_id.as_str());
    let (Ok(trace_id), Ok(span_id)) = (TraceId::from_hex(trace_id), SpanId::from_hex(span_id)) else {
        return Context::new();
    };
    // One that is not written by its rules counts as none (W3C Trace Context, section 3.3).
    let state = trace_state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let flags = TraceFlags::default().with_sampled(parent.sampled);
    Context::new().with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, state))
}

/// Names and attributes are those of OpenTelemetry's conventions for servers of HTTP, as far as they tell nothing of the
/// client, and ours beside them.
fn describe(span: &mut Span, call: &CallLine<'_>, origin: &Origin<'_>, scheme: &'static str) {
    let is_known = call.method != UNKNOWN_METHOD;
    let name = if is_known { call.method } else { "HTTP" };
    match origin.path {
        Some(path) => span.update_name(format!("{name} {path}")),
        None => span.update_name(name),
    }
    span.set_attribute(KeyValue::new("http.request.method", if is_known { call.method } else { "_OTHER" }));
    span.set_attribute(KeyValue::new("url.scheme", scheme));
    if call.status != UNANSWERED {
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(call.status)));
    }
    span.set_attribute(KeyValue::new("polygate.request_id", call.request_id.to_owned()));
    let texts = [("http.route", origin.path), ("error.type", call.code), ("polygate.format", call.format)];
    for (name, value) in texts {
        if let Some(value) = value {
            span.set_attribute(KeyValue::new(name, value.to_owned()));
        }
    }
    if let Some(account) = call.account {
        span.set_attribute(KeyValue::new("polygate.account.id", i64::from(account)));
    }
    if call.status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// Lets so many spans wait and no more: the SDK's own queue drops them without saying how many.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Relaxed) < WAITING_MAX {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
            self.metrics.spans_dropped.add(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

/// What the SDK's thread sends by.
struct Exporter {
    send: SendSpans,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    report: Report,
    /// How often sending has failed since it last worked.
    fails: AtomicUsize,
}

impl SpanExporter for Exporter {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let count = batch.len();
        self.waiting.fetch_sub(count, Relaxed);
        // The thread has nothing else to do meanwhile.
        let sent = (self.send)(batch);
        let failed = match &sent {
            Ok(rejected) => usize::try_from(*rejected).unwrap_or(count).min(count),
            Err(_) => count,
        };
        self.metrics.spans_failed.add(failed as u64);
        self.metrics.spans_exported.add((count - failed) as u64);
        match sent {
            Ok(0) if self.fails.swap(0, Relaxed) > 0 => (self.report)(&"traces are taken again"),
            Ok(0) => {}
            _ if self.fails.fetch_add(1, Relaxed) > 0 => {}
            Ok(rejected) => (self.report)(&format_args!("traces are lost: the collector rejected {rejected} spans")),
            Err(reason) => (self.report)(&format_args!("traces are lost: {reason}")),
        }
        future::ready(Ok(()))
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}
