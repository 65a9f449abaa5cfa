//! The private listener: metrics and health, for those who run the server and for their systems.
//!
//! It has a thread of its own, so that it answers whatever the workers do, and reads only what is in memory. Each
//! connection is for one request and ends within seconds, so that none is in the way of others for long.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::gateway::Gateway;
use crate::state::background::{self, Background};

/// Connections open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request: the least that hyper knows.
const HEAD_BYTES_MAX: usize = 8_192;

/// Serves `listener` from a thread of its own, until the [`Background`] is dropped. Fails when the system refuses one.
pub fn watch(listener: TcpListener, gateway: Arc<Gateway>) -> io::Result<Background> {
    listener.set_nonblocking(true)?;
    // It ends by itself only where the system has no more use for the listener; calls are served all the same.
    background::start("private", move || serve(listener, gateway))
}

async fn serve(listener: TcpListener, gateway: Arc<Gateway>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client has already gone: the listener itself is sound.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(answer(&gateway, request.method(), request.uri().path())))
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
            let connection = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // The other end's failures are its own.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn answer(gateway: &Gateway, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let page: Option<fn(&Gateway) -> Page> = match path {
        "/metrics" => Some(metrics),
        "/healthz" => Some(|_| (StatusCode::OK, JSON, r#"{"status":"ok"}"#.to_owned())),
        "/readyz" => Some(ready),
        _ => None,
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let (status, content_type, body) = match page {
        None => (StatusCode::NOT_FOUND, JSON, r#"{"error":"there are /metrics, /healthz and /readyz"}"#.to_owned()),
        Some(_) if !reads => (StatusCode::METHOD_NOT_ALLOWED, JSON, r#"{"error":"only GET and HEAD"}"#.to_owned()),
        Some(page) => page(gateway),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Status, content type and body.
type Page = (StatusCode, &'static str, String);

const JSON: &str = "application/json";

fn metrics(gateway: &Gateway) -> Page {
    let text = gateway.metrics.text(&gateway.meter.journal.figures(), &gateway.load, gateway.log.dropped());
    (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// Whether calls are welcome, and if not, what is wrong with what.
fn ready(gateway: &Gateway) -> Page {
    let wrong = gateway.meter.health.wrong(&gateway.clock);
    if wrong.is_empty() {
        return (StatusCode::OK, JSON, r#"{"status":"ready"}"#.to_owned());
    }
    let wrong: serde_json::Map<_, _> = wrong.into_iter().map(|it| (it.what.to_owned(), it.how.into())).collect();
    (StatusCode::SERVICE_UNAVAILABLE, JSON, serde_json::json!({ "status": "not ready", "wrong": wrong }).to_string())
}
