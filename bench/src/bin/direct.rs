//! The product's steps without warp: `direct ADDRESS:PORT CONFIG DATA`. Each step is the product's own function, in
//! the product's order, with its connection settings; what is missing is what warp adds to them.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use http_body_util::BodyDataStream;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use polygate::config::Config;
use polygate::edge::http::{body, claim, seal};
use polygate::gateway::{Gateway, Head, admit, authenticate, commit, decode, encode, invoke, reserve};
use polygate::state::clock::Clock;
use polygate::state::events;
use polygate::state::folder;
use polygate::state::log::Log;

fn main() -> Result<(), Box<dyn Error>> {
    let [address, config, data] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: direct ADDRESS:PORT CONFIG DATA")?;
    let config = Config::load(Some(Path::new(&config)), std::iter::empty())?;
    let limits = config.limits.clone();
    let config = Config { data: data.into(), ..config };
    let (log, _writer) = Log::start(config.logs, Clock::system(), std::io::stderr())?;
    let (gateway, folder) = polygate::open(config, Clock::system(), events::report(), log)?;
    let _folding = folder::watch(folder)?;
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.header_read_timeout).writev(false);
    match polygate_bench::serve(address.parse()?, protocol, move |request| answer(gateway.clone(), request))? {}
}

async fn answer(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
) -> Response<impl Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>> {
    let (head, stream) = request.into_parts();
    let peer = [127, 0, 0, 1].into();
    let admitted = claim::open(&gateway, Head::new(head.into()), peer).and_then(authenticate).and_then(admit);
    let received = body::read(admitted, BodyDataStream::new(stream)).await;
    let answered = match received.and_then(decode).and_then(reserve) {
        Ok(call) => invoke(call).await,
        Err(refused) => Err(refused),
    };
    let encoded = match answered {
        Ok(call) => encode(call).await,
        Err(refused) => Err(refused),
    };
    let committed = match encoded {
        Ok(call) => commit(call).await,
        Err(refused) => Err(refused),
    };
    seal::seal(committed)
}
