//! The floor: the least that any server on hyper does for a POST. Reads the body, answers the same 131 bytes.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use polygate_bench::{arguments, run, serve};

const ANSWER: &str = r#"{"status":"ok","error":null,"data":{"token":"935324","digits":6,"period":30,"timeRemaining":25,"expiresAt":"2025-12-16T22:31:00Z"}}"#;

fn main() {
    let (address, workers) = arguments();
    run(workers, serve(address, answer));
}

async fn answer(request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
