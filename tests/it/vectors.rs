//! All vectors of `fixtures/totp/` through the whole program, on both routes, in every way they can be sent.

use serde_json::{Value, json};

use crate::support::{App, Setup};

struct Vector {
    secret: String,
    algorithm: String,
    digits: u64,
    period: u64,
    time: u64,
    token: String,
}

fn vectors() -> Vec<Vector> {
    let rows: Value = serde_json::from_str(include_str!("../../fixtures/totp/vectors.json")).unwrap();
    let matrix: Value = serde_json::from_str(include_str!("../../fixtures/totp/seed_matrix_full.json")).unwrap();
    let (rows, matrix) = (rows.as_array().unwrap(), matrix["rows"].as_array().unwrap());
    assert_eq!((rows.len(), matrix.len()), (240, 432));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let named = rows.iter().map(|row| Vector {
        secret: text(&row["secret"]),
        algorithm: text(&row["algorithm"]),
        digits: row["digits"].as_u64().unwrap(),
        period: row["period"].as_u64().unwrap(),
        time: row["time"].as_u64().unwrap(),
        token: text(&row["token"]),
    });
    let numbered = matrix.iter().map(|row| Vector {
        secret: text(&row[0]),
        algorithm: text(&row[1]),
        digits: row[2].as_u64().unwrap(),
        period: row[3].as_u64().unwrap(),
        time: row[4].as_u64().unwrap(),
        token: text(&row[5]),
    });
    let mut all: Vec<_> = named.chain(numbered).collect();
    all.sort_by_key(|vector| vector.time);
    all
}

impl Vector {
    /// The request in every way that `path` reads: by query, JSON and form, and by multipart on the enveloped route.
    fn requests(&self, path: &str) -> Vec<String> {
        let Vector { secret, algorithm, digits, period, .. } = self;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("secret", secret)
            .append_pair("algorithm", algorithm)
            .append_pair("digits", &digits.to_string())
            .append_pair("period", &period.to_string())
            .finish();
        let json = json!({ "secret": secret, "algorithm": algorithm, "digits": digits, "period": period });
        let post = |kind: &str, body: &str| format!("POST {path}\nX-API-Key: $key\nContent-Type: {kind}\n\n{body}");
        let mut requests = vec![
            format!("GET {path}?{form}\nX-API-Key: $key\n"),
            post("application/json", &json.to_string()),
            post("application/x-www-form-urlencoded", &form),
        ];
        if path == ENVELOPED {
            let part = |(name, value)| format!("--cut\nContent-Disposition: form-data; name=\"{name}\"\n\n{value}\n");
            let parts: String = form_urlencoded::parse(form.as_bytes()).map(part).collect();
            requests.push(post("multipart/form-data; boundary=cut", &format!("{parts}--cut--\n")));
        }
        requests
    }
}

const ENVELOPED: &str = "/v1/totpgenerator";
const FLAT: &str = "/v1/api/key2otp";

fn app_at(now_unix_s: u64) -> App {
    let open = "open: { requests_a_minute: 1000000 }";
    App::new(&Setup { now_unix_s, plan: "mega".into(), config: open.into(), ..Setup::default() })
}

#[tokio::test]
async fn every_vector_on_both_routes_in_every_medium() {
    let vectors = vectors();
    let mut answered = 0;
    let mut now: Option<(u64, App)> = None;
    for vector in &vectors {
        // One application for each moment.
        let (_, app) = match now.take().filter(|(time, _)| *time == vector.time) {
            Some(same) => now.insert(same),
            None => now.insert((vector.time, app_at(vector.time))),
        };
        for path in [ENVELOPED, FLAT] {
            for request in vector.requests(path) {
                let answer = app.send(&request).await;
                let body: Value = serde_json::from_slice(&answer.body).unwrap();
                let (otp, remaining) = match path {
                    ENVELOPED => (&body["data"]["token"], body["data"]["timeRemaining"].as_u64()),
                    _ => (&body["otp"], None),
                };
                assert_eq!((answer.status, otp), (200, &json!(vector.token)), "{request}");
                assert!(remaining.is_none_or(|left| left == vector.period - vector.time % vector.period), "{request}");
                answered += 1;
            }
        }
    }
    assert_eq!(answered, vectors.len() * 7);
}
