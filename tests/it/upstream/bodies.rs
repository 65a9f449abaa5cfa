//! Request bodies in forms, XML and YAML, which an upstream is sent as JSON where its API asks for that.

use std::fs;
use std::io::Write;

use super::calls::live;
use super::server::{Server, Then, call};
use crate::sockets::Live;
use crate::support::Setup;

/// Answers each request with its own body.
fn echo() -> Server {
    Server::start(|seen, stream| {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", seen.body.len(), seen.body);
        let _ = stream.write_all(text.as_bytes());
        Then::Keep
    })
}

fn rewriting(server: &Server, keys: &str) -> Live {
    let api = format!("  a: {{ upstream: '$0', methods: [GET, POST], bodies: json, {keys} }}");
    live(&[server.address], &api, Setup::default())
}

fn post(content_type: &str, body: &str) -> String {
    format!("POST /v1/a/x\nX-API-Key: $key\nContent-Type: {content_type}\n\n{body}")
}

#[test]
fn forms_xml_and_yaml_arrive_as_json() {
    let server = echo();
    // What is said of the body does not depend on which headers are passed on.
    for keys in ["cost: 1", "cost: 1, pass_headers: []"] {
        let live = rewriting(&server, keys);
        for (content_type, body, wanted) in [
            ("application/x-www-form-urlencoded", "a=1&b=x+y&a=%C3%A9", r#"{"a":["1","é"],"b":"x y"}"#),
            ("text/xml; charset=utf-8", "<r><a>1</a><b><item/><item>x</item></b></r>", r#"{"a":"1","b":["","x"]}"#),
            ("application/soap+xml", "<r><a/></r>", r#"{"a":""}"#),
            ("application/yaml", "a: 1.50\nb: [yes, true, ~]\n", r#"{"a":1.50,"b":["yes",true,null]}"#),
        ] {
            let got = call(&live, &post(content_type, body));
            assert_eq!(got.status, 200, "{content_type}: {}", got.text());
            let seen = server.last();
            assert_eq!(
                (seen.line(), &*seen.body, &*seen.header("content-type")),
                ("POST /x", wanted, "application/json")
            );
            assert_eq!(seen.header("content-length"), wanted.len().to_string());
        }
    }
    let live = rewriting(&server, "cost: 1");
    let body = "{\"a\" : 1.50, \"a\":2}\n";
    assert_eq!(call(&live, &post("application/vnd.x+json", body)).status, 200);
    let seen = server.last();
    assert_eq!((&*seen.body, &*seen.header("content-type")), (body, "application/vnd.x+json"), "JSON is left alone");
    assert_eq!(call(&live, &post("application/x-www-form-urlencoded", "")).status, 200);
    assert_eq!((&*server.last().body, &*server.last().header("content-type")), ("", ""), "there is none");
}

#[test]
fn what_was_answered_as_xml_or_yaml_can_be_sent_back() {
    let server = echo();
    let live = rewriting(&server, "data: ''");
    let document = r#"{"a b":["x",[],{}],"":{"_x":" <&>\r\n"},"n":null,"s":""}"#;
    for (accept, content_type) in [("application/xml", "application/xml"), ("application/yaml", "text/yaml")] {
        let request = post("application/json", document).replacen('\n', &format!("\nAccept: {accept}\n"), 1);
        let answer = call(&live, &request).text();
        assert_eq!(call(&live, &post(content_type, &answer)).status, 200, "{answer}");
        let wanted = format!(r#"{{"status":"ok","error":null,"data":{document}}}"#);
        assert_eq!(server.last().body, wanted, "{answer}");
    }
}

#[test]
fn refusals_are_told_and_cost_nothing() {
    let server = echo();
    let live = rewriting(&server, "cost: 5, body_bytes: 100");
    let controls = format!("a={}", "%01".repeat(32));
    assert!(controls.len() <= 100);
    for (content_type, body, status, code) in [
        ("multipart/form-data; boundary=b", "--b--", 415, "unsupported-content-type"),
        ("text/plain", "a", 415, "unsupported-content-type"),
        ("text/yaml; charset=latin1", "a", 415, "unsupported-content-type"),
        ("application/x-www-form-urlencoded", "a=%", 400, "invalid-body"),
        ("application/xml", "<a>TOPSECRET<b/></a>", 400, "invalid-body"),
        ("application/xml", "<!DOCTYPE a><a/>", 400, "invalid-body"),
        ("application/yaml", "TOPSECRET: 1\nTOPSECRET: 2", 400, "invalid-body"),
        ("application/yaml", "a: &a TOPSECRET", 400, "invalid-body"),
        // Each of these is six bytes of JSON.
        ("application/x-www-form-urlencoded", &controls, 413, "body-too-large"),
        ("application/x-www-form-urlencoded", &"a".repeat(101), 413, "body-too-large"),
    ] {
        let got = call(&live, &post(content_type, body));
        assert_eq!((got.status, got.header("x-error-code")), (status, code), "{content_type}: {body}");
        assert!(!got.text().contains("TOPSECRET"), "{}", got.text());
        if status == 415 {
            let wanted = "application/json, application/x-www-form-urlencoded, application/xml, application/yaml";
            assert_eq!(got.header("accept"), wanted);
        }
    }
    assert_eq!(server.count(), 0, "nothing was sent");
    let got = call(&live, &post("application/x-www-form-urlencoded", "a=1"));
    assert_eq!((got.status, got.header("x-api-credits-used")), (200, "5"), "and nothing was charged");
}

#[test]
fn what_has_become_json_is_held_against_the_contract() {
    let server = echo();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let contract = "{openapi: 3.0.3, info: {title: a, version: '1'}, paths: {/x: {post: {requestBody: {content: \
        {application/json: {schema: {type: object, required: [n], properties: {n: {type: string}}}}}}, \
        responses: {'200': {description: fine}}}}}}";
    fs::write(&file, contract).unwrap();
    let live = rewriting(&server, &format!("openapi: '{}'", file.display()));
    assert_eq!(call(&live, &post("application/xml", "<r><n>1</n></r>")).status, 200);
    let got = call(&live, &post("application/yaml", "n: 1"));
    assert_eq!(got.status, 400);
    assert!(got.text().contains("body /n must be of type string"), "{}", got.text());
    assert_eq!(server.count(), 1);
}
