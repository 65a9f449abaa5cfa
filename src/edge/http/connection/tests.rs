//! Calls that end in time, too late or in a panic, and connections that close between two.

use std::io::{Read, Write};
use std::sync::mpsc;

use ring::rand::SystemRandom;
use serde_json::Value;

use super::*;
use crate::config::{Config, Logs};
use crate::gateway;
use crate::pure::bounds::Bounds;
use crate::pure::key::ApiKey;
use crate::pure::log_line::{Level, LogFormat};
use crate::state::clock::Clock;
use crate::state::log::Log;
use crate::state::report::Report;
use crate::state::store::{NewKey, Store};

/// What is left of a call that came as far as to know its caller, and then became this.
struct Given {
    /// What was answered, with its id; `None` if nobody waited for it.
    answer: Option<(u16, String)>,
    /// The log.
    lines: Vec<Value>,
    metrics: String,
    /// Calls that count as failures of ours, of the account.
    server_errors: u64,
}

/// Sends the log on.
struct Sink(mpsc::Sender<Vec<u8>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers a call that goes on with `rest` after its caller is known, which is polled so often at most.
fn given(rest: impl Future<Output = ()>, cut_off: bool, polls: usize) -> Given {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config { data: data.path().to_owned(), ..Config::default() };
    config.limits.request_timeout = Duration::from_millis(1);
    let (mut store, random) = (Store::open(data.path()).unwrap(), SystemRandom::new());
    let key = ApiKey::generate(&random).unwrap();
    let new = NewKey { key: &key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None };
    store.create_key("a@example.org", &config.default_plan, &new, 0).unwrap();
    let (sender, lines) = mpsc::channel();
    let clock = Clock::fixed(1_765_924_235);
    let logs = Logs { format: LogFormat::Json, level: Level::Info };
    let (log, writer) = Log::start(logs, clock.clone(), Sink(sender)).unwrap();
    let report: Report = Arc::new(|message| panic!("{message}"));
    let (gateway, folder) = crate::open(config, clock, report, log).unwrap();

    let peer = IpAddr::from([192, 0, 2, 1]);
    let progress = Arc::new(Progress::new(gateway.load.connect(peer, &gateway.config.limits, &[]).unwrap()));
    let request = Request::get("/v1/totpgenerator").header("host", "t").header("x-api-key", key.as_str());
    let head = Head::new(request.body(()).unwrap().into_parts().0.into());
    let client = Arc::new(Client { gateway: gateway.clone(), peer, progress: progress.clone() });
    let call = {
        let (gateway, head) = (gateway.clone(), head.clone());
        Box::pin(async move {
            let known = claim::open(&gateway, head, peer).and_then(gateway::authenticate);
            rest.await;
            drop(known);
            unreachable!("none of these calls comes to its end")
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = runtime.block_on(async {
        let mut answer = Box::pin(answer(client, head, call));
        let mut polled = 0;
        poll_fn(|context| {
            polled += 1;
            match answer.as_mut().poll(context) {
                Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
                Poll::Ready(Err(never)) => match never {},
                Poll::Pending if polled == polls => {
                    if cut_off {
                        progress.cut_off();
                    }
                    Poll::Ready(None)
                }
                Poll::Pending => {
                    progress.wakes(context.waker());
                    while progress.lasts().is_none() {
                        progress.sweep(&gateway.config.limits);
                    }
                    Poll::Pending
                }
            }
        })
        .await
    });
    let id = |response: &http::Response<_>| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let answer = answer.map(|response| (response.status().as_u16(), id(&response)));
    let metrics = gateway.metrics.text(&gateway.meter.journal.figures(), &gateway.load, 0);
    let server_errors = gateway.meter.tally.take().iter().map(|(_, counts)| counts.server_error).sum();
    drop((gateway, folder, writer));
    let lines = lines.iter().flatten().collect::<Vec<u8>>();
    let lines = lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap());
    Given { answer, lines: lines.collect(), metrics, server_errors }
}

#[test]
fn a_call_that_is_given_up_is_seen_with_its_caller() {
    let panics = async { panic!("on purpose") };
    let cases = [
        (given(panics, false, 1), 500, "internal-error", 1),
        (given(std::future::pending(), false, 100), 503, "unavailable", 1),
        (given(std::future::pending(), false, 1), 499, "client-closed", 0),
        (given(std::future::pending(), true, 1), 499, "server-stopped", 0),
    ];
    for (Given { answer, lines, metrics, server_errors }, status, code, failures) in cases {
        let [line] = &*lines else { panic!("{code}: {lines:?}") };
        assert_eq!((&line["status"], &line["code"], &line["account"]), (&status.into(), &code.into(), &1.into()));
        assert!(line["key"].as_str().is_some_and(|key| key.starts_with("pg-")), "{line}");
        if status == 499 {
            assert!(answer.is_none() && line.get("format").is_none(), "{line}");
        } else {
            assert_eq!(answer, Some((status, line["request_id"].as_str().unwrap().to_owned())));
        }
        let format = if status == 499 { "none" } else { "json" };
        let labels = format!("route=\"totpgenerator\",status=\"{status}\",format=\"{format}\"");
        assert!(metrics.contains(&format!("polygate_requests_total{{{labels}}} 1\n")), "{metrics}");
        assert_eq!(server_errors, failures, "{code}");
    }
}

fn new_progress() -> Arc<Progress> {
    let load = Arc::<crate::state::load::Load>::default();
    let place = load.connect([127, 0, 0, 1].into(), &Config::default().limits, &[]).unwrap();
    Arc::new(Progress::new(place))
}

fn ended(limit_ms: u64, call: impl Future<Output = Result<Response, Infallible>>) -> Result<u16, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let progress = new_progress();
    let _begun = progress.begin(1);
    while progress.lasts().is_none() {
        progress.sweep(&Config::default().limits);
    }
    runtime
        .block_on(within(Duration::from_millis(limit_ms), &progress, Box::pin(call)))
        .map(|response| response.status().as_u16())
}

#[test]
fn a_panic_is_an_internal_error() {
    assert_eq!(ended(10_000, async { panic!("on purpose") }), Err(Fault::Internal));
    let later = async {
        tokio::task::yield_now().await;
        panic!("on purpose")
    };
    assert_eq!(ended(10_000, later), Err(Fault::Internal));
}

#[test]
fn a_call_that_waits_is_not_asked_again_before_it_is_woken() {
    let mut asked = 0;
    let call = poll_fn(|context| {
        asked += 1;
        context.waker().wake_by_ref();
        if asked == 1 { Poll::Pending } else { Poll::Ready(Ok(Response::default())) }
    });
    let progress = new_progress();
    let mut within = pin!(within(Duration::from_secs(10), &progress, call));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(poll_fn(|context| {
        assert!(within.as_mut().poll(context).is_pending(), "once is enough");
        Poll::Ready(())
    }));
}

#[test]
fn a_call_that_nobody_has_seen_waiting_for_long_needs_no_timer() {
    let call = Box::pin(async {
        tokio::task::yield_now().await;
        Ok(Response::default())
    });
    // Has no timers: to make one panics.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ended = runtime.block_on(within(Duration::from_secs(10), &new_progress(), call));
    assert_eq!(ended.map(|response| response.status().as_u16()), Ok(200));
}

#[test]
fn a_request_that_has_arrived_when_an_idle_connection_is_to_close_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let limits = Config::default().limits;
    let progress = new_progress();
    runtime.block_on(async {
        progress.connected();
        let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::default()) });
        let stream = Noted::new(TcpStream::from_std(stream).unwrap(), progress.clone());
        let mut driven = pin!(drive(http1(&limits).serve_connection(TokioIo::new(stream), service), &progress));
        let is_idle = poll_fn(|context| Poll::Ready(driven.as_mut().poll(context).is_pending())).await;
        assert!(is_idle);
        // The runtime has no turn to hear of it before the connection is told to close.
        client.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        progress.close_if_idle();
        driven.await;
    });
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn a_call_that_does_not_end_is_given_up() {
    assert_eq!(ended(1, std::future::pending()), Err(Fault::Unavailable));
    assert_eq!(ended(10_000, async { Ok(Response::default()) }), Ok(200));
}
