//! What the contract promises about a call: the order of refusals, what each costs, what each says.

use std::time::Duration;

use polygate::pure::bounds::Bounds;

use crate::support::{App, Setup, same};

const OTP: &str = r#"{"secret":"JBSWY3DPEHPK3PXP"}"#;

fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/totpgenerator\nContent-Type: application/json\n{headers}\n{body}")
}

#[tokio::test]
async fn a_fault_costs_nothing() {
    let app = App::new(&Setup::default());
    for body in ["{}", "{", r#"{"secret":"1"}"#, r#"{"secret":"ABC"}"#] {
        let answer = app.send(&post("X-API-Key: $key\n", body)).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("x-api-credits-used"), "0");
        assert_eq!(answer.header("x-api-remaining-credits"), "1500");
    }
    let answer = app.send(&post("X-API-Key: $key\n", OTP)).await;
    assert_eq!((answer.status, answer.header("x-api-credits-used")), (200, "1"));
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let app = App::new(&Setup { plan: "slow".into(), ..Setup::default() });
    let all_wrong = "Accept: image/png\nX-API-Key: nonsense\n";
    for (request, status, code) in [
        (format!("DELETE /v1/nothing\n{all_wrong}"), 404, "unknown-api"),
        (format!("DELETE /v1/totpgenerator\n{all_wrong}"), 405, "method-not-allowed"),
        (format!("POST /v1/totpgenerator\nContent-Type: text/plain\n{all_wrong}\nx"), 406, "not-acceptable"),
        ("POST /v1/totpgenerator\nContent-Type: text/plain\nX-API-Key: nonsense\n\nx".into(), 401, "invalid-key"),
        // The first call with the key is admitted, so that the body is looked at; the second is not.
        (
            "POST /v1/totpgenerator\nContent-Type: text/plain\nX-API-Key: $key\n\nx".into(),
            415,
            "unsupported-content-type",
        ),
        ("POST /v1/totpgenerator\nContent-Type: text/plain\nX-API-Key: $key\n\nx".into(), 429, "rate-limited"),
    ] {
        let answer = app.send(&request).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (status, code), "{request}");
    }
    let app = App::new(&Setup { plan: "spent".into(), ..Setup::default() });
    let answer = app.send(&post("X-API-Key: $key\n", "{}")).await;
    assert_eq!(answer.status, 400, "parameters come before credits");
    let answer = app.send(&post("X-API-Key: $key\n", OTP)).await;
    assert_eq!((answer.status, answer.header("x-api-remaining-credits")), (403, "0"));
}

#[tokio::test]
async fn a_406_is_not_counted() {
    let app = App::new(&Setup::default());
    app.send(&post("X-API-Key: $key\nAccept: image/png\n", OTP)).await;
    let answer = app.send(&post("X-API-Key: $key\n", OTP)).await;
    assert_eq!(answer.header("x-ratelimit-remaining"), "59");
}

#[tokio::test]
async fn not_acceptable_can_be_configured_away() {
    let app = App::new(&Setup { config: "answers: { not_acceptable: send-json }".into(), ..Setup::default() });
    let answer = app.send(&post("X-API-Key: $key\nAccept: image/png\n", OTP)).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
}

#[tokio::test]
async fn the_status_of_spent_credits_is_configurable() {
    for status in [402, 403, 429] {
        let config = format!("answers: {{ exhausted_status: {status} }}");
        let app = App::new(&Setup { plan: "spent".into(), config, ..Setup::default() });
        let answer = app.send(&post("X-API-Key: $key\n", OTP)).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (status, "credits-exhausted"));
        // A 429 says when to try again: when the next period begins.
        assert_eq!(answer.header("retry-after"), if status == 429 { "2597365" } else { "" });
    }
}

#[tokio::test]
async fn a_thousand_calls_on_one_credit_give_one_answer() {
    let app = App::new(&Setup { plan: "one".into(), ..Setup::default() });
    let mut ok = 0;
    for _ in 0..1_000 {
        match app.send(&post("X-API-Key: $key\n", OTP)).await.status {
            200 => ok += 1,
            403 => {}
            other => panic!("unexpected status {other}"),
        }
    }
    assert_eq!(ok, 1);
}

#[tokio::test]
async fn the_per_minute_limit_refills_evenly() {
    let app = App::new(&Setup::default());
    let request = post("X-API-Key: $key\n", OTP);
    for remaining in (0..60).rev() {
        let answer = app.send(&request).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (200, &*remaining.to_string()));
    }
    let refused = app.send(&request).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("x-ratelimit-reset"), "60");
    assert_eq!(refused.header("ratelimit"), r#""minute";r=0;t=60"#);
    assert_eq!(refused.header("ratelimit-policy"), r#""minute";q=60;w=60"#);
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(app.send(&request).await.status, 200, "Retry-After is long enough");
    assert_eq!(app.send(&request).await.status, 429);
}

#[tokio::test]
async fn an_unthrottled_caller_gets_no_rate_headers() {
    let app = App::new(&Setup { plan: "mega".into(), ..Setup::default() });
    let answer = app.send(&post("X-API-Key: $key\n", OTP)).await;
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn open_routes_are_limited_by_address() {
    let mut app = App::new(&Setup::default());
    let request = "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\n";
    let mut from = async |peer: &str| {
        app.peer = peer.parse().unwrap();
        app.send(request).await
    };
    for _ in 0..60 {
        assert_eq!(from("2001:db8:0:1::1").await.status, 200);
    }
    assert_eq!(from("2001:db8:0:1::2").await.status, 429, "the same /64");
    assert_eq!(from("2001:db8:0:2::1").await.status, 200, "another /64");
    assert_eq!(from("192.0.2.7").await.status, 200);
    assert_eq!(from("::ffff:192.0.2.7").await.header("x-ratelimit-remaining"), "58", "IPv4 in IPv6 form is IPv4");
}

#[tokio::test]
async fn forwarded_addresses_count_only_behind_trusted_proxies() {
    let request = |from| format!("GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\nX-Forwarded-For: {from}\n");
    let app = App::new(&Setup::default());
    app.send(&request("198.51.100.1")).await;
    assert_eq!(app.send(&request("198.51.100.2")).await.header("x-ratelimit-remaining"), "58");

    let app = App::new(&Setup { config: "trusted_proxies: [192.0.2.0/24]".into(), ..Setup::default() });
    app.send(&request("198.51.100.1")).await;
    assert_eq!(app.send(&request("198.51.100.2")).await.header("x-ratelimit-remaining"), "59");
}

#[tokio::test]
async fn an_api_can_be_switched_off_or_closed() {
    let app = App::new(&Setup { config: "apis: { key2otp: { enabled: false } }".into(), ..Setup::default() });
    assert_eq!(app.send("GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\n").await.status, 404);
    let app = App::new(&Setup { config: "apis: { key2otp: { access: key, cost: 3 } }".into(), ..Setup::default() });
    assert_eq!(app.send("GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\n").await.status, 401);
    let answer = app.send("GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key\n").await;
    assert_eq!((answer.status, answer.header("x-api-credits-used")), (200, "3"));
}

#[tokio::test]
async fn keys_can_be_bound_to_apis_addresses_and_origins() {
    let scoped = App::new(&Setup {
        bounds: Bounds { scopes: Some(vec!["totpgenerator".into()]), ..Bounds::default() },
        ..Setup::default()
    });
    assert_eq!(scoped.send(&post("X-API-Key: $key\n", OTP)).await.status, 200);

    let near = App::new(&Setup {
        bounds: Bounds { networks: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..Bounds::default() },
        ..Setup::default()
    });
    assert_eq!(near.send(&post("X-API-Key: $key\n", OTP)).await.status, 200);
    let far = App::new(&Setup {
        bounds: Bounds { networks: Some(vec!["198.51.100.0/24".parse().unwrap()]), ..Bounds::default() },
        ..Setup::default()
    });
    let answer = far.send(&post("X-API-Key: $key\n", OTP)).await;
    assert_eq!((answer.status, answer.header("x-error-code")), (403, "address-not-allowed"));

    let page = App::new(&Setup {
        bounds: Bounds { origins: Some(vec!["https://example.com".into()]), ..Bounds::default() },
        ..Setup::default()
    });
    let own = page.send(&post("X-API-Key: $key\nOrigin: https://example.com\n", OTP)).await;
    assert_eq!(own.status, 200);
    for origin in ["Origin: https://example.org\n", ""] {
        let answer = page.send(&post(&format!("X-API-Key: $key\n{origin}"), OTP)).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (403, "origin-not-allowed"));
    }
}

#[tokio::test]
async fn keys_expire() {
    let setup = Setup::default();
    let app = App::new(&Setup { expires_unix_s: Some(setup.now_unix_s + 10), ..setup });
    assert_eq!(app.send(&post("X-API-Key: $key\n", OTP)).await.status, 200);
    app.clock.advance(Duration::from_secs(10));
    assert_eq!(app.send(&post("X-API-Key: $key\n", OTP)).await.header("x-error-code"), "invalid-key");
}

#[tokio::test]
async fn keys_in_the_query_are_refused_wherever_they_stand() {
    let app = App::new(&Setup::default());
    for request in [
        "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP&anything=$key\nX-API-Key: $key\n",
        "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP&X-Api-Key=abc\n",
        "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP&key=$key\n",
    ] {
        let answer = app.send(request).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (401, "key-in-query"), "{request}");
    }
}

#[tokio::test]
async fn keys_come_in_either_header() {
    let app = App::new(&Setup::default());
    for (headers, status) in [
        ("X-API-Key: $key\n", 200),
        ("x-api-key:   $key  \n", 200),
        ("Authorization: Bearer $key\n", 200),
        ("authorization: bearer $key\n", 200),
        ("X-API-Key:\nAuthorization: Bearer $key\n", 200),
        ("Authorization: Basic dXNlcjpwYXNz\nAuthorization: Bearer $key\n", 200),
        ("X-API-Key: nonsense\nAuthorization: Bearer $key\n", 401),
        ("Authorization: Basic dXNlcjpwYXNz\n", 401),
    ] {
        assert_eq!(app.send(&post(headers, OTP)).await.status, status, "{headers}");
    }
}

#[tokio::test]
async fn a_format_in_the_query_beats_accept() {
    let app = App::new(&Setup::default());
    for (accept, query, content_type) in [
        ("application/xml", "format=yaml", "application/yaml"),
        ("application/problem+json", "format=yaml", "application/yaml"),
        ("image/png", "format=XML", "application/xml"),
        ("application/xml", "format=pdf", "application/json"),
    ] {
        let answer = app.send(&format!("GET /v1/api/key2otp?{query}\nAccept: {accept}\n")).await;
        assert_eq!(answer.header("content-type"), content_type, "{accept} {query}");
        assert_eq!(answer.status, if query == "format=pdf" { 406 } else { 400 });
    }
}

#[tokio::test]
async fn a_key_that_is_barred_is_limited_all_the_same() {
    let bounds = Bounds { scopes: Some(vec!["other".into()]), ..Bounds::default() };
    let app = App::new(&Setup { plan: "slow".into(), bounds, ..Setup::default() });
    let answer = app.send(&post("X-API-Key: $key\n", OTP)).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (403, "0"));
    assert_eq!(app.send(&post("X-API-Key: $key\n", OTP)).await.status, 429);
}

#[tokio::test]
async fn a_request_has_one_host() {
    let app = App::new(&Setup::default());
    let answer = app.send("GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\nHost: other\n").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (400, "malformed-request"));
    assert!(answer.to_string().ends_with(r#"{"status":"error","message":"Malformed HTTP request"}"#), "{answer}");
}

#[tokio::test]
async fn request_ids_are_echoed_when_they_are_safe() {
    let app = App::new(&Setup::default());
    let longest = "a".repeat(128);
    for own in ["a", "A-z_0.9", &longest] {
        let answer = app.send(&format!("GET /v1/nothing\nX-Request-ID: {own}\n")).await;
        assert_eq!(answer.header("x-request-id"), own);
    }
    for other in ["", "a b", "a;b", "ü", &"a".repeat(129)] {
        let answer = app.send(&format!("GET /v1/nothing\nX-Request-ID: {other}\n")).await;
        let id = answer.header("x-request-id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{other:?} → {id:?}");
    }
}

#[tokio::test]
async fn accept_lines_are_read_together() {
    let app = App::new(&Setup::default());
    let answer = app.send("GET /v1/nothing\nAccept: text/csv;q=0.5\nAccept: application/xml\n").await;
    assert_eq!(answer.header("content-type"), "application/xml");
}

#[tokio::test]
async fn too_many_or_too_long_headers_are_refused_in_the_format_asked_for() {
    let app = App::new(&Setup::default());
    let many = "X-Filler: 1\n".repeat(101);
    let long = format!("X-Filler: {}\n", "1".repeat(16 * 1024));
    for filler in [many, long] {
        let answer = app.send(&format!("GET /v1/nothing\nAccept: application/yaml\n{filler}")).await;
        same(
            &answer,
            "431 Request Header Fields Too Large\ncontent-type: application/yaml\n\nstatus: error\nerror: Request headers are too large\ndata: null\n",
        );
    }
}
