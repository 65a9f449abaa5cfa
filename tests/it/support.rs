//! A whole program in process: a database of its own, a fixed clock, the real chain. Requests and answers are plain text.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use polygate::config::Config;
use polygate::edge::http::chain;
use polygate::edge::http::claim::lift;
use polygate::edge::reload::Reloader;
use polygate::gateway::{Current, Gateway};
use polygate::pure::bounds::Bounds;
use polygate::pure::key::ApiKey;
use polygate::state::clock::Clock;
use polygate::state::folder::Folder;
use polygate::state::log::Log;
use polygate::state::report::Report;
use polygate::state::store::{NewKey, Store};
use ring::rand::SystemRandom;
use tempfile::TempDir;
use tower_service::Service;

/// What a test application is made of.
pub struct Setup {
    pub now_unix_s: u64,
    pub plan: String,
    pub bounds: Bounds,
    pub expires_unix_s: Option<u64>,
    /// Configuration on top of the defaults and of [`PLANS`].
    pub config: String,
    /// Takes what the operator is told, which is otherwise a failure.
    pub reports: Option<Reports>,
    /// In place of one that stands at `now_unix_s`.
    pub clock: Option<Clock>,
}

pub type Reports = Arc<Mutex<Vec<String>>>;

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            now_unix_s: 1_765_924_235,
            plan: "free".into(),
            bounds: Bounds::default(),
            expires_unix_s: None,
            config: String::new(),
            reports: None,
            clock: None,
        }
    }
}

const PLANS: &str = "
plans:
  free: { credits_a_month: 1000, bonus_credits: 500, requests_a_minute: 60 }
  slow: { credits_a_month: 1000, requests_a_minute: 1 }
  spent: { credits_a_month: 0 }
  one: { credits_a_month: 1 }
  mega: { credits_a_month: 4000000 }
";

pub struct App {
    pub gateway: Arc<Gateway>,
    pub key: String,
    pub clock: Clock,
    /// The other end of the connection.
    pub peer: IpAddr,
    pub data: TempDir,
    folder: Mutex<Folder>,
    reports: Option<Reports>,
}

impl App {
    /// An application with one account and one key.
    pub fn new(setup: &Setup) -> App {
        let data = tempfile::tempdir().unwrap();
        let config = load(data.path(), &setup.config);
        let clock = setup.clock.clone().unwrap_or_else(|| Clock::fixed(setup.now_unix_s));
        let mut store = Store::open(data.path()).unwrap();
        let plan = config.plans.iter().find(|plan| plan.name == setup.plan).unwrap();
        let key = ApiKey::generate(&SystemRandom::new()).unwrap();
        let new = NewKey {
            key: &key,
            name: String::new(),
            bounds: setup.bounds.clone(),
            expires_unix_s: setup.expires_unix_s,
        };
        store.create_key("test@example.com", plan, &new, setup.now_unix_s).unwrap();
        let (gateway, folder) = open(config, &clock, &setup.reports);
        let (key, peer, reports) = (key.as_str().to_owned(), [192, 0, 2, 1].into(), setup.reports.clone());
        App { gateway, key, clock, peer, data, folder, reports }
    }

    /// What gives another configuration to all that are answered by `current`.
    pub fn reloader(&self, current: Arc<Current>) -> Reloader {
        let settings = self.folder.lock().unwrap().settings();
        Reloader::start(current, settings, reporter(&self.reports)).unwrap()
    }

    /// Has the program go by another configuration, as a reload does. Returns the keys that wait for the next start.
    pub fn reload(&mut self, config: &str) -> Vec<&'static str> {
        let current = Arc::new(Current::new(self.gateway.clone()));
        let waiting = self.reloader(current.clone()).reload(load(self.data.path(), config)).unwrap();
        self.gateway = current.load_full();
        waiting
    }

    /// Folds the ledger, as a server does each second.
    pub fn fold(&self) {
        self.folder.lock().unwrap().fold().unwrap();
    }

    /// The program anew on the same data, after an end that folded nothing.
    pub fn restart(self) -> App {
        self.restart_after(|config, _| config)
    }

    /// The same, with something done in between, to the configuration or the data directory.
    pub fn restart_after(self, between: impl FnOnce(Config, &Clock) -> Config) -> App {
        let App { gateway, key, clock, peer, data, folder, reports } = self;
        let config = gateway.config.clone();
        drop((gateway, folder));
        let (gateway, folder) = open(between(config, &clock), &clock, &reports);
        App { gateway, key, clock, peer, data, folder, reports }
    }

    /// The database, as a command opens it.
    pub fn store(&self) -> Store {
        Store::open(self.data.path()).unwrap()
    }

    /// Sends a request: `METHOD path`, header lines, an empty line, the body. `$key` is the key, `$16k` is 16 KiB of `A`.
    pub async fn send(&self, request: &str) -> Answer {
        let text = request.replace("$key", &self.key).replace("$16k", &"A".repeat(16 * 1024));
        let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
        let mut lines = head.lines();
        let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
        let mut builder = Request::builder().method(method).uri(path).header("Host", "localhost");
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            builder = builder.header(name, value.trim());
        }
        // Multipart delimiters end in CRLF (RFC 2046 section 5.1.1), which text fixtures do not hold.
        let multipart = head.contains("multipart/");
        let body = if multipart { body.replace('\n', "\r\n") } else { body.to_owned() };
        let request = builder.body(Full::new(Bytes::from(body))).unwrap();
        let response = warp::service(chain(self.gateway.clone(), self.peer)).call(lift(request)).await.unwrap();
        let (head, body) = response.into_parts();
        let mut headers = BTreeMap::new();
        for (name, value) in &head.headers {
            let earlier = headers.insert(name.to_string(), String::from_utf8(value.as_bytes().to_vec()).unwrap());
            assert_eq!(earlier, None, "{name} is there twice");
        }
        Answer {
            status: head.status.as_u16(),
            reason: head.status.canonical_reason().unwrap(),
            headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

/// A configuration on top of the defaults and of [`PLANS`], over a data directory.
pub fn load(data: &Path, config: &str) -> Config {
    let file = data.join("polygate.yaml");
    let plans = if config.contains("plans:") { "" } else { PLANS };
    fs::write(&file, format!("{config}\n{plans}")).unwrap();
    Config { data: data.to_owned(), ..Config::load(Some(&file), std::iter::empty()).unwrap() }
}

fn open(config: Config, clock: &Clock, reports: &Option<Reports>) -> (Arc<Gateway>, Mutex<Folder>) {
    let (gateway, folder) = polygate::open(config, clock.clone(), reporter(reports), Log::off()).unwrap();
    (gateway, Mutex::new(folder))
}

/// Takes what the operator is told, which is a failure where nothing is expected.
pub fn reporter(reports: &Option<Reports>) -> Report {
    let reports = reports.clone();
    Arc::new(move |message: &dyn fmt::Display| match &reports {
        Some(reports) => reports.lock().unwrap().push(message.to_string()),
        None => panic!("{message}"),
    })
}

/// An answer as a client sees it; its text is the status, the headers by name, an empty line and the body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: &'static str,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

impl Answer {
    /// A header's value; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.status, self.reason)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

/// Asserts that an answer is the one wanted. Headers that `want` does not name may be there too.
#[track_caller]
pub fn same(answer: &Answer, want: &str) {
    let named = |line: &str| want.lines().take_while(|line| !line.is_empty()).any(|wanted| wanted == line);
    let text = answer.to_string();
    let (head, body) = text.split_once("\n\n").unwrap();
    let (status, lines) = head.split_once('\n').unwrap_or((head, ""));
    let kept: String = lines.lines().filter(|line| named(line)).map(|line| format!("{line}\n")).collect();
    assert_eq!(format!("{status}\n{kept}\n{body}"), want, "the whole answer:\n{text}");
}
