//! The floor: the least that any server on hyper does for a POST. `floor ADDRESS:PORT` reads each body to its end and
//! answers the same 131 bytes.

use std::error::Error;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Request, Response};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: floor ADDRESS:PORT")?.parse()?;
    let mut protocol = http1::Builder::new();
    protocol.writev(false);
    match polygate_bench::serve(address, protocol, answer)? {}
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    // A body that breaks off breaks the connection, too: hyper sees to that.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

const ANSWER: &[u8] = br#"{"status":"ok","error":null,"data":{"token":"935324","digits":6,"period":30,"timeRemaining":25,"expiresAt":"2025-12-16T22:31:00Z"}}"#;
