//! Upstreams that are real programs over TLS and HTTP/2, the checks of their health, and the memory that it all needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::server::{Server, Then, call, parse};
use crate::program::{self, Desk};
use crate::sockets::Live;
use crate::support::Setup;
use crate::tls::Certificate;

const OTP: &str = "GET /v1/otp/key2otp?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key\nAccept: application/yaml";

fn behind(inner: &Live, upstream: &str) -> Live {
    let upstream = upstream.replace("$port", &inner.address.port().to_string());
    Live::new(&Setup { config: format!("apis:\n  otp: {{ {upstream} }}"), ..Setup::default() })
}

#[test]
fn a_polygate_can_stand_behind_another_over_tls_and_http2() {
    let certificate = Certificate::new();
    let inner = Live::new(&Setup { config: certificate.yaml(), ..Setup::default() });
    let ca = certificate.file().display().to_string();
    for http2 in [true, false] {
        let outer = behind(&inner, &format!("upstream: 'https://localhost:$port/v1/api', ca: '{ca}', http2: {http2}"));
        for _ in 0..2 {
            let got = call(&outer, OTP);
            assert_eq!(got.status, 200, "{}", got.text());
            assert!(
                got.text().starts_with("status: ok\nerror: null\ndata:\n  status: success\n  otp: '"),
                "{}",
                got.text()
            );
        }
    }
    // The certificate is for another name.
    let got = call(&behind(&inner, &format!("upstream: 'https://127.0.0.1:$port', ca: '{ca}'")), OTP);
    assert_eq!((got.status, got.header("x-error-code")), (502, "upstream-unreachable"));
    // A body that is refused there is refused here, with its message and nothing else.
    let outer = behind(&inner, &format!("upstream: 'https://localhost:$port/v1/api', ca: '{ca}'"));
    let got = call(&outer, &OTP.replace("JBSWY3DPEHPK3PXP", "1"));
    assert_eq!((got.status, got.header("x-error-code")), (400, "upstream-rejected"));
    assert_eq!(
        got.text(),
        "status: error\nerror: Invalid secret format. Must contain only A-Z and 2-7 (base32).\ndata: null\n"
    );
}

#[test]
fn http2_is_spoken_without_tls_where_it_is_wanted() {
    let inner = Live::new(&Setup { config: "http2_prior_knowledge: true".into(), ..Setup::default() });
    let outer = behind(&inner, "upstream: 'http://localhost:$port/v1/api', http2: true");
    let got = call(&outer, OTP);
    assert_eq!(got.status, 200, "{}", got.text());
    // Where it is not understood, nothing else is tried.
    let inner = Live::new(&Setup::default());
    let outer = behind(&inner, "upstream: 'http://localhost:$port/v1/api', http2: true");
    assert_eq!(call(&outer, OTP).status, 502);
}

/// A call of the program behind `url`.
pub fn get(url: &str, path: &str, key: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\nAccept: application/xml\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// The most memory that a process has had, bytes.
fn most_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn ten_megabytes_pass_through_two() {
    let server = Server::start(|seen, stream| {
        let rows: usize = seen.line().rsplit('/').next().unwrap().parse().unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[0";
        let mut sent = stream.write_all(head.as_bytes());
        for _ in 0..rows / 100 {
            let piece = ",{\"id\":1234567,\"name\":\"a name of some length\"}".repeat(100);
            sent = sent.and_then(|()| stream.write_all(piece.as_bytes()));
        }
        let _ = sent.and_then(|()| stream.write_all(b"]"));
        Then::Close
    });
    let desk = Desk::new();
    desk.write(&format!(
        "plans: {{ free: {{ credits_a_month: 9 }} }}\napis:\n  a: {{ upstream: 'http://{}' }}",
        server.address
    ));
    let key = desk.create("--config polygate.yaml");
    let program = program::Server::start(&desk, "--config polygate.yaml");
    let got = |rows: usize| {
        let got = parse(&get(&program.url, &format!("/v1/a/{rows}"), &key));
        assert!(got.status == 200 && got.is_whole);
        (got.body.len(), most_memory(program.child.id()))
    };
    let (_, before) = got(10_000);
    let (bytes, after) = got(220_000);
    assert!(bytes > 10 << 20, "{bytes}");
    assert!(after - before <= 2 << 20, "{before} {after}");
}

#[test]
fn a_target_that_fails_its_check_is_passed_over() {
    let is_well = Arc::new(AtomicBool::new(false));
    let switch = is_well.clone();
    let sick = Server::start(move |seen, stream| {
        let status =
            if seen.line() != "GET /base/health" || switch.load(Ordering::Acquire) { "200 OK" } else { "500 No" };
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes());
        Then::Keep
    });
    let well = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        Then::Keep
    });
    let desk = Desk::new();
    desk.write(&format!(
        "apis:\n  a: {{ upstream: ['http://{}/base', 'http://{}'], access: open, health_check: /health }}",
        sick.address, well.address
    ));
    let mut program = program::Server::start(&desk, "--config polygate.yaml");
    let calls =
        |server: &Server| server.seen.lock().unwrap().iter().filter(|seen| !seen.line().contains("health")).count();
    // The operator is told once the first check has failed.
    let mut told = BufReader::new(program.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let wanted = format!("{}, a server of a, fails its health check", sick.address);
    assert!(told.any(|line| line.contains(&wanted)));
    let before = calls(&sick);
    for _ in 0..6 {
        assert!(get(&program.url, "/v1/a", "").starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!((calls(&sick), calls(&well)), (before, 6));
    is_well.store(true, Ordering::Release);
    assert!(told.any(|line| line.contains("works again")));
    for _ in 0..6 {
        assert!(get(&program.url, "/v1/a", "").starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!((calls(&sick), calls(&well)), (before + 3, 9));
    // Whatever else it says is read, so that it never waits for us.
    thread::spawn(move || told.for_each(drop));
}

#[test]
fn the_log_tells_of_flaws_but_nothing_of_requests_answers_and_secrets() {
    let server = Server::start(|seen, stream| {
        assert_eq!(seen.header("authorization"), "Bearer marked-secret");
        let (status, body) = match seen.line().split(['/', '?']).nth(1).unwrap() {
            "flaw" => ("200 OK", "{\"marked-answer\":"),
            "mistake" => ("400 Bad Request", "{\"error\":\"marked-answer\"}"),
            "refused" => ("401 Unauthorized", "marked-answer"),
            _ => ("200 OK", "{\"marked-answer\":1}"),
        };
        let head = format!("HTTP/1.1 {status}\r\nX-Mark: marked-header\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        Then::Keep
    });
    let desk = Desk::new();
    let own = "access: open, set_headers: { Authorization: 'Bearer ${MARK}' }";
    desk.write(&format!("logs: {{ format: json }}\napis:\n  a: {{ upstream: 'http://{}', {own} }}", server.address));
    let mut command = desk.command("serve --listen 127.0.0.1:0 --config polygate.yaml");
    command.env("MARK", "marked-secret");
    let mut program = program::Server::spawn(command);
    for path in ["flaw", "mistake", "refused", "fine", "marked-path/../x", "marked-path"] {
        get(&program.url, &format!("/v1/a/{path}?q=marked-query"), "marked-key");
    }
    let stderr = BufReader::new(program.child.stderr.take().unwrap());
    let mut lines = Vec::new();
    for line in stderr.lines().map(Result::unwrap) {
        lines.push(line);
        if lines.iter().filter(|line| line.contains("\"route\":\"a\"")).count() == 6 {
            break;
        }
    }
    let traces: Vec<(String, Option<String>)> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["route"] == "a")
        .map(|line| (line["request_id"].to_string(), line["trace_id"].as_str().map(str::to_owned)))
        .collect();
    // What a target is told, and what is written down, is one trace, and bears the id of the request.
    for seen in server.seen.lock().unwrap().iter() {
        let trace = seen.header("traceparent")[3..35].to_owned();
        assert!(traces.contains(&(format!("\"{}\"", seen.header("x-request-id")), Some(trace.clone()))), "{traces:?}");
        assert_eq!(seen.header("x-request-id").replace('-', ""), trace);
    }
    let told = lines.join("\n");
    assert!(told.contains("the upstream of a gave an answer with a flaw: unexpected end at byte 17"), "{told}");
    for code in ["upstream-unreadable", "upstream-rejected", "upstream-refused-us", "invalid-path"] {
        assert!(told.contains(code), "{code} in\n{told}");
    }
    assert!(!told.contains("marked"), "{told}");
}
