//! Answers that leave while they are still coming in: when they begin, how they end, what they cost, and what they need.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use polygate::pure::key::KeyHash;

use super::server::{Seen, Server, Then, ask, call, parse, receive};
use crate::sockets::Live;
use crate::support::Setup;

/// An upstream that sends the head and its first pieces, and each further piece when it is told to.
struct Slow {
    server: Server,
    next: Sender<Option<&'static str>>,
}

impl Slow {
    fn new(first: &'static str) -> Slow {
        let (next, pieces) = mpsc::channel();
        let pieces: Mutex<Receiver<Option<&str>>> = Mutex::new(pieces);
        let server = Server::start(move |_: &Seen, stream: &mut TcpStream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            chunk(stream, first);
            while let Ok(piece) = pieces.lock().unwrap().recv() {
                match piece {
                    Some(piece) => chunk(stream, piece),
                    None => {
                        chunk(stream, "");
                        return Then::Keep;
                    }
                }
            }
            Then::Close
        });
        Slow { server, next }
    }
}

fn chunk(stream: &mut TcpStream, piece: &str) {
    // The other end may have had enough.
    let _ = stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
}

fn live(server: &Server, more: &str) -> Live {
    let config = format!("apis:\n  a: {{ upstream: 'http://{}', timeout_s: 20{more} }}", server.address);
    Live::new(&Setup { plan: "mega".into(), config, ..Setup::default() })
}

/// What the account of the key has used, and whether a call of its is under way.
fn used(live: &Live) -> (u64, bool) {
    let entry = live.app.gateway.keyring.find(&KeyHash::of(live.app.key.as_bytes()).unwrap()).unwrap();
    let credits = entry.account.balance.credits(live.app.clock.unix_s());
    (credits.used, credits.used + credits.remaining != credits.max)
}

/// Waits for what is sure to come.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until `wanted` has come.
fn read_until(stream: &mut TcpStream, wanted: &str) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while memchr::memmem::find(&bytes, wanted.as_bytes()).is_none() {
        let count = stream.read(&mut piece).unwrap();
        assert_ne!(count, 0, "closed before {wanted}: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes
}

#[test]
fn the_first_of_an_answer_leaves_before_the_last_has_come_and_all_of_it_is_charged_once() {
    let slow = Slow::new("[{\"id\":1},");
    let live = live(&slow.server, "");
    for (accept, first) in [("json", "{\"id\":1}"), ("xml", "<id>1</id>"), ("yaml", "- id: 1")] {
        let before = used(&live).0;
        let mut stream = live.connect();
        ask(&live, &mut stream, &format!("GET /v1/a\nX-API-Key: $key\nAccept: application/{accept}"));
        let mut bytes = read_until(&mut stream, first);
        assert_eq!(used(&live), (before, true), "{accept}: held until the end");
        slow.next.send(Some("{\"id\":2}]")).unwrap();
        slow.next.send(None).unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        let got = parse(&bytes);
        assert!(got.status == 200 && got.is_whole && got.header("content-length").is_empty(), "{accept}");
        assert_eq!(used(&live), (before + 1, false), "{accept}");
    }
}

#[test]
fn whoever_hangs_up_pays_nothing_and_holds_nobody_up() {
    let slow = Slow::new("[{\"id\":1},");
    let live = live(&slow.server, ", requests_at_once: 1");
    let mut stream = live.connect();
    ask(&live, &mut stream, "GET /v1/a\nX-API-Key: $key");
    read_until(&mut stream, "{\"id\":1}");
    assert_eq!(call(&live, "GET /v1/a\nX-API-Key: $key").status, 503, "the only place is taken");
    drop(stream);
    until(|| !used(&live).1);
    assert_eq!(used(&live).0, 0);
    drop(slow.next);
    // The place is free again: the next is not refused, but served by an upstream that ends at once.
    let mut stream = live.connect();
    ask(&live, &mut stream, "GET /v1/a\nX-API-Key: $key");
    let got = receive(&mut stream);
    assert!(got.status == 200 && !got.is_whole, "{got:?}");
    until(|| !used(&live).1);
    assert_eq!(used(&live).0, 0);
}

#[tokio::test]
async fn a_client_that_stops_reading_does_not_keep_its_place() {
    let server = sends(rows(200_000).into_bytes(), "");
    let config = "http2_prior_knowledge: true\nlimits: { answer_write_timeout_s: 1 }";
    let apis = format!("apis:\n  a: {{ upstream: 'http://{}', requests_at_once: 1 }}", server.address);
    let live = Live::new(&Setup { plan: "mega".into(), config: format!("{config}\n{apis}"), ..Setup::default() });
    let stream = tokio::net::TcpStream::connect(live.address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = || {
        let request = http::Request::get("http://localhost/v1/a").header("x-api-key", &live.app.key);
        request.body(Full::new(Bytes::new())).unwrap()
    };
    let stuck = sender.send_request(request()).await.unwrap();
    assert_eq!((stuck.status().as_u16(), used(&live)), (200, (0, true)));
    assert_eq!(sender.send_request(request()).await.unwrap().status(), 503, "the only place is taken");
    while used(&live).1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(used(&live).0, 0);
    assert!(stuck.into_body().collect().await.is_err(), "it has broken off");
    let answer = sender.send_request(request()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.into_body().collect().await.unwrap().to_bytes().ends_with(b"]}}"));
    assert_eq!(used(&live), (1, false));
    // Over HTTP/1.1 the connection ends.
    let mut stream = live.connect();
    ask(&live, &mut stream, "GET /v1/a\nX-API-Key: $key");
    read_until(&mut stream, "{\"id\":1,");
    while used(&live).1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(used(&live).0, 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_keep_whole_answers_either() {
    // Short enough to be handled as wholes.
    let server = sends(rows(1_000).into_bytes(), "");
    let config = "http2_prior_knowledge: true\nlimits: { answer_write_timeout_s: 1 }";
    let apis = format!("apis:\n  a: {{ upstream: 'http://{}' }}", server.address);
    let live = Live::new(&Setup { plan: "mega".into(), config: format!("{config}\n{apis}"), ..Setup::default() });
    let stream = tokio::net::TcpStream::connect(live.address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = http::Request::get("http://localhost/v1/a").header("x-api-key", &live.app.key);
        answers.push(sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(live.app.gateway.load.requests(), 20);
    while live.app.gateway.load.requests() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!sender.is_closed());
}

fn rows(count: usize) -> String {
    let rows: Vec<String> =
        (0..count).map(|id| format!("{{\"id\":{id},\"name\":\"row {id}\",\"price\":{id}.50}}")).collect();
    format!("{{\"took\":1,\"result\":[{}]}}", rows.join(","))
}

/// An upstream that sends `body` at once, with its length.
fn sends(body: Vec<u8>, lines: &'static str) -> Server {
    let body = Arc::new(body);
    Server::start(move |_, stream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        if sent.is_ok() { Then::Keep } else { Then::Close }
    })
}

#[test]
fn a_hundred_thousand_rows_come_whole_in_every_format() {
    const COUNT: usize = 100_000;
    let json = rows(COUNT);
    let plain = sends(json.clone().into_bytes(), "");
    let coded = sends(zstd::encode_all(json.as_bytes(), 1).unwrap(), "Content-Encoding: zstd\r\n");
    for server in [&plain, &coded] {
        let live = live(server, ", data: /result");
        let got = |accept: &str| {
            let got = call(&live, &format!("GET /v1/a\nX-API-Key: $key\nAccept: {accept}"));
            assert!(got.status == 200 && got.is_whole, "{accept}");
            got.text()
        };
        let last = COUNT - 1;
        let list = &json["{\"took\":1,\"result\":".len()..json.len() - 1];
        assert!(got("application/json") == format!("{{\"status\":\"ok\",\"error\":null,\"data\":{list}}}"));
        let csv = got("text/csv");
        assert_eq!(csv.lines().count(), COUNT + 1);
        assert!(
            csv.starts_with("id,name,price\r\n0,row 0,0.50\r\n")
                && csv.ends_with(&format!("\r\n{last},row {last},{last}.50\r\n"))
        );
        let xml = got("application/xml");
        assert_eq!(xml.matches("</price>").count(), COUNT);
        assert!(xml.trim_end().ends_with("</response>"));
        let yaml = got("application/yaml");
        assert_eq!(yaml.matches("price: ").count(), COUNT);
        assert!(yaml.contains(&format!("name: row {last}\n")));
        assert_eq!(used(&live), (4, false));
    }
}

#[test]
fn a_coding_ends_with_its_answer_and_nothing_has_none() {
    let server = Server::start(|seen, stream| {
        let (head, body): (_, &[u8]) = match seen.line() {
            "GET /none" => ("204 No Content\r\nContent-Encoding: br\r\n\r\n", b""),
            "GET /empty" => ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", b""),
            "GET /cut" => ("200 OK\r\nContent-Encoding: br\r\nContent-Length: 21\r\n\r\n", BROTLI),
            "GET /more" => ("200 OK\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n", BROTLI),
            // That of the answer to GET.
            head => (
                "200 OK\r\nContent-Encoding: br\r\nContent-Length: 11\r\n\r\n",
                &BROTLI[..if head.starts_with("HEAD") { 0 } else { 11 }],
            ),
        };
        let _ = stream.write_all(&[b"HTTP/1.1 ", head.as_bytes(), body].concat());
        if seen.line() == "GET /more" {
            let _ = stream.write_all(b"\r\n1\r\nx\r\n0\r\n\r\n");
        }
        if seen.line() == "GET /cut" { Then::Close } else { Then::Keep }
    });
    let live = live(&server, "");
    for (line, wanted) in [
        ("GET /", Some("{\"a\":1}")),
        ("HEAD /", Some("")),
        ("GET /none", Some("null")),
        ("GET /empty", Some("null")),
        ("GET /cut", None),
        ("GET /more", None),
    ] {
        let got = call(&live, &format!("{}\nX-API-Key: $key", line.replace(" /", " /v1/a/")));
        let is_right = match wanted {
            Some(data) => got.status == 200 && got.is_whole && got.text().contains(data),
            None => got.status == 502 || !got.is_whole,
        };
        assert!(is_right, "{line}: {} {}", got.status, got.text());
    }
}

/// `{"a":1}` by `brotli`, the reference program.
const BROTLI: &[u8] = b"\x0b\x03\x80\x7b\x22\x61\x22\x3a\x31\x7d\x03";

#[test]
fn a_client_of_http_1_0_gets_an_answer_as_a_whole_or_not_at_all() {
    let json = rows(10_000);
    let server = sends(json.clone().into_bytes(), "");
    let live = live(&server, "");
    let get = |accept: &str| {
        let mut stream = live.connect();
        let request = format!("GET /v1/a HTTP/1.0\r\nX-API-Key: {}\r\nAccept: {accept}\r\n\r\n", live.app.key);
        stream.write_all(request.as_bytes()).unwrap();
        receive(&mut stream)
    };
    let got = get("application/json");
    assert_eq!((got.status, got.header("content-length")), (200, &*got.body.len().to_string()));
    assert_eq!(got.text(), format!("{{\"status\":\"ok\",\"error\":null,\"data\":{json}}}"));
    let got = get("application/xml");
    assert_eq!((got.status, got.header("x-error-code"), used(&live)), (502, "upstream-unreadable", (1, false)));
}

#[test]
fn the_log_and_the_metrics_tell_how_a_streamed_answer_has_ended() {
    let slow = Slow::new("[{\"id\":1},");
    let mut live = live(&slow.server, "");
    for ends_well in [true, false] {
        let mut stream = live.connect();
        ask(&live, &mut stream, "GET /v1/a\nX-API-Key: $key");
        read_until(&mut stream, "{\"id\":1}");
        slow.next.send(Some(if ends_well { "2]" } else { "]" })).unwrap();
        slow.next.send(None).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest.ends_with(b"0\r\n\r\n"), ends_well);
    }
    live.finish();
    let gateway = &live.app.gateway;
    let text = gateway.metrics.text(&gateway.meter.journal.figures(), &gateway.load, 0);
    for line in [
        "polygate_requests_total{route=\"a\",status=\"200\",format=\"json\"} 1",
        "polygate_requests_total{route=\"a\",status=\"502\",format=\"json\"} 1",
        "polygate_requests_under_way 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert_eq!(used(&live), (1, false));
}
