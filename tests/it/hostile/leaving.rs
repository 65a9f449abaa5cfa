//! Answers to clients that are still sending: they can be read before the connection ends, and the end comes in time.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use super::frames::{PREFACE, SETTINGS, frame};
use super::{Answer, answers, bytes, impatient};
use crate::sockets::{Live, status_of};
use crate::support::Setup;
use crate::tls::Certificate;

/// Sends `head`, waits until the first byte of the answer is there, and sends `more` all the same, piece by piece, before it
/// reads. The answer, in short.
fn answered_while_sending(live: &Live, head: &str, piece: &[u8], pieces: usize) -> String {
    let mut stream = live.connect();
    stream.write_all(&bytes(head, &live.app.key)).unwrap();
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1, "{head}");
    for _ in 0..pieces {
        stream.write_all(piece).unwrap_or_else(|error| panic!("{head}: {error}"));
        // What a reset takes away, it has by the time that this is sent.
        stream.peek(&mut [0]).unwrap();
    }
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let got = answers(&mut all);
    assert!(all.is_empty());
    got.iter().map(Answer::summary).collect::<Vec<_>>().join(", ")
}

#[test]
fn an_early_answer_can_be_read_by_who_is_still_sending() {
    let live = impatient();
    let piece = [b'x'; 16 * 1024];
    let rows = [
        ("$postContent-Length: 1000000\n\n", "413 body-too-large yaml"),
        ("$postTransfer-Encoding: chunked\n\n40000000\n$17k", "413 body-too-large yaml"),
        ("$postContent-Length: 1000000\nTransfer-Encoding: chunked\n\n", "400 malformed-request yaml"),
        ("$postContent-Length: 16000\n\n{", "408 request-timeout yaml"),
        ("GET /$70k$17k", "431 headers-too-large json"),
        ("GET / HTTP/9.9\nHost: t\n\n", "400 malformed-request json"),
    ];
    for (head, want) in rows {
        assert_eq!(answered_while_sending(&live, head, &piece, 60), want, "{head}");
    }
}

#[test]
fn who_goes_on_sending_for_ever_is_hung_up_on() {
    let live = impatient();
    let head = bytes("$postContent-Length: 900000000000\n\n", &live.app.key);
    // A piece every now and then: the time is up. All that it takes: so are the bytes.
    for (piece, pause, bytes_max) in [(1, Duration::from_millis(100), 1_000), (1 << 16, Duration::ZERO, 64 << 20)] {
        let mut stream = live.connect();
        stream.write_all(&head).unwrap();
        assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
        let (piece, mut sent_bytes) = (vec![b'x'; piece], 0);
        while stream.write_all(&piece).is_ok() {
            sent_bytes += piece.len();
            assert!(sent_bytes < bytes_max, "{sent_bytes} bytes");
            thread::sleep(pause);
        }
    }
}

#[test]
fn who_leaves_slowly_takes_a_place_until_gone() {
    let config = "limits: { connections: 1 }";
    let live = Live::new(&Setup { config: config.into(), plan: "mega".into(), ..Setup::default() });
    let mut leaving = live.connect();
    leaving.write_all(&bytes("$postContent-Length: 1000000\n\n", &live.app.key)).unwrap();
    let mut answer = String::new();
    // To its end: the side that writes has been closed.
    leaving.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(live.app.gateway.load.connections(), 1);
    assert_eq!(live.connect().read(&mut [0]).unwrap(), 0);
    drop(leaving);
    while live.app.gateway.load.connections() > 0 {
        thread::yield_now();
    }
    assert_eq!(status_of(&mut live.connect(), "GET /v1/nothing HTTP/1.1\r\nHost: t\r\n\r\n"), 404);
}

#[test]
fn a_stop_does_not_wait_for_who_leaves_slowly() {
    let config = "limits: { drain_timeout_s: 1 }";
    let mut live = Live::new(&Setup { config: config.into(), ..Setup::default() });
    let mut leaving = live.connect();
    leaving.write_all(&bytes("$postContent-Length: 1000000\n\n", &live.app.key)).unwrap();
    let mut answer = Vec::new();
    leaving.read_to_end(&mut answer).unwrap();
    live.stop();
    // The server hangs up: what is sent from then on is answered with a reset.
    while leaving.write_all(b"x").is_ok() {
        thread::yield_now();
    }
}

/// Has `live` stop with connections that have said this much each. They have to be closed, and no call with them.
fn stops_in_spite_of(live: &mut Live, said: &[&[u8]]) {
    let silent: Vec<_> = said
        .iter()
        .map(|said| {
            let mut stream = live.connect();
            stream.write_all(said).unwrap();
            stream
        })
        .collect();
    live.stop();
    for (mut stream, said) in silent.into_iter().zip(said) {
        match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{:?}", String::from_utf8_lossy(said)),
        }
    }
}

#[test]
fn a_stop_waits_for_calls_alone() {
    let http2 = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let idle = b"GET /v1/nothing HTTP/1.1\r\nHost: t\r\n\r\n";
    for (more, said) in [
        ("", &[&b""[..], b"GET /x", b"GET /x HTTP/1.1\r\nHost", idle, &[idle, &idle[..20]].concat()][..]),
        ("http2_prior_knowledge: true", &[b"", b"PRI * HT", b"GET /x", idle, PREFACE, &http2]),
    ] {
        let config = format!("limits: {{ drain_timeout_s: 60, body_read_timeout_s: 60 }}\n{more}");
        let mut live = Live::new(&Setup { config, ..Setup::default() });
        let mut call = live.connect();
        call.write_all(&bytes("$postContent-Length: 29\n\n", &live.app.key)).unwrap();
        while live.app.gateway.load.requests() == 0 {
            thread::yield_now();
        }
        stops_in_spite_of(&mut live, said);
        // It has all its time still.
        assert_eq!(status_of(&mut call, r#"{"secret":"JBSWY3DPEHPK3PXP"}"#), 200);
    }
}

#[test]
fn a_stop_does_not_wait_for_handshakes() {
    let certificate = Certificate::new();
    let config = format!("limits: {{ drain_timeout_s: 60, handshake_timeout_s: 60 }}\n{}", certificate.yaml());
    stops_in_spite_of(&mut Live::new(&Setup { config, ..Setup::default() }), &[b"", &[22, 3, 1]]);
}
