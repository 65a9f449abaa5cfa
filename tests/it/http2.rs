//! HTTP/2, with TLS and without: who gets it, that answers are the same as over HTTP/1.1, its limits, and its end.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::sockets::{Live, status_of};
use crate::support::Setup;
use crate::tls::Certificate;

const PRIOR_KNOWLEDGE: &str = "http2_prior_knowledge: true";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn live(config: &str) -> Live {
    Live::new(&Setup { config: format!("{PRIOR_KNOWLEDGE}\n{config}"), ..Setup::default() })
}

/// A client that speaks HTTP/2 from the first byte, and its connection, which ends when the server ends it.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn new(live: &Live) -> Client {
        let stream = tokio::net::TcpStream::connect(live.address).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Client { sender, connection: tokio::spawn(connection) }
    }

    /// Sends `METHOD path`, with header lines and a body, and returns the answer with its body.
    async fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &str) -> (http::response::Parts, Bytes) {
        let answer = self.sender.send_request(request(line, headers, body)).await.unwrap();
        read(answer).await
    }
}

fn request(line: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let (method, path) = line.split_once(' ').unwrap();
    let uri = if method == "CONNECT" { path.to_owned() } else { format!("http://localhost{path}") };
    let builder = Request::builder().method(method).uri(uri);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

async fn read<B: Body<Error = hyper::Error>>(answer: Response<B>) -> (http::response::Parts, Bytes) {
    let (head, body) = answer.into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

const CALL: &str = "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP";

#[tokio::test]
async fn answers_are_those_of_http_1() {
    let live = live("");
    let mut client = Client::new(&live).await;
    let json = [("content-type", "application/json")];
    let long = "a".repeat(20_000);
    let cases = [
        (CALL, &[][..], "", 200),
        ("HEAD /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP", &[], "", 200),
        ("POST /v1/api/key2otp", &json, r#"{"secret":"JBSWY3DPEHPK3PXP"}"#, 200),
        ("POST /v1/api/key2otp", &json, &long, 413),
        ("OPTIONS /v1/api/key2otp", &[], "", 204),
        ("GET /v1/totpgenerator", &[("accept", "application/xml")], "", 401),
        ("GET /v1/nothing", &[], "", 404),
        ("DELETE /v1/api/key2otp", &[], "", 405),
        ("CONNECT example.com:443", &[], "", 405),
        ("GET /v1/nothing", &[("x-filler", &long)], "", 431),
    ];
    for (line, headers, body, status) in cases {
        let (head, answer) = client.send(line, headers, body).await;
        assert_eq!((head.status.as_u16(), head.version), (status, Version::HTTP_2), "{line}");
        for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
            assert!(!head.headers.contains_key(name), "{line}: {name}");
        }
        assert!(head.headers.contains_key("x-request-id") && head.headers.contains_key("date"), "{line}");
        let length =
            head.headers.get("content-length").map(|length| length.to_str().unwrap().parse::<usize>().unwrap());
        if line.starts_with("HEAD") {
            let (of_get, body) = client.send(CALL, &[], "").await;
            assert_eq!((length, answer.len()), (Some(body.len()), 0));
            assert_eq!(head.headers["content-length"], of_get.headers["content-length"]);
        } else if status != 204 {
            assert_eq!(length, Some(answer.len()), "{line}");
            assert!(!answer.is_empty(), "{line}");
        }
    }
}

#[tokio::test]
async fn bodies_that_are_refused_half_way_are_no_offence() {
    let live = live("limits: { http2_resets: 1 }");
    let mut client = Client::new(&live).await;
    let long = "a".repeat(50_000);
    for _ in 0..20 {
        assert_eq!(
            client.send("POST /v1/api/key2otp", &[("content-type", "application/json")], &long).await.0.status,
            413
        );
    }
}

#[tokio::test]
async fn over_tls_the_client_chooses() {
    let certificate = Certificate::new();
    let live = Live::new(&Setup { config: certificate.yaml(), ..Setup::default() });
    for version in [&TLS12, &TLS13] {
        let connector = TlsConnector::from(certificate.client(&[b"h2", b"http/1.1"], &[version]));
        let stream = tokio::net::TcpStream::connect(live.address).await.unwrap();
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let (head, _) = read(sender.send_request(request(CALL, &[], "")).await.unwrap()).await;
        assert_eq!((head.status.as_u16(), head.version), (200, Version::HTTP_2));
        drop(sender);
        connection.await.unwrap().unwrap();
    }
}

#[test]
fn the_first_bytes_decide() {
    let live = live("limits: { header_read_timeout_s: 1 }");
    // Slowly, so that each byte is looked at by itself.
    let mut stream = live.connect();
    for byte in PREFACE.iter().chain(&[0, 0, 0, 4, 0, 0, 0, 0, 0]) {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "the answer is a SETTINGS frame: {frame:?}");
    // What begins like it is HTTP/1.1 all the same.
    let answer = live.exchange("PUT /v1/nothing HTTP/1.1\nHost: t\nConnection: close\n\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let mut stream = live.connect();
    assert_eq!(status_of(&mut stream, "GET /v1/nothing HTTP/1.1\r\nHost: t\r\n\r\n"), 404);
    assert_eq!(status_of(&mut stream, "GET /v1/nothing HTTP/1.1\r\nHost: t\r\n\r\n"), 404);
    // Half of it ends on time.
    let mut stream = live.connect();
    stream.write_all(&PREFACE[..10]).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn who_has_not_configured_it_does_not_get_it() {
    let live = Live::new(&Setup::default());
    let mut stream = live.connect();
    stream.write_all(PREFACE).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let live = live("limits: { idle_timeout_s: 1 }");
    let mut client = Client::new(&live).await;
    assert_eq!(client.send(CALL, &[], "").await.0.status, 200);
    client.connection.await.unwrap().unwrap();
}

#[test]
fn who_does_not_take_the_answers_is_closed() {
    let live = live("limits: { idle_timeout_s: 1 }");
    let mut stream = live.connect();
    // A window of nothing (SETTINGS_INITIAL_WINDOW_SIZE = 0), and a request for `/` that is answered by 404.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let block = [0x82, 0x84, 0x86, 0x41, 1, b't'];
    let headers = [&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], &block].concat();
    stream.write_all(&[PREFACE, &settings, &headers].concat()).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let frames = std::iter::successors(Some(&all[..]), |rest| {
        let length = u32::from_be_bytes([0, *rest.first()?, rest[1], rest[2]]) as usize;
        rest.get(9 + length..)
    });
    let kinds: Vec<u8> = frames.filter_map(|frame| frame.get(3).copied()).collect();
    assert!(kinds.contains(&1) && kinds.contains(&7) && !kinds.contains(&0), "HEADERS, GOAWAY, no DATA: {kinds:?}");
}

#[tokio::test]
async fn a_stop_finishes_the_calls_under_way() {
    let mut live = live("");
    let stream = tokio::net::TcpStream::connect(live.address).await.unwrap();
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (feed, fed) = oneshot::channel();
    let slow = StreamBody::new(stream::once(async move { Ok::<_, Infallible>(Frame::data(fed.await.unwrap())) }));
    let post = Request::post("http://localhost/v1/api/key2otp").header("content-type", "application/json");
    let under_way = tokio::spawn(sender.send_request(post.body(slow.boxed()).unwrap()));
    // What is answered behind it shows that it has begun.
    let get = Request::get("http://localhost/v1/nothing").body(Full::default().boxed()).unwrap();
    assert_eq!(sender.send_request(get).await.unwrap().status(), 404);
    live.stop();
    while TcpStream::connect(live.address).is_ok() {
        tokio::task::yield_now().await;
    }
    feed.send(Bytes::from(r#"{"secret":"JBSWY3DPEHPK3PXP"}"#)).unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().status(), 200);
    // The server ends it, in good order.
    connection.await.unwrap().unwrap();
}
