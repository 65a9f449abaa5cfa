//! The operator's own APIs.

use std::fs;

use http::header::{ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, COOKIE, USER_AGENT};
use http::{HeaderName, Method};

use super::*;
use crate::pure::pointer::Pointer;
use crate::pure::upstream::target::Base;

fn base(text: &str) -> Base {
    Base::parse(text).unwrap()
}

/// The mistakes of one API called `a`, without what they all begin with.
fn mistakes(keys: &str) -> Vec<String> {
    let errors = load(&format!("apis: {{ a: {{ {keys} }} }}"), &[("SET", "x"), ("ODD", "a\nb")]).unwrap_err();
    errors.mistakes().iter().map(|line| line.strip_prefix("apis.a").unwrap_or(line).to_owned()).collect()
}

#[test]
fn an_address_is_all_that_an_api_needs() {
    let apis =
        loaded("apis: { quotes: { upstream: 'http://127.0.0.1:9000/api/' }, b-2: { upstream: [https://b.example] } }")
            .apis;
    let quotes = UpstreamApi::plain("quotes", "/v1/quotes", vec![base("http://127.0.0.1:9000/api")]);
    let b = UpstreamApi::plain("b-2", "/v1/b-2", vec![base("https://b.example")]);
    assert_eq!(apis.upstreams, [Arc::new(quotes), Arc::new(b)]);
    assert_eq!(apis.names().collect::<Vec<_>>(), ["totpgenerator", "key2otp", "analytics", "quotes", "b-2"]);
    assert_eq!(apis.totpgenerator, Config::default().apis.totpgenerator);
}

/// The example of the default file, with what stands for `#` taken off.
fn example() -> String {
    let (_, example) = DEFAULT_YAML.split_once("\n#  quotes:\n").unwrap();
    let (example, _) = example.split_once("\napis:\n").unwrap();
    let lines = example.lines().map(|line| line.strip_prefix('#').unwrap());
    lines.fold("apis:\n  quotes:\n".to_owned(), |text, line| text + line + "\n")
}

#[test]
fn the_default_file_shows_every_key_with_its_default() {
    let directory = tempfile::tempdir().unwrap();
    let contract = directory.path().join("quotes.yaml");
    fs::write(&contract, "{openapi: 3.1.0, info: {title: quotes, version: '1'}, paths: {/today: {get: {}}}}").unwrap();
    let example = example().replace("/etc/polygate/quotes.yaml", contract.to_str().unwrap());
    let api = load(&example, &[("QUOTES_TOKEN", "hunter2")]).unwrap().apis.upstreams[0].clone();
    assert!(api.contract.is_some());
    let shown = UpstreamApi {
        data: Some(Pointer::parse("/result").unwrap()),
        error_message: Some(Pointer::parse("/fault/text").unwrap()),
        set_headers: vec![(AUTHORIZATION, Hidden::new("Bearer hunter2".into()))],
        body_bytes: Some(Config::default().limits.body_bytes),
        ca: Some("/etc/polygate/authorities.pem".into()),
        rate: Some(rate(120, 20)),
        health_check: Some("/health".into()),
        contract: api.contract.clone(),
        ..UpstreamApi::plain("quotes", "/v1/quotes", api.targets.clone())
    };
    assert_eq!(*api, shown);
    assert!(!format!("{api:?}").contains("hunter2"));
}

#[test]
fn everything_can_be_set() {
    let yaml = "apis: { a: { upstream: ['http://a:1', 'https://[::1]:2/x'], enabled: false, path: /own/path, \
        methods: [DELETE, GET, POST], access: open, cost: 0, timeout_s: 29, connect_timeout_s: 1, data: '', \
        set_headers: { x-a: 'a${A}b${B_2}', X-B: $1 }, pass_headers: [Cookie, authorization, x-own], bodies: json, \
        body_bytes: 1, answer_bytes: 1, formats: passthrough, http2: true, requests_at_once: 1, requests_a_minute: 9, retries: 0 } }";
    let api = load(yaml, &[("A", "-${B_2}-"), ("B_2", "")]).unwrap().apis.upstreams[0].clone();
    let wanted = UpstreamApi {
        api: Api { enabled: false, access: Access::Open, cost: 0 },
        methods: vec![Method::GET, Method::POST, Method::DELETE],
        timeout: Duration::from_secs(29),
        connect_timeout: Duration::from_secs(1),
        // What a variable holds is text, whatever it looks like.
        set_headers: vec![
            (HeaderName::from_static("x-a"), Hidden::new("a-${B_2}-b".into())),
            (HeaderName::from_static("x-b"), Hidden::new("$1".into())),
        ],
        pass_headers: vec![COOKIE, AUTHORIZATION, HeaderName::from_static("x-own")],
        bodies: RequestBodies::Json,
        body_bytes: Some(1),
        answer_bytes: 1,
        formats: AnswerFormats::Passthrough,
        http2: true,
        requests_at_once: 1,
        rate: Some(rate(9, 9)),
        retries: 0,
        ..UpstreamApi::plain("a", "/own/path", vec![base("http://a:1"), base("https://[::1]:2/x")])
    };
    assert_eq!(*api, wanted);
    let passed = UpstreamApi::plain("a", "/v1/a", Vec::new()).pass_headers;
    assert_eq!(passed, [CONTENT_TYPE, ACCEPT_LANGUAGE, USER_AGENT], "no cookies and no credentials");
}

#[test]
fn the_environment_sets_and_makes_apis() {
    let env = [
        ("POLYGATE_APIS__QUOTES__UPSTREAM", "http://127.0.0.1:9000"),
        ("POLYGATE_APIS__QUOTES__METHODS", "[GET, POST]"),
        ("POLYGATE_APIS__QUOTES__SET_HEADERS__AUTHORIZATION", "Bearer ${TOKEN}"),
        ("TOKEN", "hunter2"),
    ];
    let api = load("apis: { quotes: { upstream: http://other, cost: 7 } }", &env).unwrap().apis.upstreams[0].clone();
    assert_eq!((api.api.cost, &api.targets), (7, &vec![base("http://127.0.0.1:9000")]));
    assert_eq!(api.set_headers, [(AUTHORIZATION, Hidden::new("Bearer hunter2".into()))]);
    assert_eq!(load("", &env).unwrap().apis.upstreams.len(), 1);
    let found = wrong("", &[("POLYGATE_APIS__QUOTES__UPSTREAM", "hunter2"), ("POLYGATE_APIS__QUOTS__COST", "1")]);
    let wanted = "the configuration has mistakes:\n  \
        POLYGATE_APIS__QUOTES__UPSTREAM: must be an http or https address, perhaps with a path, without query or user name\n  \
        apis.quots.upstream: is missing";
    assert_eq!(found, wanted);
}

#[test]
fn mistakes_are_named() {
    let must = "must be an http or https address, perhaps with a path, without query or user name";
    for (keys, wanted) in [
        ("", &[".upstream: is missing"][..]),
        ("upstream: []", &[".upstream: must name at least one address"]),
        ("upstream: 5", &[&format!(".upstream: {must}, not a whole number")]),
        (
            "upstream: [http://a, 'http://u:p@a', http://a?x]",
            &[&format!(".upstream[1]: {must}"), &format!(".upstream[2]: {must}")],
        ),
        (
            "upstream: http://a, upstreams: b, time: 1",
            &[".upstreams: unknown key; did you mean upstream?", ".time: unknown key"],
        ),
        (
            "upstream: http://a, path: v1/a",
            &[".path: must be a path like /v1/name: A to Z, a to z, 0 to 9, . _ ~ - in its segments"],
        ),
        ("upstream: http://a, path: /v1/totpgenerator", &[".path: is the path of another API"]),
        ("upstream: http://a, path: /openapi.yaml", &[".path: is the path of another API"]),
        ("upstream: http://a, methods: []", &[".methods: must name at least one method"]),
        (
            "upstream: http://a, methods: [GET, get, HEAD]",
            &[
                ".methods[1]: must be GET, POST, PUT, PATCH or DELETE",
                ".methods[2]: must be GET, POST, PUT, PATCH or DELETE",
            ],
        ),
        (
            "upstream: http://a, timeout_s: 0, retries: 6",
            &[".timeout_s: must be a whole number from 1 to 3600", ".retries: must be a whole number from 0 to 5"],
        ),
        ("upstream: http://a, timeout_s: 30", &[".timeout_s: must be below limits.request_timeout_s, which is 30"]),
        (
            "upstream: http://a, data: result",
            &[".data: must be a JSON pointer (RFC 6901), like /result/items, or empty"],
        ),
        ("upstream: http://a, burst: 5", &[".burst: means nothing without requests_a_minute"]),
        (
            "upstream: http://a, set_headers: { x: '${UNSET_HERE}' }",
            &[".set_headers.x: the variable UNSET_HERE is not set"],
        ),
        ("upstream: http://a, set_headers: { x: '${SET' }", &[".set_headers.x: has a ${ that begins no ${NAME}"]),
        ("upstream: http://a, set_headers: { x: '${a b}' }", &[".set_headers.x: has a ${ that begins no ${NAME}"]),
        ("upstream: http://a, set_headers: { x: '${ODD}' }", &[".set_headers.x: must be printable ASCII"]),
        (
            "upstream: http://a, set_headers: { 'a b': x, Host: x, Connection: x }",
            &[
                ".set_headers.a b: is not the name of a header",
                ".set_headers.Host: is a header that Polygate sets itself",
                ".set_headers.Connection: is a header that Polygate sets itself",
            ],
        ),
        (
            "upstream: http://a, pass_headers: [x-api-key, 'a b', Range, x-forwarded-for]",
            &[
                ".pass_headers[0]: is a header that Polygate sets itself",
                ".pass_headers[1]: must be the name of a header",
                ".pass_headers[2]: asks for what an answer in another format cannot keep",
                ".pass_headers[3]: is a header that Polygate sets itself",
            ],
        ),
        (
            "upstream: http://a, bodies: xml, formats: any, health_check: health, ca: ''",
            &[
                ".bodies: must be untouched or json",
                ".formats: must be negotiated or passthrough",
                ".ca: must be the path of a PEM file",
                ".health_check: must be a path like /health",
            ],
        ),
    ] {
        assert_eq!(mistakes(keys), wanted, "{keys}");
    }
    let two = "apis: { A: { upstream: http://a }, b: { upstream: http://a, path: /v1/c }, c: { upstream: http://a } }";
    let wanted = "the configuration has mistakes:\n  \
        apis.A: an API's name has 1 to 32 characters, each a to z, 0 to 9 or hyphen\n  \
        apis.c.path: is the path of another API";
    assert_eq!(wrong(two, &[]), wanted);
    let many: String = (0..998).map(|number| format!("  a{number}: {{ upstream: http://a }}\n")).collect();
    let wanted = "apis: must name at most 1000 APIs, those built in among them";
    assert_eq!(wrong(&format!("apis:\n{many}"), &[]), format!("the configuration has mistakes:\n  {wanted}"));
}
