//! Configuration: one YAML file and the environment, read into [`Config`], where nothing is optional by accident.
//!
//! The values of `default.yaml` are the only defaults there are: the operator's file is laid over them, the
//! environment over both, and what comes of it is read with every mistake noted under its path.

mod reader;
mod resolve;
#[cfg(test)]
mod tests;
mod tree;
mod upstream;

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lettre::message::Mailbox;
use rustix::fs::OFlags;

use self::reader::{Log, Node};
use self::tree::{FILE_BYTES_MAX, Tree};
use crate::pure::hidden::Hidden;
use crate::pure::log_line::{Level, LogFormat};
use crate::pure::plan::{Plan, Rate};
use crate::pure::webhook::{Endpoint, SigningSecret};

pub use self::upstream::{AnswerFormats, RequestBodies, UpstreamApi};

/// The default configuration with a comment for every key; as a file it changes nothing.
pub const DEFAULT_YAML: &str = include_str!("default.yaml");

/// What the address to listen on has to be, for messages.
pub const LISTEN_WANTED: &str = "an address and port, like 127.0.0.1:8080 or [::1]:8080";

/// Everything an operator can set, resolved and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the public listeners are bound, at least one. Default `127.0.0.1:8080`.
    pub listen: Vec<SocketAddr>,
    /// With what they encrypt. Default not at all.
    pub tls: Option<Tls>,
    /// Whether they take HTTP/2 without TLS. Default no.
    pub http2_prior_knowledge: bool,
    /// Where the private listener is bound, for metrics, health and administration. Default nowhere.
    pub private_listen: Option<SocketAddr>,
    /// The data directory: database and journal. Default `polygate-data`.
    pub data: PathBuf,
    /// What a charge that was answered outlives. Default `process`.
    pub durability: Durability,
    /// Networks whose `X-Forwarded-For` is believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// All plans, by the order of the file.
    pub plans: Vec<Arc<Plan>>,
    /// The plan of new accounts; one of `plans`. Default `free`.
    pub default_plan: Arc<Plan>,
    /// What each client address may ask of open routes.
    pub open: Rate,
    /// The APIs.
    pub apis: Apis,
    /// Status of "credits exhausted": 402, 403 or 429. Default 403.
    pub exhausted_status: u16,
    /// What happens when `Accept` excludes every format.
    pub not_acceptable: NotAcceptable,
    /// How accounts are told that they have used most of their credits.
    pub notices: Notices,
    /// The log.
    pub logs: Logs,
    /// Where traces go to. Default nowhere.
    pub traces: Option<Traces>,
    /// Sizes, counts and times.
    pub limits: Limits,
    /// How long the database remembers.
    pub retention: Retention,
}

impl Config {
    /// Reads the file, when there is one, of whatever kind, and the variables of `env` that begin with `POLYGATE_`.
    ///
    /// `POLYGATE_CONFIG` is passed over: the command line reads it, to find the file.
    ///
    /// # Errors
    /// Every mistake there is; of a file that cannot be read or is no YAML, that alone.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
        let over = file.map_or(Ok(Tree::Null), |file| named(file, first(file)))?;
        Config::resolve(over, env).map_err(|mistakes| ConfigErrors { mistakes })
    }

    /// The same for a program that serves already, and has to do with a file that [`can_be_read_again`].
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn reload(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
        let over = file.map_or(Ok(Tree::Null), |file| named(file, again(file)))?;
        Config::resolve(over, env).map_err(|mistakes| ConfigErrors { mistakes })
    }

    fn resolve(over: Tree, env: impl Iterator<Item = (String, String)>) -> Result<Config, Vec<String>> {
        let mut tree = Tree::parse(DEFAULT_YAML).expect("the embedded default file is YAML");
        tree.lay(over, Some("plans"));
        let mut log = Log::default();
        log.overlay(&mut tree, env);
        let config = resolve::config(Node::top(tree, &log));
        let mistakes = log.into_mistakes();
        config.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }
}

impl Config {
    /// This configuration as one that serves can take over from `running`, and the keys that are other than there but wait
    /// for the next start: what they say is done once.
    pub fn in_place_of(mut self, running: &Config) -> (Config, Vec<&'static str>) {
        let mut waiting = Vec::new();
        let Config { listen, tls, private_listen, data, durability, traces, .. } = &mut self;
        keep("listen", listen, &running.listen, &mut waiting);
        keep("tls", tls, &running.tls, &mut waiting);
        keep("private_listen", private_listen, &running.private_listen, &mut waiting);
        keep("data", data, &running.data, &mut waiting);
        keep("durability", durability, &running.durability, &mut waiting);
        keep("traces", traces, &running.traces, &mut waiting);
        (self, waiting)
    }
}

impl Config {
    /// The keys that are other than in `before`, plans and APIs by their names.
    pub fn changed_from(&self, before: &Config) -> Vec<String> {
        // All of them: one that is added is to be told, too.
        let Config {
            listen,
            tls,
            http2_prior_knowledge,
            private_listen,
            data,
            durability,
            trusted_proxies,
            plans,
            default_plan,
            open,
            apis,
            exhausted_status,
            not_acceptable,
            notices,
            logs,
            traces,
            limits,
            retention,
        } = self;
        let answers = (*exhausted_status, *not_acceptable) != (before.exhausted_status, before.not_acceptable);
        let keys = [
            ("listen", *listen != before.listen),
            ("tls", *tls != before.tls),
            ("http2_prior_knowledge", *http2_prior_knowledge != before.http2_prior_knowledge),
            ("private_listen", *private_listen != before.private_listen),
            ("data", *data != before.data),
            ("durability", *durability != before.durability),
            ("trusted_proxies", *trusted_proxies != before.trusted_proxies),
            // A plan that is another is told by its own name.
            ("default_plan", default_plan.name != before.default_plan.name),
            ("open", *open != before.open),
            ("answers", answers),
            ("notices", *notices != before.notices),
            ("logs", *logs != before.logs),
            ("traces", *traces != before.traces),
            ("limits", *limits != before.limits),
            ("retention", *retention != before.retention),
        ];
        let keys = keys.into_iter().filter(|(_, is_other)| *is_other).map(|(key, _)| key.to_owned());
        let plan = |plan: &Arc<Plan>| format!("plans.{}", plan.name);
        let api = |api: &Arc<UpstreamApi>| format!("apis.{}", api.name);
        let built_in = [
            (apis.totpgenerator != before.apis.totpgenerator),
            (apis.key2otp != before.apis.key2otp),
            (apis.analytics != before.apis.analytics),
        ];
        let built_in = Apis::BUILT_IN.into_iter().zip(built_in).filter(|(_, is_other)| *is_other);
        keys.chain(changed(plans, &before.plans, plan))
            .chain(built_in.map(|((name, _), _)| format!("apis.{name}")))
            .chain(changed(&apis.upstreams, &before.apis.upstreams, api))
            .collect()
    }
}

/// The names of what is other, or not there, in one of the two.
fn changed<T: PartialEq>(now: &[T], before: &[T], name: impl Fn(&T) -> String) -> Vec<String> {
    let mut names: Vec<String> = now.iter().filter(|it| !before.contains(it)).map(&name).collect();
    for gone in before.iter().filter(|it| !now.contains(it)).map(&name) {
        if !names.contains(&gone) {
            names.push(gone);
        }
    }
    names
}

fn keep<T: Clone + PartialEq>(key: &'static str, value: &mut T, running: &T, waiting: &mut Vec<&'static str>) {
    if value != running {
        value.clone_from(running);
        waiting.push(key);
    }
}

impl Default for Config {
    /// What is loaded from no file and an empty environment.
    fn default() -> Self {
        Config::resolve(Tree::Null, std::iter::empty()).expect("the embedded default file has no mistakes")
    }
}

/// Why a configuration was refused: one line a mistake, each with its key or variable, none with a value.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    mistakes: Vec<String>,
}

impl ConfigErrors {
    /// The lines, at least one, in the order of the default file; names nobody knows come last in their block.
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has mistakes:")?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Whether a program that serves can go by the file once more: it is a regular one, and there is something in it. Pipes
/// have been read to their ends, and editors leave files empty for a moment.
///
/// # Errors
/// Why it cannot, or why it is no YAML.
pub fn can_be_read_again(file: &Path) -> Result<(), ConfigErrors> {
    named(file, again(file)).map(drop)
}

/// What is in a configuration file, as far as it is not too long.
///
/// # Errors
/// As [`regular`].
pub fn content(file: &Path) -> io::Result<Vec<u8>> {
    regular(file, FILE_BYTES_MAX)
}

/// What is in a regular file, as far as it is not longer than `bytes_max`, and a byte more. Waits for nobody: whatever
/// else may stand under that name is not read.
///
/// # Errors
/// It is not there, is another kind of file, or cannot be read.
pub fn regular(file: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let is_regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    };
    // Who writes into a pipe would take it for read if it was as much as opened.
    is_regular(fs::metadata(file)?)?;
    // It may have become one since.
    let opened = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file)?;
    is_regular(opened.metadata()?)?;
    beginning(opened, bytes_max)
}

fn beginning(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text in a regular file, or why there is none.
fn text_of(file: &Path, bytes_max: usize) -> Result<String, String> {
    text(regular(file, bytes_max).map_err(|error| format!("cannot be read: {error}"))?, bytes_max)
}

fn text(bytes: Vec<u8>, bytes_max: usize) -> Result<String, String> {
    if bytes.len() > bytes_max {
        return Err(format!("is over {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {}", error.utf8_error()))
}

/// What is in a configuration file that is read for the first time: it may be a pipe, and then that is the only time.
fn first(file: &Path) -> Result<Tree, String> {
    let bytes = File::open(file).and_then(|file| beginning(file, FILE_BYTES_MAX));
    tree(text(bytes.map_err(|error| format!("cannot be read: {error}"))?, FILE_BYTES_MAX)?)
}

/// What is in it now.
fn again(file: &Path) -> Result<Tree, String> {
    let bytes = content(file).map_err(|error| format!("cannot be read again: {error}"))?;
    match tree(text(bytes, FILE_BYTES_MAX)?)? {
        Tree::Null => Err("is empty".to_owned()),
        tree => Ok(tree),
    }
}

fn tree(text: String) -> Result<Tree, String> {
    Tree::parse(&text).map_err(|error| format!("is not readable YAML: {error}"))
}

fn named(file: &Path, tree: Result<Tree, String>) -> Result<Tree, ConfigErrors> {
    tree.map_err(|reason| ConfigErrors { mistakes: vec![format!("{}: {reason}", file.display())] })
}

/// The files that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain of certificates, in PEM.
    pub certificate: PathBuf,
    /// The private key of its first, in PEM.
    pub key: PathBuf,
}

/// All APIs: those built in by name, and the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apis {
    /// `/v1/totpgenerator`, the enveloped dialect.
    pub totpgenerator: Api,
    /// `/v1/api/key2otp`, the flat dialect.
    pub key2otp: Api,
    /// Whether there is `/v1/analytics`, which needs a key and is free of charge.
    pub analytics: bool,
    /// Those that upstreams answer, by the order of the file. Default none.
    pub upstreams: Vec<Arc<UpstreamApi>>,
}

impl Apis {
    /// The names and paths of the APIs that are built in, enabled or not.
    pub const BUILT_IN: [(&str, &str); 3] =
        [("totpgenerator", "/v1/totpgenerator"), ("key2otp", "/v1/api/key2otp"), ("analytics", "/v1/analytics")];

    /// The names of all APIs, enabled or not: those built in, then the operator's own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        Apis::BUILT_IN.into_iter().map(|(name, _)| name).chain(self.upstreams.iter().map(|api| &*api.name))
    }
}

/// What can be set for an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Off: the path answers 404.
    pub enabled: bool,
    /// Who may call it.
    pub access: Access,
    /// Credits a successful keyed call costs.
    pub cost: u32,
}

/// Who may call an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Callers with a key.
    Key,
    /// Anybody, limited per client address, free of charge.
    Open,
}

/// The answer to an `Accept` that excludes every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAcceptable {
    /// 406 (the default).
    Refuse,
    /// JSON all the same.
    SendJson,
}

/// The ways by which notices are delivered. Default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// The operator's own system, which is told of all accounts.
    pub webhook: Option<Webhook>,
    /// Mail to the account's address.
    pub email: Option<Email>,
}

/// A receiver of webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where messages are posted to.
    pub url: Endpoint,
    /// What they are signed with.
    pub secret: SigningSecret,
}

/// A mail server that takes messages to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Its name or IP address.
    pub server: String,
    /// Default 587.
    pub port: u16,
    /// How the connection is encrypted. Default STARTTLS.
    pub tls: MailTls,
    /// User name and password, where it asks for them.
    pub login: Option<(String, Hidden<String>)>,
    /// Who the messages are from.
    pub from: Mailbox,
}

/// How a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// By STARTTLS (RFC 3207); a server that does not offer it is sent nothing.
    Starttls,
    /// From the first byte (RFC 8314, section 3.3).
    Implicit,
    /// Not at all.
    None,
}

/// What a charge outlives once its call has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however it ends (the default). When the machine loses power, about a second of charges
    /// may go with it.
    Process,
    /// A loss of power too: answers wait for the disk, many for one write of it.
    Power,
}

/// What is written to the log, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logs {
    /// Default human.
    pub format: LogFormat,
    /// Lines below it are left out. Default info.
    pub level: Level,
}

/// A collector of traces, which speaks OTLP over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Where spans are posted to.
    pub endpoint: Endpoint,
    /// Header lines that the collector asks for: names, which HTTP can send, and values, which are kept from view.
    pub headers: Vec<(String, Hidden<String>)>,
    /// The part of the traces that begin here which is sent, from 0 to 1. Default 0.1.
    pub sample_ratio: f64,
}

/// Sizes, counts and times that bound every call and connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request body, bytes. Default 16 KiB.
    pub body_bytes: usize,
    /// All request header lines together, bytes. Default 16 KiB.
    pub header_bytes: usize,
    /// Request header lines. Default 100.
    pub header_count: usize,
    /// Time for a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time for a whole head to arrive, from its first byte or from the beginning of the connection. Default 10 s.
    pub header_read_timeout: Duration,
    /// Time for a whole body to arrive. Default 10 s.
    pub body_read_timeout: Duration,
    /// The least that a body may arrive by, bytes a second, after a time of grace. Default 500.
    pub body_bytes_a_second: usize,
    /// Time for a call in all. Default 30 s.
    pub request_timeout: Duration,
    /// Time for an answer to be taken. Default 30 s.
    pub answer_write_timeout: Duration,
    /// Time after which an idle connection is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Connections open at once. Default 10,000.
    pub connections: usize,
    /// Connections of one client address. Default 256.
    pub connections_an_address: usize,
    /// Calls under way at once. Default 5,000.
    pub requests: usize,
    /// Streams open at once on an HTTP/2 connection. Default 100.
    pub http2_streams: usize,
    /// Streams reset early or by mistake that an HTTP/2 connection outlives. Default 20.
    pub http2_resets: usize,
    /// Frames that carry nothing of a call, in excess of 100 a call, that an HTTP/2 connection outlives. Default 1,000.
    pub http2_idle_frames: usize,
    /// Time that calls under way get to finish at shutdown. Default 10 s.
    pub drain_timeout: Duration,
    /// Client addresses remembered for open routes; those beyond share one bucket. Default 100,000.
    pub open_addresses: usize,
}

/// How long the database remembers what grows by itself. Credits and grants are remembered for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that hourly usage is kept, and keys that were revoked or expired. Default 400.
    pub usage_days: u64,
    /// Days that notices are kept, with the log of their deliveries. Default 90.
    pub deliveries_days: u64,
}
