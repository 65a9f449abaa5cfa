//! An upstream that answers whatever it is told to, byte by byte, and a client that sees what comes of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::sockets::Live;

/// A request as the upstream has got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its lines, without the empty one.
    pub head: String,
    pub body: String,
}

impl Seen {
    /// Method and target.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")
    }

    /// All values of a header, joined.
    pub fn header(&self, name: &str) -> String {
        let of = |line: &str| {
            let (its, value) = line.split_once(':')?;
            its.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.head.lines().skip(1).filter_map(of).collect::<Vec<_>>().join(" | ")
    }
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    /// As a process that was killed leaves it.
    Reset,
}

/// A server in threads, until dropped.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Connections that were made up to now.
    pub connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request by `answer`, which writes what it likes.
    pub fn start(answer: impl Fn(&Seen, &mut TcpStream) -> Then + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (connections, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let answer = Arc::new(answer);
        let (log, count, stop) = (seen.clone(), connections.clone(), stopping.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                count.fetch_add(1, Ordering::AcqRel);
                let (answer, log) = (answer.clone(), log.clone());
                thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Server { address, seen, connections, stopping }
    }

    /// The latest request.
    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Seen, &mut TcpStream) -> Then, log: &Mutex<Vec<Seen>>) {
    stream.set_nodelay(true).unwrap();
    while let Some(seen) = read(&mut stream) {
        log.lock().unwrap().push(seen.clone());
        match answer(&seen, &mut stream) {
            Then::Keep => {}
            Then::Close => {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Then::Reset => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
        }
    }
}

/// One request; `None` when no more come.
fn read(stream: &mut TcpStream) -> Option<Seen> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().trim_end().to_owned();
    let mut seen = Seen { head, body: String::new() };
    let mut body = vec![0; seen.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}

/// An address at which nobody listens, and nobody else can.
pub struct Nobody {
    pub address: SocketAddr,
    _socket: Socket,
}

impl Nobody {
    pub fn new() -> Nobody {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Nobody { address: socket.local_addr().unwrap().as_socket().unwrap(), _socket: socket }
    }
}

/// An answer as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the client can tell that this is all.
    pub is_whole: bool,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(its, _)| its.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Sends a request over a connection of its own: `METHOD path`, header lines, an empty line, the body. `$key` is the key.
pub fn call(live: &Live, request: &str) -> Got {
    let mut stream = live.connect();
    ask(live, &mut stream, request);
    receive(&mut stream)
}

pub fn ask(live: &Live, stream: &mut TcpStream, request: &str) {
    let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
    let (line, lines) = head.split_once('\n').unwrap_or((head, ""));
    let lines: String = lines.lines().map(|line| format!("{line}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{line} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n{lines}{length}\r\n{body}");
    stream.write_all(text.replace("$key", &live.app.key).as_bytes()).unwrap();
}

/// All that comes.
pub fn receive(stream: &mut TcpStream) -> Got {
    let mut bytes = Vec::new();
    // A connection that is reset has said all it will.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

pub fn parse(bytes: &[u8]) -> Got {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let rest = &bytes[end + 4..];
    let mut got = Got { status: head[9..12].parse().unwrap(), head, body: Vec::new(), is_whole: false };
    if got.header("transfer-encoding") == "chunked" {
        (got.body, got.is_whole) = chunks(rest);
    } else {
        let length: Option<usize> = got.header("content-length").parse().ok();
        got.is_whole = length.is_none_or(|length| length == rest.len());
        got.body = rest.to_vec();
    }
    got
}

/// The bytes of a chunked body, and whether its end is among them.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = memchr::memmem::find(rest, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return (body, &rest[line..] == b"\r\n\r\n");
        }
        let Some(chunk) = rest[line + 2..].get(..size) else {
            body.extend_from_slice(&rest[line + 2..]);
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest[line + 2 + size..].strip_prefix(b"\r\n").unwrap_or_default();
    }
    (body, false)
}
