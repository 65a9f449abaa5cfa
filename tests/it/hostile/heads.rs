//! Request lines and header lines of all kinds.

use super::{MALFORMED, UNREADABLE, play};

#[test]
fn header_lines_that_are_none_are_refused() {
    play(&[
        ("space before the colon", "$getX : y\n\n$smuggled", UNREADABLE),
        ("no colon", "$getX\n\n$smuggled", UNREADABLE),
        ("an empty name", "$get: y\n\n$smuggled", UNREADABLE),
        ("a space in a name", "$getX Y: z\n\n$smuggled", UNREADABLE),
        ("a name beyond ASCII", "$getÜ: y\n\n$smuggled", UNREADABLE),
        ("NUL in a value", "$getX: a␀b\n\n$smuggled", UNREADABLE),
        ("NUL in a name", "$getX␀: b\n\n$smuggled", UNREADABLE),
        ("a control character in a value", "$getX: a␛b\n\n$smuggled", UNREADABLE),
        ("bytes beyond ASCII in a value", "$getX: ü\n\n", "200 yaml, kept"),
        ("an empty value", "$getX:\n\n", "200 yaml, kept"),
        ("two content types", "$postContent-Type: application/xml\nContent-Length: 29\n\n$body$smuggled", MALFORMED),
        (
            "the same content type twice",
            "$postContent-Type: application/json\nContent-Length: 29\n\n$body$smuggled",
            MALFORMED,
        ),
        ("two keys", "$getX-API-Key: other\n\n$smuggled", MALFORMED),
        ("two lines that may be two", "$getAccept: text/csv\n\n", "200 yaml, kept"),
        ("too many lines", &format!("$get{}\n", "X: y\n".repeat(98)), "431 headers-too-large yaml, kept"),
        ("far too many lines", &format!("$get{}\n", "X: y\n".repeat(300)), "431 headers-too-large json, closed"),
        ("a long line", "$getX: $17k\n\n", "431 headers-too-large yaml, kept"),
    ]);
}

#[test]
fn a_request_has_one_host_that_could_be_one() {
    let row = |hosts: &str| {
        format!(
            "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP&format=yaml HTTP/1.1\nX-API-Key: $key\nAccept: application/yaml\n{hosts}\n"
        )
    };
    let bad = |hosts: &str| row(hosts) + "$smuggled";
    play(&[
        ("none", &bad(""), MALFORMED),
        ("two", &bad("Host: a\nHost: b\n"), MALFORMED),
        ("the same twice", &bad("Host: a\nHost: a\n"), MALFORMED),
        ("with a space", &bad("Host: a b\n"), MALFORMED),
        ("with a path", &bad("Host: a/b\n"), MALFORMED),
        ("with a user", &bad("Host: a@b\n"), MALFORMED),
        ("a list", &bad("Host: a:1, b\n"), MALFORMED),
        ("a port that is none", &bad("Host: a:b\n"), MALFORMED),
        ("empty", &row("Host:\n"), "200 yaml, kept"),
        ("with a port", &row("Host: api.example:8080\n"), "200 yaml, kept"),
        ("an address", &row("Host: [::1]:8080\n"), "200 yaml, kept"),
        ("none on a preflight", "OPTIONS /v1/analytics HTTP/1.1\nAccept: application/yaml\n\n$smuggled", MALFORMED),
        ("none on a document", "GET /openapi.json HTTP/1.1\nAccept: application/yaml\n\n$smuggled", MALFORMED),
        (
            "none in HTTP/1.0",
            "GET /v1/nothing HTTP/1.0\nAccept: application/yaml\n\n$smuggled",
            "404 unknown-api yaml, closed",
        ),
        ("two in HTTP/1.0", "GET / HTTP/1.0\nAccept: application/yaml\nHost: a\nHost: b\n\n$smuggled", MALFORMED),
    ]);
}

#[test]
fn request_lines_of_all_kinds_have_their_answer() {
    let rest = "\nHost: t\nAccept: application/yaml\nX-API-Key: $key\n\n";
    let good = |line: &str| format!("{line}{rest}");
    let bad = |line: &str| format!("{line}{rest}$smuggled");
    let query = "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP";
    play(&[
        ("a whole URL", &good(&format!("GET http://other.example{query} HTTP/1.1")), "200 yaml, kept"),
        ("a URL without a path", &good("GET http://other.example HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("all of the server", &good("OPTIONS * HTTP/1.1"), "204 , kept"),
        ("all of the server, by GET", &good("GET * HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("an authority", &good("GET other.example:80 HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("CONNECT", &good("CONNECT other.example:80 HTTP/1.1"), "405 method-not-allowed yaml, kept"),
        ("CONNECT to a path", &good("CONNECT / HTTP/1.1"), "405 method-not-allowed yaml, kept"),
        ("a fragment", &good(&format!("GET {query}#&secret=A HTTP/1.1")), "200 yaml, kept"),
        ("dots", &good("GET /v1/x/../totpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("encoded slashes", &good("GET /v1%2ftotpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("encoded letters", &good("GET /v1/%74otpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("encoded dots", &good("GET /v1/x/%2e%2e/totpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("an encoded NUL", &good("GET /v1/totpgenerator%00 HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("half an escape", &good("GET /v1/totpgenerator%7 HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("a slash behind", &good("GET /v1/totpgenerator/ HTTP/1.1"), "400 missing-secret yaml, kept"),
        ("two slashes", &good("GET //v1/totpgenerator HTTP/1.1"), "404 unknown-api yaml, kept"),
        ("no slash", &bad("GET v1/totpgenerator HTTP/1.1"), UNREADABLE),
        ("a long target", &good("GET /$17k HTTP/1.1"), "431 headers-too-large yaml, kept"),
        ("a longer one", &bad("GET /$70k HTTP/1.1"), "431 headers-too-large json, closed"),
        ("NUL in the target", &bad("GET /␀ HTTP/1.1"), UNREADABLE),
        ("a method in small letters", &good(&format!("get {query} HTTP/1.1")), "405 method-not-allowed yaml, kept"),
        ("an unknown method", &good(&format!("BREW {query} HTTP/1.1")), "405 method-not-allowed yaml, kept"),
        ("TRACE", &good(&format!("TRACE {query} HTTP/1.1")), "405 method-not-allowed yaml, kept"),
        ("a method that is no word", &bad(&format!("G(T {query} HTTP/1.1")), UNREADABLE),
        ("two spaces", &bad(&format!("GET  {query} HTTP/1.1")), UNREADABLE),
        ("a tab", &bad(&format!("GET\t{query} HTTP/1.1")), UNREADABLE),
        ("a space in the target", &bad("GET /v1/totpgenerator?secret=A B HTTP/1.1"), UNREADABLE),
        ("a space behind", &bad(&format!("GET {query} HTTP/1.1 ")), UNREADABLE),
        ("HTTP/0.9", "GET /\n$smuggled", UNREADABLE),
        ("HTTP/1.0", &good(&format!("GET {query} HTTP/1.0")), "200 yaml, closed"),
        ("HTTP/1.2", &bad(&format!("GET {query} HTTP/1.2")), UNREADABLE),
        ("HTTP/2.0", &bad(&format!("GET {query} HTTP/2.0")), UNREADABLE),
        ("HTTP/1.10", &bad(&format!("GET {query} HTTP/1.10")), UNREADABLE),
        ("http/1.1", &bad(&format!("GET {query} http/1.1")), UNREADABLE),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n", "closed"),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\n\n", UNREADABLE),
        (
            "what comes after HTTP/1.0",
            "GET /v1/nothing HTTP/1.0\nAccept: application/yaml\nConnection: keep-alive\n\ngarbage\n\n",
            "404 unknown-api yaml, 400 malformed-request json, closed",
        ),
    ]);
}

#[test]
fn nobody_is_upgraded_and_expectations_are_met() {
    play(&[
        (
            "h2c",
            "$getConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n",
            "200 yaml, kept",
        ),
        (
            "websocket",
            "$getConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n",
            "200 yaml, kept",
        ),
        ("100-continue without a wait", "$postExpect: 100-continue\nContent-Length: 29\n\n$body", "200 yaml, kept"),
        ("another expectation", "$postExpect: the-unexpected\nContent-Length: 29\n\n$body", "200 yaml, kept"),
        ("close in a list", "$getConnection: keep-alive, close\n\n$smuggled", "200 yaml, closed"),
    ]);
}
