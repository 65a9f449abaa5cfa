//! The limits that keep clients from harming each other: connections, calls at once, times, and an orderly end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::program::{Desk, Server};
use crate::sockets::{Live, status_of};
use crate::support::Setup;

fn live(config: &str) -> Live {
    Live::new(&Setup { config: config.into(), ..Setup::default() })
}

const CALL: &str = "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP HTTP/1.1\r\nHost: t\r\n\r\n";

/// Waits for the server to close the connection, which may leave bytes of ours unread; what it said before that.
fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(all).unwrap(),
    }
}

#[test]
fn several_addresses_are_served() {
    let live = live("listen: [127.0.0.1:0, '[::1]:0', 127.0.0.2:0]");
    assert_eq!(live.addresses.len(), 3);
    for address in &live.addresses {
        let mut stream = TcpStream::connect(address).unwrap();
        assert_eq!(status_of(&mut stream, CALL), 200, "{address}");
    }
    assert!(live.addresses[1].is_ipv6());
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let live = live("limits: { connections: 2 }");
    let mut open: Vec<_> = (0..2).map(|_| live.connect()).collect();
    open.iter_mut().for_each(|stream| assert_eq!(status_of(stream, CALL), 200));
    assert_eq!(rest(&mut live.connect()), "");
    // The others do not notice, and a place that is left is free again.
    assert_eq!(status_of(&mut open[0], CALL), 200);
    open.pop();
    until_served(live.address);
}

#[test]
fn connections_of_one_address_leave_room_for_others() {
    let live = live("listen: [127.0.0.1:0, '[::1]:0']\nlimits: { connections_an_address: 1 }");
    let mut mine = live.connect();
    assert_eq!(status_of(&mut mine, CALL), 200);
    assert_eq!(rest(&mut live.connect()), "");
    let mut other = TcpStream::connect(live.addresses[1]).unwrap();
    assert_eq!(status_of(&mut other, CALL), 200);
    drop(mine);
    until_served(live.address);
}

/// The server learns of an end when it comes to it.
fn until_served(address: SocketAddr) {
    let is_served = || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut first = [0];
        stream.write_all(CALL.as_bytes()).and_then(|()| stream.read_exact(&mut first)).is_ok()
    };
    assert!((0..1_000).any(|_| is_served()));
}

#[test]
fn the_system_allows_as_many_files_as_connections_take() {
    let desk = Desk::new();
    // As a shell that allows few would start it.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_polygate")]);
    command.args(["--data", "data", "serve", "--listen", "127.0.0.1:0"]).env_clear().current_dir(&desk.directory);
    command.env("POLYGATE_LIMITS__CONNECTIONS", "100");
    let server = Server::spawn(command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("356"), "{files}");
}

#[test]
fn calls_beyond_the_limit_are_shed() {
    let live = live("limits: { requests: 1 }\napis: { key2otp: { access: key } }");
    let post = "POST /v1/api/key2otp HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 29\r\n";
    let head = format!("{post}Expect: 100-continue\r\nX-API-Key: {}\r\n\r\n", live.app.key);
    let mut slow = live.connect();
    slow.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).unwrap();
    // Before the key is looked at, in the format and the shape that were asked for.
    let answer = live.exchange(
        "GET /v1/totpgenerator HTTP/1.1\nHost: t\nAccept: application/xml\nX-API-Key: wrong\nConnection: close\n\n",
    );
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    for part in ["retry-after: 1\r\n", "x-request-id: ", "x-error-code: unavailable\r\n", "application/xml"] {
        assert!(answer.contains(part), "{part} is missing in {answer}");
    }
    assert!(answer.contains("<error>Service unavailable. Try again later.</error>"), "{answer}");
    let answer = live.exchange("GET /v1/api/key2otp?format=yaml HTTP/1.1\nHost: t\nConnection: close\n\n");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("application/yaml"), "{answer}");
    // What is no call is answered as ever.
    for (line, status) in [("GET /openapi.yaml", "200"), ("OPTIONS /v1/api/key2otp", "204"), ("GET /none", "404")] {
        let answer = live.exchange(&format!("{line} HTTP/1.1\nHost: t\nConnection: close\n\n"));
        assert_eq!(&answer[9..12], status, "{line}");
    }
    assert_eq!(status_of(&mut slow, r#"{"secret":"JBSWY3DPEHPK3PXP"}"#), 200);
    assert_eq!(status_of(&mut slow, CALL), 401);
}

#[test]
fn idle_connections_and_late_heads_have_times_of_their_own() {
    let live = live("limits: { header_read_timeout_s: 1, idle_timeout_s: 3 }");
    let mut idle = live.connect();
    assert_eq!(status_of(&mut idle, CALL), 200);
    // Neither a first byte that does not come nor half a head is waited for as long as the next request.
    assert_eq!(rest(&mut live.connect()), "");
    assert_eq!(status_of(&mut idle, CALL), 200);
    let mut half = live.connect();
    assert_eq!(status_of(&mut half, CALL), 200);
    half.write_all(b"GET /v1").unwrap();
    assert_eq!(rest(&mut half), "");
    assert_eq!(status_of(&mut idle, CALL), 200);
    assert_eq!(rest(&mut idle), "");
}

#[test]
fn a_head_that_comes_byte_by_byte_does_not_come_for_ever() {
    let live = live("limits: { header_read_timeout_s: 1 }");
    let mut stream = live.connect();
    let mut reader = stream.try_clone().unwrap();
    let ended = std::thread::spawn(move || rest(&mut reader));
    while !ended.is_finished() && stream.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ended.join().unwrap(), "");
}

#[test]
fn a_body_that_comes_too_slowly_is_given_up() {
    let live = live("limits: { body_read_timeout_s: 60, body_bytes_a_second: 1000000 }");
    let head = "POST /v1/api/key2otp HTTP/1.1\nHost: t\nContent-Type: application/json\nContent-Length: 9999\n";
    let answer = live.exchange(&format!("{head}Connection: close\n\n{{"));
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn who_does_not_take_the_answers_is_closed() {
    let live = live("limits: { answer_write_timeout_s: 1 }");
    let mut stream = live.connect();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1_000);
    // Until both directions are full, and then until it is closed.
    let error = loop {
        if let Err(error) = stream.write_all(requests.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn a_request_that_crosses_the_stop_is_answered_as_the_last() {
    let mut live = live("");
    let mut idle = live.connect();
    assert_eq!(status_of(&mut idle, CALL), 200);
    live.stop();
    while TcpStream::connect(live.address).is_ok() {}
    idle.write_all(CALL.as_bytes()).unwrap();
    let answer = rest(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut live = live("limits: { drain_timeout_s: 1 }");
    let mut idle = live.connect();
    assert_eq!(status_of(&mut idle, CALL), 200);
    let mut half = live.connect();
    half.write_all(b"POST /v1/api/key2otp HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n").unwrap();
    live.stop();
    assert_eq!(rest(&mut idle), "");
    assert_eq!(rest(&mut half), "");
}
