//! Requests that do not wait for the answer to the one before, and clients that wait to be told to go on.

use std::io::{Read, Write};

use super::{MALFORMED, bytes, play, read_answers, used};
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

#[test]
fn a_bad_request_among_good_ones_is_the_last_that_is_answered() {
    let row = |bad: &str| format!("$get\n$postContent-Length: 29\n\n$body{bad}$smuggled");
    let (good, rest) = ("200 yaml, 200 yaml", "400 malformed-request");
    play(&[
        ("no header line", &row("$getno colon\n\n"), &format!("{good}, {rest} json, closed")),
        ("no host", &row("GET / HTTP/1.1\nAccept: application/yaml\n\n"), &format!("{good}, {rest} yaml, closed")),
        (
            "too large a body",
            &row("$postContent-Length: 70000\n\n$70k"),
            &format!("{good}, 413 body-too-large yaml, closed"),
        ),
        // Whose framing is in doubt may have begun before what came with it, which is therefore not done either.
        ("two lengths", &row("$postContent-Length: 29\nContent-Length: 2\n\n$body"), MALFORMED),
        ("a bare line feed", &row("$getX: y↵\n"), MALFORMED),
    ]);
    // A refusal that says where the next request begins stops nobody.
    play(&[(
        "no key",
        "$getX: y\n\nGET /v1/totpgenerator HTTP/1.1\nHost: t\n\n$get\n",
        "200 yaml, 401 key-required json, 200 yaml, kept",
    )]);
}
