//! What an upstream is asked, who may ask, and what is tried when it fails.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use polygate::pure::bounds::Bounds;
use polygate::pure::trace::TraceParent;

use super::server::{Nobody, Seen, Server, Then, ask, call, parse, receive};
use crate::sockets::{Live, status_of};
use crate::support::{Answer, App, Setup};

fn says(stream: &mut TcpStream, text: &str) -> Then {
    let _ = stream.write_all(text.replace('\n', "\r\n").as_bytes());
    Then::Keep
}

fn ok(_: &Seen, stream: &mut TcpStream) -> Then {
    says(stream, "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}")
}

/// A program with the APIs of these lines, in which `$0`, `$1` … are the addresses of `servers`.
pub fn live(servers: &[SocketAddr], apis: &str, setup: Setup) -> Live {
    let config = servers
        .iter()
        .enumerate()
        .fold(apis.to_owned(), |apis, (at, address)| apis.replace(&format!("${at}"), &format!("http://{address}")));
    Live::new(&Setup { config: format!("{}\napis:\n{config}", setup.config), ..setup })
}

#[test]
fn path_and_query_and_what_is_allowed_of_the_head_are_passed_on() {
    let server = Server::start(ok);
    let apis = "  a: { upstream: '$0/base/', methods: [GET, POST, DELETE], cost: 0, \
                pass_headers: [content-type, x-own, x-hop, authorization], set_headers: { X-Secret: hunter2 } }\n  \
                b: { upstream: '$0', path: /v1/a/b, cost: 0 }";
    let live = live(&[server.address], apis, Setup::default());
    for (path, wanted) in [
        ("/v1/a", "GET /base"),
        ("/v1/a/", "GET /base/"),
        ("/v1/a/x%20y/%C3%A9?q=%2F..&format=xml&pretty", "GET /base/x%20y/%C3%A9?q=%2F..&format=xml&pretty"),
        ("/v1/a?api_key=theirs&access_token=x", "GET /base?api_key=theirs&access_token=x"),
        ("/v1/a/b", "GET /"),
        ("/v1/a/b?x", "GET /?x"),
        ("/v1/a/b/c", "GET /c"),
    ] {
        let got = call(&live, &format!("GET {path}\nX-API-Key: $key"));
        assert_eq!((got.status, server.last().line()), (200, wanted), "{path}");
        assert_eq!(got.header("content-type"), "application/json", "{path}: the query chooses no format");
    }
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let got = call(
        &live,
        &format!(
            "DELETE /v1/a/x\nX-API-Key: $key\nAuthorization: Bearer $key\nAuthorization: Bearer theirs\nX-Own: 1\nX-Own: 2\n\
             X-Hop: 1\nConnection: x-hop, te\nTE: trailers\nCookie: a=b\nAccept: text/csv\nAccept-Encoding: gzip\nRange: bytes=0-1\n\
             If-None-Match: \"x\"\nX-Secret: mine\nX-Request-ID: id-1\ntraceparent: {trace}\ntracestate: a=b\n\
             X-Forwarded-For: 192.0.2.9\nX-Forwarded-Proto: https\nForwarded: for=192.0.2.9\nUpgrade: h2c"
        ),
    );
    assert_eq!((got.status, got.header("x-request-id")), (200, "id-1"));
    let seen = server.last();
    assert_eq!(seen.line(), "DELETE /base/x");
    for (name, wanted) in [
        ("accept", "application/json"),
        ("authorization", "Bearer theirs"),
        ("x-own", "1 | 2"),
        ("x-secret", "hunter2"),
        ("x-request-id", "id-1"),
        ("traceparent", trace),
        ("tracestate", "a=b"),
        ("forwarded", "for=127.0.0.1;host=\"api.example\";proto=http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "api.example"),
        ("x-forwarded-proto", "http"),
        ("host", &server.address.to_string()),
        ("x-api-key", ""),
        ("x-hop", ""),
        ("te", ""),
        ("cookie", ""),
        ("accept-encoding", ""),
        ("range", ""),
        ("if-none-match", ""),
        ("upgrade", ""),
        ("connection", ""),
        ("content-type", ""),
    ] {
        assert_eq!(seen.header(name), wanted, "{name} in\n{}", seen.head);
    }
    assert!(!seen.head.contains(&live.app.key));
}

#[test]
fn a_trusted_proxy_is_believed_in_what_it_says_of_the_client() {
    let server = Server::start(ok);
    let setup = Setup { config: "trusted_proxies: [127.0.0.1]".into(), ..Setup::default() };
    let live = live(&[server.address], "  a: { upstream: '$0', access: open }", setup);
    call(&live, "GET /v1/a\nX-Forwarded-For: 2001:db8::1\nX-Forwarded-Proto: HTTPS\ntraceparent: none");
    let seen = server.last();
    assert_eq!(seen.header("forwarded"), "for=\"[2001:db8::1]\";host=\"api.example\";proto=https");
    assert_eq!((&*seen.header("x-forwarded-for"), &*seen.header("x-forwarded-proto")), ("2001:db8::1", "https"));
}

#[test]
fn a_call_without_a_trace_begins_one_that_bears_its_id() {
    let server = Server::start(ok);
    let live = live(&[server.address], "  a: { upstream: '$0', access: open }", Setup::default());
    let own = "5b3c2f0e-8f2a-4f43-9d44-0d1c6d3b8f10";
    let mut traces = Vec::new();
    for lines in [
        "",
        "\ntraceparent: none\ntracestate: a=b",
        "\ntraceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        &format!("\nX-Request-ID: {own}"),
        "\nX-Request-ID: id-1",
    ] {
        let got = call(&live, &format!("GET /v1/a{lines}"));
        let (seen, id) = (server.last(), got.header("x-request-id").replace('-', ""));
        let parent = seen.header("traceparent");
        let trace = TraceParent::parse(parent.as_bytes()).unwrap_or_else(|| panic!("{parent}"));
        assert!(parent.starts_with("00-") && !trace.sampled, "{parent}");
        assert_eq!(seen.header("tracestate"), "", "of another trace");
        // What clients call their requests may be the same twice.
        assert_eq!(trace.trace_id.as_str() == id, !lines.contains("X-Request-ID"), "{parent} {id}");
        traces.push((trace.trace_id.as_str().to_owned(), trace.span_id.as_str().to_owned()));
    }
    let ids: HashSet<&String> = traces.iter().flat_map(|(trace, span)| [trace, span]).collect();
    assert_eq!(ids.len(), 10, "{traces:?}");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
    call(&live, &format!("GET /v1/a\ntraceparent: {parent}\ntracestate: a=b\ntracestate: c=d"));
    let seen = server.last();
    assert_eq!((&*seen.header("traceparent"), &*seen.header("tracestate")), (parent, "a=b | c=d"));
}

#[test]
fn json_bodies_are_passed_on_as_they_are_and_others_are_refused() {
    let server = Server::start(ok);
    let live =
        live(&[server.address], "  a: { upstream: '$0', methods: [POST, PUT], body_bytes: 20000 }", Setup::default());
    let body = format!("{{\"a\" : 1.50, \"b\":\"{}\"}}", "x".repeat(18_000));
    let sent = format!("POST /v1/a/x\nX-API-Key: $key\nContent-Type: application/vnd.x+json\n\n{body}");
    let got = call(&live, &sent);
    let seen = server.last();
    assert_eq!((got.status, seen.line(), &*seen.body), (200, "POST /x", &*body));
    assert_eq!(seen.header("content-type"), "application/vnd.x+json");
    for (request, status, code) in [
        ("PUT /v1/a\nX-API-Key: $key\nContent-Type: text/xml\n\n<a/>".to_owned(), 415, "unsupported-content-type"),
        (
            "PUT /v1/a\nX-API-Key: $key\nContent-Type: application/json\nContent-Encoding: gzip\n\n{}".to_owned(),
            415,
            "unsupported-content-encoding",
        ),
        (
            format!("PUT /v1/a\nX-API-Key: $key\nContent-Type: application/json\n\n{}", "1".repeat(20_001)),
            413,
            "body-too-large",
        ),
        ("PUT /v1/a/../b\nX-API-Key: $key".to_owned(), 400, "invalid-path"),
        ("PUT /v1/a/%2e%2E/b\nX-API-Key: $key".to_owned(), 400, "invalid-path"),
        ("PUT /v1/a/x%2fy\nX-API-Key: $key".to_owned(), 400, "invalid-path"),
        (format!("PUT /v1/a?x={}\nX-API-Key: $key", live.app.key), 401, "key-in-query"),
        ("PUT /v1/a".to_owned(), 401, "key-required"),
        ("PUT /v1/ab\nX-API-Key: $key".to_owned(), 404, "unknown-api"),
    ] {
        let got = call(&live, &request);
        assert_eq!((got.status, got.header("x-error-code")), (status, code), "{request}");
    }
    let got = call(&live, "PUT /v1/a\nX-API-Key: $key");
    assert_eq!((got.status, server.last().header("content-length")), (200, "0".to_owned()));
    assert_eq!((got.header("x-api-credits-used"), server.count()), ("2", 2), "nothing else was sent or charged");
}

#[test]
fn methods_are_those_of_the_api() {
    let server = Server::start(|seen, stream| match seen.line() {
        line if line.starts_with("HEAD") => {
            says(stream, "HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 2000\n\n")
        }
        _ => ok(seen, stream),
    });
    let live = live(&[server.address], "  a: { upstream: '$0', methods: [GET, PATCH] }", Setup::default());
    let got = call(&live, "POST /v1/a\nX-API-Key: $key");
    assert_eq!((got.status, got.header("allow")), (405, "GET, HEAD, PATCH, OPTIONS"));
    let got = call(&live, "OPTIONS /v1/a/x\nOrigin: https://a.example\nAccess-Control-Request-Method: PATCH");
    assert_eq!((got.status, got.header("access-control-allow-methods")), (204, "GET, HEAD, PATCH, OPTIONS"));
    assert_eq!(server.count(), 0);
    let got = call(&live, "HEAD /v1/a\nX-API-Key: $key\nAccept: application/xml");
    assert_eq!((got.status, got.header("content-type"), got.body.len()), (200, "application/xml", 0));
    assert_eq!(server.last().line(), "HEAD /");
    assert_eq!((got.header("content-length"), got.header("transfer-encoding")), ("", ""), "{}", got.head);
    let got = call(&live, "PATCH /v1/a/1\nX-API-Key: $key");
    assert_eq!((got.status, got.header("x-api-credits-used")), (200, "2"));
}

#[test]
fn keys_are_bound_to_apis_by_name_and_open_ones_ask_for_none() {
    let server = Server::start(ok);
    let apis = "  a: { upstream: '$0', cost: 3 }\n  b: { upstream: '$0', access: open }\n  c: { upstream: '$0', enabled: false }";
    let bounds = Bounds { scopes: Some(vec!["a".into()]), ..Bounds::default() };
    let live = live(&[server.address], apis, Setup { bounds, ..Setup::default() });
    let got = call(&live, "GET /v1/a\nX-API-Key: $key");
    assert_eq!((got.status, got.header("x-api-credits-used")), (200, "3"));
    let got = call(&live, "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key");
    assert_eq!((got.status, got.header("x-error-code")), (403, "scope-not-allowed"));
    let got = call(&live, "GET /v1/b\nX-API-Key: $key");
    assert_eq!((got.status, got.header("x-api-credits-used"), got.header("x-ratelimit-limit")), (200, "", "60"));
    assert!(server.last().header("x-api-key").is_empty());
    assert_eq!(call(&live, "GET /v1/c\nX-API-Key: $key").status, 404);
}

#[test]
fn an_api_can_have_a_limit_of_its_own() {
    let server = Server::start(ok);
    let apis = "  a: { upstream: '$0', requests_a_minute: 2 }\n  b: { upstream: '$0', access: open, requests_a_minute: 3, burst: 1 }";
    let live = live(&[server.address], apis, Setup { plan: "mega".into(), ..Setup::default() });
    let statuses = |path: &str| -> Vec<(u16, String)> {
        let got = (0..4).map(|_| call(&live, &format!("GET {path}\nX-API-Key: $key")));
        got.map(|got| (got.status, got.header("x-ratelimit-limit").to_owned())).collect()
    };
    let told = |statuses: [u16; 4], limit: &str| statuses.map(|status| (status, limit.to_owned())).to_vec();
    assert_eq!(statuses("/v1/a"), told([200, 200, 429, 429], "2"));
    assert_eq!(statuses("/v1/b"), told([200, 429, 429, 429], "3"));
    assert_eq!(call(&live, "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key").status, 200);
    live.app.clock.advance(Duration::from_secs(60));
    assert_eq!(statuses("/v1/a"), told([200, 200, 429, 429], "2"));
}

#[test]
fn connections_are_kept() {
    let server = Server::start(ok);
    let live = live(&[server.address], "  a: { upstream: '$0', access: open }", Setup::default());
    let mut stream = live.connect();
    for _ in 0..20 {
        assert_eq!(status_of(&mut stream, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    }
    assert_eq!((server.count(), server.connections.load(Ordering::Acquire)), (20, 1));
}

#[test]
fn a_target_that_is_gone_costs_nobody_a_call() {
    let server = Server::start(ok);
    let apis = "  a: { upstream: ['$0', '$1'], methods: [GET, POST] }\n  b: { upstream: '$0' }";
    let nobody = Nobody::new();
    let live = live(&[nobody.address, server.address], apis, Setup { plan: "mega".into(), ..Setup::default() });
    for method in ["GET", "POST"] {
        for _ in 0..8 {
            assert_eq!(call(&live, &format!("{method} /v1/a\nX-API-Key: $key")).status, 200);
        }
    }
    assert_eq!(server.count(), 16);
    let got = call(&live, "GET /v1/b\nX-API-Key: $key");
    assert_eq!(
        (got.status, got.header("x-error-code"), got.header("x-api-credits-used")),
        (502, "upstream-unreachable", "16")
    );
}

#[test]
fn what_may_be_repeated_is_when_the_connection_was_lost() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |seen, stream| match asked.fetch_add(1, Ordering::AcqRel) % 2 {
        0 => Then::Reset,
        _ => ok(seen, stream),
    });
    let apis = "  a: { upstream: '$0', methods: [GET, POST, PUT, PATCH, DELETE] }";
    let live = live(&[server.address], apis, Setup { plan: "mega".into(), ..Setup::default() });
    for (method, wanted, asked) in [("GET", 200, 2), ("PUT", 200, 2), ("DELETE", 200, 2), ("HEAD", 200, 2)] {
        let before = server.count();
        assert_eq!(call(&live, &format!("{method} /v1/a\nX-API-Key: $key")).status, wanted, "{method}");
        assert_eq!(server.count() - before, asked, "{method}");
    }
    for (method, wanted) in [("POST", 502), ("PATCH", 200), ("PATCH", 502), ("POST", 200)] {
        let before = server.count();
        assert_eq!(call(&live, &format!("{method} /v1/a\nX-API-Key: $key")).status, wanted, "{method}");
        assert_eq!(server.count() - before, 1, "{method}");
    }
}

#[test]
fn a_connection_is_used_again_however_its_answers_end() {
    let server = Server::start(|seen, stream| match seen.line() {
        "POST /chunked" => says(stream, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\n{}\n0\n\n"),
        "POST /none" => says(stream, "HTTP/1.1 204 No Content\n\n"),
        "POST /mistake" => says(stream, "HTTP/1.1 422 Unprocessable Content\nContent-Length: 2\n\n{}"),
        "POST /long" => {
            let text = format!("\"{}\"", "x".repeat(300_000));
            says(stream, &format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n{text}", text.len()))
        }
        "GET /last" => {
            ok(seen, stream);
            Then::Close
        }
        _ => ok(seen, stream),
    });
    let live = live(&[server.address], "  a: { upstream: '$0', methods: [GET, POST] }", Setup::default());
    let mut stream = live.connect();
    // Over one connection of its own, and so in one thread.
    let mut call = |request: &str| {
        let head = format!("{request} HTTP/1.1\r\nHost: t\r\nX-API-Key: {}\r\nContent-Length: 0\r\n\r\n", live.app.key);
        stream.write_all(head.as_bytes()).unwrap();
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the connection was closed");
            bytes.extend_from_slice(&chunk[..count]);
            if bytes.windows(4).any(|end| end == b"\r\n\r\n") && parse(&bytes).is_whole {
                return parse(&bytes).status;
            }
        }
    };
    for (path, wanted) in
        [("", 200), ("/chunked", 200), ("/none", 200), ("/mistake", 422), ("/long", 200), ("", 200), ("", 200)]
    {
        assert_eq!(call(&format!("POST /v1/a{path}")), wanted, "{path}");
        assert_eq!(server.connections.load(Ordering::Acquire), 1, "after {path}");
    }
    for connections in 1..4 {
        assert_eq!(call("GET /v1/a/last"), 200);
        assert_eq!(server.connections.load(Ordering::Acquire), connections, "one that was closed is not used again");
    }
}

#[test]
fn so_many_at_once_and_no_more() {
    let (entered, entries) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = Mutex::new(may_leave);
    let server = Server::start(move |seen, stream| {
        entered.send(()).unwrap();
        may_leave.lock().unwrap().recv().unwrap();
        ok(seen, stream)
    });
    let live = live(&[server.address], "  a: { upstream: '$0', requests_at_once: 1, timeout_s: 20 }", Setup::default());
    let mut first = live.connect();
    ask(&live, &mut first, "GET /v1/a\nX-API-Key: $key");
    entries.recv().unwrap();
    let got = call(&live, "GET /v1/a\nX-API-Key: $key");
    assert_eq!((got.status, got.header("x-error-code"), got.header("retry-after")), (503, "upstream-busy", "1"));
    leave.send(()).unwrap();
    assert_eq!(receive(&mut first).status, 200);
    leave.send(()).unwrap();
    let got = call(&live, "GET /v1/a\nX-API-Key: $key");
    assert_eq!((got.status, got.header("x-api-credits-used")), (200, "2"));
}

#[test]
fn an_upstream_that_always_fails_is_left_alone_for_a_while() {
    let works = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = works.clone();
    let server = Server::start(move |seen, stream| match switch.load(Ordering::Acquire) {
        true => ok(seen, stream),
        false => says(stream, "HTTP/1.1 503 Service Unavailable\nContent-Length: 0\n\n"),
    });
    let live = live(&[server.address], "  a: { upstream: '$0' }", Setup { plan: "mega".into(), ..Setup::default() });
    let status = || call(&live, "GET /v1/a\nX-API-Key: $key").status;
    assert!((0..20).all(|_| status() == 502));
    assert!((0..5).all(|_| status() == 503));
    assert_eq!(server.count(), 20);
    live.app.clock.advance(Duration::from_secs(5));
    assert_eq!((status(), status()), (502, 503), "one tries");
    live.app.clock.advance(Duration::from_secs(5));
    works.store(true, Ordering::Release);
    assert!((0..5).all(|_| status() == 200));
}

#[test]
fn a_target_whose_answers_break_off_is_one_that_fails() {
    let cut = Server::start(|_, stream| {
        says(stream, "HTTP/1.1 200 OK\nContent-Length: 9\n\n{");
        Then::Close
    });
    let sound = Server::start(ok);
    let setup = Setup { plan: "mega".into(), ..Setup::default() };
    let live = live(&[cut.address, sound.address], "  a: { upstream: ['$0', '$1'] }", setup);
    let failed = (0..40).filter(|_| call(&live, "GET /v1/a\nX-API-Key: $key").status == 502).count();
    assert_eq!((failed, cut.count()), (5, 5), "five in a row, and then it is passed over");
}

#[test]
fn a_connection_that_is_not_made_in_time_is_none_with_its_encryption() {
    // The system connects; nobody shakes hands.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sound = Server::start(ok);
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem()).unwrap();
    let apis = format!(
        "  a: {{ upstream: ['https://{}', '$0'], methods: [POST], connect_timeout_s: 1, timeout_s: 29, ca: '{}' }}",
        silent.local_addr().unwrap(),
        ca.display(),
    );
    let live = live(&[sound.address], &apis, Setup::default());
    // Nothing has been sent to the first, so that what must not be repeated is sent to the other.
    (0..2).for_each(|_| assert_eq!(call(&live, "POST /v1/a\nX-API-Key: $key").status, 200));
}

#[tokio::test]
async fn apis_come_and_go_with_the_configuration_and_those_that_stay_keep_what_they_have() {
    let server = Server::start(ok);
    let a = |more: &str| format!("  a: {{ upstream: 'http://{}', requests_a_minute: 9{more} }}\n", server.address);
    let b = format!("  b: {{ upstream: 'http://{}', path: /v1/a/b, cost: 5 }}\n", server.address);
    let mut app = App::new(&Setup { plan: "mega".into(), config: format!("apis:\n{}", a("")), ..Setup::default() });
    let call = "GET /v1/a/b\nX-API-Key: $key\n";
    let told =
        |answer: &Answer| ["x-ratelimit-remaining", "x-api-credits-used"].map(|name| answer.header(name).to_owned());
    assert_eq!(told(&app.send(call).await), ["8", "1"]);
    app.reload(&format!("apis:\n{}{b}", a("")));
    assert_eq!(told(&app.send(call).await), ["", "6"], "it has come between");
    assert_eq!(server.last().line(), "GET /");
    let connections = server.connections.load(Ordering::Acquire);
    app.reload(&format!("apis:\n{}", a("")));
    assert_eq!(told(&app.send(call).await), ["7", "7"]);
    assert_eq!(server.last().line(), "GET /b");
    assert_eq!(server.connections.load(Ordering::Acquire), connections, "its connection has been kept");
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem()).unwrap();
    let with_ca = format!("apis:\n{}", a(&format!(", cost: 0, ca: '{}'", ca.display())));
    for _ in 0..3 {
        app.reload(&with_ca);
        app.send(call).await;
    }
    assert_eq!(server.connections.load(Ordering::Acquire), connections + 1, "the file is the same");
    app.reload(&format!("apis:\n{}", a(", cost: 3")));
    assert_eq!(told(&app.send(call).await), ["3", "10"]);
    app.reload("apis: { key2otp: { access: key } }");
    assert_eq!(app.send(call).await.status, 404);
    app.reload(&format!("apis:\n{}{b}", a("")));
    app.fold();
    let usage = app.send("GET /v1/analytics?view=apis\nX-API-Key: $key\nAccept: text/csv\n").await;
    let usage = String::from_utf8(usage.body.to_vec()).unwrap();
    assert!(usage.contains("\r\na,6,") && usage.contains("\r\nb,1,"), "{usage}");
}
