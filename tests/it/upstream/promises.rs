//! What an upstream says of its answers and of its requests: how long the ones last, and what the others look like.

use std::fs;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::calls::live;
use super::server::{Server, Then, call};
use crate::support::Setup;

/// Answers each request with its number, and with these header lines.
fn counting(lines: &'static str) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |_, stream| {
        let body = format!("{{\"n\":{}}}", count.fetch_add(1, Ordering::AcqRel) + 1);
        let lines = lines.replace('\n', "\r\n");
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(head.as_bytes());
        Then::Keep
    })
}

#[test]
fn answers_that_last_are_given_again_in_every_format_and_charged() {
    let server = counting("Cache-Control: max-age=60");
    let live = live(
        &[server.address],
        "  a: { upstream: '$0', methods: [GET, POST], cache_bytes: 1048576, pass_headers: [accept-language] }",
        Setup::default(),
    );
    let number = |request: &str| {
        let got = call(&live, &request.replacen('\n', "\nX-API-Key: $key\n", 1));
        assert_eq!(got.status, 200, "{request}: {}", got.text());
        let digits: String = got.text().chars().filter(char::is_ascii_digit).collect();
        (digits.parse::<usize>().unwrap(), got.header("x-api-credits-used").parse::<usize>().unwrap())
    };
    assert_eq!(number("GET /v1/a/x?q\nAccept: application/json"), (1, 1));
    assert_eq!(number("GET /v1/a/x?q\nAccept: text/csv"), (1, 2), "another format is another look at the same answer");
    assert_eq!(number("GET /v1/a/x?q=\nAccept: application/json"), (2, 3), "another query");
    assert_eq!(number("GET /v1/a/x?q\nAccept-Language: de"), (3, 4), "another language");
    assert_eq!(number("GET /v1/a/x?q\nAccept-Language: de\nX-Request-ID: other"), (3, 5));
    assert_eq!(number("GET /v1/a/x?q\nCache-Control: no-cache"), (4, 6));
    assert_eq!(number("GET /v1/a/x?q\nCache-Control: no-store"), (5, 7));
    assert_eq!(number("GET /v1/a/x?q\nAccept: application/json"), (4, 8), "the newest that may be kept");
    assert_eq!(number("POST /v1/a/x?q\nAccept: application/json"), (6, 9));
    live.app.clock.advance(Duration::from_secs(60));
    assert_eq!(number("GET /v1/a/x?q\nAccept: application/json"), (7, 10));
}

#[test]
fn what_must_not_be_given_again_is_not() {
    for lines in [
        "X-Nothing: 1",
        "Cache-Control: max-age=60, private",
        "Cache-Control: max-age=60\nSet-Cookie: a=b",
        "Cache-Control: max-age=60\nVary: *",
        "Cache-Control: max-age=60\nVary: accept, X-Forwarded-For",
        "Cache-Control: max-age=60\nAge: 60",
    ] {
        let server = counting(lines);
        let live = live(&[server.address], "  a: { upstream: '$0', cost: 0, cache_bytes: 1048576 }", Setup::default());
        (0..2).for_each(|_| assert_eq!(call(&live, "GET /v1/a\nX-API-Key: $key").status, 200));
        assert_eq!(server.count(), 2, "{lines}");
    }
    let server = counting("Cache-Control: max-age=60");
    let apis = "  a: { upstream: '$0', cost: 0, cache_bytes: 1048576, pass_headers: [cookie] }\n  b: { upstream: '$0', cost: 0 }";
    let live = live(&[server.address], apis, Setup::default());
    for request in ["GET /v1/a\nX-API-Key: $key\nCookie: a=b", "GET /v1/b\nX-API-Key: $key"] {
        let before = server.count();
        (0..2).for_each(|_| assert_eq!(call(&live, request).status, 200));
        assert_eq!(server.count() - before, 2, "{request}");
    }
}

#[test]
fn what_an_answer_may_depend_on_is_asked_for_by_itself() {
    let server = Server::start(|seen, stream| {
        let body = format!("{:?}", [seen.header("x-forwarded-host"), seen.header("accept")]);
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nVary: Accept\r\nContent-Length: {}", body.len());
        let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        Then::Keep
    });
    let apis = "  a: { upstream: '$0', cost: 0, access: open, cache_bytes: 1048576, formats: passthrough }";
    let live = live(&[server.address], apis, Setup::default());
    let got = |host: &str, accept: &str| {
        let head = format!("GET /v1/a HTTP/1.1\nHost: {host}\nAccept: {accept}\nConnection: close\n\n");
        live.exchange(&head).rsplit("\"data\":").next().unwrap().to_owned()
    };
    let plain = r#"["api.example", "application/json, */*;q=0.5"]}"#;
    for (host, accept, wanted, count) in [
        ("api.example", "*/*", plain, 1),
        ("evil.example", "*/*", &*plain.replace("api", "evil"), 2),
        ("api.example", "text/html", r#"["api.example", "text/html"]}"#, 3),
        ("api.example", "*/*", plain, 3),
        ("api.example", "application/json", plain, 3),
    ] {
        assert_eq!((&*got(host, accept), server.count()), (wanted, count), "{host}, {accept}");
    }
}

#[test]
fn an_answer_with_a_flaw_is_asked_for_again() {
    let bodies = Mutex::new(vec!["{\"n\":2}", "{\"n\":"]);
    let server = Server::start(move |_, stream| {
        let body = bodies.lock().unwrap().pop().unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(head.as_bytes());
        Then::Keep
    });
    let live = live(&[server.address], "  a: { upstream: '$0', cost: 0, cache_bytes: 1048576 }", Setup::default());
    let got = |_| call(&live, "GET /v1/a\nX-API-Key: $key").status;
    assert_eq!([0, 1, 2].map(got), [502, 200, 200]);
}

const PETS: &str = "
openapi: 3.0.3
info: {title: Pets, version: '1'}
paths:
  /pets:
    get:
      operationId: pets
      parameters: [{name: limit, in: query, schema: {type: integer, maximum: 100}}]
      responses: {'200': {description: All., content: {application/json: {schema: {type: array, items: {type: string}}}}}}
    post:
      requestBody:
        required: true
        content: {application/json: {schema: {type: object, required: [name], properties: {name: {type: string}}}}}
      responses: {'201': {description: Made.}}
  /pets/{id}:
    get: {parameters: [{name: id, in: path, required: true, schema: {type: integer}}], responses: {}}
";

#[test]
fn requests_that_the_api_does_not_describe_are_refused_before_they_cost_anything() {
    let server = counting("X-Nothing: 1");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pets.yaml");
    fs::write(&file, PETS).unwrap();
    let apis = format!("  a: {{ upstream: '$0', methods: [GET, POST], cost: 5, openapi: '{}' }}", file.display());
    let live = live(&[server.address], &apis, Setup::default());
    for (request, status, code, message) in [
        ("GET /v1/a/pets?limit=100\nX-API-Key: $key", 200, "", ""),
        ("HEAD /v1/a/pets/7\nX-API-Key: $key", 200, "", ""),
        ("POST /v1/a/pets\nX-API-Key: $key\nContent-Type: application/json\n\n{\"name\":\"Tom\"}", 200, "", ""),
        (
            "GET /v1/a/pets?limit=101\nX-API-Key: $key",
            400,
            "invalid-request",
            "Invalid request: parameter limit must be at most 100",
        ),
        (
            "GET /v1/a/pets/tom\nX-API-Key: $key",
            400,
            "invalid-request",
            "Invalid request: parameter id must be of type integer",
        ),
        ("POST /v1/a/pets\nX-API-Key: $key", 400, "invalid-request", "Invalid request: body is missing"),
        (
            "POST /v1/a/pets\nX-API-Key: $key\nContent-Type: application/json\n\n{\"name\":7}",
            400,
            "invalid-request",
            "Invalid request: body /name must be of type string",
        ),
        // Path and method come before the key.
        ("POST /v1/a/pets/7", 405, "method-not-allowed", "Method not allowed"),
        ("GET /v1/a", 404, "unknown-api", "Unknown API"),
        ("GET /v1/a/dogs", 404, "unknown-api", "Unknown API"),
        ("GET /v1/a/pets?limit=101", 401, "key-required", "API key is required"),
    ] {
        let before = server.count();
        let got = call(
            &live,
            &format!(
                "{}\nAccept: application/yaml{}",
                request.split("\n\n").next().unwrap(),
                match request.split_once("\n\n") {
                    Some((_, body)) => format!("\n\n{body}"),
                    None => String::new(),
                }
            ),
        );
        assert_eq!((got.status, got.header("x-error-code")), (status, code), "{request}: {}", got.text());
        assert_eq!(server.count() - before, usize::from(status == 200), "{request}");
        if status != 200 {
            assert!(got.text().contains(message), "{request}: {}", got.text());
        }
        if status == 405 {
            assert_eq!(got.header("allow"), "GET, HEAD, OPTIONS");
        }
    }
    let used = call(&live, "GET /v1/analytics\nX-API-Key: $key");
    assert_eq!(used.header("x-api-credits-used"), "15", "three that succeeded");
}

#[test]
fn the_description_of_the_whole_has_every_api() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pets.yaml");
    fs::write(&file, PETS).unwrap();
    let apis = format!(
        "  a: {{ upstream: 'http://127.0.0.1:1', openapi: '{}' }}\n  b: {{ upstream: 'http://127.0.0.1:1', path: /own/b }}",
        file.display()
    );
    let live = live(&[], &apis, Setup::default());
    let (json, yaml) = (call(&live, "GET /openapi.json"), call(&live, "GET /openapi.yaml"));
    let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(serde_yaml::from_slice::<serde_json::Value>(&yaml.body).unwrap(), json);
    for (path, methods) in [
        ("/v1/totpgenerator", ["get", "post"].as_slice()),
        ("/v1/a/pets", &["get"]),
        ("/v1/a/pets/{id}", &["get"]),
        ("/own/b", &["get"]),
        ("/own/b/{rest}", &["get"]),
    ] {
        for method in ["get", "post"] {
            let is_there = json["paths"][path][method]["responses"]["200"].is_object();
            assert_eq!(is_there, methods.contains(&method), "{method} {path}");
        }
    }
    let got = call(&live, "GET /v1/a/dogs");
    assert_eq!(got.status, 404);
}

#[test]
fn where_other_types_are_passed_on_they_can_be_asked_for() {
    let server = Server::start(|seen, stream| {
        let kind = if seen.header("accept") == "text/html" { "text/html" } else { "application/json" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}");
        let _ = stream.write_all(head.as_bytes());
        Then::Keep
    });
    let apis = "  a: { upstream: '$0', cost: 0, formats: passthrough }\n  b: { upstream: '$0', cost: 0 }";
    let live = live(&[server.address], apis, Setup::default());
    for (path, accept, status, content_type) in [
        ("/v1/a", "text/html", 200, "text/html"),
        ("/v1/a", "application/xml", 200, "application/xml"),
        ("/v1/a", "text/html, application/xml;q=0.1", 200, "application/xml"),
        ("/v1/b", "text/html", 406, "application/json"),
    ] {
        let got = call(&live, &format!("GET {path}\nX-API-Key: $key\nAccept: {accept}"));
        assert_eq!((got.status, got.header("content-type")), (status, content_type), "{path} {accept}");
    }
}
