//! Good requests, spoiled at random.

use std::io::Write;
use std::thread;

use proptest::prelude::*;

use super::{bytes, impatient, read_answers, used};

/// Requests that are right, and what to spoil them with.
const SEEDS: [&str; 5] = [
    "$get\n",
    "$postContent-Length: 29\n\n$body",
    "$postTransfer-Encoding: chunked\n\n1d\n$body\n0\nX: y\n\n",
    "OPTIONS /v1/totpgenerator HTTP/1.1\nHost: t\nOrigin: https://a.example\nAccess-Control-Request-Method: POST\n\n",
    "GET /openapi.yaml HTTP/1.1\nHost: t\n\n",
];
const SPOILERS: [&str; 26] = [
    "\n",
    "↵",
    "←",
    "␀",
    "␛",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "%",
    "#",
    "?",
    "*",
    "0",
    "29",
    "-1",
    "ffffffffffffffff",
    "é",
    "\n\n",
    "\nContent-Length: 29",
    "\nTransfer-Encoding: chunked",
    "\nHost: other",
    "\nConnection: close",
    "HTTP/1.0",
    "$get\n",
];

#[derive(Clone, Debug)]
enum Spoil {
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    Replace(prop::sample::Index, u8),
    Repeat(prop::sample::Index, usize),
}

fn spoiled() -> impl Strategy<Value = (&'static str, Vec<Spoil>)> {
    let at = any::<prop::sample::Index>;
    let spoil = prop_oneof![
        (at(), prop::sample::select(&SPOILERS[..])).prop_map(|(at, what)| Spoil::Insert(at, what)),
        (at(), 1..20_usize).prop_map(|(at, bytes)| Spoil::Remove(at, bytes)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Spoil::Replace(at, byte)),
        (at(), 1..60_usize).prop_map(|(at, bytes)| Spoil::Repeat(at, bytes)),
    ];
    (prop::sample::select(&SEEDS[..]), prop::collection::vec(spoil, 1..4))
}

/// The bytes of a spoiled request.
fn spoil(seed: &str, spoils: &[Spoil], key: &str) -> Vec<u8> {
    let mut request = bytes(seed, key);
    for spoil in spoils {
        let at = |index: &prop::sample::Index| index.index(request.len().max(1));
        match spoil {
            Spoil::Insert(index, what) => drop(request.splice(at(index)..at(index), bytes(what, key))),
            Spoil::Remove(index, count) => {
                let start = at(index);
                request.drain(start..(start + count).min(request.len()));
            }
            Spoil::Replace(index, byte) => {
                let at = at(index);
                if let Some(place) = request.get_mut(at) {
                    *place = *byte;
                }
            }
            Spoil::Repeat(index, count) => {
                let start = at(index);
                let part = request[start..(start + count).min(request.len())].to_vec();
                request.splice(start..start, part);
            }
        }
    }
    request
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each is followed by a request that ends the connection, unless it is taken for a part of the first.
    #[test]
    fn spoiled_requests_get_whole_answers_and_are_charged_for_success_alone(
        spoiled in prop::collection::vec(spoiled(), 64),
    ) {
        const END: &str = "GET /v1/nothing HTTP/1.1\nHost: t\nConnection: close\n\n";
        let live = impatient();
        let charged: usize = thread::scope(|scope| {
            let clients: Vec<_> = spoiled
                .iter()
                .map(|(seed, spoils)| {
                    let live = &live;
                    scope.spawn(move || {
                        let request = [spoil(seed, spoils, &live.app.key), bytes(END, "")].concat();
                        let mut stream = live.connect();
                        stream.write_all(&request).unwrap();
                        let (mut all, mut unread) = (Vec::new(), Vec::new());
                        while !read_answers(&mut stream, &mut unread, 1, &mut all) {}
                        all.iter().filter(|answer| answer.status == 200 && answer.headers.contains_key("x-api-credits-used")).count()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(used(live), charged);
    }
}
