//! A panic in a step of a call: the caller's 500, nobody else's trouble, and nothing charged.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use polygate::edge::http::connection::Server;
use polygate::edge::http::progress::Progress;
use polygate::edge::http::{body, claim, seal};
use polygate::gateway::{Current, Gateway, Head, admit, authenticate, commit, decode, encode, invoke, reserve};
use polygate::pure::key::KeyHash;
use polygate::state::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use warp::reply::Response;

use super::used;
use crate::sockets::Live;
use crate::support::{App, Setup};

const STEPS: [&str; 10] =
    ["claim", "authenticate", "admit", "body", "decode", "reserve", "invoke", "encode", "commit", "seal"];

/// Where the next calls panic: a place in [`STEPS`], or behind all of them.
type Panicking = Arc<AtomicUsize>;

/// The steps of the chain, one of which fails to do its work: it panics with what it was given in its hands.
async fn call(gateway: Arc<Gateway>, panicking: Panicking, head: Head, body: Incoming) -> Result<Response, Infallible> {
    let at = |step: &str| assert_ne!(STEPS.get(panicking.load(Ordering::SeqCst)), Some(&step), "on purpose");
    at("claim");
    let call = claim::open(&gateway, head, [192, 0, 2, 1].into());
    at("authenticate");
    let call = call.and_then(authenticate);
    at("admit");
    let call = call.and_then(admit);
    at("body");
    let call = body::read(call, BodyDataStream::new(body)).await;
    at("decode");
    let call = call.and_then(decode);
    at("reserve");
    let call = call.and_then(reserve);
    at("invoke");
    let call = match call {
        Ok(call) => invoke(call).await,
        Err(refused) => Err(refused),
    };
    at("encode");
    let call = match call {
        Ok(call) => encode(call).await,
        Err(refused) => Err(refused),
    };
    at("commit");
    let call = match call {
        Ok(call) => commit(call).await,
        Err(refused) => Err(refused),
    };
    at("seal");
    Ok(seal::seal(call))
}

/// Serves real connections with such calls, until told to stop.
async fn serve(gateway: Arc<Gateway>, panicking: Panicking, listener: TcpListener, stopped: oneshot::Receiver<()>) {
    let server = Arc::new(Server { current: Arc::new(Current::new(gateway.clone())), tls: None });
    let accept = async {
        let mut connections = JoinSet::new();
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let progress =
                Arc::new(Progress::new(gateway.load.connect(peer.ip(), &gateway.config.limits, &[]).unwrap()));
            let panicking = panicking.clone();
            let steps = move |gateway: Arc<Gateway>| {
                let panicking = panicking.clone();
                move |head, body| call(gateway.clone(), panicking.clone(), head, body)
            };
            connections.spawn(server.clone().serve_by(stream, peer.ip(), progress, steps));
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped => {}
    }
}

/// The head and body of the answer to a call over `version`, on a connection of its own.
async fn ask(address: SocketAddr, version: Version, key: &str) -> (http::response::Parts, Bytes) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let request = Request::post(format!("http://{address}/v1/totpgenerator"))
        .header("host", "t")
        .header("x-api-key", key)
        .header("x-request-id", "mine")
        .header("accept", "application/yaml")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(r#"{"secret":"JBSWY3DPEHPK3PXP"}"#)))
        .unwrap();
    let answer = if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let (head, body) = answer.unwrap().into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_panic_in_any_step_is_a_500_and_costs_nothing() {
    let config = "http2_prior_knowledge: true".into();
    let app = App::new(&Setup { config, plan: "mega".into(), ..Setup::default() });
    let panicking = Panicking::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(serve(app.gateway.clone(), panicking.clone(), listener, stopped));
    let credits = || {
        let entry = app.gateway.keyring.find(&KeyHash::of(app.key.as_bytes()).unwrap()).unwrap();
        let credits = entry.account.balance.credits(app.clock.unix_s());
        assert_eq!(credits.remaining + credits.used, credits.max, "what was set aside is back");
        credits.used
    };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (place, step) in STEPS.iter().enumerate() {
            let before = credits();
            panicking.store(place, Ordering::SeqCst);
            let (head, body) = ask(address, version, &app.key).await;
            assert_eq!((head.status.as_u16(), head.version), (500, version), "{step}");
            assert_eq!(head.headers["x-request-id"], "mine", "{step}");
            assert_eq!(head.headers["x-error-code"], "internal-error", "{step}");
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.starts_with("status: error\n") && !body.contains("on purpose"), "{step}: {body}");
            // What is behind the charge cannot take it back.
            assert_eq!(credits() - before, u64::from(*step == "seal"), "{step}");
            panicking.store(STEPS.len(), Ordering::SeqCst);
            assert_eq!(ask(address, version, &app.key).await.0.status, 200, "after {step}");
        }
    }
    assert_eq!(app.gateway.load.requests(), 0);
    drop(stop);
    serving.await.unwrap();
    // The ledger says the same.
    let used = credits();
    let app = app.restart();
    let entry = app.gateway.keyring.find(&KeyHash::of(app.key.as_bytes()).unwrap()).unwrap();
    assert_eq!((used, entry.account.balance.credits(app.clock.unix_s()).used), (22, 22));
}

/// How often the time can still be read. Then there is none, until this is set anew.
static READINGS: AtomicUsize = AtomicUsize::new(usize::MAX);

fn time() -> Duration {
    let left = READINGS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    assert!(left.is_ok(), "no time, on purpose");
    Duration::from_secs(1_765_924_235)
}

#[test]
fn a_panic_that_comes_back_with_each_attempt_is_a_500_too() {
    let config = "http2_prior_knowledge: true".into();
    let live = Live::new(&Setup { config, plan: "mega".into(), clock: Some(Clock::told(time)), ..Setup::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut statuses = Vec::new();
        while statuses.last() != Some(&200) {
            READINGS.store(statuses.len(), Ordering::SeqCst);
            let (head, body) = runtime.block_on(ask(live.address, version, &live.app.key));
            READINGS.store(usize::MAX, Ordering::SeqCst);
            assert_eq!(head.headers["x-request-id"], "mine");
            assert!(body.starts_with(b"{\"status\":\"error\"") || body.starts_with(b"status: "), "{body:?}");
            statuses.push(head.status.as_u16());
        }
        assert!(
            statuses.len() > 3 && statuses[..statuses.len() - 1].iter().all(|status| *status == 500),
            "{statuses:?}"
        );
    }
    drop(runtime);
    // The last reading of the time is behind the charge.
    assert_eq!(used(live), 4);
}
