//! Floods over HTTP/2: each ends its connection, costs little memory and keeps nobody else waiting.

use std::thread;

use super::frames::*;
use super::program;
use crate::program::{Desk, Server};

const CALL: &str = "/v1/api/key2otp?secret=JBSWY3DPEHPK3PXP";

/// Streams of clients have odd numbers.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// A server that speaks HTTP/2, and a good client beside whatever happens to it.
struct Besieged {
    _desk: Desk,
    server: Server,
    key: String,
    before_kib: usize,
}

impl Besieged {
    fn new(config: &str) -> Besieged {
        let (desk, server, key) = program(&format!("http2_prior_knowledge: true\n{config}"));
        assert_eq!(server.call(&key), 200);
        let before_kib = server.resident_kib();
        Besieged { _desk: desk, server, key, before_kib }
    }

    fn wire(&self) -> Wire {
        Wire::new(self.server.connect())
    }

    /// What `attacks` come to, each on a connection of its own at the same time, while a good client is answered.
    fn during<T: Send>(&self, attacks: usize, attack: impl Fn(Wire) -> T + Sync) -> Vec<T> {
        let ended = thread::scope(|scope| {
            let all: Vec<_> = (0..attacks).map(|_| scope.spawn(|| attack(self.wire()))).collect();
            loop {
                assert_eq!(self.server.call(&self.key), 200);
                if all.iter().all(|attack| attack.is_finished()) {
                    return all.into_iter().map(|attack| attack.join().unwrap()).collect();
                }
            }
        });
        let grown_kib = self.server.resident_kib().saturating_sub(self.before_kib);
        assert!(grown_kib < 24 * 1024, "{grown_kib} KiB");
        ended
    }
}

/// That each of four connections ends with `code` when it is flooded with `next`.
#[track_caller]
fn ends(code: Option<u32>, first: &[u8], next: impl Fn(u32) -> Vec<u8> + Sync) {
    let besieged = Besieged::new("");
    assert_eq!(besieged.during(4, |wire| wire.flood(first, 1_000_000, &next)), [code; 4]);
}

#[test]
fn calls_taken_back_before_they_begin() {
    ends(Some(ENHANCE_YOUR_CALM), &[], |number| {
        let headers = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &head(CALL));
        [headers, frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8])].concat()
    });
}

#[test]
fn a_head_without_end() {
    let first = frame(HEADERS, END_STREAM, 1, &head(CALL));
    ends(Some(ENHANCE_YOUR_CALM), &first, |_| frame(CONTINUATION, 0, 1, &line("x", "y")));
    ends(Some(ENHANCE_YOUR_CALM), &first, |_| frame(CONTINUATION, 0, 1, &[]));
}

#[test]
fn pings() {
    ends(None, &[], |_| frame(PING, 0, 0, b"12345678"));
}

#[test]
fn settings() {
    ends(None, &[], |_| frame(SETTINGS, 0, 0, &[]));
    ends(None, &[], |number| frame(SETTINGS, 0, 0, &[&[0, 4], &(number % 65_536).to_be_bytes()[..]].concat()));
}

#[test]
fn priorities() {
    ends(None, &[], |number| frame(PRIORITY, 0, stream(number % 1_000), &[0, 0, 0, 0, 16]));
}

#[test]
fn window_updates() {
    ends(None, &[], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
}

#[test]
fn frames_of_unknown_kinds() {
    ends(None, &[], |_| frame(0xbe, 0, 0, b"?"));
}

#[test]
fn empty_data() {
    let post = [vec![0x83, 0x86], line(":path", "/v1/api/key2otp"), line(":authority", "t")].concat();
    ends(Some(ENHANCE_YOUR_CALM), &frame(HEADERS, END_HEADERS, 1, &post), |_| frame(DATA, 0, 1, &[]));
}

#[test]
fn more_calls_at_once_than_there_may_be() {
    let besieged = Besieged::new("limits: { http2_streams: 10 }");
    // All with a body that never comes.
    let post = [
        vec![0x83, 0x86],
        line(":path", "/v1/api/key2otp"),
        line(":authority", "t"),
        line("content-type", "application/json"),
    ];
    let ended = besieged.during(4, |mut wire| {
        // Until it is known that there may be no more, more are refused; after that, they break the protocol.
        let heads: Vec<u8> =
            (0..12).flat_map(|number| frame(HEADERS, END_HEADERS, stream(number), &post.concat())).collect();
        wire.send(&heads);
        let refused: Vec<_> = std::iter::from_fn(|| wire.next())
            .filter(|frame| frame.kind == RST_STREAM)
            .take(2)
            .map(|frame| (frame.stream, frame.code()))
            .collect();
        assert_eq!(refused, [(stream(10), REFUSED_STREAM), (stream(11), REFUSED_STREAM)]);
        wire.flood(&[], 1_000_000, |number| frame(HEADERS, END_HEADERS, stream(12 + number), &post.concat()))
    });
    assert_eq!(ended, [Some(ENHANCE_YOUR_CALM); 4]);
}

#[test]
fn heads_that_are_small_only_on_the_wire() {
    let besieged = Besieged::new("");
    // A line of 4,000 bytes goes into the table, and is then there once more for each byte.
    let long = "a".repeat(4_000);
    let bomb = |times: usize| {
        let stored = [&[0x40, 1, b'x'], &integer(0, 7, long.len())[..], long.as_bytes()].concat();
        [head(CALL), stored, vec![0xbe; times]].concat()
    };
    let ended = besieged.during(4, |mut wire| {
        // Ours to refuse, in the format that was asked for; h2's, without a body; too much for either.
        wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb(9)));
        wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb(40)));
        wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &head(CALL)));
        let mut answers = [(0, 0); 3];
        while answers.iter().any(|(status, _)| *status == 0) || answers[0].1 == 0 || answers[2].1 == 0 {
            let frame = wire.next().unwrap();
            match (frame.kind, frame.stream) {
                (HEADERS, stream) => answers[stream as usize / 2].0 = frame.status(),
                (DATA, stream) => answers[stream as usize / 2].1 += frame.payload.len(),
                _ => {}
            }
        }
        let [(ours, _), (of_h2, body_bytes), (good, _)] = answers;
        assert_eq!((ours, of_h2, body_bytes, good), (431, 431, 0, 200));
        wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 7, &bomb(11_000)));
        std::iter::from_fn(|| wire.next()).find(|frame| frame.kind == GOAWAY).map(|frame| frame.code())
    });
    assert_eq!(ended, [Some(ENHANCE_YOUR_CALM); 4]);
}

#[test]
fn heads_that_cannot_be_read() {
    let besieged = Besieged::new("");
    let outcome = |headers: Vec<u8>| {
        let ended = besieged.during(1, |mut wire| {
            wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers));
            loop {
                match wire.next() {
                    None => return "closed".to_owned(),
                    Some(frame) if frame.kind == GOAWAY => return format!("GOAWAY {}", frame.code()),
                    Some(frame) if frame.kind == RST_STREAM => return format!("RST_STREAM {}", frame.code()),
                    Some(frame) if frame.kind == HEADERS => return format!("status {}", frame.status()),
                    Some(_) => {}
                }
            }
        });
        ended.concat()
    };
    let with = |more: Vec<u8>| [head(CALL), more].concat();
    let rows = [
        ("no bytes", vec![], "RST_STREAM 1"),
        ("an empty name", with(line("", "y")), "GOAWAY 1"),
        ("an empty value", with(line("x", "")), "status 200"),
        ("a name in capitals", with(line("X", "y")), "GOAWAY 1"),
        ("a line feed in a value", with(line("x", "a\nb: c")), "GOAWAY 1"),
        ("a line of HTTP/1.1", with(line("transfer-encoding", "chunked")), "RST_STREAM 1"),
        ("two paths", with(line(":path", "/")), "RST_STREAM 1"),
        ("a place that the table does not have", with(vec![0xff, 0xff, 0x7f]), "GOAWAY 1"),
        ("a number without end", with([vec![0xff], vec![0xff; 20]].concat()), "GOAWAY 1"),
        ("half a line", with(vec![0, 100, b'x']), "GOAWAY 1"),
    ];
    let got: Vec<_> = rows.iter().map(|(name, headers, _)| format!("{name}: {}", outcome(headers.clone()))).collect();
    let want: Vec<_> = rows.iter().map(|(name, _, want)| format!("{name}: {want}")).collect();
    assert_eq!(got, want);
}

#[test]
fn many_answers_that_nobody_takes() {
    let besieged = Besieged::new("limits: { idle_timeout_s: 1 }");
    let ended = besieged.during(20, |mut wire| {
        // A window of nothing (SETTINGS_INITIAL_WINDOW_SIZE = 0), and a hundred times the largest answer there is.
        wire.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        for number in 0..100 {
            wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &head("/openapi.json")));
        }
        let all: Vec<_> = std::iter::from_fn(|| wire.next()).collect();
        assert!(all.iter().all(|frame| frame.kind != DATA));
        (all.iter().filter(|frame| frame.kind == HEADERS).count(), all.iter().any(|frame| frame.kind == GOAWAY))
    });
    assert_eq!(ended, [(100, true); 20]);
}

#[test]
fn windows_beyond_all_measure() {
    ends(Some(FLOW_CONTROL_ERROR), &[], |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]));
}
