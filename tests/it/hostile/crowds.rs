//! Many clients at once, and clients that take nothing.

use std::io::Write;
use std::thread;
use std::time::Duration;

use super::{bytes, program, read_answers};

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

#[test]
fn two_thousand_connections_leave_room_for_a_good_client() {
    let (_desk, server, key) = program("limits: { connections_an_address: 10000 }");
    assert_eq!(server.call(&key), 200);
    let before = server.resident_kib();
    // As many as one program may have, if that is less.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: usize = files.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    let count = files.saturating_sub(300).min(2_000);
    let half = bytes("$getX: ", &key);
    let crowd: Vec<_> = (0..count)
        .map(|number| {
            let mut stream = server.connect();
            if number % 2 == 0 {
                stream.write_all(&half).unwrap();
            }
            stream
        })
        .collect();
    let mut good = server.connect();
    good.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    good.write_all(&bytes("$get\n", &key)).unwrap();
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    read_answers(&mut good, &mut unread, 1, &mut all);
    assert_eq!(all[0].status, 200);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < count * 32, "{grown} KiB for {count} connections");
    drop(crowd);
    assert_eq!(server.call(&key), 200);
}
