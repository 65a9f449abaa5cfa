//! Clients that are slow, stop half-way or hang up, and what they pay.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::{Answer, answers, bytes, impatient, used};
use crate::sockets::Live;
use crate::support::Setup;

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
