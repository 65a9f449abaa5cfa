//! Traces, as a collector gets them: a receiver of OTLP over HTTP that reads what comes with OpenTelemetry's own types.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags};
use polygate::pure::trace::TraceParent;
use polygate::state::clock::Clock;
use prost::Message;

use crate::support::{App, Reports, Setup};
use crate::upstream::server::{Server, Then};

/// What a collector does with a request.
#[derive(Clone, Copy)]
pub enum Answer {
    /// Takes the spans.
    Takes,
    /// Answers with this status.
    Refuses(&'static str),
    /// Takes all spans but so many.
    Rejects(i64),
    /// Reads and says nothing.
    Silence,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Posted {
    pub head: String,
    pub body: Vec<u8>,
}

pub struct Collector {
    pub address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Collector {
    pub fn new(answer: Answer) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (posted, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answer)));
        let collector = Collector { address, posted: Arc::clone(&posted), answer: Arc::clone(&answer) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (posted, answer) = (Arc::clone(&posted), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &posted, &answer));
            }
        });
        collector
    }

    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    fn config(&self, more: &str) -> String {
        format!("traces: {{ endpoint: 'http://{}/v1/traces?tenant=1', {more} }}", self.address)
    }

    /// All spans that came, in their order, after checking what they came in.
    fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for Posted { head, body } in self.posted() {
            assert!(head.starts_with("POST /v1/traces?tenant=1 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
            assert!(head.contains(concat!("user-agent: polygate/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            for resource_spans in request.resource_spans {
                let resource = attributes(&resource_spans.resource.unwrap().attributes);
                let wanted = ["service.name=polygate", concat!("service.version=", env!("CARGO_PKG_VERSION"))];
                assert_eq!(resource, wanted);
                for scope_spans in resource_spans.scope_spans {
                    assert_eq!(scope_spans.scope.unwrap().name, "polygate");
                    spans.extend(scope_spans.spans);
                }
            }
        }
        spans
    }
}

fn serve(stream: TcpStream, posted: &Mutex<Vec<Posted>>, answer: &Mutex<Answer>) {
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    posted.lock().unwrap().push(Posted { head, body });
    let (status, body) = match *answer.lock().unwrap() {
        Answer::Takes => ("200 OK", ExportTraceServiceResponse::default()),
        Answer::Refuses(status) => (status, ExportTraceServiceResponse::default()),
        Answer::Rejects(rejected_spans) => {
            let error_message = "the collector's own words".to_owned();
            let partial = ExportTracePartialSuccess { rejected_spans, error_message };
            ("200 OK", ExportTraceServiceResponse { partial_success: Some(partial) })
        }
        Answer::Silence => {
            // Until the other end has had enough.
            let _ = reader.read(&mut [0]);
            return;
        }
    };
    let body = body.encode_to_vec();
    // Whoever asked may have gone.
    let _ = write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = (&stream).write_all(&body);
}

/// Attributes as text, sorted.
fn attributes(attributes: &[KeyValue]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let one = |it: &KeyValue| format!("{}={}", it.key, text(it.value.as_ref().unwrap().value.as_ref().unwrap()));
    let mut all: Vec<String> = attributes.iter().map(one).collect();
    all.sort();
    all
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

const NOW: u64 = 1_765_924_235;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const CALL: &str = "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP&format=xml\nX-API-Key: $key";

fn app(config: String) -> (App, Reports) {
    let reports = Reports::default();
    let setup =
        Setup { config, now_unix_s: NOW, reports: Some(reports.clone()), plan: "mega".into(), ..Setup::default() };
    (App::new(&setup), reports)
}

#[tokio::test]
async fn a_call_is_a_span_of_the_callers_trace() {
    let collector = Collector::new(Answer::Takes);
    let (app, reports) = app(collector.config("sample_ratio: 0, headers: ['X-Token: abc']"));
    let parent = format!("{CALL}\nX-Request-ID: one\ntraceparent: 00-{TRACE}-{PARENT}-01\ntracestate: a=1, b@c=2");
    assert_eq!(app.send(&parent).await.status, 200);
    // The caller has not recorded it.
    assert_eq!(app.send(&parent.replace("-01\n", "-00\n")).await.status, 200);
    // There is no caller that decides, and of those traces none is sent.
    assert_eq!(app.send(CALL).await.status, 200);
    app.gateway.traces.end();

    let spans = collector.spans();
    let [span] = &*spans else { panic!("{spans:?}") };
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert!(span.span_id.len() == 8 && span.span_id != [0; 8] && hex(&span.span_id) != PARENT);
    assert_eq!(span.trace_state, "a=1,b@c=2");
    let flags = SpanFlags::ContextHasIsRemoteMask as u32 | SpanFlags::ContextIsRemoteMask as u32 | 1;
    assert_eq!(span.flags, flags);
    assert_eq!((&*span.name, span.kind()), ("GET /v1/totpgenerator", SpanKind::Server));
    let now_ns = NOW * 1_000_000_000;
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (now_ns, now_ns));
    let wanted = [
        "http.request.method=GET",
        "http.response.status_code=200",
        "http.route=/v1/totpgenerator",
        "polygate.account.id=1",
        "polygate.format=xml",
        "polygate.request_id=one",
        "url.scheme=http",
    ];
    assert_eq!(attributes(&span.attributes), wanted);
    assert_eq!(span.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    assert!(span.events.is_empty() && span.links.is_empty());
    assert!(collector.posted()[0].head.contains("x-token: abc\r\n"));
    assert_eq!(app.gateway.metrics.spans_exported.get(), 1);
    assert_eq!(*reports.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_call_without_a_caller_begins_a_trace() {
    let collector = Collector::new(Answer::Takes);
    let (app, _) = app(collector.config("sample_ratio: 1"));
    assert_eq!(
        app.send("GET /v1/totpgenerator\nX-Request-ID: two\ntraceparent: none\ntracestate: a=1").await.status,
        401
    );
    assert_eq!(app.send("BREW /coffee?secret=x\nX-Request-ID: three").await.status, 404);
    assert_eq!(app.send("GET /openapi.json\nX-Request-ID: four").await.status, 200);
    assert_eq!(app.send(&format!("{CALL}\ntraceparent: 00-{TRACE}-{PARENT}-00")).await.status, 200);
    app.gateway.traces.end();

    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "what a caller has not recorded stays out: {spans:?}");
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!(ids.len(), 3);
    assert!(spans.iter().all(|span| span.trace_id.len() == 16 && span.parent_span_id.is_empty()));
    assert!(spans.iter().all(|span| span.trace_state.is_empty()));
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["GET /v1/totpgenerator", "HTTP", "GET"]);
    let wanted = [
        "error.type=key-required",
        "http.request.method=GET",
        "http.response.status_code=401",
        "http.route=/v1/totpgenerator",
        "polygate.format=json",
        "polygate.request_id=two",
        "url.scheme=http",
    ];
    assert_eq!(attributes(&spans[0].attributes), wanted);
    let wanted = [
        "error.type=unknown-api",
        "http.request.method=_OTHER",
        "http.response.status_code=404",
        "polygate.format=json",
        "polygate.request_id=three",
        "url.scheme=http",
    ];
    assert_eq!(attributes(&spans[1].attributes), wanted);
}

#[tokio::test]
async fn a_part_of_the_traces_that_begin_here_is_sent() {
    let collector = Collector::new(Answer::Takes);
    let (app, _) = app(collector.config("sample_ratio: 0.5"));
    for _ in 0..400 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    app.gateway.traces.end();
    // Ten standard deviations to either side.
    let count = collector.spans().len();
    assert!((100..=300).contains(&count), "{count}");
    assert_eq!(app.gateway.metrics.spans_exported.get(), count as u64);
}

#[tokio::test]
async fn an_upstream_is_asked_by_the_span_that_is_sent_to_the_collector() {
    let upstream = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        Then::Keep
    });
    let collector = Collector::new(Answer::Takes);
    let api = format!("apis: {{ a: {{ upstream: 'http://{}' }} }}", upstream.address);
    let (app, _) = app(format!("{}\n{api}", collector.config("sample_ratio: 0.5")));
    let mut told = Vec::new();
    for _ in 0..60 {
        assert_eq!(app.send("GET /v1/a\nX-API-Key: $key").await.status, 200);
        told.push(TraceParent::parse(upstream.last().header("traceparent").as_bytes()).unwrap());
    }
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let call = format!("GET /v1/a/x\nX-API-Key: $key\ntracestate: a=1\ntraceparent: {parent}");
    assert_eq!(app.send(&call).await.status, 200);
    let seen = upstream.last();
    let continued = TraceParent::parse(seen.header("traceparent").as_bytes()).unwrap();
    assert_eq!((continued.trace_id.as_str(), &*seen.header("tracestate")), (TRACE, "a=1"));
    assert!(continued.sampled && continued.span_id.as_str() != PARENT);
    // The caller has not recorded it, and nor do we.
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(app.send(&call.replace(&parent, &unsampled)).await.status, 200);
    assert_eq!(upstream.last().header("traceparent"), unsampled);
    // Refused when all that the upstream would have been told was known.
    let asked = upstream.count();
    assert_eq!(app.send(&call.replace("/x", "/..")).await.status, 400);
    assert_eq!(upstream.count(), asked);
    app.gateway.traces.end();

    let mut spans = collector.spans();
    let refused = spans.pop().unwrap();
    assert!(attributes(&refused.attributes).contains(&"http.response.status_code=400".to_owned()), "{refused:?}");
    assert_eq!((hex(&refused.trace_id), hex(&refused.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    let last = spans.pop().unwrap();
    assert_eq!((hex(&last.parent_span_id), &*last.name), (PARENT.to_owned(), "GET /v1/a"));
    assert_eq!((hex(&last.trace_id), hex(&last.span_id)), (TRACE.to_owned(), continued.span_id.as_str().to_owned()));
    let sent: Vec<_> = spans.iter().map(|span| (hex(&span.trace_id), hex(&span.span_id))).collect();
    let ids = |it: &&TraceParent| (it.trace_id.as_str().to_owned(), it.span_id.as_str().to_owned());
    let sampled: Vec<_> = told.iter().filter(|it| it.sampled).map(|it| ids(&it)).collect();
    assert_eq!(sent, sampled);
    assert!(!sampled.is_empty() && sampled.len() < told.len(), "{sampled:?}");
}

#[tokio::test]
async fn a_collector_that_cannot_be_reached_harms_no_call_and_is_told_of_once() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (app, reports) = app(format!("traces: {{ endpoint: 'http://{dead}/v1/traces', sample_ratio: 1 }}"));
    for _ in 0..1_200 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    app.gateway.traces.end();
    assert_eq!(app.gateway.metrics.spans_failed.get(), 1_200);
    assert_eq!(*reports.lock().unwrap(), ["traces are lost: connection refused"]);
}

#[tokio::test]
async fn a_collector_that_refuses_or_rejects_is_told_of_until_it_takes_again() {
    let collector = Collector::new(Answer::Refuses("503 Service Unavailable"));
    let (app, reports) = app(collector.config("sample_ratio: 1"));
    let send = |answer| {
        *collector.answer.lock().unwrap() = answer;
        let (app, before) = (&app, collector.posted().len());
        let collector = &collector;
        async move {
            // As many as are sent at once.
            for _ in 0..512 {
                assert_eq!(app.send(CALL).await.status, 200);
            }
            until(|| collector.posted().len() > before);
            let metrics = &app.gateway.metrics;
            until(|| metrics.spans_exported.get() + metrics.spans_failed.get() == collector.spans().len() as u64);
        }
    };
    send(Answer::Refuses("503 Service Unavailable")).await;
    send(Answer::Rejects(7)).await;
    send(Answer::Takes).await;
    send(Answer::Rejects(7)).await;
    let metrics = &app.gateway.metrics;
    assert_eq!((metrics.spans_failed.get(), metrics.spans_exported.get()), (512 + 14, 512 + 2 * 505));
    let wanted =
        ["traces are lost: status 503", "traces are taken again", "traces are lost: the collector rejected 7 spans"];
    assert_eq!(*reports.lock().unwrap(), wanted);
}

#[tokio::test]
async fn a_collector_that_says_nothing_holds_up_neither_calls_nor_the_end() {
    let collector = Collector::new(Answer::Silence);
    let (app, _) = app(collector.config("sample_ratio: 1"));
    for _ in 0..3_000 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    until(|| !collector.posted().is_empty());
    // One batch is under way, and 2,048 spans wait.
    let dropped = app.gateway.metrics.spans_dropped.get();
    assert!((3_000 - 2_048 - 512..=3_000 - 2_048).contains(&dropped), "{dropped}");
    // Returns, or the test does not.
    app.gateway.traces.end();
    assert_eq!(app.send(CALL).await.status, 200);
}

fn until(is_so: impl Fn() -> bool) {
    let clock = Clock::system();
    let begin = clock.monotonic();
    while !is_so() {
        assert!(clock.monotonic() - begin < Duration::from_secs(30), "what was waited for did not come");
        thread::sleep(Duration::from_millis(5));
    }
}
