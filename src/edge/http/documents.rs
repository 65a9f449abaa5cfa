//! The documents that describe the API: the OpenAPI description, in YAML and JSON.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::gateway::{Gateway, Head, Refused};
use crate::pure::fault::Fault;
use crate::pure::log_line;

use super::{claim, seal};

/// The OpenAPI description, as kept at the top of the repository.
pub const OPENAPI_YAML: &str = include_str!("../../../openapi.yaml");

/// What documents answer to.
pub const METHODS: &str = "GET, HEAD, OPTIONS";

static OPENAPI_JSON: LazyLock<Bytes> = LazyLock::new(|| {
    // As YAML keeps it, in the order of the file.
    let document: serde_yaml::Value = serde_yaml::from_str(OPENAPI_YAML).expect("openapi.yaml is checked by the tests");
    Bytes::from(serde_json::to_vec(&document).expect("openapi.yaml is checked by the tests"))
});

/// Whether a document lives at `path`.
pub fn is_one(path: &str) -> bool {
    find(path).is_some()
}

/// Answers for the documents.
pub fn serve(
    gateway: Arc<Gateway>,
    peer: std::net::IpAddr,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    claim::head().and_then(move |head: Head| {
        let answer = find(head.uri.path()).map(|(content_type, body)| {
            let mut context = claim::context(&gateway, &head.headers, peer);
            context.method = log_line::method(head.method.as_str());
            context.reached = gateway.catalog.documents.clone();
            if let Some(fault) = claim::flaw(&gateway, &head) {
                seal::seal(Err(Refused { context, fault }))
            } else if matches!(head.method, Method::GET | Method::HEAD) {
                let lines = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
                seal::plain(&mut context, StatusCode::OK, &lines, body())
            } else {
                seal::seal(Err(Refused { context, fault: Fault::MethodNotAllowed(METHODS.into()) }))
            }
        });
        std::future::ready(answer.ok_or_else(warp::reject))
    })
}

/// Every path and method, with the statuses that it can answer.
pub fn operations() -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> {
    ["/openapi.yaml", "/openapi.json"].into_iter().flat_map(|path| {
        [
            (path, "GET", vec![200, 400, 405, 431]),
            (path, "HEAD", vec![200, 400, 405, 431]),
            (path, "OPTIONS", vec![204, 400, 431]),
        ]
    })
}

type Document = (&'static str, fn() -> Bytes);

fn find(path: &str) -> Option<Document> {
    match path.strip_suffix('/').unwrap_or(path) {
        "/openapi.yaml" => Some(("application/yaml", || Bytes::from_static(OPENAPI_YAML.as_bytes()))),
        "/openapi.json" => Some(("application/json", || OPENAPI_JSON.clone())),
        _ => None,
    }
}
