//! The private listener of the real program: metrics, health, and what becomes of it when something is wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::program::{Desk, Server};

/// A server, and the address of its private listener.
fn start(desk: &Desk) -> (Server, String) {
    desk.write("private_listen: 127.0.0.1:0\nlogs: { level: warn }");
    served(desk)
}

/// The same of what is configured.
pub fn served(desk: &Desk) -> (Server, String) {
    let mut server = Server::start(desk, "--config polygate.yaml");
    let line = server.printed("Metrics, health and administration: ").unwrap();
    (server, line.strip_prefix("Metrics, health and administration: http://").unwrap().to_owned())
}

/// Status, head and body.
fn ask(address: &str, first: &str) -> (u16, String, String) {
    send(address, first, "Host: t\r\n")
}

/// The same with header lines of its own.
pub fn send(address: &str, first: &str, lines: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{first} HTTP/1.1\r\n{lines}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

/// Asks until `/readyz` has this status, and returns its body.
#[expect(clippy::disallowed_methods, reason = "tests wait as long as it takes, up to a point")]
fn until_ready_is(address: &str, wanted: u16) -> Value {
    let start = Instant::now();
    loop {
        let (status, _, body) = ask(address, "GET /readyz");
        if status == wanted {
            return serde_json::from_str(&body).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(40), "{status} {body}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_calls_did_is_in_the_metrics() {
    let desk = Desk::new();
    let (good, slow) = (desk.create("--account a@example.org --plan pro"), desk.create(""));
    let (server, private) = start(&desk);
    for _ in 0..3 {
        assert_eq!(server.call(&good), 200);
    }
    let limited = (0..70).map(|_| server.call(&slow)).filter(|status| *status == 429).count();
    assert!(limited > 0);
    assert_eq!(server.call("pg-none"), 401);
    let (status, head, text) = ask(&private, "GET /metrics");
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as usize)
    };
    let requests = |status| {
        value(&format!("polygate_requests_total{{route=\"totpgenerator\",status=\"{status}\",format=\"json\"}}"))
    };
    assert_eq!([requests(200), requests(429), requests(401)], [73 - limited, limited, 1], "{text}");
    assert_eq!(value("polygate_request_duration_seconds_count{route=\"totpgenerator\"}"), 74);
    assert_eq!(value("polygate_limited_total{by=\"key\"}"), limited);
    assert!(value("polygate_journal_writes_total") > 0 && value("process_start_time_seconds") > 1_700_000_000);
    // What the system says of it from outside.
    let pid = server.child.id();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some(&*value("process_max_fds").to_string()));
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(value("process_open_fds").abs_diff(open) < 10, "{open}: {text}");
    let (resident, set_aside) = (value("process_resident_memory_bytes"), value("process_virtual_memory_bytes"));
    assert!((1 << 20..1 << 30).contains(&resident) && resident < set_aside, "{text}");
    let cpu = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total ")).unwrap();
    assert!(cpu.parse::<f64>().is_ok_and(|cpu| cpu > 0.0 && cpu < 1_000.0), "{cpu}");
    // Nobody is named.
    assert!(!text.contains("example.org") && !text.contains(&good[..9]));
}

#[test]
fn it_answers_what_it_has_and_nothing_else() {
    let desk = Desk::new();
    let (server, private) = start(&desk);
    assert_eq!(until_ready_is(&private, 200), json!({ "status": "ready" }));
    let cases = [
        ("GET /healthz", 200, r#"{"status":"ok"}"#),
        ("GET /healthz?x=y", 200, r#"{"status":"ok"}"#),
        ("HEAD /metrics", 200, ""),
        ("POST /metrics", 405, r#"{"error":"only GET and HEAD"}"#),
        ("OPTIONS /readyz", 405, r#"{"error":"only GET and HEAD"}"#),
        (
            "GET /",
            404,
            r#"{"error":"there are /metrics, /healthz, /readyz and /apis, and, for POST, /reload and /drain"}"#,
        ),
        (
            "GET /metrics/",
            404,
            r#"{"error":"there are /metrics, /healthz, /readyz and /apis, and, for POST, /reload and /drain"}"#,
        ),
        (
            "GET /v1/totpgenerator",
            404,
            r#"{"error":"there are /metrics, /healthz, /readyz and /apis, and, for POST, /reload and /drain"}"#,
        ),
    ];
    for (first, status, body) in cases {
        let answer = ask(&private, first);
        assert_eq!((answer.0, answer.2.as_str()), (status, body), "{first}");
        assert_eq!(answer.1.contains("allow: GET, HEAD"), status == 405, "{first}");
    }
    // What is private is not public.
    let public = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(public).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn a_client_that_says_nothing_keeps_nobody_else_out() {
    let desk = Desk::new();
    let (_server, private) = start(&desk);
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&private).unwrap()).collect();
    // All places are taken, until those who say nothing have had their time.
    assert_eq!(ask(&private, "GET /healthz").0, 200);
    drop(silent);
}

#[test]
fn a_database_that_cannot_be_written_is_told_and_so_is_its_return() {
    let desk = Desk::new();
    let (_server, private) = start(&desk);
    until_ready_is(&private, 200);
    let database = rusqlite::Connection::open(desk.data().join("polygate.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = until_ready_is(&private, 503);
    assert_eq!(told, json!({ "status": "not ready", "wrong": { "database": "it cannot be written" } }));
    assert_eq!(ask(&private, "GET /healthz").0, 200);
    database.execute_batch("ROLLBACK").unwrap();
    until_ready_is(&private, 200);
}

#[test]
fn a_journal_that_cannot_be_written_is_told_and_so_is_its_return() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("private_listen: 127.0.0.1:0\nlogs: { level: warn }");
    // Writing beyond the limit is to fail, and not to end the program.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_polygate"), "--data", "data"]);
    command.args(["serve", "--listen", "127.0.0.1:0", "--config", "polygate.yaml"]);
    let mut server = Server::spawn({
        command.env_clear().current_dir(&desk.directory);
        command
    });
    let private = server.printed("Metrics, health and administration: ").unwrap();
    let private = private.strip_prefix("Metrics, health and administration: http://").unwrap().to_owned();
    until_ready_is(&private, 200);
    assert_eq!(server.call(&key), 200);

    let pid = Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    let file_bytes = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    file_bytes(Some(0));
    assert_eq!(server.call(&key), 503);
    let told = until_ready_is(&private, 503);
    assert_eq!(told["wrong"]["journal"], "charges cannot be written", "{told}");
    file_bytes(None);
    until_ready_is(&private, 200);
    assert_eq!(server.call(&key), 200);
}

#[test]
fn a_clock_that_is_wrong_is_told() {
    let desk = Desk::new();
    desk.create("");
    // As if charges had been made an hour from now: the clock has been put back.
    let database = rusqlite::Connection::open(desk.data().join("polygate.db")).unwrap();
    database.execute("UPDATE api_key SET last_used_unix_s = unixepoch() + 3600", []).unwrap();
    drop(database);
    let (_server, private) = start(&desk);
    let told = until_ready_is(&private, 503);
    let clock = told["wrong"]["clock"].as_str().unwrap();
    assert!(clock.starts_with("it stands 3") && clock.ends_with(" s before the last charge"), "{told}");
    assert_eq!(told["wrong"].as_object().unwrap().len(), 1, "{told}");
}

#[test]
fn a_server_that_stops_says_so_while_it_finishes_its_calls() {
    let desk = Desk::new();
    let key = desk.create("");
    let (mut server, private) = start(&desk);
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let body = r#"{"secret":"JBSWY3DPEHPK3PXP"}"#;
    write!(
        stream,
        "POST /v1/totpgenerator HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    )
    .unwrap();
    // It is under way when the server asks for the body.
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    let stop = std::process::Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    assert!(stop.success());
    assert_eq!(
        until_ready_is(&private, 503),
        json!({ "status": "not ready", "wrong": { "server": "it is stopping" } })
    );
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let desk = Desk::new();
    desk.write(&format!("private_listen: {address}"));
    let (code, error) = desk.fails("serve --listen 127.0.0.1:0 --config polygate.yaml");
    assert!(code == 1 && error.starts_with(&format!("polygate: cannot listen on {address}: ")), "{error}");
}
