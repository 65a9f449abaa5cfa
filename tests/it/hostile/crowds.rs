//! Many clients at once, and clients that take nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::{bytes, program, read_answers};
use crate::program::Server;

#[test]
fn clients_that_never_read_cost_little_and_harm_nobody() {
    let (_desk, server, key) = program("");
    assert_eq!(server.call(&key), 200);
    let before = server.resident_kib();
    let request = bytes(&"$get\n".repeat(100), &key);
    let greedy: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = server.connect();
                stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                let request = &request;
                scope.spawn(move || {
                    // Until nothing more is taken.
                    while stream.write_all(request).is_ok() {}
                    stream
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(server.call(&key), 200);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 8 clients");
    drop(greedy);
    assert_eq!(server.call(&key), 200);
}

/// How many connections the server may have here: ten thousand, or as many as this program may have descriptors for.
fn places() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let files = limit.maximum.map_or(usize::MAX, |files| files.try_into().unwrap());
    // Other tests have some open, too.
    files.saturating_sub(2_000).min(10_000)
}

/// A connection from an address of its own: an address has places for 256.
fn connect_from(server: &Server, address: [u8; 4]) -> TcpStream {
    let to: SocketAddr = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.into()
}

/// Descriptors that a program has open.
fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count()
}

#[test]
fn ten_thousand_connections_leave_room_for_a_good_client() {
    let places = places();
    let config = format!("limits: {{ connections: {places}, header_read_timeout_s: 600, idle_timeout_s: 600 }}");
    let (_desk, server, key) = program(&config);
    let (call, half) = (bytes("$get\n", &key), bytes("$getX: ", &key));
    let mut good = server.connect();
    let ask = |stream: &mut TcpStream| {
        stream.write_all(&call).unwrap();
        let (mut all, mut unread) = (Vec::new(), Vec::new());
        read_answers(stream, &mut unread, 1, &mut all);
        assert_eq!(all[0].status, 200);
    };
    ask(&mut good);
    let (before_kib, before_files) = (server.resident_kib(), descriptors(&server));
    let crowd: Vec<_> = (1..places)
        .map(|number| {
            let mut stream = connect_from(&server, [127, 1, 0, (number / 250) as u8]);
            match number % 3 {
                0 => {}
                1 => stream.write_all(&half).unwrap(),
                _ => ask(&mut stream),
            }
            if number % 500 == 0 {
                ask(&mut good);
            }
            stream
        })
        .collect();
    // Those beyond are closed as they come, and nobody notices.
    for _ in 0..200 {
        assert_eq!(connect_from(&server, [127, 2, 0, 1]).read(&mut [0]).unwrap(), 0);
    }
    ask(&mut good);
    assert_eq!(descriptors(&server), before_files + crowd.len());
    let grown_kib = server.resident_kib().saturating_sub(before_kib);
    println!("{} connections: {grown_kib} KiB, {} bytes for each", crowd.len(), grown_kib * 1024 / crowd.len());
    assert!(grown_kib < crowd.len() * 24, "{grown_kib} KiB for {} connections", crowd.len());
    drop(crowd);
    // The server comes to each of them in its time.
    while descriptors(&server) > before_files {
        ask(&mut good);
    }
    ask(&mut connect_from(&server, [127, 2, 0, 1]));
}
