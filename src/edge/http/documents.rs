//! The documents that describe the API: the OpenAPI description, in YAML and JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::gateway::{Gateway, Head, Refused};
use crate::pure::description::Description;
use crate::pure::fault::Fault;
use crate::pure::log_line;

use super::{claim, seal};

/// What documents answer to.
pub const METHODS: &str = "GET, HEAD, OPTIONS";

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
                seal::plain(&mut context, StatusCode::OK, &lines, body(&gateway.catalog.description).clone())
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

type Document = (&'static str, fn(&Description) -> &Bytes);

fn find(path: &str) -> Option<Document> {
    match path.strip_suffix('/').unwrap_or(path) {
        "/openapi.yaml" => Some(("application/yaml", |whole| &whole.yaml)),
        "/openapi.json" => Some(("application/json", |whole| &whole.json)),
        _ => None,
    }
}
