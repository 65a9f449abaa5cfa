//! What callers see of all that an upstream can do: each behaviour, in each format. The table is kept in
//! `fixtures/upstream/behaviours.txt`; `POLYGATE_BLESS=1 cargo test behaviours` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use polygate::pure::format::Format;
use polygate::pure::key::KeyHash;

use super::server::{Got, Nobody, Seen, Server, Then, call};
use crate::sockets::Live;
use crate::support::Setup;

/// What the upstream does. `\n` in heads stands for a whole line end, `$` for the length of the body.
enum Does {
    /// Answers so, and keeps the connection.
    Says(&'static str),
    /// Answers so, and closes the connection.
    Leaves(&'static str),
    /// Sends just this, and closes the connection.
    Babbles(&'static str),
    /// Answers JSON of this kind: the head gets a length.
    Sends(fn() -> Vec<u8>, &'static str),
    /// Answers this in chunks of so many bytes, and ends as told.
    Chunks(fn() -> Vec<u8>, usize, Then),
    /// Reads the request, and ends the connection.
    Ends(Then),
    /// Reads the request, and never answers.
    Stalls,
    /// Begins to answer, and never goes on.
    Dawdles(&'static str),
}

use Does::*;

const JSON: &str = "Content-Type: application/json";

/// Where it is up to the system whether the end is heard of before the answer's beginning has been passed on.
const RACES: [&str; 2] = ["cut off, until the end of the connection", "chunks and then a reset"];

/// Name, API, behaviour.
const BEHAVIOURS: &[(&str, &str, Does)] = &[
    (
        "object",
        "plain",
        Says(
            "200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"symbol\": \"ABC\", \"price\": 12.50, \"n\":[1]}",
        ),
    ),
    (
        "list of objects",
        "plain",
        Says(
            "200 OK\nContent-Type: application/json\nContent-Length: $\n\n[{\"id\":1,\"name\":\"a\"},{\"id\":2,\"tags\":[\"x\",\"y\"]}]\r\n",
        ),
    ),
    (
        "a number to the digit",
        "plain",
        Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n1234567890123456789.12300"),
    ),
    ("null", "plain", Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\nnull")),
    ("no body", "plain", Says("200 OK\nContent-Length: $\n\n")),
    ("204", "plain", Says("204 No Content\n\n")),
    (
        "201",
        "plain",
        Says("201 Created\nLocation: /elsewhere\nContent-Type: application/json\nContent-Length: $\n\n{\"id\":7}"),
    ),
    ("202 without a body", "plain", Says("202 Accepted\nContent-Length: $\n\n")),
    (
        "203",
        "plain",
        Says("203 Non-Authoritative Information\nContent-Type: application/json\nContent-Length: $\n\n{\"id\":7}"),
    ),
    ("206", "plain", Says("206 Partial Content\nContent-Type: application/json\nContent-Length: $\n\n{\"id\":7}")),
    ("1xx before", "plain", Says("103 Early Hints\nLink: </a.css>\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")),
    (
        "in the envelope already",
        "plain",
        Says(
            "200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"status\":\"ok\",\"error\":null,\"data\":{\"id\":\"own\"}}",
        ),
    ),
    (
        "an envelope of its own",
        "picked",
        Says(
            "200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"code\": 0, \"result\": {\"id\": 1.0}, \"took_ms\": 3}",
        ),
    ),
    (
        "nothing where the data should be",
        "picked",
        Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"code\": 0}"),
    ),
    ("no body where the data should be", "picked", Says("200 OK\nContent-Length: $\n\n")),
    (
        "problem+json with 200",
        "plain",
        Says("200 OK\nContent-Type: application/hal+json; charset=utf-8\nContent-Length: $\n\n{}"),
    ),
    ("JSON without a type", "plain", Says("200 OK\nContent-Length: $\n\n{\"a\":1}")),
    (
        "unknown headers and cookies",
        "plain",
        Says("200 OK\nSet-Cookie: a=b\nServer: x\nX-Request-ID: theirs\nContent-Length: $\n\n{}"),
    ),
    (
        "until the end of the connection",
        "plain",
        Leaves("200 OK\nContent-Type: application/json\nConnection: close\n\n{\"a\":1}"),
    ),
    (
        "cut off, until the end of the connection",
        "plain",
        Leaves("200 OK\nContent-Type: application/json\nConnection: close\n\n{\"a\":"),
    ),
    ("gzip", "plain", Sends(|| gzip(b"{\"a\":[1,2]}"), "Content-Encoding: gzip")),
    ("zstd", "plain", Sends(|| zstd::encode_all(&b"{\"a\":[1,2]}"[..], 1).unwrap(), "Content-Encoding: zstd")),
    ("gzip that is none", "plain", Sends(|| b"{\"a\":[1,2]}".to_vec(), "Content-Encoding: gzip")),
    ("gzip cut off", "plain", Sends(|| gzip(b"{\"a\":[1,2]}")[..20].to_vec(), "Content-Encoding: gzip")),
    ("an unknown coding", "plain", Sends(|| b"{}".to_vec(), "Content-Encoding: compress")),
    ("not JSON by type", "plain", Says("200 OK\nContent-Type: text/html\nContent-Length: $\n\n<p>hello</p>\r\n")),
    ("not JSON by content", "plain", Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n<p>hello</p>")),
    ("JSON twice", "plain", Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n{}{}")),
    ("a cut off text", "plain", Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"a\":[1")),
    (
        "the same key twice",
        "plain",
        Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"a\":1,\"a\":2}"),
    ),
    ("not UTF-8", "plain", Sends(|| b"{\"a\":\"\xff\"}".to_vec(), JSON)),
    ("too deep", "plain", Sends(|| [vec![b'['; 200], vec![b']'; 200]].concat(), JSON)),
    ("too long by its length", "small", Sends(|| [b"\"", &[b'a'; 2_000][..], b"\""].concat(), JSON)),
    ("too long as it comes", "small", Chunks(|| [b"\"", &[b'a'; 2_000][..], b"\""].concat(), 100, Then::Keep)),
    ("in chunks", "plain", Chunks(|| b"{\"a\":\"\xc3\xa9\",\"b\":[1,2,3]}".to_vec(), 3, Then::Keep)),
    ("chunks and then the end", "plain", Chunks(|| rows(30_000), 10_000, Then::Close)),
    ("chunks and then a reset", "plain", Chunks(|| rows(30_000), 10_000, Then::Reset)),
    (
        "a length that is too long",
        "plain",
        Leaves("200 OK\nContent-Type: application/json\nContent-Length: 100\n\n{\"a\":1}"),
    ),
    (
        "a length that is too short",
        "plain",
        Says("200 OK\nContent-Type: application/json\nContent-Length: 3\n\n{\"a\":1}"),
    ),
    ("two lengths", "plain", Says("200 OK\nContent-Length: 2\nContent-Length: 3\n\n{}")),
    ("no HTTP", "plain", Babbles("220 mail.example ESMTP\r\n")),
    ("a head that is too long", "plain", Sends(|| b"{}".to_vec(), "$huge")),
    ("the end instead of an answer", "plain", Ends(Then::Close)),
    ("a reset instead of an answer", "plain", Ends(Then::Reset)),
    ("no answer in time", "slow", Stalls),
    (
        "a head and no body in time",
        "slow",
        Dawdles("200 OK\nContent-Type: application/json\nContent-Length: 100\n\n{\"a\":"),
    ),
    (
        "half a body and no more in time",
        "slow",
        Dawdles("200 OK\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n11\r\n{\"a\":[1,2,3,4,5,6\r\n"),
    ),
    ("nobody there", "gone", Stalls),
    ("301", "plain", Says("301 Moved Permanently\nLocation: http://127.0.0.1:1/\nContent-Length: $\n\n")),
    ("304", "plain", Says("304 Not Modified\n\n")),
    (
        "400 with an error",
        "plain",
        Says("400 Bad Request\nContent-Type: application/json\nContent-Length: $\n\n{\"error\":\"Bad <symbol>\"}"),
    ),
    (
        "400 with a problem",
        "plain",
        Says(
            "400 Bad Request\nContent-Type: application/problem+json\nContent-Length: $\n\n{\"title\":\"Bad\",\"detail\":\"No, \\\"that\\\"\"}",
        ),
    ),
    (
        "400 with a message where it was said to be",
        "picked",
        Says(
            "400 Bad Request\nContent-Type: application/json\nContent-Length: $\n\n{\"error\":1,\"fault\":{\"why\":\"No\"}}",
        ),
    ),
    ("400 with HTML", "plain", Says("400 Bad Request\nContent-Type: text/html\nContent-Length: $\n\n<p>No</p>")),
    (
        "400 that ends early",
        "plain",
        Leaves("400 Bad Request\nContent-Type: application/json\nContent-Length: 100\n\n{\"error\":\"No\""),
    ),
    ("401", "plain", Says("401 Unauthorized\nWWW-Authenticate: Basic\nContent-Length: $\n\n")),
    ("403", "plain", Says("403 Forbidden\nContent-Length: $\n\n{\"error\":\"x\"}")),
    ("404", "plain", Says("404 Not Found\nContent-Length: $\n\n")),
    (
        "409",
        "plain",
        Says("409 Conflict\nContent-Type: application/json\nContent-Length: $\n\n{\"message\":\"Taken already\"}"),
    ),
    (
        "422 with a list",
        "plain",
        Says(
            "422 Unprocessable Content\nContent-Type: application/json\nContent-Length: $\n\n{\"errors\":[{\"message\":\"Why so?\"}]}",
        ),
    ),
    (
        "429 with a wait",
        "plain",
        Says(
            "429 Too Many Requests\nRetry-After: 7\nContent-Type: application/json\nContent-Length: $\n\n{\"message\":\"Slow down\"}",
        ),
    ),
    ("451", "plain", Says("451 Unavailable For Legal Reasons\nContent-Length: $\n\n")),
    (
        "500",
        "plain",
        Says(
            "500 Internal Server Error\nContent-Type: application/json\nContent-Length: $\n\n{\"error\":\"at secret.py:12\"}",
        ),
    ),
    ("503", "plain", Says("503 Service Unavailable\nRetry-After: 60\nContent-Length: $\n\n")),
    ("504", "plain", Says("504 Gateway Timeout\nContent-Length: $\n\n")),
    ("599", "plain", Says("599 Own\nContent-Length: $\n\n")),
    (
        "JSON where all is passed on",
        "raw",
        Says("200 OK\nContent-Type: application/json\nContent-Length: $\n\n{\"a\":1}"),
    ),
    (
        "a page that is passed on",
        "raw",
        Says(
            "200 OK\nContent-Type: text/html; charset=utf-8\nContent-Disposition: inline\nContent-Length: $\n\n<p>Hi</p>",
        ),
    ),
    (
        "a page that is passed on without its coding",
        "raw",
        Sends(|| gzip(b"<p>Hi</p>"), "Content-Type: text/html\nContent-Encoding: gzip"),
    ),
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The beginning of a list of rows, which never ends.
fn rows(count: usize) -> Vec<u8> {
    let rows: String = (0..count).map(|id| format!("{{\"id\":{id},\"name\":\"row {id}\"}},")).collect();
    format!("[{rows}").into_bytes()
}

fn answer(seen: &Seen, stream: &mut TcpStream) -> Then {
    let name = seen.line().rsplit('/').next().unwrap().replace('_', " ");
    let (_, _, does) = BEHAVIOURS.iter().find(|(own, ..)| *own == name).unwrap_or_else(|| panic!("{name}"));
    let head = |text: &str| {
        let (head, body) = text.split_once("\n\n").unwrap();
        let head = head.replace('$', &body.len().to_string()).replace('\n', "\r\n");
        format!("HTTP/1.1 {head}\r\n\r\n{body}")
    };
    let (written, then) = match does {
        Says(text) => (stream.write_all(head(text).as_bytes()), Then::Keep),
        Leaves(text) => (stream.write_all(head(text).as_bytes()), Then::Close),
        Babbles(text) => (stream.write_all(text.as_bytes()), Then::Close),
        Sends(body, lines) => {
            let (body, huge) = (body(), format!("X-Long: {}", "x".repeat(100_000)));
            let lines = lines.replace("$huge", &huge);
            let text = head(&format!("200 OK\n{lines}\nContent-Length: {}\n\n", body.len()));
            (stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(&body)), Then::Keep)
        }
        Chunks(body, size, then) => {
            let mut text = head(&format!("200 OK\n{JSON}\nTransfer-Encoding: chunked\n\n")).into_bytes();
            for chunk in body().chunks(*size) {
                write!(text, "{:x}\r\n", chunk.len()).unwrap();
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            if *then == Then::Keep {
                text.extend_from_slice(b"0\r\nTrailer-Field: value\r\n\r\n");
            }
            (stream.write_all(&text), *then)
        }
        Ends(then) => (Ok(()), *then),
        Stalls => (until_closed(stream), Then::Close),
        Dawdles(text) => {
            let written = stream.write_all(head(text).as_bytes());
            (written.and_then(|()| until_closed(stream)), Then::Close)
        }
    };
    // The other end may have had enough.
    if written.is_ok() { then } else { Then::Close }
}

fn until_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0]).map(drop)
}

fn used(live: &Live) -> u64 {
    let app = &live.app;
    let entry = app.gateway.keyring.find(&KeyHash::of(app.key.as_bytes()).unwrap()).unwrap();
    loop {
        let credits = entry.account.balance.credits(app.clock.unix_s());
        // What is held by a call whose client already knows how it ends is about to be given back.
        if credits.used + credits.remaining == credits.max {
            return credits.used;
        }
        thread::yield_now();
    }
}

fn row(live: &Live, name: &str, api: &str) -> String {
    let mut text = format!("== {name} ({api})\n");
    for format in Format::ALL {
        let before = used(live);
        let accept = match format {
            Format::Json => "application/json",
            Format::Xml => "application/xml",
            Format::Yaml => "application/yaml",
            Format::Csv => "text/csv",
        };
        let path = format!("/v1/{api}/{}", name.replace(' ', "_"));
        let got = call(live, &format!("GET {path}\nX-API-Key: $key\nAccept: {accept}"));
        assert!(!got.header("x-request-id").is_empty() && got.header("access-control-allow-origin") == "*", "{got:?}");
        let charged = used(live) - before;
        let Got { status, is_whole, .. } = got;
        let whole = if is_whole { "whole" } else { "broken off" };
        if RACES.contains(&name) {
            assert!(status == 502 || status == 200 && !is_whole, "{name}: {got:?}");
            writeln!(text, "-- {} 502, or 200 and broken off, {charged} charged", format.name()).unwrap();
            continue;
        }
        let (code, kind) = (got.header("x-error-code"), got.header("content-type"));
        let retry = got.header("retry-after");
        writeln!(text, "-- {} {status} {code} {retry} {kind}, {whole}, {charged} charged", format.name()).unwrap();
        if is_whole {
            text += got.text().trim_end();
            text += "\n";
        }
    }
    text
}

#[test]
#[expect(clippy::disallowed_methods, reason = "asked whether to write the table anew")]
fn behaviours_come_to_what_the_table_says() {
    let server = Server::start(answer);
    let nobody = Nobody::new();
    let gone = nobody.address;
    let upstream = format!("upstream: http://{}, retries: 0, timeout_s: 20", server.address);
    let live = Live::new(&Setup {
        plan: "mega".into(),
        config: format!(
            "apis:\n  plain: {{ {upstream} }}\n  picked: {{ {upstream}, data: /result, error_message: /fault/why }}\n  \
             small: {{ {upstream}, answer_bytes: 1000 }}\n  raw: {{ {upstream}, formats: passthrough }}\n  \
             slow: {{ upstream: 'http://{}', retries: 0, timeout_s: 1 }}\n  \
             gone: {{ upstream: 'http://{gone}', retries: 0, timeout_s: 20 }}",
            server.address
        ),
        ..Setup::default()
    });
    let table: String = BEHAVIOURS.iter().map(|(name, api, _)| row(&live, name, api)).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/upstream/behaviours.txt");
    if std::env::var_os("POLYGATE_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &table).unwrap();
    }
    let wanted = fs::read_to_string(&file).unwrap();
    for (row, wanted) in table.split("== ").zip(wanted.split("== ")) {
        assert_eq!(row, wanted);
    }
    assert_eq!(table.len(), wanted.len());
}
