//! The API behind the gateways: `upstream ADDRESS:PORT` answers fixed JSON by the last part of the path: `small`, an
//! object of 131 bytes; `large` and `huge`, arrays of such objects, 10 KB and 10 MB. Below `/v1/files` they are given as
//! text. A request that still has its API key is answered 400: a gateway keeps the keys of its callers to itself.

use std::collections::HashMap;
use std::error::Error;
use std::future::ready;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Response, StatusCode};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: upstream ADDRESS:PORT")?.parse()?;
    let bodies: Arc<HashMap<&str, Bytes>> = Arc::new(HashMap::from([
        ("small", Bytes::from_static(SMALL.as_bytes())),
        ("large", quotes(10_000).into()),
        ("huge", quotes(10_000_000).into()),
    ]));
    match polygate_bench::serve(address, http1::Builder::new(), move |request| {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or_default();
        let content_type = if path.starts_with("/v1/files/") { "text/plain" } else { "application/json" };
        let (status, body) = match bodies.get(name) {
            _ if request.headers().contains_key("x-api-key") => (StatusCode::BAD_REQUEST, Bytes::new()),
            Some(body) => (StatusCode::OK, body.clone()),
            None => (StatusCode::NOT_FOUND, Bytes::new()),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        ready(response)
    })? {}
}

/// An array of at least so many bytes. Every quote differs, and some need escaping or quoting in XML, YAML or CSV.
fn quotes(least_bytes: usize) -> String {
    const COMPANIES: [&str; 4] = ["Harbour & Sons, Ltd.", "Nordlicht AG", r#"The \"Blue\" Lamp"#, "Société Générale"];
    let mut array = String::from("[");
    let mut number = 0;
    while array.len() < least_bytes {
        let (comma, company) = (if number == 0 { "" } else { "," }, COMPANIES[number % 4]);
        let (whole, cents, halted) = (10 + number * 7 % 990, number * 37 % 100, number % 16 == 0);
        array += &format!(
            r#"{comma}{{"symbol":"Q{number:06}","company":"{company}","price":{whole}.{cents:02},"change":-0.{cents:02}"#
        );
        array += &format!(r#","volume":{},"halted":{halted},"at":"2026-01-02T15:04:05Z"}}"#, number * 7919);
        number += 1;
    }
    array + "]"
}

const SMALL: &str = r#"{"symbol":"PLYG","company":"Polygate Ltd","price":187.20,"change":-0.42,"volume":123456,"halted":false,"at":"2026-01-02T15:04:05Z"}"#;
const _: () = assert!(SMALL.len() == 131);
