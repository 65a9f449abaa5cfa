//! Another configuration while serving goes on: what it changes at once, what it leaves alone, and what it may not be.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polygate::state::store::DeliveryState;
use serde_json::Value;

use crate::program::{Desk, Server};
use crate::sockets::{Live, status_of};
use crate::support::{App, Reports, Setup, load};
use crate::tls::Certificate;

const CALL: &str = "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP\nX-API-Key: $key\n";
const SECRET: &str = "whsec_c2VjcmV0IG9mIDMyIGJ5dGVzLCBub3QgYSBzaG93bi4=";
const OPEN: &str = "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP\n";

fn app(config: &str) -> App {
    App::new(&Setup { config: config.into(), ..Setup::default() })
}

fn free(credits_a_month: u32, more: &str) -> String {
    format!("plans: {{ free: {{ credits_a_month: {credits_a_month} {more} }} }}")
}

fn row<const N: usize>(app: &App, sql: &str) -> [i64; N] {
    let connection = rusqlite::Connection::open(app.data.path().join("polygate.db")).unwrap();
    connection.query_row(sql, [], |row| Ok(std::array::from_fn(|at| row.get(at).unwrap()))).unwrap()
}

/// Credits used, granted and left, as a call of no cost is told.
async fn credits(app: &App) -> [String; 3] {
    let answer = app.send("GET /v1/analytics\nX-API-Key: $key\n").await;
    ["x-api-credits-used", "x-api-max-credits", "x-api-remaining-credits"].map(|name| answer.header(name).to_owned())
}

#[tokio::test]
async fn a_plan_that_is_raised_or_lowered_moves_balances_at_once_and_the_ledger_with_them() {
    let mut app = app(&free(3, ""));
    for _ in 0..3 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    assert_eq!(app.send(CALL).await.status, 403);
    assert_eq!(app.reload(&free(5, "")), [""; 0]);
    assert_eq!(credits(&app).await, ["3", "5", "2"]);
    assert_eq!(app.send(CALL).await.status, 200);
    // Less than has been used: that stays used, and nothing is left.
    app.reload(&free(2, ""));
    assert_eq!(credits(&app).await, ["4", "2", "0"]);
    assert_eq!(app.send(CALL).await.status, 403);
    app.fold();
    assert_eq!(row(&app, "SELECT used, bonus_used, ceiling FROM credit"), [4, 0, 5]);
    app.reload(&free(6, ""));
    assert_eq!(app.send(CALL).await.status, 200);
    app = app.restart();
    assert_eq!(credits(&app).await, ["5", "6", "1"]);
    assert_eq!(row(&app, "SELECT used, bonus_used, ceiling FROM credit"), [5, 0, 6]);
}

#[tokio::test]
async fn what_is_held_while_a_plan_is_lowered_is_charged_under_the_ceiling_it_was_held_under() {
    let mut app = app(&free(10, ""));
    let key = polygate::pure::key::KeyHash::of(app.key.as_bytes()).unwrap();
    let entry = app.gateway.keyring.find(&key).unwrap();
    let hold = entry.account.balance.reserve(8, app.clock.unix_s()).unwrap();
    app.reload(&free(5, ""));
    assert_eq!(credits(&app).await, ["0", "5", "0"]);
    let caller = polygate::state::meter::Caller { account: entry.account.id, key: entry.id, api: 1 };
    hold.commit(&app.gateway.meter, caller).await.unwrap();
    assert_eq!(credits(&app).await, ["8", "5", "0"]);
    app.fold();
    assert_eq!(row(&app, "SELECT used, ceiling FROM credit"), [8, 10]);
    // What is given back is free again only as far as there is any.
    let other = entry.account.balance.reserve(1, app.clock.unix_s());
    assert!(other.is_none());
}

#[tokio::test]
async fn a_lowered_plan_gives_the_notices_that_are_due_by_it() {
    let mut app = app(&free(10, ""));
    for _ in 0..4 {
        assert_eq!(app.send(CALL).await.status, 200);
    }
    app.fold();
    assert_eq!(row(&app, "SELECT count(*) FROM notice"), [0]);
    app.reload(&free(5, ""));
    app.fold();
    assert_eq!(row(&app, "SELECT count(*), max(percent), max(max) FROM notice"), [1, 80, 5]);
}

#[tokio::test]
async fn a_bucket_goes_on_unless_the_rate_is_another() {
    let mut app = app(&free(100, ", requests_a_minute: 3"));
    let left = |answer: &crate::support::Answer| answer.header("x-ratelimit-remaining").to_owned();
    assert_eq!(left(&app.send(CALL).await), "2");
    app.reload(&free(200, ", requests_a_minute: 3"));
    assert_eq!(left(&app.send(CALL).await), "1");
    app.reload(&free(200, ", requests_a_minute: 5"));
    assert_eq!(left(&app.send(CALL).await), "4");
    app.reload(&free(200, ""));
    assert_eq!(left(&app.send(CALL).await), "");
}

#[tokio::test]
async fn addresses_keep_their_buckets_unless_the_rate_is_another() {
    let mut app = app("open: { requests_a_minute: 3 }");
    let left = |answer: &crate::support::Answer| answer.header("x-ratelimit-remaining").to_owned();
    assert_eq!(left(&app.send(OPEN).await), "2");
    app.reload("open: { requests_a_minute: 3 }\nlimits: { open_addresses: 1 }");
    assert_eq!(left(&app.send(OPEN).await), "1");
    // One is remembered; the others share one bucket, which goes on as well.
    app.peer = [192, 0, 2, 2].into();
    assert_eq!(left(&app.send(OPEN).await), "2");
    app.reload("open: { requests_a_minute: 3 }\nlimits: { open_addresses: 1, body_bytes: 1 }");
    assert_eq!(left(&app.send(OPEN).await), "1");
    app.reload("open: { requests_a_minute: 9 }");
    assert_eq!(left(&app.send(OPEN).await), "8");
}

#[tokio::test]
async fn routes_are_opened_priced_and_closed() {
    let mut app = app("");
    let totp = "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP\n";
    assert_eq!((app.send(totp).await.status, app.send(OPEN).await.status), (401, 200));
    app.reload("apis: { totpgenerator: { access: open }, key2otp: { access: key } }");
    assert_eq!((app.send(totp).await.status, app.send(OPEN).await.status), (200, 401));
    app.reload("apis: { totpgenerator: { cost: 7 }, key2otp: { enabled: false } }");
    assert_eq!(app.send(CALL).await.header("x-api-credits-used"), "7");
    assert_eq!(app.send(OPEN).await.status, 404);
    app.fold();
    assert_eq!(row(&app, "SELECT bonus_used FROM credit"), [7]);
}

#[tokio::test]
async fn limits_and_answers_are_others_at_once() {
    let mut app = app("plans: { free: { credits_a_month: 0 } }");
    let long =
        "POST /v1/totpgenerator\nX-API-Key: $key\nContent-Type: application/json\n\n{\"secret\":\"JBSWY3DPEHPK3PXP\"}";
    assert_eq!(app.send(long).await.status, 403);
    app.reload(
        "plans: { free: { credits_a_month: 0 } }\nanswers: { exhausted_status: 402, not_acceptable: send-json }",
    );
    assert_eq!(app.send(long).await.status, 402);
    assert_eq!(app.send(&CALL.replace('\n', "\nAccept: image/png\n")).await.status, 402);
    app.reload("plans: { free: { credits_a_month: 0 } }\nlimits: { body_bytes: 10 }\ntrusted_proxies: [192.0.2.1]");
    assert_eq!(app.send(long).await.status, 413);
}

#[tokio::test]
async fn an_account_whose_plan_is_gone_keeps_it_and_is_told_of() {
    let mut app = app(&free(3, ", requests_a_minute: 5"));
    assert_eq!(app.send(CALL).await.status, 200);
    app.reload("plans: { other: { credits_a_month: 9 } }\ndefault_plan: other");
    let answer = app.send(CALL).await;
    assert_eq!((answer.status, answer.header("x-api-current-plan")), (200, "free"));
    assert_eq!((answer.header("x-api-max-credits"), answer.header("x-ratelimit-remaining")), ("3", "3"));
    let mistakes = app.gateway.keyring.take_mistakes();
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].to_string().starts_with("account test@example.com has the plan `free`"), "{}", mistakes[0]);
    app.reload(&free(4, ""));
    assert_eq!(credits(&app).await, ["2", "4", "2"]);
    assert!(app.gateway.keyring.take_mistakes().is_empty());
}

#[tokio::test]
async fn every_key_that_waits_for_the_next_start_is_named_and_keeps_its_value() {
    let mut app = app("");
    let before = app.gateway.config.clone();
    let other = "listen: 127.0.0.1:1\ntls: { certificate: a, key: b }\nprivate_listen: 127.0.0.1:2\ndurability: power\n\
                 traces: { endpoint: 'http://127.0.0.1:1/v1/traces' }\n";
    assert_eq!(
        app.reload(&format!("{other}http2_prior_knowledge: true")),
        ["listen", "tls", "private_listen", "durability", "traces"]
    );
    let after = app.gateway.config.clone();
    assert!(after.http2_prior_knowledge);
    assert_eq!(polygate::config::Config { http2_prior_knowledge: false, ..after }, before);
    // The data directory is an option of the command line in these tests.
    let elsewhere = polygate::config::Config { data: "elsewhere".into(), ..before.clone() };
    assert_eq!(elsewhere.in_place_of(&before), (before, vec!["data"]));
}

#[test]
fn a_call_ends_under_the_configuration_it_began_with_and_the_next_on_its_connection_has_the_other() {
    let live = Live::new(&Setup::default());
    let mut reloader = live.app.reloader(live.current.clone());
    let body = r#"{"secret":"JBSWY3DPEHPK3PXP"}"#;
    let head = format!(
        "POST /v1/totpgenerator HTTP/1.1\r\nHost: t\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        live.app.key,
        body.len()
    );
    let call = format!("{head}{body}");
    let (mut one, mut two) = (live.connect(), live.connect());
    assert_eq!((status_of(&mut one, &call), status_of(&mut two, &call)), (200, 200));
    one.write_all(head.as_bytes()).unwrap();
    while live.app.gateway.load.requests() == 0 {
        std::thread::yield_now();
    }
    reloader.reload(load(live.app.data.path(), "apis: { totpgenerator: { enabled: false } }")).unwrap();
    assert_eq!(status_of(&mut two, &call), 404);
    assert_eq!(status_of(&mut one, body), 200);
    assert_eq!(status_of(&mut one, &call), 404);
}

#[test]
fn limits_of_connections_and_calls_follow() {
    let live = Live::new(&Setup { config: "limits: { connections: 1 }".into(), ..Setup::default() });
    let mut reloader = live.app.reloader(live.current.clone());
    let call = "GET /v1/api/key2otp?secret=JBSWY3DPEHPK3PXP HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut one = live.connect();
    assert_eq!(status_of(&mut one, call), 200);
    assert_eq!(live.connect().read(&mut [0]).unwrap(), 0, "there are too many");
    reloader.reload(load(live.app.data.path(), "limits: { connections: 2, idle_timeout_s: 1 }")).unwrap();
    let mut two = live.connect();
    assert_eq!(status_of(&mut two, call), 200);
    // The sweeps go by the new limits too: otherwise this would take a minute.
    two.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(two.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_channel_that_is_added_delivers_and_one_that_is_moved_delivers_elsewhere() {
    let app = app(&free(1, ""));
    let mut reloader = app.reloader(Arc::new(polygate::gateway::Current::new(app.gateway.clone())));
    let receivers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut reload = |receiver: &TcpListener| {
        let url = format!("http://{}", receiver.local_addr().unwrap());
        let webhook = format!("notices: {{ webhook: {{ url: '{url}', secret: '{SECRET}' }} }}\n{}", free(1, ""));
        assert_eq!(reloader.reload(load(app.data.path(), &webhook)).unwrap(), [""; 0]);
    };
    let posted = |receiver: &TcpListener| {
        let (stream, _) = receiver.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "POST / HTTP/1.1\r\n");
        stream
    };
    reload(&receivers[0]);
    assert_eq!(app.send(CALL).await.status, 200);
    app.fold();
    // Of three notices. What is not answered when the receiver becomes another is sent there.
    let _unanswered = posted(&receivers[0]);
    reload(&receivers[1]);
    for _ in 0..3 {
        posted(&receivers[1]).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
    let mut delivered = 0;
    while delivered < 3 {
        let deliveries = app.store().list_deliveries(None).unwrap();
        delivered = deliveries.iter().filter(|row| row.state == DeliveryState::Delivered).count();
    }
}

#[test]
fn a_database_that_cannot_be_read_changes_nothing() {
    let reports: Reports = Arc::new(Mutex::default());
    let app = App::new(&Setup { reports: Some(reports), ..Setup::default() });
    let current = Arc::new(polygate::gateway::Current::new(app.gateway.clone()));
    let mut reloader = app.reloader(current.clone());
    let config = load(app.data.path(), "plans: { free: { credits_a_month: 1 } }");
    fs::rename(app.data.path().join("polygate.db"), app.data.path().join("moved.db")).unwrap();
    fs::create_dir(app.data.path().join("polygate.db")).unwrap();
    assert!(reloader.reload(config).is_err());
    assert!(Arc::ptr_eq(&current.load(), &app.gateway));
}

/// A real server whose log is read line by line.
struct Told {
    server: Server,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Told {
    fn start(desk: &Desk) -> Told {
        Told::spawn(desk.command("serve --listen 127.0.0.1:0 --config polygate.yaml"))
    }

    fn spawn(command: Command) -> Told {
        let mut server = Server::spawn(command);
        let lines = BufReader::new(server.child.stderr.take().unwrap()).lines();
        Told { server, lines }
    }

    fn signal(&self, name: &str) {
        let pid = self.server.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// The next message that begins so.
    fn next(&mut self, start: &str) -> String {
        let messages = self.lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let mut messages = messages.filter_map(|line| line["message"].as_str().map(str::to_owned));
        messages.find(|message| message.starts_with(start)).unwrap_or_else(|| panic!("the log ends without {start}"))
    }
}

#[test]
fn a_file_is_read_on_hangup_and_when_it_has_changed_and_a_bad_one_is_refused_whole() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("logs: { format: json }");
    let mut told = Told::start(&desk);
    assert_eq!(told.server.call(&key), 200);
    desk.write("logs: { format: json }\napis: { totpgenerator: { enabled: false } }\nlimit: 1\nopen: { burst: -1 }");
    told.signal("HUP");
    assert_eq!(
        told.next("the configuration in use stays"),
        "the configuration in use stays: the configuration has mistakes: \
         open.burst: must be a whole number from 1 to 1000000; limit: unknown key; did you mean limits?"
    );
    assert_eq!(told.server.call(&key), 200);
    desk.write(
        "logs: { format: json }\napis: { totpgenerator: { enabled: false } }\ndata: elsewhere\nlisten: '[::1]:0'",
    );
    told.signal("HUP");
    // What was typed goes before the file still.
    assert_eq!(told.next("configuration reloaded"), "configuration reloaded");
    assert_eq!(told.server.call(&key), 404);
    // By another file that takes its name, as editors do; nobody says so.
    let other = desk.directory.path().join("other.yaml");
    fs::write(&other, "logs: { format: json }\nprivate_listen: 127.0.0.1:0").unwrap();
    fs::rename(&other, desk.directory.path().join("polygate.yaml")).unwrap();
    let wanted = "configuration reloaded; what waits for the next start: private_listen";
    assert_eq!(told.next("configuration reloaded"), wanted);
    assert_eq!(told.server.call(&key), 200);
    desk.write("logs: { format: json, level: warn }\napis: { totpgenerator: { enabled: false } }");
    told.signal("HUP");
    // Nothing tells of it, as it says itself.
    while told.server.call(&key) != 404 {}
    told.signal("TERM");
    assert!(told.server.child.wait().unwrap().success());
    let rest: Vec<_> = told.lines.map(Result::unwrap).filter(|line| !line.contains(r#""status":200"#)).collect();
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn what_is_no_file_is_read_once() {
    let desk = Desk::new();
    let key = desk.create("");
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"logs: { format: json }\napis: { totpgenerator: { enabled: false } }").unwrap();
    drop(writer);
    let mut command = desk.command("serve --listen 127.0.0.1:0 --config /dev/stdin");
    command.stdin(reader);
    let mut told = Told::spawn(command);
    assert_eq!(told.server.call(&key), 404);
    let why = "/dev/stdin: cannot be read again: it is no regular file";
    told.signal("HUP");
    let wanted = format!("the configuration in use stays: the configuration has mistakes: {why}");
    assert_eq!(told.next("the configuration in use stays"), wanted);
    told.signal("USR2");
    assert_eq!(told.next("polygate goes on"), format!("polygate goes on: the configuration has mistakes: {why}"));
    assert_eq!(told.server.call(&key), 404);
    told.signal("TERM");
    assert!(told.server.child.wait().unwrap().success());
}

#[test]
fn a_file_that_becomes_a_pipe_or_empty_changes_nothing_and_keeps_nobody_waiting() {
    let desk = Desk::new();
    let key = desk.create("");
    let file = desk.directory.path().join("polygate.yaml");
    desk.write("logs: { format: json }\napis: { totpgenerator: { enabled: false } }");
    let mut told = Told::start(&desk);
    desk.write("# Nothing yet.\n");
    told.signal("HUP");
    let wanted = "the configuration in use stays: the configuration has mistakes: polygate.yaml: is empty";
    assert_eq!(told.next("the configuration in use stays"), wanted);
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let wanted = "the configuration in use stays: the configuration has mistakes: \
                  polygate.yaml: cannot be read again: it is no regular file";
    assert_eq!(told.next(wanted), wanted);
    assert_eq!(told.server.call(&key), 404);
    told.signal("TERM");
    assert!(told.server.child.wait().unwrap().success());
}

#[test]
fn a_renewed_certificate_is_told_of_and_one_that_is_a_pipe_keeps_nobody_waiting() {
    let mut certificate = Certificate::new();
    let desk = Desk::new();
    desk.write(&format!("logs: {{ format: json }}\n{}", certificate.yaml()));
    let mut told = Told::start(&desk);
    certificate.renew();
    assert_eq!(told.next("the certificate"), "the certificate has been renewed");
    let file = certificate.file();
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let wanted = format!("the certificate in use stays: {} cannot be read: ", file.display());
    assert_eq!(told.next("the certificate"), format!("{wanted}it is no regular file"));
    told.signal("TERM");
    assert!(told.server.child.wait().unwrap().success());
}

#[test]
fn a_successor_that_fails_without_a_word_is_told_of() {
    let desk = Desk::new();
    desk.write("logs: { format: json }");
    let program = desk.directory.path().join("polygate");
    symlink(env!("CARGO_BIN_EXE_polygate"), &program).unwrap();
    let typed = desk.command("serve --listen 127.0.0.1:0 --config polygate.yaml");
    let mut command = Command::new(&program);
    command.env_clear().current_dir(&desk.directory).args(typed.get_args());
    let mut told = Told::spawn(command);
    fs::remove_file(&program).unwrap();
    symlink("/bin/false", &program).unwrap();
    told.signal("USR2");
    let wanted = format!("polygate goes on: {} does not take the configuration: exit status: 1", program.display());
    assert_eq!(told.next("polygate goes on"), wanted);
    told.signal("TERM");
    assert!(told.server.child.wait().unwrap().success());
}
