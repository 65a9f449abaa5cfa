//! What only real sockets show: many connections at once, slow clients, what hyper does on its own, and the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use polygate::config::Config;
use polygate::edge::http::listeners::{Inherited, Listeners};
use polygate::edge::http::serve::End;
use polygate::edge::http::tls;
use polygate::gateway::Current;
use polygate::state::routine::Routine;
use tokio::sync::oneshot;

use crate::support::{App, Setup, reporter};

/// The program behind ports of its own, until dropped.
pub struct Live {
    /// The first of `addresses`.
    pub address: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub app: App,
    pub current: Arc<Current>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    _renewing: Option<Routine>,
}

impl Live {
    pub fn new(setup: &Setup) -> Live {
        let app = App::new(setup);
        let mut config = app.gateway.config.clone();
        if config.listen == Config::default().listen {
            config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        }
        let listeners = Listeners::bind(&config, &mut Inherited::default()).unwrap();
        let addresses = listeners.addresses().unwrap();
        let renewing = listeners.tls.as_ref().map(|tls| tls::watch(tls.clone(), reporter(&setup.reports)).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let current = Arc::new(Current::new(app.gateway.clone()));
        let served = current.clone();
        let thread = thread::spawn(move || {
            let shutdown = async {
                drop(stopped.await);
                End::Stop
            };
            polygate::edge::http::serve::serve(served, listeners, shutdown).unwrap();
        });
        Live {
            address: addresses[0],
            addresses,
            app,
            current,
            stop: Some(stop),
            thread: Some(thread),
            _renewing: renewing,
        }
    }

    /// Asks the server to stop.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Ends the program, once all connections have ended. What it left in memory can be looked at.
    pub fn finish(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Sends bytes, and reads until the other end closes.
    pub fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish();
    }
}

#[test]
fn a_thousand_requests_over_64_connections_admit_exactly_the_limit() {
    // The application's clock stands still, so that nothing comes back into the bucket while the test runs.
    let config = "plans: { free: { credits_a_month: 100000, requests_a_minute: 137 } }";
    let live = Live::new(&Setup { config: config.into(), ..Setup::default() });
    let request = format!(
        "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP HTTP/1.1\r\nHost: t\r\nX-API-Key: {}\r\n\r\n",
        live.app.key
    );
    let admitted: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|number| {
                let (live, request) = (&live, &request);
                scope.spawn(move || {
                    let mut stream = live.connect();
                    let rounds = if number < 1_000 % 64 { 16 } else { 15 };
                    (0..rounds).filter(|_| status_of(&mut stream, request) == 200).count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(admitted, 137);
}

/// Sends one request on a kept-alive connection and reads its whole answer.
pub fn status_of(stream: &mut TcpStream, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).unwrap();
        assert_ne!(count, 0, "the connection was closed");
        answer.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return head[9..12].parse().unwrap();
            }
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    let live = Live::new(&Setup::default());
    let path = "/v1/api/key2otp?secret=JBSWY3DPEHPK3PXP";
    let head = live.exchange(&format!("HEAD {path} HTTP/1.1\nHost: t\nConnection: close\n\n"));
    let get = live.exchange(&format!("GET {path} HTTP/1.1\nHost: t\nConnection: close\n\n"));
    let length = |answer: &str| answer.lines().find(|line| line.starts_with("content-length")).unwrap().to_owned();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(length(&head), length(&get));
}

#[test]
fn connect_is_refused_like_any_other_method() {
    let live = Live::new(&Setup::default());
    let answer = live.exchange("CONNECT example.com:443 HTTP/1.1\nHost: example.com:443\nConnection: close\n\n");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.contains("x-request-id: "), "{answer}");
    assert!(answer.ends_with(r#"{"status":"error","error":"Method not allowed","data":null}"#), "{answer}");
}

#[test]
fn what_is_no_http_gets_a_whole_answer() {
    let live = Live::new(&Setup::default());
    for garbage in ["garbage\n\n", "GET\n\n", "GET / HTTP/1.1\nno colon\n\n", "\u{1}\u{2}\u{3}\n\n"] {
        let answer = live.exchange(garbage);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{garbage:?}: {answer:?}"));
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{garbage:?}: {answer}");
        for line in ["x-request-id: ", "x-error-code: malformed-request", "access-control-allow-origin: *", "date: "] {
            assert!(head.contains(line), "{garbage:?}: {line} is missing in {answer}");
        }
        assert_eq!(body, r#"{"status":"error","error":"Malformed HTTP request","data":null}"#);
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
    let answer =
        live.exchange(&format!("GET / HTTP/1.1\nHost: t\nConnection: close\nX-Filler: {}\n\n", "a".repeat(200_000)));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(answer.ends_with(r#"{"status":"error","error":"Request headers are too large","data":null}"#), "{answer}");
    // A well-formed call on the same connection before it has its own answer.
    let answer = live.exchange("GET /v1/nothing HTTP/1.1\nHost: t\n\ngarbage\n\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.ends_with(r#"{"status":"error","error":"Malformed HTTP request","data":null}"#), "{answer}");
}

#[test]
fn heads_too_large_are_answered_with_a_body() {
    let live = Live::new(&Setup::default());
    let filler = "a".repeat(20_000);
    let answer = live.exchange(&format!("GET / HTTP/1.1\nHost: t\nX-Filler: {filler}\nConnection: close\n\n"));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(answer.contains("Request headers are too large"), "{answer}");
}

#[test]
fn half_a_head_and_half_a_body_end_on_time() {
    let config = "limits: { header_read_timeout_s: 1, body_read_timeout_s: 1 }";
    let live = Live::new(&Setup { config: config.into(), ..Setup::default() });
    let answer = live.exchange("GET / HTTP/1.1\nHost: t\n");
    assert_eq!(answer, "", "nothing is said to half a head");
    let answer = live.exchange(
        "POST /v1/api/key2otp HTTP/1.1\nHost: t\nContent-Type: application/json\nContent-Length: 100\nConnection: close\n\n{",
    );
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("Request body did not arrive in time"), "{answer}");
}

#[test]
fn chunked_bodies_are_read_and_capped() {
    let live = Live::new(&Setup::default());
    let post = |chunks: &str| {
        live.exchange(&format!(
            "POST /v1/api/key2otp HTTP/1.1\nHost: t\nContent-Type: application/json\nTransfer-Encoding: chunked\nConnection: close\n\n{chunks}0\n\n"
        ))
    };
    let answer = post("b\n{\"secret\":\"\n12\nJBSWY3DPEHPK3PXP\"}\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = post(&format!("4001\n{}\n", " ".repeat(0x4001)));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[test]
fn a_call_under_way_is_finished_at_shutdown() {
    let mut live = Live::new(&Setup::default());
    let mut stream = live.connect();
    let body = r#"{"secret":"JBSWY3DPEHPK3PXP"}"#;
    let head = format!(
        "POST /v1/api/key2otp HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    live.stop();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
