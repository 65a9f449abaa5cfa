//! Clients that break the rules, on purpose or not, over real sockets: what becomes of each, and that nobody else pays.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use polygate::pure::key::KeyHash;
use proptest::prelude::*;

use crate::program::{Desk, Server};
use crate::sockets::Live;
use crate::support::Setup;

/// One answer, as it came over the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Takes whole answers off the front of `bytes`, and checks that they are answers of ours.
fn answers(bytes: &mut Vec<u8>) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        if head == "HTTP/1.1 100 Continue" {
            bytes.drain(..end + 4);
            continue;
        }
        let (line, lines) = head.split_once("\r\n").unwrap_or_else(|| panic!("{head}"));
        assert!(line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 "), "{head}");
        let status = line[9..12].parse().unwrap();
        let mut headers = BTreeMap::new();
        for line in lines.split("\r\n") {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {head}"));
            let earlier = headers.insert(name.to_owned(), value.to_owned());
            assert_eq!(earlier, None, "{name} is there twice in {head}");
        }
        for name in ["x-request-id", "date", "access-control-allow-origin", "x-content-type-options", "cache-control"] {
            assert!(headers.contains_key(name), "{name} is missing in {head}");
        }
        assert_eq!(headers.contains_key("x-error-code"), status >= 400, "{head}");
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        assert!(status == 204 || length > 0, "{head}");
        let Some(body) = bytes.get(end + 4..end + 4 + length).map(<[u8]>::to_vec) else { break };
        bytes.drain(..end + 4 + length);
        all.push(Answer { status, headers, body });
    }
    all
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Its status, and the format that it is in: the requests here ask for YAML where they can be read.
    fn summary(&self) -> String {
        let format = self.header("content-type").rsplit('/').next().unwrap();
        match self.header("x-error-code") {
            "" => format!("{} {format}", self.status),
            code => format!("{} {code} {format}", self.status),
        }
    }
}

/// Reads until there are `count` more answers or the other end closes; whether it has closed.
fn read_answers(stream: &mut TcpStream, unread: &mut Vec<u8>, count: usize, all: &mut Vec<Answer>) -> bool {
    let enough = all.len() + count;
    let mut chunk = [0; 4096];
    loop {
        all.append(&mut answers(unread));
        if all.len() >= enough {
            return false;
        }
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => unread.extend_from_slice(&chunk[..count]),
            // What was sent after the last request that was read is thrown away by a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(String::from_utf8_lossy(unread), "", "half an answer");
    true
}

/// Sends `request`, and says what came of it: all answers in order, and whether the connection was kept.
///
/// Once the first answer is there a harmless request follows, which only a connection that was kept answers.
fn outcome(live: &Live, request: &[u8]) -> (String, usize) {
    const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: t\r\nX-Request-ID: probe\r\n\r\n";
    let mut stream = live.connect();
    stream.write_all(request).unwrap();
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    let mut closed = read_answers(&mut stream, &mut unread, 1, &mut all);
    let _ = stream.write_all(PROBE.as_bytes());
    while !closed && all.last().is_none_or(|answer| answer.header("x-request-id") != "probe") {
        closed = read_answers(&mut stream, &mut unread, 1, &mut all);
    }
    if !closed {
        all.pop();
    }
    let smuggled = all.iter().filter(|answer| answer.header("x-request-id") == "smuggled").count();
    let mut summary: Vec<_> = all.iter().map(Answer::summary).collect();
    summary.push(if closed { "closed".into() } else { "kept".into() });
    assert!(smuggled == 0 || all.len() > 1, "only the smuggled request was answered");
    let charged = all.iter().filter(|answer| answer.status == 200).count();
    (summary.join(", "), charged)
}

/// A row's text as bytes: lines end in CRLF; `↵` is a bare line feed, `←` a bare carriage return, `␀` and `␛` those bytes.
fn bytes(row: &str, key: &str) -> Vec<u8> {
    let post = "POST /v1/totpgenerator HTTP/1.1\nHost: t\nAccept: application/yaml\nX-API-Key: $key\nContent-Type: application/json\n";
    let get =
        "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP HTTP/1.1\nHost: t\nAccept: application/yaml\nX-API-Key: $key\n";
    let smuggled = "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP HTTP/1.1\nHost: t\nAccept: application/yaml\nX-API-Key: $key\nX-Request-ID: smuggled\n\n";
    let long = "a".repeat(70_000);
    let text = row
        .replace("$post", post)
        .replace("$get", get)
        .replace("$smuggled", smuggled)
        .replace("$key", key)
        .replace("$body", r#"{"secret":"JBSWY3DPEHPK3PXP"}"#)
        .replace("$70k", &long)
        .replace("$17k", &long[..17_000]);
    text.replace('\n', "\r\n")
        .replace('↵', "\n")
        .replace('←', "\r")
        .replace('␀', "\0")
        .replace('␛', "\u{1b}")
        .into_bytes()
}

/// Plays the rows on one server, and holds what comes of each against what is wanted. Only what was answered with 200 has
/// been charged.
#[track_caller]
fn play(rows: &[(&str, &str, &str)]) {
    let live = Live::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let (mut wrong, mut charged) = (String::new(), 0);
    for (name, row, want) in rows {
        let (got, successes) = outcome(&live, &bytes(row, &live.app.key));
        charged += successes;
        if got != *want {
            wrong += &format!("{name}\n   want {want}\n   got  {got}\n");
        }
    }
    assert_eq!(wrong, "");
    assert_eq!(used(live), charged);
}

/// The credits that were used, once all calls have ended. What was set aside and not used is back.
fn used(mut live: Live) -> usize {
    live.finish();
    let entry = live.app.gateway.keyring.find(&KeyHash::of(live.app.key.as_bytes()).unwrap()).unwrap();
    let credits = entry.account.balance.credits(live.app.clock.unix_s());
    assert_eq!(credits.remaining, credits.max - credits.used);
    credits.used.try_into().unwrap()
}

/// A server that waits a second for heads and as long for bodies.
fn impatient() -> Live {
    let config = "limits: { header_read_timeout_s: 1, body_read_timeout_s: 1, idle_timeout_s: 1 }";
    Live::new(&Setup { config: config.into(), plan: "mega".into(), ..Setup::default() })
}

const MALFORMED: &str = "400 malformed-request yaml, closed";
/// Heads that could not be read say nothing of a format.
const UNREADABLE: &str = "400 malformed-request json, closed";

#[test]
fn a_body_has_one_length() {
    play(&[
        ("length and chunks", "$postContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n$smuggled", MALFORMED),
        ("chunks and length", "$postTransfer-Encoding: chunked\nContent-Length: 4\n\n0\n\n$smuggled", MALFORMED),
        (
            "chunks and length on a GET",
            "$getTransfer-Encoding: chunked\nContent-Length: 4\n\n0\n\n$smuggled",
            MALFORMED,
        ),
        ("two lengths", "$postContent-Length: 29\nContent-Length: 2\n\n$body$smuggled", UNREADABLE),
        ("the same length twice", "$postContent-Length: 29\nContent-Length: 29\n\n$body$smuggled", MALFORMED),
        ("a list of lengths", "$postContent-Length: 29, 29\n\n$body$smuggled", UNREADABLE),
        ("a length with a sign", "$postContent-Length: +29\n\n$body$smuggled", UNREADABLE),
        ("a length below zero", "$postContent-Length: -1\n\n$smuggled", UNREADABLE),
        ("a length in hexadecimal", "$postContent-Length: 0x1d\n\n$body$smuggled", UNREADABLE),
        ("an empty length", "$postContent-Length:\n\n$smuggled", UNREADABLE),
        ("a length beyond 64 bits", "$postContent-Length: 18446744073709551645\n\n$body$smuggled", UNREADABLE),
        (
            "the largest length",
            "$postContent-Length: 18446744073709551615\n\n$body",
            "431 headers-too-large json, closed",
        ),
        ("a huge length", "$postContent-Length: 9000000000000000000\n\n$body", "413 body-too-large yaml, closed"),
        ("white space around a length", "$postContent-Length: \t29 \n\n$body", "200 yaml, kept"),
        ("zeros before a length", "$postContent-Length: 0029\n\n$body", "200 yaml, kept"),
        ("no length at all", "$post\n", "400 missing-secret yaml, kept"),
        ("a body of GET is no request", "$getContent-Length: 29\n\n$body", "200 yaml, kept"),
    ]);
}

#[test]
fn the_one_transfer_coding_is_chunked() {
    let chunked = "\n\n1d\n$body\n0\n\n";
    let row = |lines: &str| format!("$post{lines}{chunked}$smuggled");
    play(&[
        ("chunked", &format!("$postTransfer-Encoding: chunked{chunked}"), "200 yaml, kept"),
        ("in capitals", &format!("$postTransfer-Encoding: CHUNKED{chunked}"), "200 yaml, kept"),
        ("with white space around", &format!("$postTransfer-Encoding: \t chunked\t {chunked}"), "200 yaml, kept"),
        ("behind another", &row("Transfer-Encoding: gzip, chunked"), MALFORMED),
        ("behind another line", &row("Transfer-Encoding: gzip\nTransfer-Encoding: chunked"), MALFORMED),
        ("before another", &row("Transfer-Encoding: chunked, gzip"), UNREADABLE),
        ("twice", &row("Transfer-Encoding: chunked, chunked"), MALFORMED),
        ("on two lines", &row("Transfer-Encoding: chunked\nTransfer-Encoding: chunked"), MALFORMED),
        ("in a list with an empty place", &row("Transfer-Encoding: ,chunked"), MALFORMED),
        ("with a parameter", &row("Transfer-Encoding: chunked;a=b"), UNREADABLE),
        ("in quotes", &row("Transfer-Encoding: \"chunked\""), UNREADABLE),
        ("misspelt", &row("Transfer-Encoding: xchunked"), UNREADABLE),
        ("identity", &row("Transfer-Encoding: identity"), UNREADABLE),
        ("empty", &row("Transfer-Encoding:"), UNREADABLE),
        ("with a vertical tab", &row("Transfer-Encoding: \u{b}chunked"), UNREADABLE),
        ("space before the colon", &row("Transfer-Encoding : chunked"), UNREADABLE),
        (
            "in HTTP/1.0",
            &format!("POST /v1/totpgenerator HTTP/1.0\nX-API-Key: $key\nTransfer-Encoding: chunked{chunked}$smuggled"),
            UNREADABLE,
        ),
    ]);
}

#[test]
fn chunks_are_as_they_should_be_or_refused() {
    let row = |chunks: &str| format!("$postTransfer-Encoding: chunked\n\n{chunks}");
    play(&[
        ("an extension", &row("1d;a=\"b;c\"\n$body\n0;d\n\n"), "200 yaml, kept"),
        ("leading zeros", &row("0000001D\n$body\n000\n\n"), "200 yaml, kept"),
        ("white space after the size", &row("1d \t\n$body\n0\n\n"), "200 yaml, kept"),
        ("trailers", &row("1d\n$body\n0\nContent-Length: 900\nX-API-Key: other\nHost: other\n\n"), "200 yaml, kept"),
        ("a trailer that is no header", &row("1d\n$body\n0\nno colon\n\n$smuggled"), MALFORMED),
        ("a trailer with a bare line feed", &row("1d\n$body\n0\nX: y↵\n$smuggled"), MALFORMED),
        ("a size with 0x", &row("0x1d\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a size with a sign", &row("+1d\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a size below zero", &row("-1\n$body\n0\n\n$smuggled"), MALFORMED),
        ("no size", &row("\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a size beyond 64 bits", &row("1000000000000001d\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a bare line feed after the size", &row("1d↵$body\n0\n\n$smuggled"), MALFORMED),
        ("a bare line feed in an extension", &row("1d;a↵$body\n0\n\n$smuggled"), MALFORMED),
        ("no line end after the data", &row("1d\n$body0\n\n$smuggled"), MALFORMED),
        ("a bare line feed after the data", &row("1d\n$body↵0\n\n$smuggled"), MALFORMED),
        ("extensions without end", &row("1d;$17k\n$body\n0\n\n$smuggled"), MALFORMED),
        ("more than is read", &row("4269\n$17k\n0\n\n$smuggled"), "413 body-too-large yaml, closed"),
    ]);
}

#[test]
fn lines_end_where_everybody_sees_them_end() {
    play(&[
        ("line feeds alone", "GET /v1/nothing HTTP/1.1↵Host: t↵↵$smuggled", UNREADABLE),
        ("one line feed alone", "$postX: y↵Content-Length: 29\n\n$body$smuggled", MALFORMED),
        ("a line feed that hides chunks", "$postX: y↵Transfer-Encoding: chunked\n\n0\n\n$smuggled", MALFORMED),
        ("a line feed that ends the head", "$getX: y\n↵$smuggled", MALFORMED),
        ("carriage returns alone", "GET / HTTP/1.1←Host: t←←", UNREADABLE),
        ("a carriage return in a value", "$getX: a←b\n\n$smuggled", UNREADABLE),
        ("a folded line", "$getX: a\n b\n\n$smuggled", UNREADABLE),
        ("a folded line with a tab", "$getX: a\n\tTransfer-Encoding: chunked\n\n$smuggled", UNREADABLE),
        ("a folded first line", "GET /v1/nothing HTTP/1.1\n Host: t\n\n$smuggled", UNREADABLE),
        ("an empty line first", "\n$get\n", "200 yaml, kept"),
    ]);
}

#[test]
fn header_lines_that_are_none_are_refused() {
    play(&[
        ("space before the colon", "$getX : y\n\n$smuggled", UNREADABLE),
        ("no colon", "$getX\n\n$smuggled", UNREADABLE),
        ("an empty name", "$get: y\n\n$smuggled", UNREADABLE),
        ("a space in a name", "$getX Y: z\n\n$smuggled", UNREADABLE),
        ("a name beyond ASCII", "$getÜ: y\n\n$smuggled", UNREADABLE),
        ("NUL in a value", "$getX: a␀b\n\n$smuggled", UNREADABLE),
        ("NUL in a name", "$getX␀: b\n\n$smuggled", UNREADABLE),
        ("a control character in a value", "$getX: a␛b\n\n$smuggled", UNREADABLE),
        ("bytes beyond ASCII in a value", "$getX: ü\n\n", "200 yaml, kept"),
        ("an empty value", "$getX:\n\n", "200 yaml, kept"),
        ("two content types", "$postContent-Type: application/xml\nContent-Length: 29\n\n$body$smuggled", MALFORMED),
        (
            "the same content type twice",
            "$postContent-Type: application/json\nContent-Length: 29\n\n$body$smuggled",
            MALFORMED,
        ),
        ("two keys", "$getX-API-Key: other\n\n$smuggled", MALFORMED),
        ("two lines that may be two", "$getAccept: text/csv\n\n", "200 yaml, kept"),
        ("too many lines", &format!("$get{}\n", "X: y\n".repeat(98)), "431 headers-too-large yaml, kept"),
        ("far too many lines", &format!("$get{}\n", "X: y\n".repeat(300)), "431 headers-too-large json, closed"),
        ("a long line", "$getX: $17k\n\n", "431 headers-too-large yaml, kept"),
    ]);
}

#[test]
fn a_request_has_one_host_that_could_be_one() {
    let row = |hosts: &str| {
        format!(
            "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP&format=yaml HTTP/1.1\nX-API-Key: $key\nAccept: application/yaml\n{hosts}\n"
        )
    };
    let bad = |hosts: &str| row(hosts) + "$smuggled";
    play(&[
        ("none", &bad(""), MALFORMED),
        ("two", &bad("Host: a\nHost: b\n"), MALFORMED),
        ("the same twice", &bad("Host: a\nHost: a\n"), MALFORMED),
        ("with a space", &bad("Host: a b\n"), MALFORMED),
        ("with a path", &bad("Host: a/b\n"), MALFORMED),
        ("with a user", &bad("Host: a@b\n"), MALFORMED),
        ("a list", &bad("Host: a:1, b\n"), MALFORMED),
        ("a port that is none", &bad("Host: a:b\n"), MALFORMED),
        ("empty", &row("Host:\n"), "200 yaml, kept"),
        ("with a port", &row("Host: api.example:8080\n"), "200 yaml, kept"),
        ("an address", &row("Host: [::1]:8080\n"), "200 yaml, kept"),
        ("none on a preflight", "OPTIONS /v1/analytics HTTP/1.1\nAccept: application/yaml\n\n$smuggled", MALFORMED),
        ("none on a document", "GET /openapi.json HTTP/1.1\nAccept: application/yaml\n\n$smuggled", MALFORMED),
        (
            "none in HTTP/1.0",
            "GET /v1/nothing HTTP/1.0\nAccept: application/yaml\n\n$smuggled",
            "404 unknown-api yaml, closed",
        ),
        ("two in HTTP/1.0", "GET / HTTP/1.0\nAccept: application/yaml\nHost: a\nHost: b\n\n$smuggled", MALFORMED),
    ]);
}

#[test]
fn request_lines_of_all_kinds_have_their_answer() {
    let rest = "\nHost: t\nAccept: application/yaml\nX-API-Key: $key\n\n";
    let good = |line: &str| format!("{line}{rest}");
    let bad = |line: &str| format!("{line}{rest}$smuggled");
    let query = "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP";
    play(&[
        ("a whole URL", &good(&format!("GET http://other.example{query} HTTP/1.1")), "200 yaml, kept"),
        ("a URL without a path", &good("GET http://other.example HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("all of the server", &good("OPTIONS * HTTP/1.1"), "204 , kept"),
        ("all of the server, by GET", &good("GET * HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("an authority", &good("GET other.example:80 HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("CONNECT", &good("CONNECT other.example:80 HTTP/1.1"), "405 method-not-allowed yaml, kept"),
        ("CONNECT to a path", &good("CONNECT / HTTP/1.1"), "405 method-not-allowed yaml, kept"),
        ("a fragment", &good(&format!("GET {query}#&secret=A HTTP/1.1")), "200 yaml, kept"),
        ("dots", &good("GET /v1/x/../totpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("encoded slashes", &good("GET /v1%2ftotpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("two slashes", &good("GET //v1/totpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("no slash", &bad("GET v1/totpgenerator HTTP/1.1"), UNREADABLE),
        ("a long target", &good("GET /$17k HTTP/1.1"), "431 headers-too-large yaml, kept"),
        ("a longer one", &bad("GET /$70k HTTP/1.1"), "431 headers-too-large json, closed"),
        ("NUL in the target", &bad("GET /␀ HTTP/1.1"), UNREADABLE),
        ("a method in small letters", &good(&format!("get {query} HTTP/1.1")), "405 method-not-allowed yaml, kept"),
        ("an unknown method", &good(&format!("BREW {query} HTTP/1.1")), "405 method-not-allowed yaml, kept"),
        ("TRACE", &good(&format!("TRACE {query} HTTP/1.1")), "405 method-not-allowed yaml, kept"),
        ("a method that is no word", &bad(&format!("G(T {query} HTTP/1.1")), UNREADABLE),
        ("two spaces", &bad(&format!("GET  {query} HTTP/1.1")), UNREADABLE),
        ("a tab", &bad(&format!("GET\t{query} HTTP/1.1")), UNREADABLE),
        ("a space in the target", &bad("GET /v1/totpgenerator?secret=A B HTTP/1.1"), UNREADABLE),
        ("a space behind", &bad(&format!("GET {query} HTTP/1.1 ")), UNREADABLE),
        ("HTTP/0.9", "GET /\n$smuggled", UNREADABLE),
        ("HTTP/1.0", &good(&format!("GET {query} HTTP/1.0")), "200 yaml, closed"),
        ("HTTP/1.2", &bad(&format!("GET {query} HTTP/1.2")), UNREADABLE),
        ("HTTP/2.0", &bad(&format!("GET {query} HTTP/2.0")), UNREADABLE),
        ("HTTP/1.10", &bad(&format!("GET {query} HTTP/1.10")), UNREADABLE),
        ("http/1.1", &bad(&format!("GET {query} http/1.1")), UNREADABLE),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n", "closed"),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\n\n", UNREADABLE),
        (
            "what comes after HTTP/1.0",
            "GET /v1/nothing HTTP/1.0\nAccept: application/yaml\nConnection: keep-alive\n\ngarbage\n\n",
            "404 unknown-api yaml, 400 malformed-request json, closed",
        ),
    ]);
}

#[test]
fn nobody_is_upgraded_and_expectations_are_met() {
    play(&[
        (
            "h2c",
            "$getConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n",
            "200 yaml, kept",
        ),
        (
            "websocket",
            "$getConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n",
            "200 yaml, kept",
        ),
        ("100-continue without a wait", "$postExpect: 100-continue\nContent-Length: 29\n\n$body", "200 yaml, kept"),
        ("another expectation", "$postExpect: the-unexpected\nContent-Length: 29\n\n$body", "200 yaml, kept"),
        ("close in a list", "$getConnection: keep-alive, close\n\n$smuggled", "200 yaml, closed"),
    ]);
}

#[test]
fn pipelined_calls_are_answered_in_order_and_whole() {
    let live = Live::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let kinds = [
        "$getX-Request-ID: $id\n\n",
        "$postX-Request-ID: $id\nContent-Length: 29\n\n$body",
        "$postX-Request-ID: $id\nTransfer-Encoding: chunked\n\n1d\n$body\n0\n\n",
        "GET /v1/nothing HTTP/1.1\nHost: t\nX-Request-ID: $id\n\n",
    ];
    let row: String = (0..200).map(|id| kinds[id % 4].replace("$id", &id.to_string())).collect();
    let mut stream = live.connect();
    stream.write_all(&bytes(&row, &live.app.key)).unwrap();
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    assert!(!read_answers(&mut stream, &mut unread, 200, &mut all));
    for (number, answer) in all.iter().enumerate() {
        assert_eq!(answer.header("x-request-id"), number.to_string());
        assert_eq!(answer.status, if number % 4 == 3 { 404 } else { 200 });
        let body = String::from_utf8_lossy(&answer.body);
        assert!(answer.status == 404 || body.contains("token:"), "{body}");
    }
    drop(stream);
    assert_eq!(used(live), 150);
}

#[test]
fn nobody_is_told_to_go_on_with_what_will_not_be_read() {
    let live = Live::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let row =
        "POST /v1/totpgenerator HTTP/1.1\nHost: t\nX-API-Key: $key\nExpect: 100-continue\nContent-Length: $length\n\n";
    for (key, length, want) in [("unknown", "29", "HTTP/1.1 401"), (&*live.app.key, "16385", "HTTP/1.1 413")] {
        let mut stream = live.connect();
        stream.write_all(&bytes(&row.replace("$length", length), key)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(want), "{answer}");
    }
}

/// Sends `request`, a piece every few milliseconds, and waits until the other end closes, which it has to do in time. What it
/// has answered.
fn dawdle(live: &Live, request: &[u8], piece: usize) -> String {
    let mut stream = live.connect();
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let (mut pieces, mut got) = (request.chunks(piece), Vec::new());
    let mut chunk = [0; 4096];
    // Rounds without an answer take 10 ms each, 15 s in all.
    for _ in 0..1_500 {
        if let Some(piece) = pieces.next() {
            // What cannot be sent any more is not the point.
            let _ = stream.write_all(piece);
        }
        match stream.read(&mut chunk) {
            Ok(0) => return summary(&mut got),
            Ok(count) => got.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return summary(&mut got),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the connection is still open");
}

/// All answers in short.
fn summary(bytes: &mut Vec<u8>) -> String {
    let all = answers(bytes);
    assert_eq!(String::from_utf8_lossy(bytes), "", "half an answer");
    all.iter().map(Answer::summary).collect::<Vec<_>>().join(", ")
}

#[test]
fn who_is_too_slow_is_hung_up_on_in_time() {
    let live = impatient();
    let late = "408 request-timeout yaml";
    let filler = " ".repeat(900);
    let rows = [
        ("says nothing", String::new(), usize::MAX, ""),
        ("says half a head", "$get".into(), usize::MAX, ""),
        ("says half a request line", "GE".into(), usize::MAX, ""),
        ("sends empty lines", "\n".repeat(400), 2, ""),
        ("sends a head byte by byte", format!("$getX: {filler}\n\n"), 1, ""),
        ("sends half a body", "$postContent-Length: 900\n\n$body".into(), usize::MAX, late),
        ("sends half a chunk", "$postTransfer-Encoding: chunked\n\n7fffffffffffffff\n$body".into(), usize::MAX, late),
        ("sends half a chunk size", "$postTransfer-Encoding: chunked\n\n0".into(), usize::MAX, late),
        ("sends half a trailer", "$postTransfer-Encoding: chunked\n\n0\nX: y".into(), usize::MAX, late),
        // The head is there in time.
        ("sends a body bit by bit", format!("$postContent-Length: 9000\n\n{}", filler.repeat(10)), 20, late),
        ("is idle after a call", "$get\n".into(), usize::MAX, "200 yaml"),
        ("starts another head after a call", "$get\n$get".into(), usize::MAX, "200 yaml"),
    ];
    thread::scope(|scope| {
        for (name, row, piece, want) in &rows {
            let live = &live;
            scope.spawn(move || assert_eq!(dawdle(live, &bytes(row, &live.app.key), *piece), *want, "{name}"));
        }
    });
    assert_eq!(used(live), 2);
}

#[test]
fn a_call_that_is_slow_but_in_time_is_answered() {
    let live = Live::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let row = "$postConnection: close\nContent-Length: 29\n\n$body";
    assert_eq!(dawdle(&live, &bytes(row, &live.app.key), 3), "200 yaml");
    assert_eq!(used(live), 1);
}

#[test]
fn who_hangs_up_before_the_answer_pays_nothing() {
    let live = impatient();
    for row in [
        "",
        "GE",
        "$get",
        "$postContent-Length: 29\n",
        "$postContent-Length: 29\n\n",
        "$postContent-Length: 29\n\n{",
        "$postContent-Length: 30\n\n$body",
        "$postTransfer-Encoding: chunked\n\n1d\n$body\n",
        "$postTransfer-Encoding: chunked\n\n1d\n$body\n0\n",
        "$postExpect: 100-continue\nContent-Length: 29\n\n",
    ] {
        // At once, politely, and with what was said still unread.
        let request = bytes(row, &live.app.key);
        live.connect().write_all(&request).unwrap();
        let mut polite = live.connect();
        polite.write_all(&request).unwrap();
        polite.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = polite.read_to_end(&mut rest);
        assert!(answers(&mut rest).iter().all(|answer| answer.status == 400), "{row}");
    }
    assert_eq!(used(live), 0);
}

#[test]
fn who_hangs_up_on_the_answer_pays_for_it_at_most() {
    let live = Live::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let rows = ["$get\n", "$postContent-Length: 29\n\n$body", "$get\n$get\n$get\n"];
    for row in rows.iter().cycle().take(150) {
        live.connect().write_all(&bytes(row, &live.app.key)).unwrap();
    }
    // All that was set aside for those who are gone has come back, or was charged.
    let used = used(live);
    assert!(used <= 250, "{used}");
}

/// A server as a program of its own, and a key on a plan without a limit of requests.
fn program(config: &str) -> (Desk, Server, String) {
    let desk = Desk::new();
    let plans = "plans: { mega: { credits_a_month: 4000000 } }\ndefault_plan: mega\n";
    std::fs::write(desk.directory.path().join("polygate.yaml"), format!("{plans}{config}")).unwrap();
    let key = desk.create("--config polygate.yaml");
    let server = Server::start(&desk, "--config polygate.yaml");
    (desk, server, key)
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Resident memory, in KiB.
    fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

#[test]
fn clients_that_never_read_cost_little_and_harm_nobody() {
    let (_desk, server, key) = program("");
    assert_eq!(server.call(&key), 200);
    let before = server.resident_kib();
    let request = bytes(&"$get\n".repeat(100), &key);
    let greedy: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = server.connect();
                stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                let request = &request;
                scope.spawn(move || {
                    // Until nothing more is taken.
                    while stream.write_all(request).is_ok() {}
                    stream
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(server.call(&key), 200);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 8 clients");
    drop(greedy);
    assert_eq!(server.call(&key), 200);
}

#[test]
fn two_thousand_connections_leave_room_for_a_good_client() {
    let (_desk, server, key) = program("limits: { connections_an_address: 10000 }");
    assert_eq!(server.call(&key), 200);
    let before = server.resident_kib();
    // As many as one program may have, if that is less.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: usize = files.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    let count = files.saturating_sub(300).min(2_000);
    let half = bytes("$getX: ", &key);
    let crowd: Vec<_> = (0..count)
        .map(|number| {
            let mut stream = server.connect();
            if number % 2 == 0 {
                stream.write_all(&half).unwrap();
            }
            stream
        })
        .collect();
    let mut good = server.connect();
    good.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    good.write_all(&bytes("$get\n", &key)).unwrap();
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    read_answers(&mut good, &mut unread, 1, &mut all);
    assert_eq!(all[0].status, 200);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < count * 32, "{grown} KiB for {count} connections");
    drop(crowd);
    assert_eq!(server.call(&key), 200);
}

/// Requests that are right, and what to spoil them with.
const SEEDS: [&str; 5] = [
    "$get\n",
    "$postContent-Length: 29\n\n$body",
    "$postTransfer-Encoding: chunked\n\n1d\n$body\n0\nX: y\n\n",
    "OPTIONS /v1/totpgenerator HTTP/1.1\nHost: t\nOrigin: https://a.example\nAccess-Control-Request-Method: POST\n\n",
    "GET /openapi.yaml HTTP/1.1\nHost: t\n\n",
];
const SPOILERS: [&str; 26] = [
    "\n",
    "↵",
    "←",
    "␀",
    "␛",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "%",
    "#",
    "?",
    "*",
    "0",
    "29",
    "-1",
    "ffffffffffffffff",
    "é",
    "\n\n",
    "\nContent-Length: 29",
    "\nTransfer-Encoding: chunked",
    "\nHost: other",
    "\nConnection: close",
    "HTTP/1.0",
    "$get\n",
];

#[derive(Clone, Debug)]
enum Spoil {
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    Replace(prop::sample::Index, u8),
    Repeat(prop::sample::Index, usize),
}

fn spoiled() -> impl Strategy<Value = (&'static str, Vec<Spoil>)> {
    let at = any::<prop::sample::Index>;
    let spoil = prop_oneof![
        (at(), prop::sample::select(&SPOILERS[..])).prop_map(|(at, what)| Spoil::Insert(at, what)),
        (at(), 1..20_usize).prop_map(|(at, bytes)| Spoil::Remove(at, bytes)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Spoil::Replace(at, byte)),
        (at(), 1..60_usize).prop_map(|(at, bytes)| Spoil::Repeat(at, bytes)),
    ];
    (prop::sample::select(&SEEDS[..]), prop::collection::vec(spoil, 1..4))
}

/// The bytes of a spoiled request.
fn spoil(seed: &str, spoils: &[Spoil], key: &str) -> Vec<u8> {
    let mut request = bytes(seed, key);
    for spoil in spoils {
        let at = |index: &prop::sample::Index| index.index(request.len().max(1));
        match spoil {
            Spoil::Insert(index, what) => drop(request.splice(at(index)..at(index), bytes(what, key))),
            Spoil::Remove(index, count) => {
                let start = at(index);
                request.drain(start..(start + count).min(request.len()));
            }
            Spoil::Replace(index, byte) => {
                let at = at(index);
                if let Some(place) = request.get_mut(at) {
                    *place = *byte;
                }
            }
            Spoil::Repeat(index, count) => {
                let start = at(index);
                let part = request[start..(start + count).min(request.len())].to_vec();
                request.splice(start..start, part);
            }
        }
    }
    request
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each is followed by a request that ends the connection, unless it is taken for a part of the first.
    #[test]
    fn spoiled_requests_get_whole_answers_and_are_charged_for_success_alone(
        spoiled in prop::collection::vec(spoiled(), 64),
    ) {
        const END: &str = "GET /v1/nothing HTTP/1.1\nHost: t\nConnection: close\n\n";
        let live = impatient();
        let charged: usize = thread::scope(|scope| {
            let clients: Vec<_> = spoiled
                .iter()
                .map(|(seed, spoils)| {
                    let live = &live;
                    scope.spawn(move || {
                        let request = [spoil(seed, spoils, &live.app.key), bytes(END, "")].concat();
                        let mut stream = live.connect();
                        stream.write_all(&request).unwrap();
                        let (mut all, mut unread) = (Vec::new(), Vec::new());
                        while !read_answers(&mut stream, &mut unread, 1, &mut all) {}
                        all.iter().filter(|answer| answer.status == 200 && answer.headers.contains_key("x-api-credits-used")).count()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(used(live), charged);
    }
}
