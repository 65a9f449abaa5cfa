//! `polygate try`: what the real program shows of one call.

use std::io::Write;

use super::server::{Nobody, Server, Then};
use crate::program::Desk;

/// Exit code, what was shown and what went wrong.
fn attempt(desk: &Desk, line: &str) -> (i32, String, String) {
    let output = desk.command(&format!("--config polygate.yaml try {line}")).env("TOKEN", "hunter2").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_step_of_a_call_is_shown_and_no_secret() {
    let server = Server::start(|seen, stream| {
        let body =
            if seen.line().contains("broken") { "{\"result\":[" } else { "{\"result\":[{\"a\":1.50},{\"b\":true}]}" };
        let head = format!("HTTP/1.1 200 OK\r\nX-Own: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(head.as_bytes());
        Then::Keep
    });
    let desk = Desk::new();
    desk.write(&format!(
        "apis:\n  quotes: {{ upstream: 'http://{}/base', cost: 2, data: /result, set_headers: {{ Authorization: 'Bearer ${{TOKEN}}' }} }}\n  \
         gone: {{ upstream: 'http://{}' }}\n  other: {{ upstream: 'http://{}', formats: passthrough }}\n",
        server.address,
        Nobody::new().address,
        server.address
    ));
    let (code, shown, wrong) = attempt(&desk, "quotes /today?x=1 --accept text/csv");
    assert_eq!((code, &*wrong), (0, ""), "{shown}");
    for line in [
        "route     GET /v1/quotes/today?x=1",
        "          quotes: needs a key, a success costs 2",
        "          answers to GET, HEAD, OPTIONS",
        &format!("request   GET http://{}/base/today?x=1", server.address),
        "          accept: application/json",
        "          authorization: (hidden, 14 bytes)",
        "          x-own: 1",
        "caller    200, 19 bytes of text/csv; charset=utf-8; header=present",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(shown.ends_with("\na,b\r\n1.50,\r\n,true\r\n"), "{shown}");
    assert_eq!(server.last().header("authorization"), "Bearer hunter2");
    assert!(!shown.contains("hunter2"));

    for (line, code, last) in [
        ("quotes /broken", "upstream-unreadable", "502"),
        ("gone", "upstream-unreachable", "502"),
        ("quotes --method POST", "method-not-allowed", "405"),
        ("quotes /../x", "invalid-path", "400"),
        ("quotes --accept image/png", "not-acceptable", "406"),
    ] {
        let (exit, shown, wrong) = attempt(&desk, line);
        assert_eq!((exit, wrong), (1, format!("polygate: the call fails with {last} ({code})\n")), "{line}");
        assert!(shown.contains(&format!("x-error-code: {code}; charged nothing")), "{shown}");
    }
    let (exit, shown, _) = attempt(&desk, "other --accept image/png");
    assert_eq!((exit, &*server.last().header("accept")), (0, "image/png"), "as a server would: {shown}");
    let (exit, shown, wrong) = attempt(&desk, "totpgenerator");
    assert_eq!((exit, &*shown), (1, ""));
    assert_eq!(wrong, "polygate: totpgenerator is no API with an upstream that is enabled: quotes, gone, other\n");
    assert!(!desk.data().exists(), "nothing is made for it");
}
