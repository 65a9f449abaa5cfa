//! The private listener: metrics, health and administration, for those who run the server and for their systems.
//!
//! It has a thread of its own, so that it answers whatever the workers do, and reads only what is in memory. Each
//! connection is for one request and ends within seconds, so that none is in the way of others for long.

mod admin;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use crate::edge::reload::Asker;
use crate::gateway::{Current, Gateway};
use crate::state::background::{self, Background};

/// Connections open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request: the least that hyper knows.
const HEAD_BYTES_MAX: usize = 8_192;

/// What can be looked at and changed.
#[derive(Clone)]
pub struct Control {
    /// The gateway in force.
    pub current: Arc<Current>,
    /// What has the configuration read again.
    pub asker: Asker,
    /// What ends serving, as SIGTERM does.
    pub drain: Arc<Notify>,
}

/// Serves `listener` from a thread of its own, until the [`Background`] is dropped. Fails when the system refuses one.
pub fn watch(listener: TcpListener, control: Control) -> io::Result<Background> {
    listener.set_nonblocking(true)?;
    // It ends by itself only where the system has no more use for the listener; calls are served all the same.
    background::start("private", move || serve(listener, control))
}

async fn serve(listener: TcpListener, control: Control) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client has already gone: the listener itself is sound.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let control = control.clone();
        tokio::spawn(async move {
            let drains = AtomicBool::new(false);
            let service = service_fn(async |request: Request<Incoming>| {
                Ok::<_, Infallible>(answer(&control, &request.into_parts().0, &drains).await)
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
            let connection = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // The other end's failures are its own.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
            // Who has asked for it has the answer, which could not be sent any more afterwards.
            if drains.into_inner() {
                control.drain.notify_one();
            }
        });
    }
}

/// What is answered, and to which methods.
async fn answer(control: &Control, head: &Parts, drains: &AtomicBool) -> Page {
    let allow = match head.uri.path() {
        "/metrics" | "/healthz" | "/readyz" | "/apis" => "GET, HEAD",
        "/reload" | "/drain" => "POST",
        _ => {
            let error = "there are /metrics, /healthz, /readyz and /apis, and, for POST, /reload and /drain";
            return as_json(StatusCode::NOT_FOUND, &json!({ "error": error }));
        }
    };
    if allow.split(", ").all(|method| head.method != *method) {
        let error = format!("only {}", allow.replace(", ", " and "));
        let mut page = as_json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }));
        page.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        return page;
    }
    let gateway = control.current.load_full();
    match head.uri.path() {
        "/metrics" => metrics(&gateway),
        "/healthz" => as_json(StatusCode::OK, &json!({ "status": "ok" })),
        "/readyz" => ready(&gateway),
        _ if !admin::is_from_operator(head) => {
            let error = "not from a web page, and only under localhost or an IP address";
            as_json(StatusCode::FORBIDDEN, &json!({ "error": error }))
        }
        "/reload" => admin::reload(control).await,
        "/drain" => admin::drain(&gateway, drains),
        _ => admin::apis(&gateway),
    }
}

/// An answer.
type Page = Response<Full<Bytes>>;

fn page(status: StatusCode, content_type: &'static str, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = status;
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    page.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

fn as_json(status: StatusCode, body: &Value) -> Page {
    page(status, "application/json", body.to_string())
}

fn metrics(gateway: &Gateway) -> Page {
    let text = gateway.metrics.text(&gateway.meter.journal.figures(), &gateway.load, gateway.log.dropped());
    page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// Whether calls are welcome, and if not, what is wrong with what.
fn ready(gateway: &Gateway) -> Page {
    let wrong = gateway.meter.health.wrong(&gateway.clock);
    if wrong.is_empty() {
        return as_json(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let wrong: Map<_, _> = wrong.into_iter().map(|it| (it.what.to_owned(), it.how.into())).collect();
    as_json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not ready", "wrong": wrong }))
}
