//! Notices on their way to real receivers over real sockets: what these get, and what is made of their answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use data_encoding::BASE64;
use governor::clock::Clock as _;
use polygate::accounts::{self, KeyRequest};
use polygate::config::{Config, Notices};
use polygate::edge::http::serve::End;
use polygate::edge::notices::{Lanes, watch};
use polygate::edge::reload::Source;
use polygate::pure::plan::Plan;
use polygate::state::background::Background;
use polygate::state::clock::Clock;
use polygate::state::log::Log;
use polygate::state::metrics::Metrics;
use polygate::state::report::Report;
use polygate::state::store::{DeliveryRow, DeliveryState, Store};
use ring::hmac;
use rusqlite::{Connection, params};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};
use serde_json::{Value, json};
use tempfile::TempDir;

const NOW: u64 = 1_765_924_235;
/// The first second of the accounts' billing month.
const RENEWED: u64 = 1_765_843_200;
const SECRET: &str = "whsec_c2VjcmV0IG9mIDMyIGJ5dGVzLCBub3QgYSBzaG93bi4=";
/// Parts of what no log may show: of the signing secret, the address, the password and the answers.
const SECRETS: [&str; 4] = ["c2VjcmV0", "url-token", "hunter2", "answer-body"];
/// How long anything that is waited for may take. Nothing waits that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data directory with an outbox, and what the courier reported.
struct Desk {
    data: TempDir,
    store: Store,
    raw: Connection,
    clock: Clock,
    reports: Arc<Mutex<Vec<String>>>,
}

impl Desk {
    fn new() -> Desk {
        let data = tempfile::tempdir().unwrap();
        let mut store = Store::open(data.path()).unwrap();
        let plan = Plan { name: "free".into(), credits_a_month: 1_000, bonus_credits: 0, rate: None };
        for email in ["ann@example.org", "bob@example.org", "cat@example.org", "dan@example.org"] {
            store.create_account(email, &plan, NOW).unwrap();
        }
        let raw = Connection::open(data.path().join("polygate.db")).unwrap();
        Desk { data, store, raw, clock: Clock::fixed(NOW), reports: Arc::default() }
    }

    /// Puts a notice into the outbox; the number of its delivery.
    fn put(&self, account_id: i64, percent: u8, channel: &str) -> i64 {
        let sql = "INSERT INTO notice (account_id, period_start_unix_s, percent, plan, used, max, at_unix_s) \
                   VALUES (?1, ?2, ?3, 'free', ?3 * 10, 1000, ?4) ON CONFLICT DO NOTHING";
        self.raw.execute(sql, params![account_id, RENEWED, percent, NOW]).unwrap();
        let sql = "INSERT INTO delivery (notice_id, channel, next_attempt_unix_s) \
                   SELECT id, ?3, ?4 FROM notice WHERE account_id = ?1 AND percent = ?2";
        self.raw.execute(sql, params![account_id, percent, channel, self.clock.unix_s()]).unwrap();
        self.raw.last_insert_rowid()
    }

    fn watch(&self, notices: &Notices) -> Option<Background> {
        let reports = Arc::clone(&self.reports);
        let report: Report = Arc::new(move |line| reports.lock().unwrap().push(line.to_string()));
        let metrics = Arc::new(Metrics::new(0));
        watch(Lanes::of(notices).unwrap(), Store::open(self.data.path()).unwrap(), self.clock.clone(), metrics, report)
            .unwrap()
    }

    fn delivery(&self, id: i64) -> DeliveryRow {
        self.store.list_deliveries(None).unwrap().into_iter().find(|row| row.id == id).unwrap()
    }

    /// The delivery as soon as it has been tried so many times.
    fn tried(&self, id: i64, attempts: usize) -> DeliveryRow {
        until(|| Some(self.delivery(id)).filter(|row| row.attempts.len() == attempts))
    }

    /// What came of a delivery's only attempt, and where the delivery stands after it.
    fn outcome(&self, id: i64) -> (String, DeliveryState) {
        let mut row = self.tried(id, 1);
        (row.attempts.pop().unwrap().outcome, row.state)
    }

    /// Moves the clock to the next attempt; how long that was.
    fn advance_to_next(&self, row: &DeliveryRow) -> u64 {
        let DeliveryState::Pending { next_attempt_unix_s } = row.state else { panic!("{row:?}") };
        let wait_s = next_attempt_unix_s - self.clock.unix_s();
        self.clock.advance(Duration::from_secs(wait_s));
        wait_s
    }

    fn reports(&self) -> Vec<String> {
        self.reports.lock().unwrap().clone()
    }

    fn nothing_secret_was_told(&self) {
        let rows = self.store.list_deliveries(None).unwrap();
        let outcomes = rows.iter().flat_map(|row| &row.attempts).map(|attempt| attempt.outcome.clone());
        for told in outcomes.chain(self.reports()) {
            assert!(SECRETS.iter().all(|secret| !told.contains(secret)), "{told}");
        }
    }

    fn command(&self, line: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polygate"));
        command.env_clear().arg("--data").arg(self.data.path()).args(line.split_whitespace());
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Asks again and again until there is something.
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let begin = clock.now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(clock.now() - begin < PATIENCE, "what was waited for did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn notices(yaml: &str) -> Notices {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("notices: {{ {yaml} }}")).unwrap();
    Config::load(Some(file.path()), std::iter::empty()).unwrap().notices
}

fn webhook_to(scheme: &str, port: u16) -> Notices {
    notices(&format!("webhook: {{ url: '{scheme}://127.0.0.1:{port}/hook?x=url-token', secret: '{SECRET}' }}"))
}

fn mail_to(port: u16, tls: &str, login: &str) -> Notices {
    notices(&format!(
        "email: {{ server: 127.0.0.1, port: {port}, tls: {tls}, {login} from: 'Polygate <no-reply@example.com>' }}"
    ))
}

/// A port at which nobody listens.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Serves every connection by a thread; the port.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// What a receiver of webhooks does with a request.
#[derive(Clone, Copy)]
enum Answer {
    Status(&'static str),
    Redirect,
    /// Reads and says nothing.
    Silence,
    /// Closes without having read, which resets the connection.
    Reset,
}

/// A request as it came over the wire.
struct Posted {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Posted {
    fn read(stream: &TcpStream) -> Posted {
        let mut reader = BufReader::new(stream);
        let mut next_line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end_matches("\r\n").to_owned()
        };
        let line = next_line();
        let mut headers = Vec::new();
        while let Some((name, value)) = next_line().split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut posted = Posted { line, headers, body: Vec::new() };
        posted.body.resize(posted.header("content-length").parse().unwrap(), 0);
        reader.read_exact(&mut posted.body).unwrap();
        posted
    }

    fn header(&self, name: &str) -> &str {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        let value = &values.next().unwrap_or_else(|| panic!("no {name}")).1;
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }
}

/// A receiver of webhooks that answers each request by the next of `answers`, the last over and over.
fn receiver(answers: &'static [Answer]) -> (u16, Receiver<Posted>) {
    let (sender, posted) = mpsc::channel();
    let answered = Mutex::new((answers.iter(), sender));
    let port = listen(move |mut stream| {
        let (answer, sender) = {
            let mut answered = answered.lock().unwrap();
            let next = answered.0.as_slice();
            if next.len() > 1 {
                answered.0.next();
            }
            (next[0], answered.1.clone())
        };
        if let Answer::Reset = answer {
            stream.peek(&mut [0]).unwrap();
            return;
        }
        sender.send(Posted::read(&stream)).unwrap();
        let body = "Content-Length: 11\r\n\r\nanswer-body";
        match answer {
            Answer::Status(status) => stream.write_all(format!("HTTP/1.1 {status}\r\n{body}").as_bytes()).unwrap(),
            Answer::Redirect => {
                let place = format!("http://{}/elsewhere", stream.local_addr().unwrap());
                stream.write_all(format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\n{body}").as_bytes()).unwrap();
            }
            // Until the other side hangs up.
            Answer::Silence | Answer::Reset => drop(stream.read(&mut [0])),
        }
    });
    (port, posted)
}

fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).expect("what was waited for did not come")
}

#[test]
fn a_webhook_is_signed_and_delivered_once() {
    let desk = Desk::new();
    let (port, posted) = receiver(&[Answer::Status("204 No Content")]);
    let id = desk.put(1, 80, "webhook");
    let _courier = desk.watch(&webhook_to("http", port));
    let first = next(&posted);
    assert_eq!(first.line, "POST /hook?x=url-token HTTP/1.1");
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(first.header("host"), format!("127.0.0.1:{port}"));
    assert_eq!(first.header("webhook-timestamp"), NOW.to_string());
    assert!(first.header("user-agent").starts_with("polygate/"));

    // As a receiver would check it: over the bytes that came, with what it knows of the secret.
    let key = BASE64.decode(SECRET.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut signed = format!("{}.{NOW}.", first.header("webhook-id")).into_bytes();
    signed.extend(&first.body);
    let signature = first.header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = BASE64.decode(signature.as_bytes()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed, &signature).unwrap();

    let wanted = json!({
        "type": "credits.threshold_reached",
        "timestamp": "2025-12-16T22:30:35Z",
        "data": {
            "account": "ann@example.org", "plan": "free", "percent": 80, "used": 800, "max": 1000,
            "period_start": "2025-12-16T00:00:00Z", "renewal": "2026-01-16T00:00:00Z",
        },
    });
    assert_eq!(serde_json::from_slice::<Value>(&first.body).unwrap(), wanted);
    assert_eq!(desk.outcome(id), ("204".into(), DeliveryState::Delivered));

    // A day later there is another, and nothing of the first in between.
    desk.clock.advance(Duration::from_secs(24 * 3_600));
    desk.put(2, 95, "webhook");
    let second = next(&posted);
    assert_eq!(serde_json::from_slice::<Value>(&second.body).unwrap()["data"]["account"], "bob@example.org");
    assert_ne!(second.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(desk.reports(), [""; 0]);
}

#[test]
fn what_fails_is_tried_again_with_growing_waits_and_the_same_id() {
    let desk = Desk::new();
    let (port, posted) = receiver(&[
        Answer::Status("500 Internal Server Error"),
        Answer::Redirect,
        Answer::Reset,
        Answer::Status("429 Too Many Requests"),
        Answer::Status("200 OK"),
    ]);
    let id = desk.put(1, 80, "webhook");
    let _courier = desk.watch(&webhook_to("http", port));
    let mut waits = Vec::new();
    for attempts in 1..=4 {
        let row = desk.tried(id, attempts);
        waits.push(desk.advance_to_next(&row));
    }
    let row = desk.tried(id, 5);
    assert_eq!(row.state, DeliveryState::Delivered);
    let outcomes: Vec<&str> = row.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert!(matches!(outcomes[2], "connection reset" | "broken pipe"), "{outcomes:?}");
    assert_eq!((&outcomes[..2], &outcomes[3..]), (&["status 500", "status 302"][..], &["status 429", "200"][..]));
    for (wait, low) in waits.iter().zip([5, 300, 1_800, 7_200]) {
        assert!((low..=low + low / 10).contains(wait), "{waits:?}");
    }

    let requests: Vec<Posted> = posted.try_iter().collect();
    assert_eq!(requests.len(), 4, "all but the one that was reset");
    for request in &requests {
        assert_eq!(request.line, "POST /hook?x=url-token HTTP/1.1");
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        assert_eq!(request.body, requests[0].body);
    }
    let last = (NOW + waits.iter().sum::<u64>()).to_string();
    assert_eq!(requests[3].header("webhook-timestamp"), last);
    // Once when it began to fail, once when it was well again.
    let wanted = [
        "a notice could not be delivered by webhook: status 500 (`polygate notices list` tells more)",
        "notices are delivered by webhook again",
    ];
    assert_eq!(desk.reports(), wanted);
    desk.nothing_secret_was_told();
}

#[test]
fn nothing_is_tried_again_before_its_time() {
    let desk = Desk::new();
    let (port, posted) = receiver(&[Answer::Status("503 Service Unavailable"), Answer::Status("200 OK")]);
    let id = desk.put(1, 80, "webhook");
    let _courier = desk.watch(&webhook_to("http", port));
    let row = desk.tried(id, 1);
    let first = next(&posted);
    // A second before, another notice is due, and gets through alone.
    desk.clock.advance(Duration::from_secs(4));
    let other = desk.put(2, 80, "webhook");
    desk.tried(other, 1);
    assert_ne!(next(&posted).header("webhook-id"), first.header("webhook-id"));
    assert_eq!(desk.delivery(id), row);
    assert_eq!(desk.advance_to_next(&row), 1);
    assert_eq!(next(&posted).header("webhook-id"), first.header("webhook-id"));
}

#[test]
fn a_dead_receiver_is_given_up_within_a_day() {
    let desk = Desk::new();
    let id = desk.put(1, 100, "webhook");
    let _courier = desk.watch(&webhook_to("http", dead_port()));
    for attempts in 1..8 {
        let row = desk.tried(id, attempts);
        desk.advance_to_next(&row);
    }
    let row = desk.tried(id, 8);
    assert_eq!(row.state, DeliveryState::Abandoned);
    assert!(row.attempts.iter().all(|attempt| attempt.outcome == "connection refused"), "{row:?}");
    let past = desk.clock.unix_s() - NOW;
    assert!((20 * 3_600..24 * 3_600).contains(&past), "{past}");
    assert_eq!(desk.reports().len(), 1);
    desk.nothing_secret_was_told();
}

#[test]
fn a_receiver_that_is_gone_is_given_up_at_once() {
    let desk = Desk::new();
    let (port, _posted) = receiver(&[Answer::Status("410 Gone")]);
    let id = desk.put(1, 80, "webhook");
    let _courier = desk.watch(&webhook_to("http", port));
    assert_eq!(desk.outcome(id), ("status 410".into(), DeliveryState::Abandoned));
}

#[test]
fn a_receiver_that_says_nothing_holds_up_nobody_else() {
    let desk = Desk::new();
    let (silent, posted) = receiver(&[Answer::Silence]);
    let webhooks: Vec<i64> =
        [80, 95, 100].iter().flat_map(|&percent| [1, 2].map(|account| desk.put(account, percent, "webhook"))).collect();
    let (port, mails) = mail_server("250 OK");
    let both = Notices { email: mail_to(port, "none", "").email, ..webhook_to("http", silent) };
    let courier = desk.watch(&both);
    // All are under way, and none ends.
    webhooks.iter().for_each(|_| drop(next(&posted)));
    let mail = desk.put(1, 80, "email");
    assert_eq!(desk.outcome(mail), ("250".into(), DeliveryState::Delivered));
    next(&mails);
    assert_eq!(posted.try_iter().count(), 0, "what is under way is not taken again");
    for &id in &webhooks {
        assert_eq!(desk.delivery(id).attempts, []);
    }

    // Stopped at once, with sends under way; the next courier makes them again.
    let clock = Clock::system();
    let begin = clock.now();
    drop(courier);
    assert!(clock.now() - begin < Duration::from_secs(5));
    let (port, posted) = receiver(&[Answer::Status("200 OK")]);
    let _courier = desk.watch(&webhook_to("http", port));
    for &id in &webhooks {
        assert_eq!(desk.outcome(id), ("200".into(), DeliveryState::Delivered));
    }
    assert_eq!(posted.try_iter().count(), webhooks.len());
}

#[test]
fn no_more_are_under_way_than_there_are_places() {
    let desk = Desk::new();
    let (silent, posted) = receiver(&[Answer::Silence]);
    let (port, _mails) = mail_server("250 OK");
    let of_account = |account| [80, 95, 100].map(|percent| desk.put(account, percent, "webhook"));
    let webhooks: Vec<i64> = (1..=4).flat_map(of_account).collect();
    let both = Notices { email: mail_to(port, "none", "").email, ..webhook_to("http", silent) };
    let courier = desk.watch(&both);
    (0..8).for_each(|_| drop(next(&posted)));
    // A mail that becomes due after these takes a look into the outbox and a whole conversation.
    let mail = desk.put(1, 80, "email");
    desk.tried(mail, 1);
    assert_eq!(posted.try_iter().count(), 0);

    // Where they are answered, places become free for the rest.
    drop(courier);
    let (port, posted) = receiver(&[Answer::Status("200 OK")]);
    let _courier = desk.watch(&webhook_to("http", port));
    for &id in &webhooks {
        assert_eq!(desk.outcome(id), ("200".into(), DeliveryState::Delivered));
    }
    assert_eq!(posted.try_iter().count(), webhooks.len());
}

#[test]
fn a_store_that_is_locked_neither_loses_nor_repeats() {
    let desk = Desk::new();
    let (port, posted) = receiver(&[Answer::Status("200 OK")]);
    let id = desk.put(1, 80, "webhook");
    desk.raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    let _courier = desk.watch(&webhook_to("http", port));
    next(&posted);
    let told = until(|| desk.reports().pop());
    assert_eq!(told, "notices wait: the database failed: database is locked");
    desk.raw.execute_batch("COMMIT").unwrap();
    assert_eq!(desk.outcome(id), ("200".into(), DeliveryState::Delivered));
    assert_eq!(posted.try_iter().count(), 0);
}

#[test]
fn a_server_tells_of_credits_as_they_run_out() {
    let (port, posted) = receiver(&[Answer::Status("200 OK")]);
    let data = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let yaml = format!(
        "data: '{}'\nplans: {{ free: {{ credits_a_month: 10 }} }}\n\
         notices: {{ webhook: {{ url: 'http://127.0.0.1:{port}', secret: '{SECRET}' }} }}",
        data.path().display()
    );
    std::fs::write(file.path(), yaml).unwrap();
    let config = Config::load(Some(file.path()), std::iter::empty()).unwrap();
    let mut store = Store::open(data.path()).unwrap();
    let key = accounts::create_key(&mut store, &config, KeyRequest::default(), NOW).unwrap().key;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let report: Report = Arc::new(|line| panic!("{line}"));
    let server = thread::spawn(move || {
        let stopped = async {
            drop(stopped.await);
            End::Stop
        };
        let source = Source::new(None, || unreachable!());
        let (gateway, folder) = polygate::open(config, Clock::fixed(NOW), report.clone(), Log::off()).unwrap();
        polygate::run(gateway, folder, listener, source, report, || {}, stopped).unwrap();
    });
    let call = || {
        let mut stream = TcpStream::connect(address).unwrap();
        let path = "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP";
        let key = key.as_str();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    let told = || serde_json::from_slice::<Value>(&next(&posted).body).unwrap()["data"].clone();
    (0..8).for_each(|_| call());
    let first = told();
    assert_eq!((&first["percent"], &first["used"], &first["max"]), (&json!(80), &json!(8), &json!(10)));
    (0..2).for_each(|_| call());
    // Reached together, sent side by side.
    let mut percents = [told(), told()].map(|data| data["percent"].as_u64().unwrap());
    percents.sort_unstable();
    assert_eq!(percents, [95, 100]);
    stop.send(()).unwrap();
    server.join().unwrap();
    assert_eq!(posted.try_iter().count(), 0);
}

#[test]
fn where_nothing_is_configured_nothing_runs() {
    let desk = Desk::new();
    let courier = desk.watch(&Notices::default());
    assert!(courier.is_none());
}

/// A mail server that says `to_receiver` to every receiver, and hands out what it was told, line by line.
fn mail_server(to_receiver: &'static str) -> (u16, Receiver<Vec<String>>) {
    let (sender, mails) = mpsc::channel();
    let sender = Mutex::new(sender);
    let port = listen(move |stream| converse(&stream, to_receiver, &sender.lock().unwrap().clone()));
    (port, mails)
}

/// One conversation by SMTP.
fn converse(mut stream: &TcpStream, to_receiver: &str, mails: &Sender<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut said = Vec::new();
    stream.write_all(b"220 mail.test\r\n").unwrap();
    while let Some(line) = lines.next() {
        let answer = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => "250-mail.test\r\n250 AUTH PLAIN LOGIN",
            "AUTH" if line.ends_with(&BASE64.encode(b"\0ann\0hunter2")) => "235 hello",
            "AUTH" => "535 answer-body",
            "MAIL" => "250 OK",
            "RCPT" => to_receiver,
            "DATA" => "354 go on",
            "QUIT" => "221 goodbye",
            other => panic!("{other}"),
        };
        let quit = line == "QUIT";
        let data = line == "DATA";
        said.push(line);
        stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        if data {
            said.extend(lines.by_ref().take_while(|line| line != "."));
            stream.write_all(b"250 taken\r\n").unwrap();
        }
        if quit {
            break;
        }
    }
    let _ = mails.send(said);
}

#[test]
fn a_mail_says_who_what_and_when() {
    let desk = Desk::new();
    let (port, mails) = mail_server("250 OK");
    let id = desk.put(1, 100, "email");
    let _courier = desk.watch(&mail_to(port, "none", "username: ann, password: hunter2,"));
    assert_eq!(desk.outcome(id), ("250".into(), DeliveryState::Delivered));
    let message_id = desk.delivery(id).notice.id();
    let wanted = format!(
        "EHLO example.com\n\
         AUTH PLAIN AGFubgBodW50ZXIy\n\
         MAIL FROM:<no-reply@example.com>\n\
         RCPT TO:<ann@example.org>\n\
         DATA\n\
         From: Polygate <no-reply@example.com>\n\
         To: ann@example.org\n\
         Subject: All credits of this month are used\n\
         Date: Tue, 16 Dec 2025 22:30:35 +0000\n\
         Message-ID: <{message_id}@example.com>\n\
         Auto-Submitted: auto-generated\n\
         Content-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 7bit\n\
         \n\
         100 % of this month's credits are used: 1000 of 1000.\n\
         \n\
         Account: ann@example.org\n\
         Plan:    free\n\
         Renewal: 2026-01-16 (UTC)\n\
         \n\
         Until then calls are refused, unless credits are added or the plan is\n\
         changed.\n\
         \n\
         QUIT"
    );
    assert_eq!(next(&mails).join("\n"), wanted);
    assert_eq!(desk.reports(), [""; 0]);
}

#[test]
fn a_mail_is_tried_again_unless_its_receiver_is_refused_for_good() {
    let pending = DeliveryState::Pending { next_attempt_unix_s: NOW + 5 };
    let cases = [
        ("451 answer-body", "none", "", "status 451", pending),
        ("550 answer-body", "none", "", "status 550", DeliveryState::Abandoned),
        ("250 OK", "none", "username: ann, password: wrong,", "status 535", pending),
        ("250 OK", "starttls", "", "the server offers no STARTTLS", pending),
        ("250 OK", "implicit", "", "no TLS connection", pending),
    ];
    for (to_receiver, tls, login, outcome, state) in cases {
        let desk = Desk::new();
        let (port, _mails) = mail_server(to_receiver);
        let id = desk.put(1, 80, "email");
        let _courier = desk.watch(&mail_to(port, tls, login));
        assert_eq!(desk.outcome(id), (outcome.into(), state), "{to_receiver} {tls}");
        desk.nothing_secret_was_told();
    }
    let desk = Desk::new();
    let id = desk.put(1, 80, "email");
    let _courier = desk.watch(&mail_to(dead_port(), "none", ""));
    assert_eq!(desk.outcome(id), ("connection refused".into(), pending));
}

/// Speaks TLS, with a certificate that nobody has heard of.
fn handshake(mut stream: TcpStream) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
}

#[test]
fn certificates_are_checked() {
    let wanted = ("the certificate is from an unknown issuer".to_owned(), 1);
    let check = |channel, notices: Notices| {
        let desk = Desk::new();
        let id = desk.put(1, 80, channel);
        let _courier = desk.watch(&notices);
        let row = desk.tried(id, 1);
        assert_eq!((row.attempts[0].outcome.clone(), row.attempts.len()), wanted, "{notices:?}");
    };
    let port = listen(handshake);
    check("webhook", webhook_to("https", port));
    check("email", mail_to(port, "implicit", ""));
    let port = listen(|mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for (heard, said) in [("", "220 mail.test"), ("EHLO", "250 STARTTLS"), ("STARTTLS", "220 go on")] {
            assert!(heard.is_empty() || lines.next().unwrap().unwrap().starts_with(heard));
            stream.write_all(format!("{said}\r\n").as_bytes()).unwrap();
        }
        handshake(stream);
    });
    check("email", mail_to(port, "starttls", ""));
}

#[test]
fn what_speaks_no_tls_is_no_receiver_for_https() {
    let desk = Desk::new();
    let (port, _mails) = mail_server("250 OK");
    let id = desk.put(1, 80, "webhook");
    let _courier = desk.watch(&webhook_to("https", port));
    assert_eq!(desk.tried(id, 1).attempts[0].outcome, "no TLS connection");
}

#[test]
fn an_address_that_is_none_for_mail_is_given_up_at_once() {
    let desk = Desk::new();
    desk.raw.execute("UPDATE account SET email = 'a>b@example.org' WHERE id = 1", []).unwrap();
    desk.raw.execute("UPDATE account SET email = 'büro@example.org' WHERE id = 2", []).unwrap();
    let (port, _mails) = mail_server("250 OK");
    let ids = [desk.put(1, 80, "email"), desk.put(2, 80, "email")];
    let _courier = desk.watch(&mail_to(port, "none", ""));
    let outcomes = ids.map(|id| desk.outcome(id));
    assert_eq!(outcomes[0], ("not an address that mail can be sent to".into(), DeliveryState::Abandoned));
    assert_eq!(outcomes[1], ("the server takes no such address (SMTPUTF8)".into(), DeliveryState::Abandoned));
}

#[test]
fn the_command_line_lists_deliveries_and_makes_secrets() {
    let desk = Desk::new();
    let (port, _posted) = receiver(&[Answer::Status("503 Service Unavailable"), Answer::Status("200 OK")]);
    let first = desk.put(1, 80, "webhook");
    let courier = desk.watch(&webhook_to("http", port));
    desk.tried(first, 1);
    let second = desk.put(2, 95, "webhook");
    desk.tried(second, 1);
    drop(courier);
    let third = desk.put(2, 100, "email");
    let table = "\
ID  ACCOUNT          MONTH FROM            REACHED  CHANNEL  STATE      ATTEMPTS  NEXT ATTEMPT          LAST OUTCOME
1   ann@example.org  2025-12-16T00:00:00Z  80 %     webhook  pending    1         2025-12-16T22:30:40Z  status 503
2   bob@example.org  2025-12-16T00:00:00Z  95 %     webhook  delivered  1         -                     200
3   bob@example.org  2025-12-16T00:00:00Z  100 %    email    pending    0         2025-12-16T22:30:35Z
";
    assert_eq!(desk.command("notices list"), table);
    let listed: Value = serde_json::from_str(&desk.command("notices list --account Bob@example.org --json")).unwrap();
    let wanted = json!({
        "id": second, "account": "bob@example.org", "period_start": "2025-12-16T00:00:00Z", "percent": 95,
        "used": 950, "max": 1000, "message_id": desk.delivery(second).notice.id(), "channel": "webhook",
        "state": "delivered", "next_attempt_at": null,
        "attempts": [{ "at": "2025-12-16T22:30:35Z", "outcome": "200" }],
    });
    assert_eq!((listed.as_array().unwrap().len(), &listed[0], &listed[1]["id"]), (2, &wanted, &json!(third)));

    let secret = desk.command("notices secret");
    let config = notices(&format!("webhook: {{ url: 'http://127.0.0.1', secret: '{}' }}", secret.trim_end()));
    assert!(config.webhook.is_some() && secret.ends_with('\n') && secret != desk.command("notices secret"));
}
