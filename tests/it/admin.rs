//! Administration of the real program at its private listener: how upstreams are doing, a reload, the end.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;

use polygate::config::Config;
use polygate::state::clock::Clock;
use serde_json::{Value, json};

use crate::private::{send, served};
use crate::program::{Desk, Server};
use crate::upstream::server::{self, Nobody, Then};

/// The answer to the operator: status, head and body.
fn ask(private: &str, first: &str) -> (u16, String, Value) {
    let (status, head, body) = send(private, first, &format!("Host: {private}\r\n"));
    (status, head, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

fn get(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

/// The status of what comes.
fn status(mut stream: TcpStream) -> u16 {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer[9..12].parse().unwrap()
}

#[test]
fn how_each_target_is_doing_is_shown() {
    let (come, came) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let well = server::Server::start(move |seen, stream| {
        if seen.line().ends_with("/wait") {
            come.send(()).unwrap();
            gone.lock().unwrap().recv().unwrap();
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        Then::Keep
    });
    let (well, dead) = (well.address, Nobody::new());
    let desk = Desk::new();
    desk.write(&format!(
        "private_listen: 127.0.0.1:0\nopen: {{ requests_a_minute: 1000 }}\napis:\n  \
         b: {{ upstream: ['http://{well}/marked', 'http://{0}'], access: open, path: /b, health_check: /health, \
         set_headers: {{ X-Key: marked }} }}\n  \
         a: {{ upstream: 'http://{0}', access: open, retries: 0 }}\n  \
         off: {{ upstream: 'http://{0}', enabled: false }}",
        dead.address
    ));
    let (mut program, private) = served(&desk);
    // The operator is told once the first check has failed, and then that nobody answers.
    let mut told = BufReader::new(program.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let wanted = format!("{}, a server of b, fails its health check", dead.address);
    assert!(told.any(|line| line.contains(&wanted)));
    let talk = std::thread::spawn(move || told.for_each(drop));

    let untried = json!({ "address": format!("http://{}", dead.address), "up": true, "ejected_until": null,
        "passes_health_check": null, "calls_under_way": 0 });
    let (code, head, body) = ask(&private, "GET /apis");
    assert!(code == 200 && head.contains("content-type: application/json\r\ncache-control: no-store"), "{head}");
    assert_eq!(
        body["apis"][0],
        json!({ "name": "a", "path": "/v1/a", "breaker": "closed", "breaker_open_until": null, "calls_under_way": 0,
            "targets": [untried] })
    );
    for _ in 0..30 {
        assert!([502, 503].contains(&status(get(&program, "/v1/a"))));
    }
    let waits = get(&program, "/b/wait");
    came.recv().unwrap();
    let (_, _, body) = ask(&private, "GET /apis");
    let apis = body["apis"].as_array().unwrap();
    let of = |api: &Value, name: &str| api[name].as_str().unwrap().to_owned();
    assert_eq!(apis.iter().map(|api| of(api, "name")).collect::<Vec<_>>(), ["a", "b"], "{body}");
    let [a, b] = &apis[..] else { panic!("{body}") };
    assert_eq!((&*of(a, "breaker"), &a["targets"][0]["up"]), ("open", &json!(false)), "{body}");
    let now = polygate::pure::stamp::Stamp::at(Clock::system().unix_s()).unwrap();
    for until in [of(a, "breaker_open_until"), of(&a["targets"][0], "ejected_until")] {
        assert!(until.len() == 20 && until.ends_with('Z') && &*until >= now.rfc3339().as_str(), "{until}");
    }
    assert_eq!((&b["path"], &b["calls_under_way"], &b["breaker"]), (&json!("/b"), &json!(1), &json!("closed")));
    assert_eq!(
        b["targets"],
        json!([
            { "address": format!("http://{well}"), "up": true, "ejected_until": null, "passes_health_check": true,
              "calls_under_way": 1 },
            { "address": format!("http://{}", dead.address), "up": false, "ejected_until": null,
              "passes_health_check": false, "calls_under_way": 0 },
        ])
    );
    assert!(!body.to_string().contains("marked"), "{body}");
    go.send(()).unwrap();
    assert_eq!(status(waits), 200);
    drop(program);
    talk.join().unwrap();
}

#[test]
fn a_reload_is_answered_with_what_came_of_it() {
    let desk = Desk::new();
    let configure = |cost: u32, more: &str| {
        desk.write(&format!(
            "private_listen: 127.0.0.1:0\nplans: {{ free: {{ credits_a_month: 1000 }}, team: {{ credits_a_month: 5 }} }}\n\
             apis:\n  totpgenerator: {{ cost: {cost} }}\n{more}"
        ));
    };
    let before = || configure(1, "  a: { upstream: http://127.0.0.1:1 }");
    before();
    let (server, private) = served(&desk);
    let reload = || {
        let (status, _, body) = ask(&private, "POST /reload");
        assert_eq!((status, &body["status"]), (200, &json!("reloaded")), "{body}");
        body
    };
    // Good at the first time, as a rule: where the server itself was first to see the file, there is nothing left to change.
    let reloaded = (0..50).map(|_| {
        before();
        reload();
        configure(2, "  b: { upstream: http://127.0.0.1:1 }\ndurability: power\nlimits: { body_bytes: 1 }");
        reload()
    });
    let body = reloaded.into_iter().find(|body| body["changed"] != json!([])).unwrap();
    let wanted = json!({ "status": "reloaded", "waiting": ["durability"],
        "changed": ["limits", "apis.totpgenerator", "apis.b", "apis.a"] });
    assert_eq!(body, wanted);
    assert_eq!(status(get(&server, "/v1/b")), 401, "it is there");
    assert_eq!(reload(), json!({ "status": "reloaded", "changed": [], "waiting": ["durability"] }));

    configure(3, "limits: { body_byte: 1 }\nlisten: here");
    let (code, _, body) = ask(&private, "POST /reload");
    let mistakes = [
        "listen: must be an address and port, like 127.0.0.1:8080 or [::1]:8080",
        "limits.body_byte: unknown key; did you mean body_bytes?",
    ];
    assert_eq!((code, &body["status"]), (422, &json!("refused")), "{body}");
    let told = body["mistakes"].as_array().unwrap();
    assert!(told.len() == 2 && mistakes.iter().all(|mistake| told.contains(&json!(mistake))), "{body}");
    configure(3, "  a: { upstream: https://127.0.0.1:1, ca: gone.pem }");
    let (code, _, body) = ask(&private, "POST /reload");
    let mistake = "apis.a.ca: gone.pem: No such file or directory (os error 2)";
    assert_eq!((code, body), (422, json!({ "status": "refused", "mistakes": [mistake] })));
    assert_eq!((status(get(&server, "/v1/b")), status(get(&server, "/v1/a"))), (401, 404), "what was in force stays");
}

#[test]
fn what_changes_something_is_not_for_web_pages() {
    let desk = Desk::new();
    desk.write("private_listen: 127.0.0.1:0");
    let (mut server, private) = served(&desk);
    for path in ["/reload", "/drain"] {
        for lines in [
            "Origin: http://evil.example",
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Host: rebound.example:9090",
        ] {
            let host = if lines.starts_with("Host") { String::new() } else { format!("Host: {private}\r\n") };
            let (status, head, body) = send(&private, &format!("POST {path}"), &format!("{host}{lines}\r\n"));
            assert_eq!(status, 403, "{path} {lines}: {body}");
            assert!(!head.contains("access-control"), "{head}");
        }
        for method in ["GET", "PUT", "OPTIONS"] {
            let (status, head, _) = ask(&private, &format!("{method} {path}"));
            assert!(status == 405 && head.contains("allow: POST"), "{method} {path}: {head}");
        }
    }
    let (status, head, _) = ask(&private, "POST /apis");
    assert!(status == 405 && head.contains("allow: GET, HEAD"), "{head}");
    // Nothing of that has come to anything, and a page of its own may.
    let lines = format!("Host: {private}\r\nOrigin: http://{private}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(send(&private, "POST /reload", &lines).0, 200);
    assert!(server.child.try_wait().unwrap().is_none());
    assert_eq!(send(&private, "GET /readyz", "Host: t\r\n").0, 200);
}

#[test]
fn a_drain_is_answered_and_then_calls_under_way_are_finished() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("private_listen: 127.0.0.1:0");
    let (mut server, private) = served(&desk);
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let body = r#"{"secret":"JBSWY3DPEHPK3PXP"}"#;
    let head = "POST /v1/totpgenerator HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nExpect: 100-continue";
    write!(stream, "{head}\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    // It is under way when the server asks for the body.
    stream.read_exact(&mut [0; 25]).unwrap();
    let (code, _, answer) = ask(&private, "POST /drain");
    assert_eq!((code, answer), (202, json!({ "status": "draining" })));
    // As soon as serving ends, which is after the answer, nobody can ask for it again.
    let again = loop {
        let (code, _, answer) = ask(&private, "POST /drain");
        if code != 202 {
            break (code, answer);
        }
    };
    assert_eq!(again, (409, json!({ "error": "the server already stops or hands over" })));
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(status(stream), 200);
    let lines = BufReader::new(server.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.collect();
    assert!(server.child.wait().unwrap().success(), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("polygate stops, as it was asked to at the private listener")));
    assert!(lines.last().unwrap().ends_with("polygate has stopped"), "{lines:?}");
}

#[test]
fn what_is_other_is_told_by_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("polygate.yaml");
    let secret = "whsec_c2VjcmV0IG9mIDMyIGJ5dGVzLCBub3QgYSBzaG93bi4=";
    for (yaml, keys) in [
        ("", ""),
        ("listen: 127.0.0.1:1", "listen"),
        ("tls: { certificate: a, key: b }", "tls"),
        ("http2_prior_knowledge: true", "http2_prior_knowledge"),
        ("private_listen: 127.0.0.1:1", "private_listen"),
        ("data: elsewhere", "data"),
        ("durability: power", "durability"),
        ("trusted_proxies: [127.0.0.1]", "trusted_proxies"),
        ("default_plan: pro", "default_plan"),
        ("open: { burst: 1 }", "open"),
        ("answers: { exhausted_status: 402 }", "answers"),
        ("answers: { not_acceptable: send-json }", "answers"),
        (&format!("notices: {{ webhook: {{ url: 'http://a', secret: '{secret}' }} }}"), "notices"),
        ("logs: { level: warn }", "logs"),
        ("traces: { endpoint: 'http://a' }", "traces"),
        ("limits: { body_bytes: 1 }", "limits"),
        ("retention: { usage_days: 1 }", "retention"),
        (
            "plans: { free: { credits_a_month: 1 }, new: { credits_a_month: 1 } }",
            "plans.free plans.new plans.starter plans.pro plans.mega",
        ),
        (
            "apis: { key2otp: { cost: 2 }, analytics: { enabled: false }, a: { upstream: http://b } }",
            "apis.key2otp apis.analytics apis.a",
        ),
    ] {
        std::fs::write(&file, yaml).unwrap();
        let (default, other) = (Config::default(), Config::load(Some(&file), std::iter::empty()).unwrap());
        assert_eq!(other.changed_from(&default).join(" "), keys);
        let sorted = |config: Vec<String>| config.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(default.changed_from(&other)), sorted(other.changed_from(&default)), "{yaml}");
    }
}
