//! Nothing that is secret comes to light: the real program is sent marked secrets in every place that a request has, on
//! every route, in calls that succeed and in calls that fail; then all that it has said and stored is searched for them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL, HEXLOWER};

use crate::program::{Desk, Server};
use crate::traces::{Answer, Collector};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn no_secret_is_said_or_stored_by_a_server_that_logs_for_programs() {
    search("json");
}

#[test]
fn no_secret_is_said_or_stored_by_a_server_that_logs_for_people() {
    search("human");
}

#[test]
fn every_form_of_a_secret_is_found() {
    let needles = needles(&[MARK]);
    let secret = marker("some place");
    let decoded = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let forms = [
        secret.clone().into_bytes(),
        secret.to_ascii_lowercase().into_bytes(),
        format!("Err(\"{secret}\")").into_bytes(),
        secret.as_bytes()[..MARK.len()].to_vec(),
        decoded.clone(),
        // As part of something longer, at each distance from a whole number of groups.
        BASE64.encode(secret.as_bytes()).into_bytes(),
        BASE64.encode(format!("a:{secret}:1").as_bytes()).into_bytes(),
        BASE64URL.encode(format!("ann:{secret}:1").as_bytes()).into_bytes(),
        BASE64.encode(&decoded).into_bytes(),
        BASE64.encode(&[b"\xff", &*decoded].concat()).into_bytes(),
        BASE32_NOPAD.encode(secret.as_bytes()).into_bytes(),
        HEXLOWER.encode(secret.as_bytes()).to_ascii_uppercase().into_bytes(),
        HEXLOWER.encode(&decoded).into_bytes(),
        format!("{:?}", secret.as_bytes()).into_bytes(),
        format!("{decoded:?}").into_bytes(),
    ];
    for form in forms {
        let text = [b"\x00before ", &*form, b" after\xff"].concat();
        assert!(find(&needles, &text).is_some(), "{}", String::from_utf8_lossy(&form));
    }
    assert_eq!(find(&needles, b"POLYGATE SECRETS"), None);
}

/// What every secret of this test begins with. Searching for it finds them all, even where only half of one is shown.
const MARK: &str = "POLYGATESECRETSS";

/// A secret for a place: 32 characters of base32, which are good to make passwords of.
fn marker(place: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, place.as_bytes());
    MARK.to_owned() + &BASE32_NOPAD.encode(&hash.as_ref()[..10])
}

/// Secrets as they are and in the forms that programs write things in; those that are text in lower case.
fn needles(secrets: &[&str]) -> Vec<Vec<u8>> {
    let plain = secrets.iter().flat_map(|secret| {
        let decoded = BASE32_NOPAD.decode(secret.as_bytes()).ok();
        [Some(secret.as_bytes().to_vec()), decoded].into_iter().flatten()
    });
    let forms = plain.flat_map(|bytes| {
        let list = format!("{bytes:?}");
        let mut forms = vec![
            list.trim_matches(['[', ']']).to_owned(),
            HEXLOWER.encode(&bytes),
            // The last character may have bits of what follows.
            BASE32_NOPAD.encode(&bytes[..bytes.len() / 5 * 5]),
        ];
        for before in 0..3 {
            // Where a group of three has bytes of others too, its characters are not all known.
            let known = &bytes[(3 - before) % 3..];
            let whole = &known[..known.len() / 3 * 3];
            forms.extend([BASE64.encode(whole), BASE64URL.encode(whole)]);
        }
        forms.into_iter().map(String::into_bytes).chain([bytes])
    });
    forms.map(|form| form.to_ascii_lowercase()).collect()
}

/// Where a secret stands, if one does: the text around it.
fn find(needles: &[Vec<u8>], text: &[u8]) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let at = needles.iter().find_map(|needle| memchr::memmem::find(&text, needle))?;
    let around = &text[at.saturating_sub(60)..text.len().min(at + 120)];
    Some(String::from_utf8_lossy(around).into_owned())
}

/// What a server has said or stored, each with its name.
type Found = Vec<(String, Vec<u8>)>;

/// A server with secrets in its configuration, and what it says and answers.
struct Watched {
    desk: Desk,
    keys: [String; 2],
    server: Server,
    private: String,
    collector: Collector,
    told: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
    answers: Found,
    bodies: BTreeSet<Vec<u8>>,
    statuses: BTreeSet<u16>,
}

impl Watched {
    fn start(format: &str) -> Watched {
        let desk = Desk::new();
        let collector = Collector::new(Answer::Takes);
        // Nobody listens at these ports.
        desk.write(&format!(
            "private_listen: 127.0.0.1:0\n\
             logs: {{ format: {format}, level: info }}\n\
             plans:\n  \
               large: {{ credits_a_month: 1000000 }}\n  \
               slow: {{ credits_a_month: 1, requests_a_minute: 2 }}\n\
             default_plan: large\n\
             open: {{ requests_a_minute: 100000 }}\n\
             limits: {{ body_read_timeout_s: 1 }}\n\
             traces: {{ endpoint: 'http://{}/{}?x={}', headers: ['Authorization: Bearer {}'], sample_ratio: 1 }}\n\
             notices:\n  \
               webhook: {{ url: 'http://127.0.0.1:9/{}?to={}', secret: whsec_{} }}\n  \
               email: {{ server: 127.0.0.1, port: 9, tls: none, username: {}, password: {}, from: a@example.org }}\n",
            collector.address,
            marker("collector path"),
            marker("collector query"),
            marker("collector token"),
            marker("webhook path"),
            marker("webhook query"),
            marker("webhook secret"),
            marker("mail user"),
            marker("mail password"),
        ));
        let keys = ["a@example.org --plan large", "b@example.org --plan slow"]
            .map(|account| desk.create(&format!("--config polygate.yaml --account {account}")));
        let mut command = desk.command("serve --listen 127.0.0.1:0 --config polygate.yaml");
        // Nobody can make libraries more talkative.
        command.envs([("RUST_LOG", "trace"), ("OTEL_LOG_LEVEL", "debug")]);
        let mut server = Server::spawn(command);
        let private = server.printed("Metrics, health and administration: http://").unwrap();
        let private = private.strip_prefix("Metrics, health and administration: http://").unwrap().to_owned();
        let told = Arc::new(Mutex::new(String::new()));
        let errors = BufReader::new(server.child.stderr.take().unwrap());
        let reader = thread::spawn({
            let told = Arc::clone(&told);
            move || errors.lines().for_each(|line| told.lock().unwrap().push_str(&(line.unwrap() + "\n")))
        });
        let (answers, bodies, statuses) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Watched { desk, keys, server, private, collector, told, reader, answers, bodies, statuses }
    }

    /// Sends bytes as they are, and keeps the answer. Whoever is refused early may not get everything sent.
    fn send(&mut self, address: &str, request: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()).unwrap_or(0);
        // Most bodies come again and again, and need to be searched but once.
        let head_bytes = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap_or(answer.len());
        if !self.bodies.insert(answer[head_bytes..].to_vec()) {
            answer.truncate(head_bytes);
        }
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        self.answers.push((format!("the answer to {}", String::from_utf8_lossy(line)), answer));
        self.statuses.insert(status);
        status
    }

    /// Sends a request to the public listener: its first line, further header lines, and a body.
    fn request(&mut self, first: &str, lines: &[String], body: &str) -> u16 {
        let address = self.server.url.strip_prefix("http://").unwrap().to_owned();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{first} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{length}{lines}\r\n");
        self.send(&address, &[head.as_bytes(), body.as_bytes()].concat())
    }

    /// Waits until the log has a text.
    fn wait_until_told(&self, text: &str) {
        let until = deadline();
        while !self.told.lock().unwrap().contains(text) {
            assert!(!is_over(until), "not told: {text}\n{}", self.told.lock().unwrap());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every file of the data directory.
    fn stored(&self, when: &str, found: &mut Found) {
        let mut folders = vec![self.desk.data()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(bytes) = std::fs::read(&path) {
                    found.push((format!("{} {when}", path.display()), bytes));
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests wait as long as it takes, up to a point")]
fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[expect(clippy::disallowed_methods, reason = "tests wait as long as it takes, up to a point")]
fn is_over(deadline: Instant) -> bool {
    Instant::now() > deadline
}

const ROUTES: [&str; 6] =
    ["/v1/totpgenerator", "/v1/api/key2otp", "/v1/analytics", "/openapi.yaml", "/openapi.json", "/nowhere"];

/// Drives a server through everything, and searches what there is to be found afterwards.
fn search(format: &str) {
    let mut it = Watched::start(format);
    let keys = it.keys.clone();
    // Well-formed, and nobody's.
    let stranger = Desk::new().create("");
    let good = format!("X-API-Key: {}", keys[0]);

    in_heads(&mut it, &good, &stranger);
    in_bodies(&mut it, &good);
    in_what_is_no_request(&mut it, &good);
    on_the_private_listener(&mut it);
    // Exhausts the account, so that a notice is due, and its limit.
    let slow = format!("X-API-Key: {}", keys[1]);
    let secret = marker("of the exhausted");
    for wanted in [200, 403, 429] {
        let first = format!("GET /v1/totpgenerator?secret={secret}");
        assert_eq!(it.request(&first, std::slice::from_ref(&slow), ""), wanted);
    }
    it.wait_until_told("a notice could not be delivered by webhook");
    it.wait_until_told("a notice could not be delivered by email");

    let mut found = Found::new();
    it.stored("while it runs", &mut found);
    for line in [
        "keys list",
        "accounts show a@example.org",
        "usage --by key",
        "notices list --json",
        "credits list a@example.org",
    ] {
        let output = it.desk.run(&format!("{line} --config polygate.yaml"));
        assert!(output.status.success(), "{line}");
        found.push((line.to_owned(), [output.stdout, output.stderr].concat()));
    }
    let private = it.private.clone();
    it.send(&private, b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    let stop = std::process::Command::new("kill").arg(it.server.child.id().to_string()).status().unwrap();
    assert!(stop.success() && it.server.child.wait().unwrap().success());
    it.stored("after its end", &mut found);
    let said: Vec<String> = it.server.rest();
    found.push(("standard output".to_owned(), said.join("\n").into_bytes()));
    it.reader.join().unwrap();
    let log = it.told.lock().unwrap().clone();
    found.push(("standard error".to_owned(), log.clone().into_bytes()));
    found.append(&mut it.answers);
    // Its address and token are its own.
    found.extend(it.collector.posted().into_iter().map(|posted| ("the collector".to_owned(), posted.body)));

    // What is searched is what there is to be searched.
    for status in [200, 204, 400, 401, 403, 404, 405, 406, 408, 413, 415, 429, 431] {
        assert!(it.statuses.contains(&status), "no call ended in {status}: {:?}", it.statuses);
    }
    let in_some = |name: &str, text: &str| {
        let named = found.iter().filter(|(of, _)| of.contains(name));
        assert!(
            named.clone().any(|(_, bytes)| memchr::memmem::find(bytes, text.as_bytes()).is_some()),
            "{name}: {text}"
        );
    };
    in_some("standard error", "control-of-the-request-id");
    in_some("standard error", &keys[0][..9]);
    in_some("the collector", "control-of-the-request-id");
    in_some("the collector", "GET /v1/totpgenerator");
    in_some("polygate.db", "a@example.org");
    in_some("polygate.db-wal while it runs", "webhook");
    in_some(".journal while it runs", "PGJRNL");
    in_some("the answer to GET /metrics", "polygate_requests_total{route=\"totpgenerator\",status=\"200\"");
    // Keys are secret but for what tells them apart.
    let needles = needles(&[MARK, &keys[0][9..39], &keys[1][9..39], &stranger[9..39]]);
    let leaks = found.iter().filter_map(|(name, bytes)| Some(format!("{name}: {}", find(&needles, bytes)?)));
    let leaks: Vec<String> = leaks.collect();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

/// In the target and in the header lines, on every route, with a good key and without.
fn in_heads(it: &mut Watched, good: &str, stranger: &str) {
    assert_eq!(
        it.request("GET /v1/analytics", &[good.to_owned(), "X-Request-ID: control-of-the-request-id".into()], ""),
        200
    );
    for route in ROUTES {
        for keyed in [true, false] {
            let s = |place: &str| marker(&format!("{route} {keyed} {place}"));
            let of_key = |line: String| if keyed { vec![good.to_owned(), line] } else { vec![line] };
            let plain = || if keyed { vec![good.to_owned()] } else { Vec::new() };
            let mut requests: Vec<(String, Vec<String>)> = Vec::new();
            for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"] {
                requests.push((format!("{method} {route}?secret={}", s(method)), plain()));
            }
            requests.push((format!("{} {route}", s("method")), plain()));
            for target in [
                "?{}",
                "?{}=1",
                "?secret=%{}",
                "?algorithm={}&secret=A",
                "?digits={}&secret=AAAAAAAA",
                "?secret={}&secret=A",
                "?format={}",
                "?view={}",
                "?api_key={}",
                "?secret={}&format=xml",
                "/{}",
                "/../{}",
                "?secret={}&algorithm=md5",
                "?secret={}1",
                "#{}",
                "?secret={}&format=csv&csv_guard=1",
            ] {
                let secret = s(target);
                requests.push((format!("GET {route}{}", target.replace("{}", &secret)), plain()));
            }
            requests.push((format!("GET {route}?x={stranger}"), plain()));
            for line in [
                "Accept: application/{}",
                "Accept: {}",
                "Accept-Encoding: {}",
                "Authorization: Bearer {}",
                "Authorization: Basic {}",
                "Authorization: {}",
                "Cookie: session={}",
                "Content-Type: {}",
                "Origin: https://{}",
                "Referer: https://example.org/{}",
                "User-Agent: {}",
                "X-Forwarded-For: {}",
                "Forwarded: for={}",
                "X-Request-ID: {} {}",
                "X-Request-ID: <{}>",
                "traceparent: 00-{}",
                "tracestate: a={}",
                "baggage: a={}",
                "{}: 1",
                "Host: {}",
                "Expect: {}",
                "Upgrade: {}",
                "Access-Control-Request-Headers: {}",
                "Transfer-Encoding: {}",
                "Range: {}",
            ] {
                let line = line.replace("{}", &s(line));
                let first = format!("GET {route}");
                requests.push((first, of_key(line)));
            }
            let (secret, long) = (s("a bad key"), s("a long request id"));
            for line in [
                format!("X-API-Key: {secret}"),
                format!("X-API-Key: pg-{secret}aaaaaaaa"),
                format!("X-API-Key: {stranger}"),
                format!("Authorization: Bearer {stranger}"),
                format!("X-Request-ID: {}{long}", "x".repeat(128)),
                format!("X-Many: {}", s("a long line").repeat(600)),
            ] {
                requests.push((format!("GET {route}"), vec![line.clone()]));
                requests.push((format!("OPTIONS {route}"), vec![line]));
            }
            for (first, lines) in requests {
                it.request(&first, &lines, "");
            }
        }
    }
}

/// In bodies of every kind, whole and broken, good and bad.
fn in_bodies(it: &mut Watched, good: &str) {
    let bodies = [
        ("application/json", r#"{"secret":"{}"}"#),
        ("application/json", r#"{"{}":"{}"}"#),
        ("application/json", r#"{"secret":"{}""#),
        ("application/json", r#"{"secret":"{}","secret":"{}"}"#),
        ("application/json", r#"{"secret":["{}"]}"#),
        ("application/json", r#"{"secret":"{}","algorithm":"{}"}"#),
        ("application/json", r#"{"secret":"{}","digits":"{}"}"#),
        ("application/json", r#""{}""#),
        ("application/json", r#"{"secret":"{}\u00"}"#),
        ("application/x-www-form-urlencoded", "secret={}"),
        ("application/x-www-form-urlencoded", "secret={}&secret={}"),
        ("application/x-www-form-urlencoded", "{}=1&period={}"),
        ("application/x-www-form-urlencoded", "secret={}%"),
        ("application/xml", "<request><secret>{}</secret></request>"),
        ("application/xml", "<request><{}>{}</{}></request>"),
        ("application/xml", "<request><secret>{}</request>"),
        ("application/xml", "<!DOCTYPE x [<!ENTITY e '{}'>]><request><secret>&e;</secret></request>"),
        ("application/xml", "<request><secret a='{}'>&{};</secret></request>"),
        ("application/yaml", "secret: {}\n"),
        ("application/yaml", "secret: [{}\n"),
        ("application/yaml", "secret: &a {}\ndigits: *a\n"),
        ("application/yaml", "secret: !{} x\n{}: *b\n"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"secret\"\r\n\r\n{}\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n{}\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"secret\"; filename=\"{}\"\r\n\r\n{}",
        ),
        ("multipart/form-data; boundary={}", "--{}\r\nX: {}"),
        ("text/plain", "{}"),
        ("", "{}"),
    ];
    for route in ROUTES {
        for (number, (kind, body)) in bodies.into_iter().enumerate() {
            let secret = marker(&format!("{route} body {number}"));
            let [kind, body] = [kind, body].map(|text| text.replace("{}", &secret));
            let lines = vec![good.to_owned(), format!("Content-Type: {kind}")];
            it.request(&format!("POST {route}"), &lines, &body);
            it.request(&format!("POST {route}"), &lines[1..], &body);
            it.request(&format!("POST {route}?format=yaml"), &lines, &body);
        }
        let secret = marker(&format!("{route} compressed"));
        let lines = [good.to_owned(), "Content-Type: application/json".into(), format!("Content-Encoding: {secret}")];
        it.request(&format!("POST {route}"), &lines, &format!(r#"{{"secret":"{secret}"}}"#));
        let secret = marker(&format!("{route} too large"));
        it.request(&format!("POST {route}"), &lines[..2], &secret.repeat(1_000));
        // In chunks, of which one is none.
        let secret = marker(&format!("{route} chunks"));
        let lines = [good.to_owned(), "Transfer-Encoding: chunked".into(), "Content-Type: application/json".into()];
        let first = format!("POST {route}");
        it.request(&first, &[&lines[..], &[format!("\r\n20\r\n{secret}\r\n{secret}")]].concat(), "");
        // Half of it: the rest does not come in time.
        let secret = marker(&format!("{route} half"));
        let lines = [good.to_owned(), "Content-Type: application/json".into(), "Content-Length: 100".into()];
        it.request(&first, &[&lines[..], &[format!("\r\n{{\"secret\":\"{secret}\"")]].concat(), "");
    }
}

/// What is no HTTP, and clients that are gone before they are answered.
fn in_what_is_no_request(it: &mut Watched, good: &str) {
    let address = it.server.url.strip_prefix("http://").unwrap().to_owned();
    let secret = marker("no request");
    for text in [
        format!("{secret}\r\n\r\n"),
        format!("GET {secret}\r\n\r\n"),
        format!("GET /{secret} HTTP/9.9\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{secret}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {secret} {secret}\r\nContent-Length: {secret}\r\n\r\n"),
        format!(
            "GET http://{secret}@example.org/v1/totpgenerator?secret={secret} HTTP/1.1\r\n{good}\r\nConnection: close\r\n\r\n"
        ),
        format!("CONNECT {secret}:443 HTTP/1.1\r\nHost: {secret}\r\nConnection: close\r\n\r\n"),
        format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", secret.repeat(10_000)),
    ] {
        it.send(&address, text.as_bytes());
    }
    let secret = marker("a hang-up");
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!("POST /v1/totpgenerator?x={secret} HTTP/1.1\r\nHost: t\r\n{good}\r\nContent-Length: 99\r\n\r\n");
    stream.write_all(format!("{head}{{\"secret\":\"{secret}\"").as_bytes()).unwrap();
}

fn on_the_private_listener(it: &mut Watched) {
    let private = it.private.clone();
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        let secret = marker(&format!("private {path}"));
        for text in [
            format!("GET {path}?{secret} HTTP/1.1\r\nHost: {secret}\r\nAuthorization: Bearer {secret}\r\n\r\n"),
            format!("GET {path}{secret} HTTP/1.1\r\nHost: t\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 32\r\n\r\n{secret}"),
            format!("{secret}\r\n\r\n"),
        ] {
            it.send(&private, text.as_bytes());
        }
    }
}
