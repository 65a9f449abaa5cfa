//! Clients that break the rules, on purpose or not, over real sockets: what becomes of each, and that nobody else pays.

mod crowds;
mod floods;
mod frames;
mod framing;
mod half;
mod heads;
mod leaving;
mod order;
mod panics;
mod slow;
mod spoiled;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use polygate::pure::key::KeyHash;

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
