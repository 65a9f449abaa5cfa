//! The load on a gateway: `load ADDRESS:PORT SECONDS RATE REQUESTS EXPECTED` sends the requests of a file (separated by
//! a NUL byte) in turn over 64 connections, and compares every answer's body with the file EXPECTED: any other answer
//! ends it with an error. RATE is a number of requests a second, or `max`: then each connection sends its next request
//! as soon as it has its answer. Prints one line of JSON: requests, seconds, and latencies in microseconds.
//!
//! At a constant rate a request is due at its moment whether or not earlier ones have been answered, and its latency
//! counts from that moment: a server that stalls pays for every request that came due meanwhile.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

type Done<T> = Result<T, Box<dyn std::error::Error>>;

const CONNECTIONS: usize = 64;
/// The longest that anything may take, be it a single answer or what is left at the end.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Done<()> {
    let [address, seconds, rate, requests, expected] =
        <[String; 5]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
            .map_err(|_| "usage: load ADDRESS:PORT SECONDS RATE|max REQUESTS EXPECTED")?;
    let duration = Duration::try_from_secs_f64(seconds.parse()?)?;
    let interval = match rate.as_str() {
        "max" => None,
        rate => Some(Duration::try_from_secs_f64(1.0 / rate.parse::<f64>()?)?),
    };
    // The kernel may wake a sleeper 50 microseconds late by default, which would count as the server's.
    fs::write("/proc/self/timerslack_ns", "1000")?;
    let (requests, expected) = (fs::read(requests)?, fs::read(expected)?);
    let connections = (0..CONNECTIONS).map(|_| Connection::open(&address, expected.len())).collect::<Done<Vec<_>>>()?;
    let started = Instant::now();
    let mut latencies = run(connections, &requests, &expected, duration, interval)?;
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let percentile = |part: f64| match latencies.len() {
        0 => 0,
        count => latencies[((count as f64 * part) as usize).min(count - 1)].as_micros(),
    };
    println!(
        r#"{{"requests":{},"seconds":{seconds:.3},"p50":{},"p99":{},"p999":{},"max":{}}}"#,
        latencies.len(),
        percentile(0.5),
        percentile(0.99),
        percentile(0.999),
        percentile(1.0)
    );
    Ok(())
}

/// Sends for `duration` and waits for all answers; their latencies.
fn run(
    mut connections: Vec<Connection>,
    requests: &[u8],
    expected: &[u8],
    duration: Duration,
    interval: Option<Duration>,
) -> Done<Vec<Duration>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, connection) in connections.iter().enumerate() {
        epoll::add(&epoll, &connection.stream, EventData::new_u64(number as u64), EventFlags::IN)?;
    }
    let mut requests = requests.split(|&byte| byte == 0).filter(|request| !request.is_empty()).cycle();
    // First in, first out: at a low rate, too, all connections take turns.
    let mut idle: VecDeque<usize> = (0..connections.len()).collect();
    let mut latencies = Vec::new();
    let mut events = Vec::with_capacity(CONNECTIONS);
    let mut sent = 0;
    let start = Instant::now();
    let end = start + duration;
    loop {
        let now = Instant::now();
        let mut due = interval.map_or(now, |interval| start + interval * sent);
        while due <= now
            && due < end
            && let Some(number) = idle.pop_front()
        {
            connections[number].send(requests.next().ok_or("no requests")?, due)?;
            sent += 1;
            due = interval.map_or(now, |interval| start + interval * sent);
        }
        if due >= end && idle.len() == connections.len() {
            return Ok(latencies);
        }
        if now > end + PATIENCE {
            return Err("the server does not keep up with this rate".into());
        }
        let wait = if idle.is_empty() || due >= end { PATIENCE } else { due.saturating_duration_since(now) };
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&Timespec::try_from(wait)?))?;
        if events.is_empty() && wait == PATIENCE {
            return Err("no answer came".into());
        }
        for event in &events {
            let number = event.data.u64() as usize;
            if let Some(latency) = connections[number].receive(expected)? {
                latencies.push(latency);
                idle.push_back(number);
            }
        }
    }
}

/// A connection, and the request that it waits for the answer of.
struct Connection {
    stream: TcpStream,
    due: Instant,
    /// What has arrived of the answer: the first `filled` bytes.
    inbox: Vec<u8>,
    filled: usize,
    /// Where the answer's body begins and ends, once its head is there.
    body: Option<(usize, usize)>,
}

impl Connection {
    fn open(address: &str, body_bytes: usize) -> Done<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: Instant::now(), inbox: vec![0; body_bytes + 16_384], filled: 0, body: None })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> Done<()> {
        self.due = due;
        // With one short request under way there is always room for it.
        Ok(self.stream.write_all(request)?)
    }

    /// Takes what has arrived. The latency, once the answer is whole; an error when it is not the expected one.
    fn receive(&mut self, expected: &[u8]) -> Done<Option<Duration>> {
        match self.stream.read(&mut self.inbox[self.filled..]) {
            Ok(0) => return Err("the connection was closed, or the answer is too long".into()),
            Ok(count) => self.filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let arrived = &self.inbox[..self.filled];
        if self.body.is_none() {
            self.body = body_range(arrived)?;
        }
        match self.body {
            Some((begin, end)) if end <= self.filled => {
                if arrived[begin..] != *expected {
                    return Err(format!("another body: {}", String::from_utf8_lossy(&arrived[begin..])).into());
                }
                (self.filled, self.body) = (0, None);
                Ok(Some(self.due.elapsed()))
            }
            _ => Ok(None),
        }
    }
}

/// Where the body of an answer begins and ends, once its whole head is there. Its status must be 200, its length given.
fn body_range(arrived: &[u8]) -> Done<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(begin) = head.parse(arrived)? else { return Ok(None) };
    if head.code != Some(200) {
        return Err(format!("refused: {}", String::from_utf8_lossy(arrived)).into());
    }
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = str::from_utf8(length.ok_or("an answer without a Content-Length")?.value)?.parse()?;
    Ok(Some((begin, begin + length)))
}
