//! From keys and values to [`Config`]: one function a block, in the order of `default.yaml`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

mod upstream;

use super::reader::{Block, Node};
use super::{
    Access, Api, Apis, Config, Durability, Email, LISTEN_WANTED, Limits, Logs, MailTls, NotAcceptable, Notices,
    Retention, Tls, Traces, Webhook,
};
use crate::pure::hidden::Hidden;
use crate::pure::log_line::{Level, LogFormat};
use crate::pure::plan::{Plan, Rate};
use crate::pure::webhook::{Endpoint, SigningSecret};

/// The most credits a plan can give.
const CREDITS_MAX: u64 = 1_000_000_000_000;
/// The highest limit of requests a minute, and the largest burst.
const RATE_MAX: u64 = 1_000_000;
/// The most a call can cost.
const COST_MAX: u64 = 1_000_000;
/// The most plans, and the most trusted networks.
const ENTRIES_MAX: usize = 1_000;
/// The longest name of a plan or an API, in characters.
const NAME_MAX: usize = 32;
/// The most listeners.
const LISTENERS_MAX: usize = 32;
/// The longest path, bytes: what Linux takes.
const PATH_BYTES_MAX: usize = 4_096;
/// The least room for a request head: the HTTP library's own lower bound.
const HEADER_BYTES_MIN: u64 = 8_192;
/// The longest name of a host (RFC 1035, section 2.3.4), and the longest of other texts about mail, in bytes.
const TEXT_BYTES_MAX: usize = 253;
/// The largest that any request body can be allowed to be.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most header lines for a collector of traces, and the longest of them, in bytes.
const COLLECTOR_HEADERS_MAX: usize = 16;
const HEADER_LINE_BYTES_MAX: usize = 4_096;
/// The longest of all times, seconds.
const TIME_S_MAX: u64 = 3_600;
/// The longest that anything is kept, days.
const RETENTION_DAYS_MAX: u64 = 3_650;

/// Reads the whole; `None` when a mistake was noted.
pub(super) fn config(top: Node<'_>) -> Option<Config> {
    let mut top = top.block()?;
    let listen = listen(top.take("listen"));
    let tls = top.take("tls").block().and_then(tls);
    let http2_prior_knowledge = top.take("http2_prior_knowledge").yes_no();
    let private_listen = private_listen(top.take("private_listen"));
    let data = top.take("data").text("the path of a directory", path);
    let durability = top.take("durability").text("process or power", |word| match word {
        "process" => Some(Durability::Process),
        "power" => Some(Durability::Power),
        _ => None,
    });
    let trusted_proxies = top.take("trusted_proxies").list(ENTRIES_MAX).and_then(|items| all(items, network));
    let default_plan = top.take("default_plan");
    let plans = plans(top.take("plans"));
    let default_plan = match &plans {
        Some(plans) => default_plan.text("the name of a plan", |name| plans.iter().find(|p| p.name == name).cloned()),
        None => None,
    };
    let open = top.take("open").block().and_then(open);
    let apis = top.take("apis").block().and_then(apis);
    let answers = top.take("answers").block().and_then(answers);
    let notices = top.take("notices").block().and_then(notices);
    let logs = top.take("logs").block().and_then(logs);
    let traces = top.take("traces").block().and_then(traces);
    let limits = top.take("limits").block().and_then(limits);
    let retention = top.take("retention").block().and_then(retention);
    let apis = apis.zip(limits.as_ref()).and_then(|(apis, limits)| upstream::in_time(&top, apis, limits));
    top.finish();
    let (exhausted_status, not_acceptable) = answers?;
    Some(Config {
        listen: listen?,
        tls: tls?,
        http2_prior_knowledge: http2_prior_knowledge?,
        private_listen: private_listen?,
        data: data?,
        durability: durability?,
        trusted_proxies: trusted_proxies?,
        plans: plans?,
        default_plan: default_plan?,
        open: open?,
        apis: apis?,
        exhausted_status,
        not_acceptable,
        notices: notices?,
        logs: logs?,
        traces: traces?,
        limits: limits?,
        retention: retention?,
    })
}

fn listen(node: Node<'_>) -> Option<Vec<SocketAddr>> {
    let address = |node: Node<'_>| node.text(LISTEN_WANTED, |address| address.parse().ok());
    if !node.is_list() {
        return address(node).map(|address| vec![address]);
    }
    let items = node.clone().list(LISTENERS_MAX)?;
    if items.is_empty() { node.wrong("must name at least one address") } else { all(items, address) }
}

fn tls(mut block: Block<'_>) -> Option<Option<Tls>> {
    let [certificate, key] = ["certificate", "key"].map(|key| block.take(key));
    block.finish();
    if certificate.is_empty() && key.is_empty() {
        return Some(None);
    }
    let [certificate, key] = [certificate, key].map(|node| wanted(node, "the path of a PEM file", path));
    Some(Some(Tls { certificate: certificate?, key: key? }))
}

fn private_listen(node: Node<'_>) -> Option<Option<SocketAddr>> {
    if node.is_empty() {
        return Some(None);
    }
    node.text("an address and port, like 127.0.0.1:9090, or empty", |address| address.parse().ok()).map(Some)
}

fn path(text: &str) -> Option<PathBuf> {
    let fits = !text.is_empty() && text.len() <= PATH_BYTES_MAX && !text.contains('\0');
    fits.then(|| PathBuf::from(text))
}

fn network(node: Node<'_>) -> Option<ipnet::IpNet> {
    node.text("a network or address, like 192.0.2.0/24 or 2001:db8::1", |text| {
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Into::into))
    })
}

fn plans(node: Node<'_>) -> Option<Vec<Arc<Plan>>> {
    let block = node.block()?;
    let count = block.len();
    if !(1..=ENTRIES_MAX).contains(&count) {
        return block.wrong(&format!("must name from 1 to {ENTRIES_MAX} plans, not {count}"));
    }
    all(block.into_named(), |(name, node)| plan(name, node).map(Arc::new))
}

fn plan(name: String, node: Node<'_>) -> Option<Plan> {
    if !is_name(&name) {
        return node.wrong("a plan's name has 1 to 32 characters, each a to z, 0 to 9 or hyphen");
    }
    let mut block = node.block()?;
    let credits_a_month = block.take("credits_a_month").whole(0, CREDITS_MAX);
    let bonus_credits = block.take("bonus_credits").given().map_or(Some(0), |node| node.whole(0, CREDITS_MAX));
    let rate = rate_or_none(&mut block);
    block.finish();
    Some(Plan { name, credits_a_month: credits_a_month?, bonus_credits: bonus_credits?, rate: rate? })
}

/// Whether plans and APIs can be called so.
fn is_name(name: &str) -> bool {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(plain)
}

fn open(mut block: Block<'_>) -> Option<Rate> {
    let requests_a_minute = block.take("requests_a_minute");
    let burst = block.take("burst").given();
    block.finish();
    rate(requests_a_minute, burst)
}

/// `requests_a_minute` and `burst`, both of which can be left out.
fn rate_or_none(block: &mut Block<'_>) -> Option<Option<Rate>> {
    let requests_a_minute = block.take("requests_a_minute").given();
    let burst = block.take("burst").given();
    match (requests_a_minute, burst) {
        (Some(requests_a_minute), burst) => rate(requests_a_minute, burst).map(Some),
        (None, Some(burst)) => burst.wrong("means nothing without requests_a_minute"),
        (None, None) => Some(None),
    }
}

fn rate(requests_a_minute: Node<'_>, burst: Option<Node<'_>>) -> Option<Rate> {
    let requests_a_minute = requests_a_minute.whole(1, RATE_MAX).and_then(non_zero);
    let burst = match burst {
        None => requests_a_minute,
        Some(node) => {
            let burst = node.clone().whole(1, RATE_MAX).and_then(non_zero);
            // A caller would be told of more requests left than its limit.
            if requests_a_minute.zip(burst).is_some_and(|(requests_a_minute, burst)| burst > requests_a_minute) {
                return node.wrong("must not be above requests_a_minute");
            }
            burst
        }
    };
    Some(Rate { requests_a_minute: requests_a_minute?, burst: burst? })
}

fn non_zero(number: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(number).ok()?)
}

fn apis(mut block: Block<'_>) -> Option<Apis> {
    let totpgenerator = block.take("totpgenerator").block().and_then(api);
    let key2otp = block.take("key2otp").block().and_then(api);
    let analytics = block.take("analytics").block().and_then(analytics);
    let upstreams = upstream::all(block);
    Some(Apis { totpgenerator: totpgenerator?, key2otp: key2otp?, analytics: analytics?, upstreams: upstreams? })
}

fn analytics(mut block: Block<'_>) -> Option<bool> {
    let enabled = block.take("enabled").yes_no();
    block.finish();
    enabled
}

fn api(mut block: Block<'_>) -> Option<Api> {
    let enabled = block.take("enabled").yes_no();
    let access = access(block.take("access"));
    let cost = cost(block.take("cost"));
    block.finish();
    Some(Api { enabled: enabled?, access: access?, cost: cost? })
}

fn access(node: Node<'_>) -> Option<Access> {
    node.text("key or open", |word| match word {
        "key" => Some(Access::Key),
        "open" => Some(Access::Open),
        _ => None,
    })
}

fn cost(node: Node<'_>) -> Option<u32> {
    node.whole(0, COST_MAX).and_then(|cost| u32::try_from(cost).ok())
}

fn answers(mut block: Block<'_>) -> Option<(u16, NotAcceptable)> {
    let exhausted_status = block.take("exhausted_status").whole_of("402, 403 or 429", &[402, 403, 429]);
    let not_acceptable = block.take("not_acceptable").text("refuse or send-json", |word| match word {
        "refuse" => Some(NotAcceptable::Refuse),
        "send-json" => Some(NotAcceptable::SendJson),
        _ => None,
    });
    block.finish();
    Some((exhausted_status?, not_acceptable?))
}

fn notices(mut block: Block<'_>) -> Option<Notices> {
    let webhook = block.take("webhook").block().and_then(webhook);
    let email = block.take("email").block().and_then(email);
    block.finish();
    Some(Notices { webhook: webhook?, email: email? })
}

fn webhook(mut block: Block<'_>) -> Option<Option<Webhook>> {
    let url = block.take("url");
    let secret = block.take("secret");
    block.finish();
    if url.is_empty() && secret.is_empty() {
        return Some(None);
    }
    let url = wanted(url, "an http or https address without a user name", Endpoint::parse);
    let secret = wanted(secret, "whsec_ and 24 to 64 bytes in base64", SigningSecret::parse);
    Some(Some(Webhook { url: url?, secret: secret? }))
}

fn email(mut block: Block<'_>) -> Option<Option<Email>> {
    let [server, username, password, from] = ["server", "username", "password", "from"].map(|key| block.take(key));
    let port = block.take("port").whole(1, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
    let tls = block.take("tls").text("starttls, implicit or none", |word| match word {
        "starttls" => Some(MailTls::Starttls),
        "implicit" => Some(MailTls::Implicit),
        "none" => Some(MailTls::None),
        _ => None,
    });
    block.finish();
    if [&server, &username, &password, &from].into_iter().all(Node::is_empty) {
        return port.and(tls).map(|_| None);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let server = wanted(server, "the name or IP address of a host", |text| {
        let name = text.len() <= TEXT_BYTES_MAX && text.chars().all(plain);
        (name || text.parse::<IpAddr>().is_ok()).then(|| text.to_owned())
    });
    let login = login(username, password);
    let from = wanted(from, "an e-mail address, with or without a name", |text| {
        text.parse().ok().filter(|_| text.len() <= TEXT_BYTES_MAX)
    });
    Some(Some(Email { server: server?, port: port?, tls: tls?, login: login?, from: from? }))
}

fn login(username: Node<'_>, password: Node<'_>) -> Option<Option<(String, Hidden<String>)>> {
    if username.is_empty() && password.is_empty() {
        return Some(None);
    }
    let short = |text: &str| (text.len() <= TEXT_BYTES_MAX).then(|| text.to_owned());
    let username = wanted(username, "a text of at most 253 bytes", short);
    let password = wanted(password, "a text of at most 253 bytes", short).map(Hidden::new);
    Some(Some((username?, password?)))
}

/// A text that is empty in the default file, and must not be here.
fn wanted<T>(node: Node<'_>, must: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    if node.is_empty() { node.wrong("is missing") } else { node.text(must, read) }
}

fn logs(mut block: Block<'_>) -> Option<Logs> {
    let format = block.take("format").text("human or json", |word| match word {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    let level = block
        .take("level")
        .text("info or warn", |word| [Level::Info, Level::Warn].into_iter().find(|level| level.name() == word));
    block.finish();
    Some(Logs { format: format?, level: level? })
}

fn traces(mut block: Block<'_>) -> Option<Option<Traces>> {
    let endpoint = block.take("endpoint");
    let headers = block.take("headers").list(COLLECTOR_HEADERS_MAX).and_then(|items| all(items, header));
    let sample_ratio = block.take("sample_ratio").ratio();
    block.finish();
    let (headers, sample_ratio) = (headers?, sample_ratio?);
    if endpoint.is_empty() {
        return Some(None);
    }
    let endpoint = endpoint.text("an http or https address without a user name", Endpoint::parse)?;
    Some(Some(Traces { endpoint, headers, sample_ratio }))
}

/// A line that HTTP can send.
fn header(node: Node<'_>) -> Option<(String, Hidden<String>)> {
    node.text("a header line, like 'Authorization: Bearer token', of at most 4096 bytes", |line| {
        let (name, value) = line.split_once(':').filter(|_| line.len() <= HEADER_LINE_BYTES_MAX)?;
        let (name, value) = (name.trim(), value.trim());
        let good = HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok();
        good.then(|| (name.to_owned(), Hidden::new(value.to_owned())))
    })
}

fn limits(mut block: Block<'_>) -> Option<Limits> {
    let mut count = |key, low, high| {
        let number = block.take(key).whole(low, high);
        number.and_then(|number| usize::try_from(number).ok())
    };
    let body_bytes = count("body_bytes", 1, BODY_BYTES_MAX);
    let header_bytes = count("header_bytes", HEADER_BYTES_MIN, 1024 * 1024);
    let header_count = count("header_count", 16, 1_000);
    let body_bytes_a_second = count("body_bytes_a_second", 1, 1_000_000);
    let connections = count("connections", 1, 1_000_000);
    let connections_an_address = count("connections_an_address", 1, 1_000_000);
    let requests = count("requests", 1, 1_000_000);
    let http2_streams = count("http2_streams", 1, 10_000);
    let http2_resets = count("http2_resets", 1, 10_000);
    let http2_idle_frames = count("http2_idle_frames", 100, 1_000_000);
    let open_addresses = count("open_addresses", 1, 10_000_000);
    let mut time = |key, low| block.take(key).whole(low, TIME_S_MAX).map(Duration::from_secs);
    let handshake_timeout = time("handshake_timeout_s", 1);
    let header_read_timeout = time("header_read_timeout_s", 1);
    let body_read_timeout = time("body_read_timeout_s", 1);
    let request_timeout = time("request_timeout_s", 1);
    let answer_write_timeout = time("answer_write_timeout_s", 1);
    let idle_timeout = time("idle_timeout_s", 1);
    let drain_timeout = time("drain_timeout_s", 0);
    block.finish();
    Some(Limits {
        body_bytes: body_bytes?,
        header_bytes: header_bytes?,
        header_count: header_count?,
        handshake_timeout: handshake_timeout?,
        header_read_timeout: header_read_timeout?,
        body_read_timeout: body_read_timeout?,
        body_bytes_a_second: body_bytes_a_second?,
        request_timeout: request_timeout?,
        answer_write_timeout: answer_write_timeout?,
        idle_timeout: idle_timeout?,
        connections: connections?,
        connections_an_address: connections_an_address?,
        requests: requests?,
        http2_streams: http2_streams?,
        http2_resets: http2_resets?,
        http2_idle_frames: http2_idle_frames?,
        drain_timeout: drain_timeout?,
        open_addresses: open_addresses?,
    })
}

fn retention(mut block: Block<'_>) -> Option<Retention> {
    let usage_days = block.take("usage_days").whole(1, RETENTION_DAYS_MAX);
    let deliveries_days = block.take("deliveries_days").whole(1, RETENTION_DAYS_MAX);
    block.finish();
    Some(Retention { usage_days: usage_days?, deliveries_days: deliveries_days? })
}

/// Reads every item, the ones after a mistake too.
fn all<T, U>(items: Vec<T>, read: impl FnMut(T) -> Option<U>) -> Option<Vec<U>> {
    let read: Vec<Option<U>> = items.into_iter().map(read).collect();
    read.into_iter().collect()
}
