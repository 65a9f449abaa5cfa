//! One connection, from the first byte to the last: encryption, version, and an answer to each request.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::Cache;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Version, header};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower_service::Service;
use warp::reply::Response;

use crate::config::Limits;
use crate::gateway::{Current, Gateway, Head, Refused};
use crate::pure::fault::Fault;

use super::bare::Dressed;
use super::frames::Calm;
use super::framing::Doubt;
use super::linger::Lingering;
use super::outgoing::Outgoing;
use super::progress::{Noted, Progress};
use super::stream::Stream;
use super::tls::{H2, Tls};
use super::{chain, claim, seal};

/// How connections are served, the same for all of them.
pub struct Server {
    /// What answers the calls that begin now.
    pub current: Arc<Current>,
    /// What connections are encrypted with, if they are.
    pub tls: Option<Arc<Tls>>,
}

impl Server {
    /// Serves one connection to its end. The other end's failures are its own: it hung up, was too slow, or spoke no HTTP.
    pub async fn serve(self: Arc<Server>, stream: TcpStream, peer: IpAddr, progress: Arc<Progress>) {
        let steps = move |gateway| {
            let mut calls = warp::service(chain(gateway, peer));
            move |head, body| calls.call(claim::lifted(head, body))
        };
        self.serve_by(stream, peer, progress, steps).await;
    }

    /// The same, with calls that take `steps` for as long as the gateway is the one that these were made for.
    pub async fn serve_by<S, C>(
        self: Arc<Server>,
        stream: TcpStream,
        peer: IpAddr,
        progress: Arc<Progress>,
        steps: impl Fn(Arc<Gateway>) -> S,
    ) where
        S: FnMut(Head, Incoming) -> C,
        C: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let Ok((stream, is_http2)) = self.open(stream, &progress).await else { return };
        let client = |gateway: Arc<Gateway>| Arc::new(Client { gateway, peer, progress: progress.clone() });
        let mut current = Cache::new(self.current.clone());
        let gateway = current.load().clone();
        let limits = gateway.config.limits.clone();
        let calls = steps(gateway.clone());
        let serving = RefCell::new((current, client(gateway), calls));
        let doubt = Doubt::default();
        let mark = doubt.clone();
        let service = move |request: Request<Incoming>| {
            let (head, body) = mark.mark(request).into_parts();
            let head = Head::new(head.into());
            let (current, mine, calls) = &mut *serving.borrow_mut();
            let gateway = current.load();
            if !Arc::ptr_eq(gateway, &mine.gateway) {
                // The configuration is another since the last request.
                *calls = steps(gateway.clone());
                *mine = client(gateway.clone());
            }
            // Large, and boxed before it is moved half a dozen times on its way to where it is polled.
            let call = Box::pin(calls(head.clone(), body));
            answer(mine.clone(), head, call)
        };
        let stream = Lingering::new(stream, progress.clone());
        if is_http2 {
            progress.speaks_http2();
            let stream = Noted::new(Calm::new(stream, limits.http2_idle_frames), progress.clone());
            drive(http2(&limits).serve_connection(TokioIo::new(stream), service_fn(service)), &progress).await;
        } else {
            let stream = Noted::new(stream, progress.clone());
            let stream = Dressed::new(stream, self.current.clone(), peer, doubt);
            drive(http1(&limits).serve_connection(TokioIo::new(stream), service_fn(service)), &progress).await;
        }
    }

    /// Shakes hands, if that is needed, and finds out whether HTTP/2 is spoken.
    ///
    /// hyper-util's `auto` builder finds that out too, but waits for ever for the client to say.
    async fn open(&self, stream: TcpStream, progress: &Progress) -> io::Result<(Stream, bool)> {
        stream.set_nodelay(true)?;
        if let Some(tls) = &self.tls {
            let stream = tls.accept(stream).await?;
            progress.connected();
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            return Ok((Stream::tls(stream), is_http2));
        }
        progress.connected();
        let mut stream = Stream::plain(stream);
        let may_be_http2 = self.current.load().config.http2_prior_knowledge;
        let is_http2 = may_be_http2 && stream.begins_with(PREFACE).await?;
        Ok((stream, is_http2))
    }
}

/// What hyper is told. It answers what is over its own limits without a body; ours are below, and answered in the caller's
/// format.
fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(limits.header_count + HEADROOM_LINES)
        .max_buf_size((limits.header_bytes + HEADROOM_BYTES).max(limits.body_bytes))
        .writev(false);
    builder
}

fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize)
        .max_header_list_size(u32::try_from(limits.header_bytes + HEADROOM_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(limits.http2_streams).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets)
        .max_local_error_reset_streams(limits.http2_resets)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// What the requests of a connection share while the configuration stays the same. It stays on one core, unlike what all connections share.
struct Client {
    gateway: Arc<Gateway>,
    peer: IpAddr,
    progress: Arc<Progress>,
}

/// Answers one request by `call`, unless there are too many at once or it fails to end.
async fn answer(
    client: Arc<Client>,
    head: Head,
    call: impl Future<Output = Result<Response, Infallible>> + Unpin,
) -> Result<http::Response<Outgoing<impl Body<Data = Bytes, Error = warp::Error> + Unpin>>, Infallible> {
    let Client { gateway, peer, progress } = &*client;
    let begun = progress.begin(gateway.config.limits.requests);
    // Looked at when this is dropped, after the call.
    let _unanswered = Unanswered { head: &head, progress };
    let refused = if begun.has_place { None } else { shed(gateway, &head, *peer) };
    let mut response = match refused {
        Some(response) => response,
        None => match within(gateway.config.limits.request_timeout, progress, call).await {
            Ok(response) => response,
            Err(fault) => refuse(gateway, &head, *peer, fault),
        },
    };
    if head.version == Version::HTTP_2 {
        if head.method == Method::HEAD {
            bare(&mut response);
        }
    } else if progress.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let patience = gateway.config.limits.answer_write_timeout;
    Ok(response.map(|body| Outgoing::new(body, begun, patience)))
}

/// What becomes of a call in the time it has. A panic is the caller's 500 and nobody else's trouble: what the call held goes
/// back when it is dropped.
async fn within(
    limit: Duration,
    progress: &Progress,
    call: impl Future<Output = Result<Response, Infallible>> + Unpin,
) -> Result<Response, Fault> {
    let mut call = AssertUnwindSafe(call).catch_unwind();
    let mut timer = pin!(None);
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = call.poll_unpin(context) {
            return Poll::Ready(Some(ended));
        }
        // Nearly all calls have ended before anybody looks how long they take: a timer is made only for the others.
        if timer.is_none() {
            let Some(lasts) = progress.lasts() else { return Poll::Pending };
            timer.set(Some(sleep(limit.saturating_sub(lasts))));
        }
        let over = timer.as_mut().as_pin_mut().map(|timer| timer.poll(context));
        if over.is_some_and(|over| over.is_ready()) { Poll::Ready(None) } else { Poll::Pending }
    });
    match ended.await {
        Some(Ok(Ok(response))) => Ok(response),
        Some(Ok(Err(never))) => match never {},
        Some(Err(_)) => Err(Fault::Internal),
        None => Err(Fault::Unavailable),
    }
}

/// The answer to a request beyond those that may be under way at once, if it would be a call. Documents and preflights cost
/// no more than this.
fn shed(gateway: &Arc<Gateway>, head: &Head, peer: IpAddr) -> Option<Response> {
    let call = claim::open(gateway, head.clone(), peer).ok()?;
    Some(seal::seal(Err(Refused { context: call.context, fault: Fault::Unavailable })))
}

/// The answer to a request whose call was given up because `fault` struck.
fn refuse(gateway: &Arc<Gateway>, head: &Head, peer: IpAddr, fault: Fault) -> Response {
    let sealed = panic::catch_unwind(AssertUnwindSafe(|| {
        let context = head.given_up().unwrap_or_else(|| match claim::open(gateway, head.clone(), peer) {
            Ok(call) => call.context,
            Err(refused) => refused.context,
        });
        seal::seal(Err(Refused { context, fault }))
    }));
    // What made the call panic may do so again.
    sealed.unwrap_or_else(|_| seal::last_resort(&head.headers))
}

/// Tells of a call that was given up because nobody is there any more to answer it to.
struct Unanswered<'a> {
    head: &'a Head,
    progress: &'a Progress,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(mut context) = self.head.given_up() {
            context.unanswered(if self.progress.is_cut_off() { "server-stopped" } else { "client-closed" });
        }
    }
}

/// Takes the body from the answer to HEAD, which over HTTP/2 hyper does not.
fn bare(response: &mut Response) {
    // Without one, nobody has said how long it would be.
    if let Some(bytes) = response.body().size_hint().exact().filter(|bytes| *bytes > 0) {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(bytes.into());
    }
    *response.body_mut() = Bytes::new().into();
}

/// Drives a connection to its end, and closes it when its progress says so. The other end's failures are its own.
async fn drive(connection: impl GracefulConnection, progress: &Progress) {
    let mut connection = pin!(connection);
    let has_ended = poll_fn(|context| {
        progress.wakes(context.waker());
        match connection.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if progress.is_closing() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    });
    if has_ended.await {
        return;
    }
    // A request that has arrived by now is answered: hyper closes what it believes to be idle without looking.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = yield_now() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// What HTTP/2 begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What may be under way to us on an HTTP/2 stream and on all streams of a connection before somebody reads it.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

const HEADROOM_LINES: usize = 100;
const HEADROOM_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
