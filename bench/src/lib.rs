//! What the programs of the benchmark share: the sockets, the runtime and the connection loop of the product's server,
//! so that two programs differ only in what they do with a request.

use std::future::Future;
use std::net::SocketAddr;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs `future` on the multi-thread runtime with that many workers.
pub fn run<F: Future>(workers: usize, future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.expect("the runtime starts").block_on(future)
}

/// Accepts connections for ever and answers each request with `answer`, over HTTP/1.1.
pub async fn serve<A, F>(address: SocketAddr, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let listener = TcpListener::bind(address).await.expect("the address is free");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answering.await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The command line that every server here takes: `ADDRESS WORKERS`.
pub fn arguments() -> (SocketAddr, usize) {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().and_then(|text| text.parse().ok());
    let workers = arguments.next().and_then(|text| text.parse().ok());
    match (address, workers) {
        (Some(address), Some(workers)) => (address, workers),
        _ => panic!("usage: SERVER ADDRESS:PORT WORKERS"),
    }
}
