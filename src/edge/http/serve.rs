//! The accept loop: connections in, the chain inside, a graceful end.
//!
//! `warp::serve` has neither timeouts nor a cap on connections, so the loop is ours and the chain is warp's. One thread
//! accepts and deals connections out in turn to workers, each a thread with a runtime of its own: a call stays on one
//! core from its first byte to its last, and the cores share the connections evenly.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tower_service::Service;

use crate::config::Limits;
use crate::gateway::Gateway;

use super::bare::Dressed;
use super::framing::Doubt;
use super::{chain, claim};

/// Serves `listener` until `shutdown` resolves, then lets calls under way finish within `limits.drain_timeout`.
///
/// Blocks the calling thread. Fails when a thread or a runtime cannot be made.
pub fn serve(gateway: Arc<Gateway>, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let count = thread::available_parallelism().map_or(1, usize::from);
    let mut workers = Vec::with_capacity(count);
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let gateway = gateway.clone();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(work(gateway, receiver)))?;
        workers.push((sender, thread));
    }
    let senders: Vec<_> = workers.iter().map(|(sender, _)| sender.clone()).collect();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = accept(listener, &gateway.config.limits, senders) => result,
            () = shutdown => Ok(()),
        }
    })?;
    let (senders, threads): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    drop(senders);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a worker thread panicked"))?;
    }
    Ok(())
}

/// A connection, and its place among those that may be open at once.
type Accepted = (std::net::TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(
    listener: TcpListener,
    limits: &Limits,
    workers: Vec<mpsc::UnboundedSender<Accepted>>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(limits.connections));
    for worker in workers.iter().cycle() {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                // Out of descriptors, or the client has already gone: the listener itself is sound.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        if worker.send((stream.into_std()?, peer, place)).is_err() {
            return Err(io::Error::other("a worker thread ended early"));
        }
    }
    Ok(())
}

async fn work(gateway: Arc<Gateway>, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
    let graceful = GracefulShutdown::new();
    while let Some((stream, peer, place)) = accepted.recv().await {
        let Ok(stream) = stream.set_nodelay(true).and_then(|()| TcpStream::from_std(stream)) else { continue };
        let connection = connection(gateway.clone(), stream, peer, &graceful);
        tokio::spawn(async move {
            // The other end's failures are its own: it hung up, was too slow, or spoke no HTTP.
            let _ = connection.await;
            drop(place);
        });
    }
    let _ = timeout(gateway.config.limits.drain_timeout, graceful.shutdown()).await;
}

fn connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    graceful: &GracefulShutdown,
) -> impl Future<Output = hyper::Result<()>> + use<> {
    let limits = &gateway.config.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        // hyper answers what is over its own limits without a body. Ours are below, and answered in the caller's format.
        .max_headers(limits.header_count + HEADROOM_LINES)
        .max_buf_size((limits.header_bytes + HEADROOM_BYTES).max(limits.body_bytes))
        .writev(false);
    let calls = RefCell::new(warp::service(chain(gateway.clone(), peer.ip())));
    let doubt = Doubt::default();
    let stream = Dressed::new(stream, gateway, peer.ip(), doubt.clone());
    let service =
        service_fn(move |request: Request<Incoming>| calls.borrow_mut().call(claim::lift(doubt.mark(request))));
    graceful.watch(builder.serve_connection(TokioIo::new(stream), service))
}

const HEADROOM_LINES: usize = 100;
const HEADROOM_BYTES: usize = 64 * 1024;
