//! Clients that shut down their sending side right behind a request, or are gone by then: which of them are answered, what
//! that costs, and that each of their calls is written down.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::{Answer, answers, bytes, program, used};
use crate::sockets::Live;
use crate::support::Setup;
use crate::tls::Certificate;
use crate::upstream::server::{Server, Then};

/// All that is answered to a client that shuts down its sending side behind `request`, in short.
fn answered(live: &Live, request: &str) -> String {
    let mut stream = live.connect();
    stream.write_all(&bytes(request, &live.app.key)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let got = answers(&mut all);
    assert!(all.is_empty(), "{:?}", String::from_utf8_lossy(&all));
    got.iter().map(Answer::summary).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_ready_at_once_is_answered() {
    let live = Live::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let rows = [
        ("$get\n", "200 yaml"),
        ("$postContent-Length: 29\n\n$body", "200 yaml"),
        ("$postTransfer-Encoding: chunked\n\n1d\n$body\n0\n\n", "200 yaml"),
        ("$get\n$get\n$get\n", "200 yaml, 200 yaml, 200 yaml"),
        ("$postContent-Length: 29\n\n{", "400 malformed-request yaml"),
        ("$getConnection: close\n\n", "200 yaml"),
        ("GET /v1/totpgenerator HTTP/1.1\nHost: t\nAccept: application/yaml\n\n", "401 key-required yaml"),
        ("GET /v1/nothing HTTP/1.1\nHost: t\n\n", "404 unknown-api json"),
    ];
    // Again and again: the end comes with the request, or behind it.
    for _ in 0..100 {
        for (request, want) in rows {
            assert_eq!(answered(&live, request), want, "{request}");
        }
    }
    let many = "$get\n".repeat(30);
    assert_eq!(answered(&live, &many), ["200 yaml"; 30].join(", "));
    assert_eq!(used(live), 100 * 7 + 30);
}

#[test]
fn over_tls_too() {
    let certificate = Certificate::new();
    let live = Live::new(&Setup { config: certificate.yaml(), plan: "mega".into(), ..Setup::default() });
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(certificate.client(&[], &[&TLS13]), name).unwrap();
    let mut stream = StreamOwned::new(connection, live.connect());
    // Shakes hands, so that request and end go together.
    stream.flush().unwrap();
    stream.write_all(&bytes("$get\n", &live.app.key)).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(answers(&mut all).iter().map(Answer::summary).collect::<Vec<_>>(), ["200 yaml"]);
}

/// An upstream that answers nobody, and says when it was asked and when whoever asked has gone.
fn silent() -> (Server, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let server = Server::start(move |_, stream| {
        tell.lock().unwrap().send("asked").unwrap();
        let _ = stream.read(&mut [0]);
        tell.lock().unwrap().send("gone").unwrap();
        Then::Close
    });
    (server, told)
}

#[test]
fn who_is_not_there_for_an_upstreams_answer_is_given_up_and_pays_nothing() {
    let (server, told) = silent();
    let apis = format!("apis: {{ a: {{ upstream: 'http://{}', timeout_s: 20 }} }}", server.address);
    let live = Live::new(&Setup { config: apis, plan: "mega".into(), ..Setup::default() });
    let request = "GET /v1/a HTTP/1.1\nHost: t\nX-API-Key: $key\n\n";
    let mut stream = live.connect();
    stream.write_all(&bytes(request, &live.app.key)).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(15)), Ok("asked"));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(15)), Ok("gone"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // Or before anybody is asked.
    assert_eq!(answered(&live, request), "");
    assert_eq!(used(live), 0);
}

#[test]
fn each_call_is_written_down_once() {
    const CALLS: usize = 50;
    let (upstream, _told) = silent();
    let (_desk, mut server, key) =
        program(&format!("logs: {{ format: json }}\napis: {{ a: {{ upstream: 'http://{}' }} }}", upstream.address));
    let call = |path: &str| {
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\r\n").unwrap();
        stream
    };
    let answer = |mut stream: TcpStream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for _ in 0..CALLS {
        assert!(answer(call("/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP")).starts_with("HTTP/1.1 200"));
        assert_eq!(answer(call("/v1/a")), "");
        drop(call("/v1/a"));
    }
    let stop = Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    assert!(stop.success());
    let lines = BufReader::new(server.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let count = |route: &str, status: u16, code: Option<&str>| {
        let is = |line: &&Value| line["route"] == route && line["status"] == status && line["code"].as_str() == code;
        lines.iter().filter(is).count()
    };
    assert_eq!(count("totpgenerator", 200, None), CALLS);
    assert_eq!(count("a", 499, Some("client-closed")), 2 * CALLS);
    assert_eq!(lines.iter().filter(|line| line["request_id"].is_string()).count(), 3 * CALLS);
}
