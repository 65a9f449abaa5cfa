//! How long a call takes without sockets: the whole chain as warp runs it, and the parts of it that have a figure of
//! their own, the choice of a format and the password.

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use http_body_util::Full;
use polygate::config::{Config, Logs};
use polygate::edge::http::chain;
use polygate::edge::http::claim::lift;
use polygate::gateway::Gateway;
use polygate::pure::accept::choose;
use polygate::pure::bounds::Bounds;
use polygate::pure::format::Format;
use polygate::pure::key::ApiKey;
use polygate::pure::log_line::{CallLine, Level, LogFormat};
use polygate::pure::secret::Secret;
use polygate::pure::totp::{Algorithm, Token};
use polygate::state::clock::Clock;
use polygate::state::log::Log;
use polygate::state::metrics::Metrics;
use polygate::state::store::{NewKey, Store};
use ring::rand::SystemRandom;
use tower_service::Service;

#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

criterion_group!(benches, whole_chain, chooser, totp, observing);
criterion_main!(benches);

/// A plan with a rate, so that every answer has all headers of the contract.
const CONFIG: &str = "
default_plan: bench
plans:
  bench: { credits_a_month: 1000000000000, requests_a_minute: 1000000 }
";

/// Used in turn: a single key would run into its limit within seconds.
const KEYS: usize = 64;

fn whole_chain(criterion: &mut Criterion) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let (gateway, keys) = gateway(data.path()).expect("a gateway");
    let mut keys = keys.iter().cycle();
    let mut group = criterion.benchmark_group("chain");
    for (name, accept) in
        [("json", "application/json"), ("xml", "application/xml"), ("yaml", "application/yaml"), ("csv", "text/csv")]
    {
        let mut service = warp::service(chain(gateway.clone(), [127, 0, 0, 1].into()));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut taken = Duration::ZERO;
                for start in (0..count).step_by(READY) {
                    let ready = (count - start).min(READY as u64);
                    let requests: Vec<_> = (0..ready).map(|_| request(keys.next().expect("a key"), accept)).collect();
                    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
                    let started = Instant::now();
                    let mut calls: Vec<_> =
                        requests.into_iter().map(|request| Box::pin(service.call(lift(request)))).collect();
                    while !calls.is_empty() {
                        calls.retain_mut(|call| match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                            Poll::Ready(answer) => {
                                assert_eq!(black_box(answer).expect("an answer").status(), 200);
                                false
                            }
                            Poll::Pending => true,
                        });
                    }
                    taken += started.elapsed();
                }
                taken
            });
        });
    }
}

/// How many calls are ready at the same moment, as under load; they are written down together.
const READY: usize = 32;

/// The seed's request, as hyper hands it over.
fn request(key: &str, accept: &str) -> Request<Full<Bytes>> {
    Request::post("/v1/totpgenerator")
        .header("host", "127.0.0.1")
        .header("x-api-key", key)
        .header("content-type", "application/json")
        .header("accept", accept)
        .header("content-length", BODY.len())
        .body(Full::new(Bytes::from_static(BODY)))
        .expect("a request")
}

const BODY: &[u8] = br#"{"secret":"JBSWY3DPEHPK3PXP","digits":6,"period":30}"#;

fn gateway(data: &std::path::Path) -> Result<(Arc<Gateway>, Vec<String>), Box<dyn Error>> {
    let file = data.join("polygate.yaml");
    std::fs::write(&file, CONFIG)?;
    let config = Config::load(Some(&file), std::iter::empty())?;
    let clock = Clock::system();
    let mut store = Store::open(data)?;
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        let key = ApiKey::generate(&SystemRandom::new()).map_err(|_| "no randomness")?;
        let new = NewKey { key: &key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None };
        store.create_key("bench@example.com", &config.default_plan, &new, clock.unix_s())?;
        keys.push(key.as_str().to_owned());
    }
    let config = Config { data: data.to_owned(), ..config };
    // The ledger is not folded here: what that costs is measured by itself.
    let (gateway, _) = polygate::open(config, clock, Arc::new(|message| panic!("{message}")), Log::off())?;
    Ok((gateway, keys))
}

fn chooser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("accept");
    for (name, line) in [
        ("one type", "application/xml"),
        ("anything", "*/*"),
        ("a browser", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| choose(std::iter::once(black_box(line.as_bytes())))));
    }
}

/// What writing a call down costs, and counting it.
fn observing(criterion: &mut Criterion) {
    let call = CallLine {
        unix_ms: 1_765_924_235_007,
        request_id: "7f1c2e0a-4b1d-4c55-9d3e-2f6a1b0c9d8e",
        trace_id: None,
        method: "POST",
        route: "totpgenerator",
        status: 200,
        code: None,
        format: Some("json"),
        account: Some(1),
        key: Some("pg-IYZ8lJ"),
        request_bytes: 53,
        response_bytes: 131,
        elapsed_us: 12,
    };
    let mut group = criterion.benchmark_group("observing");
    for format in [LogFormat::Human, LogFormat::Json] {
        let logs = Logs { format, level: Level::Info };
        let (log, _writer) = Log::start(logs, Clock::system(), std::io::sink()).expect("a thread");
        group.bench_function(format!("line {format:?}"), |bencher| bencher.iter(|| log.call(black_box(&call))));
    }
    let metrics = Metrics::new(0).route("totpgenerator");
    group.bench_function("metrics", |bencher| {
        bencher.iter(|| metrics.call(black_box(200), Some(Format::Json), Duration::from_micros(12)));
    });
    let clock = Clock::system();
    group.bench_function("clock", |bencher| bencher.iter(|| clock.monotonic()));
}

fn totp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("totp");
    let secret = Secret::parse("JBSWY3DPEHPK3PXP").expect("the seed's secret");
    group.bench_function("secret", |bencher| bencher.iter(|| Secret::parse(black_box("JBSWY3DPEHPK3PXP"))));
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512] {
        group.bench_function(algorithm.name(), |bencher| {
            bencher.iter(|| Token::at_counter(black_box(&secret), algorithm, 6, black_box(58_864_141)));
        });
    }
}
