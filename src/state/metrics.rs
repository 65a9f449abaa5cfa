//! The numbers of a running server, and how Prometheus reads them.
//!
//! Every number is a field, so that counting is an addition and never a look-up; labels are few and the operator's own:
//! no account, key or address is one. What every call counts is kept apart for each thread, in shards, and added up
//! when somebody asks.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::pure::format::Format;

use super::journal::Figures;
use super::load::Load;
use super::process::Process;
use super::store::Channel;

/// The statuses that have a number of their own, those of most calls first; all others share the last.
const STATUSES: [u16; 24] = [
    200, 429, 401, 403, 400, 404, 502, 204, 201, 202, 402, 405, 406, 408, 409, 413, 415, 422, 431, 499, 500, 503, 504,
    0,
];
/// The labels of formats: those of [`Format::ALL`], and one for answers that have but one.
const FORMATS: [&str; 5] = ["json", "xml", "yaml", "csv", "none"];
/// Upper bounds of the buckets of durations, in microseconds. Beyond the last there is one more bucket.
const BOUNDS_US: [u64; 15] =
    [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];
/// Threads beyond it share shards.
const SHARDS: usize = 16;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds so much.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// What has been added up to now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The numbers. A process has them once.
#[derive(Debug)]
pub struct Metrics {
    start_unix_s: u64,
    routes: Mutex<Vec<Arc<RouteMetrics>>>,
    /// Calls beyond the limit of their key.
    pub limited_keys: Counter,
    /// Calls without a key beyond the limit of their address.
    pub limited_addresses: Counter,
    /// Folds that succeeded.
    folds: Counter,
    folds_failed: Counter,
    folds_us: Counter,
    /// Records of the journal that are in the database.
    pub records_folded: Counter,
    /// Credits that they charged.
    pub credits_charged: Counter,
    /// Spans that a collector of traces took.
    pub spans_exported: Counter,
    /// Spans that it was sent and did not take.
    pub spans_failed: Counter,
    /// Spans that were not sent, because too many were waiting.
    pub spans_dropped: Counter,
    notices_delivered: [Counter; CHANNELS.len()],
    notices_failed: [Counter; CHANNELS.len()],
}

const CHANNELS: [Channel; 2] = [Channel::Webhook, Channel::Email];

/// What the calls of one route counted. Whoever counts keeps it, and never looks for it.
#[derive(Debug)]
pub struct RouteMetrics {
    /// The label of the route.
    pub name: Arc<str>,
    /// Made by the first thread that counts something.
    shards: [OnceLock<Box<Shard>>; SHARDS],
}

/// What the calls of some threads counted. Padded, so that no two cores write to one line of their caches.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    /// By status and format.
    answers: [[Counter; FORMATS.len()]; STATUSES.len()],
    /// By [`BOUNDS_US`].
    durations: [Counter; BOUNDS_US.len() + 1],
    /// In microseconds.
    durations_us: Counter,
}

impl Shard {
    fn new() -> Box<Shard> {
        Box::new(Shard {
            answers: std::array::from_fn(|_| Default::default()),
            durations: Default::default(),
            durations_us: Counter::default(),
        })
    }
}

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Relaxed) % SHARDS;
    }
    MINE.with(|mine| *mine)
}

impl RouteMetrics {
    /// Counts a call that has ended.
    pub fn call(&self, status: u16, format: Option<Format>, elapsed: Duration) {
        let shard = self.shards[shard()].get_or_init(Shard::new);
        let status = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        let format = format.map_or(FORMATS.len() - 1, |format| format as usize);
        shard.answers[status][format].add(1);
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        shard.durations[bucket].add(1);
        shard.durations_us.add(us);
    }

    fn sum(&self, of: impl Fn(&Shard) -> &Counter) -> u64 {
        self.shards.iter().filter_map(OnceLock::get).map(|shard| of(shard).get()).sum()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new(start_unix_s: u64) -> Metrics {
        Metrics {
            start_unix_s,
            routes: Mutex::default(),
            limited_keys: Counter::default(),
            limited_addresses: Counter::default(),
            folds: Counter::default(),
            folds_failed: Counter::default(),
            folds_us: Counter::default(),
            records_folded: Counter::default(),
            credits_charged: Counter::default(),
            spans_exported: Counter::default(),
            spans_failed: Counter::default(),
            spans_dropped: Counter::default(),
            notices_delivered: Default::default(),
            notices_failed: Default::default(),
        }
    }

    /// What the calls of the route of this name count, from the start of the process on.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes();
        if let Some(route) = routes.iter().find(|route| &*route.name == name) {
            return Arc::clone(route);
        }
        let route = Arc::new(RouteMetrics { name: name.into(), shards: Default::default() });
        routes.push(Arc::clone(&route));
        route
    }

    fn routes(&self) -> MutexGuard<'_, Vec<Arc<RouteMetrics>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a fold, and how long it took.
    pub fn fold(&self, succeeded: bool, elapsed: Duration) {
        if succeeded { &self.folds } else { &self.folds_failed }.add(1);
        self.folds_us.add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts an attempt to deliver a notice.
    pub fn notice(&self, channel: Channel, delivered: bool) {
        let counters = if delivered { &self.notices_delivered } else { &self.notices_failed };
        for (counter, _) in counters.iter().zip(CHANNELS).filter(|(_, its)| *its == channel) {
            counter.add(1);
        }
    }

    /// All numbers in the text format of Prometheus, version 0.0.4. Those that others keep are given.
    pub fn text(&self, journal: &Figures, load: &Load, log_lines_dropped: u64) -> String {
        let mut page = Page(String::with_capacity(16 << 10));
        self.write_calls(&mut page);
        page.family("polygate_limited_total", "counter", "Calls refused because of a limit of requests a minute.");
        page.sample("polygate_limited_total", &[("by", &"key")], self.limited_keys.get());
        page.sample("polygate_limited_total", &[("by", &"address")], self.limited_addresses.get());

        page.single("polygate_credits_charged_total", "counter", "Credits charged.", self.credits_charged.get());
        let help = "Writes to the journal, each with the charges of all calls that were ready.";
        page.single("polygate_journal_writes_total", "counter", help, journal.writes);
        let help = "Writes to the journal that failed, whose calls were refused.";
        page.single("polygate_journal_write_failures_total", "counter", help, journal.failures);
        let help = "Bytes of the journal that have yet to reach the database.";
        page.single("polygate_journal_unfolded_bytes", "gauge", help, journal.unfolded_bytes);
        let help = "Records of the journal that reached the database.";
        page.single("polygate_journal_records_folded_total", "counter", help, self.records_folded.get());
        let help = "Folds of the journal into the database that failed.";
        page.single("polygate_fold_failures_total", "counter", help, self.folds_failed.get());
        page.family("polygate_fold_duration_seconds", "summary", "How long folds took.");
        page.sample("polygate_fold_duration_seconds_sum", &[], seconds(self.folds_us.get()));
        page.sample("polygate_fold_duration_seconds_count", &[], self.folds.get() + self.folds_failed.get());

        let help = "Connections to the public listeners that are open.";
        page.single("polygate_connections_open", "gauge", help, load.connections() as u64);
        let help = "Connections closed unserved, because there were too many.";
        page.single("polygate_connections_refused_total", "counter", help, load.refused());
        page.single("polygate_requests_under_way", "gauge", "Calls that are under way.", load.requests() as u64);
        let help = "Calls answered 503 as they came, because there were too many.";
        page.single("polygate_requests_shed_total", "counter", help, load.shed());

        page.family("polygate_notices_total", "counter", "Attempts to deliver a notice.");
        for (outcome, counters) in [("delivered", &self.notices_delivered), ("failed", &self.notices_failed)] {
            for (counter, channel) in counters.iter().zip(CHANNELS) {
                let labels: [(_, &dyn Display); 2] = [("channel", &channel.as_str()), ("outcome", &outcome)];
                page.sample("polygate_notices_total", &labels, counter.get());
            }
        }
        page.family("polygate_spans_total", "counter", "Spans of traces, by what became of them.");
        let outcomes =
            [("exported", &self.spans_exported), ("failed", &self.spans_failed), ("dropped", &self.spans_dropped)];
        for (outcome, counter) in outcomes {
            page.sample("polygate_spans_total", &[("outcome", &outcome)], counter.get());
        }
        let help = "Lines of the log that were dropped: too slowly read, not writable, or too much from libraries.";
        page.single("polygate_log_lines_dropped_total", "counter", help, log_lines_dropped);

        page.family("polygate_build_info", "gauge", "The version that runs.");
        page.sample("polygate_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
        self.write_process(&mut page);
        page.0
    }

    /// By the names that Prometheus has for all processes.
    fn write_process(&self, page: &mut Page) {
        let help = "When the process started, in seconds of Unix time.";
        page.single("process_start_time_seconds", "gauge", help, self.start_unix_s);
        let process = Process::now();
        page.family("process_cpu_seconds_total", "counter", "Processor time of the process, in seconds.");
        page.sample("process_cpu_seconds_total", &[], process.cpu.as_secs_f64());
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use.", process.resident_bytes),
            ("process_virtual_memory_bytes", "Memory set aside.", process.virtual_bytes),
            ("process_open_fds", "Open files, sockets included.", process.open_files),
            ("process_max_fds", "The most open files.", process.files_max),
        ] {
            if let Some(value) = value {
                page.single(name, "gauge", help, value);
            }
        }
    }

    fn write_calls(&self, page: &mut Page) {
        let routes = self.routes().clone();
        page.family(
            "polygate_requests_total",
            "counter",
            "Requests by the status of their answer; 499 where there was none.",
        );
        for route in &routes {
            for (at, status) in STATUSES.iter().enumerate() {
                for (format_at, format) in FORMATS.iter().enumerate() {
                    let count = route.sum(|shard| &shard.answers[at][format_at]);
                    // Most of them never happen.
                    if count > 0 {
                        let status: &dyn Display = if *status == 0 { &"other" } else { status };
                        let labels: [(_, &dyn Display); 3] =
                            [("route", &route.name), ("status", status), ("format", format)];
                        page.sample("polygate_requests_total", &labels, count);
                    }
                }
            }
        }
        let help = "From the head of a request to the end of its answer, without the time on the wire.";
        page.family("polygate_request_duration_seconds", "histogram", help);
        for route in &routes {
            let mut count = 0;
            let bounds = BOUNDS_US.iter().map(|us| seconds(*us).to_string()).chain(["+Inf".to_owned()]);
            for (bucket, bound) in bounds.enumerate() {
                count += route.sum(|shard| &shard.durations[bucket]);
                let labels: [(_, &dyn Display); 2] = [("route", &route.name), ("le", &bound)];
                page.sample("polygate_request_duration_seconds_bucket", &labels, count);
            }
            let taken = seconds(route.sum(|shard| &shard.durations_us));
            page.sample("polygate_request_duration_seconds_sum", &[("route", &route.name)], taken);
            page.sample("polygate_request_duration_seconds_count", &[("route", &route.name)], count);
        }
    }
}

/// Exact up to 2^53 microseconds, which is 285 years.
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// What is written up to now. Names, texts and labels are ours and need no escapes.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to memory does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, Limits};

    const JOURNAL: Figures = Figures { writes: 5, failures: 6, unfolded_bytes: 7 };

    fn metrics() -> Metrics {
        let metrics = Metrics::new(1_765_924_235);
        metrics.route("one");
        metrics.route("two");
        metrics
    }

    fn idle() -> Load {
        Load::default()
    }

    #[test]
    fn what_is_counted_is_told() {
        let metrics = metrics();
        metrics.route("one").call(200, Some(Format::Json), Duration::from_micros(50));
        metrics.route("one").call(200, Some(Format::Json), Duration::from_micros(51));
        metrics.route("two").call(503, Some(Format::Csv), Duration::from_secs(3_600));
        metrics.route("two").call(418, None, Duration::ZERO);
        metrics.limited_keys.add(3);
        metrics.credits_charged.add(1_000_000);
        metrics.fold(true, Duration::from_micros(1_500));
        metrics.fold(false, Duration::from_micros(500));
        metrics.notice(Channel::Email, true);
        metrics.notice(Channel::Webhook, false);
        let (load, limits) = (Arc::new(Load::default()), Limits { connections: 1, ..Config::default().limits });
        let place = load.connect([192, 0, 2, 1].into(), &limits, &[]).unwrap();
        assert!(load.connect([192, 0, 2, 2].into(), &limits, &[]).is_none());
        assert!(place.begin_call(1) && !place.begin_call(1));
        let text = metrics.text(&JOURNAL, &load, 8);
        for line in [
            r#"polygate_requests_total{route="one",status="200",format="json"} 2"#,
            r#"polygate_requests_total{route="two",status="503",format="csv"} 1"#,
            r#"polygate_requests_total{route="two",status="other",format="none"} 1"#,
            r#"polygate_request_duration_seconds_bucket{route="one",le="0.000025"} 0"#,
            r#"polygate_request_duration_seconds_bucket{route="one",le="0.00005"} 1"#,
            r#"polygate_request_duration_seconds_bucket{route="one",le="0.0001"} 2"#,
            r#"polygate_request_duration_seconds_bucket{route="two",le="10"} 1"#,
            r#"polygate_request_duration_seconds_bucket{route="two",le="+Inf"} 2"#,
            r#"polygate_request_duration_seconds_sum{route="one"} 0.000101"#,
            r#"polygate_request_duration_seconds_count{route="two"} 2"#,
            r#"polygate_limited_total{by="key"} 3"#,
            r#"polygate_limited_total{by="address"} 0"#,
            "polygate_credits_charged_total 1000000",
            "polygate_journal_writes_total 5",
            "polygate_journal_write_failures_total 6",
            "polygate_journal_unfolded_bytes 7",
            "polygate_fold_failures_total 1",
            "polygate_fold_duration_seconds_sum 0.002",
            "polygate_fold_duration_seconds_count 2",
            "polygate_connections_open 1",
            "polygate_connections_refused_total 1",
            "polygate_requests_under_way 1",
            "polygate_requests_shed_total 1",
            r#"polygate_notices_total{channel="email",outcome="delivered"} 1"#,
            r#"polygate_notices_total{channel="webhook",outcome="failed"} 1"#,
            "polygate_log_lines_dropped_total 8",
            "process_start_time_seconds 1765924235",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("polygate_requests_total{").count(), 3, "nothing that never happened");
    }

    #[test]
    fn every_family_has_its_text_and_type_and_no_sample_comes_twice() {
        let text = metrics().text(&JOURNAL, &idle(), 0);
        let (mut family, mut samples) = ("", Vec::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(words.ends_with('.') && !words.contains('\\'), "{line}");
                family = name;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert_eq!(kind.split_once(' ').unwrap().0, family);
                assert_eq!(kind.ends_with(" counter"), family.ends_with("_total"), "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(family) && value.parse::<f64>().is_ok(), "{line}");
                samples.push(name);
            }
        }
        let count = samples.len();
        samples.sort_unstable();
        samples.dedup();
        assert_eq!(samples.len(), count);
    }

    #[test]
    fn labels_of_formats_are_their_names() {
        assert_eq!(Format::ALL.map(|format| FORMATS[format as usize]), Format::ALL.map(Format::name));
    }

    #[test]
    fn threads_lose_nothing() {
        let metrics = metrics();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| (0..100).for_each(|_| metrics.route("one").call(200, None, Duration::ZERO)));
            }
        });
        let line = format!("polygate_request_duration_seconds_count{{route=\"one\"}} {}", 200 * SHARDS);
        assert!(metrics.text(&JOURNAL, &idle(), 0).contains(&line));
    }
}
