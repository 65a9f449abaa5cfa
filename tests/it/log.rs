//! What a running server writes down of calls: the real program, its standard error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::program::{Desk, Server};

/// Sends a request and reads the answer.
fn exchange(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Stops a server, which ends well, and returns what it has said on standard error.
fn stop(server: &mut Server) -> Vec<String> {
    let stop = std::process::Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    assert!(stop.success());
    let lines = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(server.child.wait().unwrap().success(), "{lines:?}");
    lines
}

#[test]
fn every_answer_is_a_line_and_so_are_start_and_end() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("logs: { format: json }");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    let body = r#"{"secret":"JBSWY3DPEHPK3PXP"}"#;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let end = "Host: t\nConnection: close\n\n";
    let requests = [
        format!(
            "POST /v1/totpgenerator?format=xml HTTP/1.1\nX-API-Key: {key}\nX-Request-ID: one\ntraceparent: {trace}\n\
             Content-Type: application/json\nContent-Length: {}\n{end}{body}",
            body.len()
        ),
        format!("GET /v1/totpgenerator HTTP/1.1\nX-Request-ID: two\n{end}"),
        format!("HEAD /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP HTTP/1.1\n{end}"),
        format!("OPTIONS /v1/analytics/ HTTP/1.1\n{end}"),
        format!("GET /openapi.json HTTP/1.1\n{end}"),
        format!("BREW /coffee HTTP/1.1\n{end}"),
        "no HTTP at all\n\n".to_owned(),
    ];
    let answers: Vec<String> = requests.iter().map(|request| exchange(&server, request)).collect();
    let lines = stop(&mut server);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();

    let (calls, events): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["request_id"].is_string());
    let told: Vec<&str> = events.iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(events.iter().all(|event| event["target"] == "polygate" && event["level"] == "info"), "{events:?}");
    let address = server.url.strip_prefix("http://").unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let start = format!("polygate {version} serves {address}");
    assert_eq!(told, [&*start, "polygate stops: calls under way are finished", "polygate has stopped"]);

    let told = |call: &Value| {
        ["method", "route", "status", "code", "format", "account", "key", "request_bytes"]
            .map(|name| call.get(name).map_or(String::new(), |value| value.to_string().replace('"', "")))
            .join(" ")
    };
    let prefix = &key[..9];
    let wanted = [
        format!("POST totpgenerator 200  xml 1 {prefix} 29"),
        "GET totpgenerator 401 key-required json   0".to_owned(),
        "HEAD key2otp 200  json   0".to_owned(),
        "OPTIONS analytics 204     0".to_owned(),
        "GET openapi 200     0".to_owned(),
        "other unknown 404 unknown-api json   0".to_owned(),
        "other unknown 400 malformed-request json   0".to_owned(),
    ];
    assert_eq!(calls.iter().map(|call| told(call)).collect::<Vec<_>>(), wanted);
    assert_eq!((&calls[0]["request_id"], &calls[1]["request_id"]), (&"one".into(), &"two".into()));
    assert_eq!(calls[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(calls[1..].iter().all(|call| call.get("trace_id").is_none()), "nobody else was told of one");
    for (call, answer) in calls.iter().zip(&answers) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let id = format!("x-request-id: {}\r\n", call["request_id"].as_str().unwrap());
        assert!(head.contains(&id), "{call} {head}");
        assert_eq!(call["response_bytes"], body.len(), "{call} {answer}");
        assert!(call["ms"].as_f64().is_some_and(|ms| (0.0..10_000.0).contains(&ms)), "{call}");
    }
}

/// Begins a call whose body is waited for.
fn begin(server: &Server, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "POST /v1/api/key2otp HTTP/1.1\r\nHost: t\r\nX-Request-ID: {id}\r\nContent-Type: application/json\r\n\
         Content-Length: 29\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // It is under way when the server asks for the body.
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[test]
fn calls_that_nobody_waits_for_are_lines_too() {
    let desk = Desk::new();
    desk.write("logs: { format: json }\nlimits: { drain_timeout_s: 1 }");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    drop(begin(&server, "gone"));
    let _waits = begin(&server, "waits");
    let lines = stop(&mut server);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |id: &str| {
        let mut of = lines.iter().filter(|line| line["request_id"] == id);
        let line = of.next().unwrap_or_else(|| panic!("{id}: {lines:?}"));
        assert!(of.next().is_none(), "{lines:?}");
        format!("{} {} {}", line["route"], line["status"], line["code"])
    };
    // What ended too early could also be a mistake of the client's.
    assert_eq!(told("gone"), r#""key2otp" 400 "malformed-request""#);
    assert_eq!(told("waits"), r#""key2otp" 499 "server-stopped""#);
}

#[test]
fn people_get_words_and_what_went_well_can_be_left_out() {
    let desk = Desk::new();
    let mut server = Server::start(&desk, "");
    let request = "GET /v1/totpgenerator HTTP/1.1\nHost: t\nX-Request-ID: one\nConnection: close\n\n";
    exchange(&server, request);
    let lines = stop(&mut server);
    let call = lines.iter().find(|line| line.ends_with(" id=one")).unwrap();
    assert!(call.contains("Z info GET totpgenerator 401 key-required json in=0 out="), "{call}");

    desk.write("logs: { level: warn }");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    exchange(&server, request);
    assert_eq!(stop(&mut server), [""; 0]);
}

#[test]
fn a_log_that_nobody_reads_stops_neither_calls_nor_the_end() {
    let desk = Desk::new();
    desk.write("logs: { format: json }");
    let mut server = Server::start(&desk, "--config polygate.yaml");
    // Five times what a pipe holds. An answer that did not come would leave this here for good.
    let id = "x".repeat(128);
    let request = format!("OPTIONS / HTTP/1.1\r\nHost: t\r\nX-Request-ID: {id}\r\n\r\n");
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    for _ in 0..1_000 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 204"));
    }
    drop(stream);
    let stop = std::process::Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    assert!(stop.success());
    assert!(server.child.wait().unwrap().success());
}
