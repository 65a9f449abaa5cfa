//! Requests that do not wait for the answer to the one before, and clients that wait to be told to go on.

use std::io::{Read, Write};

use super::{bytes, read_answers, used};
use crate::sockets::Live;
use crate::support::Setup;

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
