//! What `/v1/analytics` tells an account: its own use of the APIs, all of it, and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use polygate::pure::bounds::Bounds;
use polygate::pure::key::ApiKey;
use polygate::state::store::{NewKey, Store};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::support::{App, Setup};

const OTP: &str = "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key\n";
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// `data` of what the key's account is told, as of a fold.
async fn analytics(app: &App) -> Value {
    app.fold();
    let answer = app.send("GET /v1/analytics\nX-API-Key: $key\n").await;
    assert_eq!(answer.status, 200, "{answer}");
    serde_json::from_slice::<Value>(&answer.body).unwrap()["data"].take()
}

/// Another key, of an account that is made when it is new.
fn add_key(app: &App, email: &str) -> String {
    let mut store = Store::open(app.data.path()).unwrap();
    let key = ApiKey::generate(&SystemRandom::new()).unwrap();
    let new = NewKey { key: &key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None };
    let plan = Arc::clone(&app.gateway.config.default_plan);
    store.create_key(email, &plan, &new, app.clock.unix_s()).unwrap();
    app.gateway.keyring.refresh(&store).unwrap();
    key.as_str().to_owned()
}

/// The counts that are not zero.
fn counted(row: &Value) -> Value {
    let members = row.as_object().unwrap().iter().filter(|(_, value)| **value != json!(0));
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn rows(table: &Value) -> Vec<Value> {
    table.as_array().unwrap().iter().map(counted).collect()
}

#[tokio::test]
async fn a_new_account_has_thirty_days_of_nothing() {
    let app = App::new(&Setup::default());
    let data = analytics(&app).await;
    let summary = json!({
        "plan": "free", "used": 0, "remaining": 1_500, "limit": 1_500, "bonus": 500,
        "renewal": "2026-01-16T00:00:00Z", "lastActivity": null,
    });
    assert_eq!((&data["summary"], &data["apis"]), (&summary, &json!([])));
    let days = rows(&data["daily"]);
    assert_eq!(days.len(), 30);
    assert_eq!((&days[0], &days[29]), (&json!({"date": "2025-11-17"}), &json!({"date": "2025-12-16"})));
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let app = App::new(&Setup::default());
    for _ in 0..3 {
        assert_eq!(app.send(OTP).await.status, 200);
    }
    assert_eq!(app.send("GET /v1/totpgenerator\nX-API-Key: $key\n").await.status, 400);
    let data = analytics(&app).await;
    let row = json!({"api": "totpgenerator", "calls": 4, "ok": 3, "clientError": 1, "credits": 3});
    assert_eq!(rows(&data["apis"]), [row]);
    let today = json!({"date": "2025-12-16", "calls": 4, "ok": 3, "clientError": 1, "credits": 3});
    assert_eq!(rows(&data["daily"])[29], today);
    assert_eq!((&data["summary"]["used"], &data["summary"]["bonus"]), (&json!(3), &json!(497)));
    assert_eq!(data["summary"]["lastActivity"], "2025-12-16T22:30:35Z");
}

#[tokio::test]
async fn refusals_for_limit_and_credits_are_counted_apart() {
    let slow = App::new(&Setup { plan: "slow".into(), ..Setup::default() });
    assert_eq!(slow.send(OTP).await.status, 200);
    assert_eq!(slow.send(OTP).await.status, 429);
    slow.clock.advance(Duration::from_secs(60));
    let row = json!({"api": "totpgenerator", "calls": 2, "ok": 1, "rateLimited": 1, "credits": 1});
    assert_eq!(rows(&analytics(&slow).await["apis"]), [row]);

    let one = App::new(&Setup { plan: "one".into(), ..Setup::default() });
    assert_eq!(one.send(OTP).await.status, 200);
    assert_eq!(one.send(OTP).await.status, 403);
    let data = analytics(&one).await;
    let row = json!({"api": "totpgenerator", "calls": 2, "ok": 1, "exhausted": 1, "credits": 1});
    assert_eq!(rows(&data["apis"]), [row]);
    assert_eq!((&data["summary"]["used"], &data["summary"]["remaining"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn credits_are_told_to_the_moment_and_calls_as_of_the_last_fold() {
    let app = App::new(&Setup::default());
    app.send(OTP).await;
    let answer = app.send("GET /v1/analytics\nX-API-Key: $key\n").await;
    let data = serde_json::from_slice::<Value>(&answer.body).unwrap()["data"].take();
    assert_eq!((&data["summary"]["used"], &data["apis"]), (&json!(1), &json!([])));
}

#[tokio::test]
async fn looking_costs_no_credits_and_counts_as_a_call() {
    let app = App::new(&Setup::default());
    for left in [59, 58] {
        let answer = app.send("GET /v1/analytics\nX-API-Key: $key\n").await;
        assert_eq!(answer.header("x-ratelimit-remaining"), left.to_string());
        assert_eq!(answer.header("x-api-credits-used"), "0");
    }
    let data = analytics(&app).await;
    assert_eq!(rows(&data["apis"]), [json!({"api": "analytics", "calls": 2, "ok": 2})]);
    assert_eq!(data["summary"]["used"], 0);
}

#[tokio::test]
async fn two_keys_of_an_account_see_the_sum_and_another_account_nothing() {
    let mut app = App::new(&Setup::default());
    let first = app.key.clone();
    let second = add_key(&app, "test@example.com");
    let stranger = add_key(&app, "other@example.com");
    app.send(OTP).await;
    app.key = second.clone();
    app.send(OTP).await;
    for key in [first, second] {
        app.key = key;
        let data = analytics(&app).await;
        let row = json!({"api": "totpgenerator", "calls": 2, "ok": 2, "credits": 2});
        assert!(rows(&data["apis"]).contains(&row), "{data}");
        assert_eq!(data["summary"]["used"], 2);
    }
    app.key = stranger;
    let data = analytics(&app).await;
    assert_eq!((&data["apis"], &data["summary"]["used"]), (&json!([]), &json!(0)));
    assert_eq!(data["summary"]["lastActivity"], Value::Null);
    assert!(data["daily"].as_array().unwrap().iter().all(|day| day["calls"] == 0));
}

#[tokio::test]
async fn days_without_calls_have_their_place_and_days_too_long_ago_have_none() {
    let app = App::new(&Setup::default());
    app.send(OTP).await;
    // 22:30 on the 16th, the 18th, and the last day on which the 16th still counts: 14 January.
    app.clock.advance(DAY * 2);
    app.send(OTP).await;
    app.send(OTP).await;
    app.clock.advance(DAY * 27);
    app.send(OTP).await;
    let days = rows(&analytics(&app).await["daily"]);
    let day = |date: &str, calls: u64| json!({"date": date, "calls": calls, "ok": calls, "credits": calls});
    assert_eq!(days.len(), 30);
    assert_eq!(days[..3], [day("2025-12-16", 1), json!({"date": "2025-12-17"}), day("2025-12-18", 2)]);
    assert_eq!(days[29], day("2026-01-14", 1));

    app.clock.advance(DAY);
    let data = analytics(&app).await;
    assert_eq!(rows(&data["daily"])[0], json!({"date": "2025-12-17"}));
    assert_eq!(data["apis"][0]["ok"], 3, "the APIs are of the same thirty days");
}

#[tokio::test]
async fn a_new_billing_month_begins_its_credits_anew_and_keeps_the_days() {
    let app = App::new(&Setup::default());
    app.send(OTP).await;
    // Past midnight of 16 January.
    app.clock.advance(DAY * 30 + Duration::from_secs(2 * 3_600));
    app.send(OTP).await;
    let data = analytics(&app).await;
    let summary = json!({
        "plan": "free", "used": 1, "remaining": 1_498, "limit": 1_499, "bonus": 498,
        "renewal": "2026-02-16T00:00:00Z", "lastActivity": "2026-01-16T00:30:35Z",
    });
    assert_eq!(data["summary"], summary);
    app.clock.advance(DAY * 5);
    let data = analytics(&app).await;
    let days = rows(&data["daily"]);
    assert_eq!(days[24], json!({"date": "2026-01-16", "calls": 2, "ok": 2, "credits": 1}), "and the look at them");
}

#[tokio::test]
async fn a_key_that_is_bound_to_other_apis_may_not_look() {
    let bound = |scope: &str| Bounds { scopes: Some(vec![scope.into()]), ..Bounds::default() };
    let app = App::new(&Setup { bounds: bound("totpgenerator"), ..Setup::default() });
    let answer = app.send("GET /v1/analytics\nX-API-Key: $key\n").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (403, "scope-not-allowed"));
    let app = App::new(&Setup { bounds: bound("analytics"), ..Setup::default() });
    assert_eq!(app.send("GET /v1/analytics\nX-API-Key: $key\n").await.status, 200);
    assert_eq!(app.send(OTP).await.header("x-error-code"), "scope-not-allowed");
}

#[tokio::test]
async fn a_view_is_a_part_of_the_whole() {
    let app = App::new(&Setup::default());
    app.send(OTP).await;
    let mut whole = analytics(&app).await;
    for view in ["summary", "daily", "apis"] {
        let answer = app.send(&format!("GET /v1/analytics?view={view}\nX-API-Key: $key\n")).await;
        let part = serde_json::from_slice::<Value>(&answer.body).unwrap()["data"].take();
        assert_eq!(part, whole[view].take(), "{view}");
    }
    for (query, code) in [
        ("view=", "invalid-view"),
        ("view=Daily", "invalid-view"),
        ("view=all", "invalid-view"),
        ("view=daily&view=apis", "duplicate-parameter"),
    ] {
        let answer = app.send(&format!("GET /v1/analytics?{query}\nX-API-Key: $key\n")).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (400, code), "{query}");
    }
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let app = App::new(&Setup { config: "apis: { analytics: { enabled: false } }".into(), ..Setup::default() });
    let answer = app.send("GET /v1/analytics\nX-API-Key: $key\n").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (404, "unknown-api"));
}
