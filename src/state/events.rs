//! What the program and the libraries it is made of tell the operator, in lines of the log beside those of calls.
//!
//! Both are events of `tracing`, or records of `log`, which some libraries use. Of libraries, warnings and errors alone are
//! taken: what they say below that quotes what clients send. Nothing can switch it on.

use std::fmt::{Debug, Display};
use std::num::NonZeroU32;
use std::sync::Arc;

use log::{Metadata as RecordMetadata, Record};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, warn};

use super::clock::Clock;
use super::limiter::Limiter;
use super::log::Log;
use super::report::Report;
use crate::pure::log_line::Level;
use crate::pure::plan::Rate;

/// The target of what the program itself tells.
pub const PROGRAM: &str = "polygate";

/// How much libraries may tell: clients can make them talk.
const LIBRARIES: Rate = Rate { requests_a_minute: NonZeroU32::new(60).unwrap(), burst: NonZeroU32::new(20).unwrap() };

/// Takes events into `log` from now on, of the whole process. Fails when somebody else takes them already.
pub fn start(log: Log, clock: Clock) -> Result<(), impl std::error::Error + Send + Sync> {
    let events = Arc::new(Events { log, libraries: Limiter::new(LIBRARIES, clock) });
    ::log::set_max_level(::log::LevelFilter::Warn);
    // The second of the two is the one that could fail, where this is called again.
    let _ = ::log::set_boxed_logger(Box::new(events.clone()));
    tracing::subscriber::set_global_default(events)
}

/// How trouble becomes an event.
pub fn report() -> Report {
    Arc::new(|message| warn!(target: PROGRAM, "{message}"))
}

/// Takes events into the log.
#[derive(Debug)]
struct Events {
    log: Log,
    libraries: Limiter,
}

impl Events {
    fn take(&self, level: Level, target: &str, message: &dyn Display) {
        let is_ours = target == PROGRAM;
        if is_ours || self.libraries.check().admitted {
            self.log.event(level, target, message, is_ours);
        } else {
            self.log.leave_out();
        }
    }
}

/// Whether such events are ever taken; the log knows of those that are whether its level lets them through.
fn is_taken(metadata: &Metadata<'_>) -> bool {
    let lowest = if metadata.target() == PROGRAM { tracing::Level::INFO } else { tracing::Level::WARN };
    metadata.is_event() && *metadata.level() <= lowest
}

impl Subscriber for Events {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_taken(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_taken(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            _ => Level::Info,
        };
        let mut message = Message(event.metadata().name().to_owned());
        event.record(&mut message);
        self.take(level, event.metadata().target(), &message.0);
    }

    // There are no spans: none is taken.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message of an event; its other fields could hold anything.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl log::Log for Events {
    fn enabled(&self, metadata: &RecordMetadata<'_>) -> bool {
        metadata.level() <= ::log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if log::Log::enabled(self, record.metadata()) {
            let level = if record.level() == ::log::Level::Error { Level::Error } else { Level::Warn };
            self.take(level, record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use tracing::{debug, error, info, info_span, trace};

    use super::*;
    use crate::config::Logs;
    use crate::pure::log_line::LogFormat;
    use crate::state::log::tests::Told;

    /// What `tell` brings into the log, and how many lines were left out.
    fn told(level: Level, tell: impl FnOnce(&Arc<Events>)) -> (String, u64) {
        let (sink, lines) = Told::channel();
        let clock = Clock::fixed(0);
        let logs = Logs { format: LogFormat::Human, level };
        let (log, writer) = Log::start(logs, clock.clone(), sink).unwrap();
        let events = Arc::new(Events { log: log.clone(), libraries: Limiter::new(LIBRARIES, clock) });
        tracing::subscriber::with_default(events.clone(), || tell(&events));
        drop(writer);
        (lines.iter().collect::<String>().replace("1970-01-01T00:00:00.000Z ", ""), log.dropped())
    }

    #[test]
    fn the_program_tells_what_it_does_and_libraries_what_is_wrong() {
        let tell = |events: &Arc<Events>| {
            info!(target: PROGRAM, "it begins");
            (report())(&format_args!("a {} is wrong", "disk"));
            debug!(target: PROGRAM, "hunter2");
            let span = info_span!(target: PROGRAM, "a span", key = "hunter2");
            span.in_scope(|| warn!(target: "h2::proto", header = "hunter2", "a peer is wrong"));
            error!(target: "hyper", { body = ?b"hunter2" }, "it {}", "fails");
            for _ in 0..2 {
                info!(target: "h2::codec", "hunter2");
                debug!(target: "h2::codec", frame = "hunter2", "hunter2");
                trace!(target: "h2::codec", "hunter2");
            }
            let record = |level| {
                let args = format_args!("rustls is told {level}");
                ::log::Log::log(events, &Record::builder().level(level).target("rustls").args(args).build());
            };
            ::log::Level::iter().for_each(record);
        };
        let of_libraries = "warn h2::proto: a peer is wrong\nerror hyper: it fails\n\
                            error rustls: rustls is told ERROR\nwarn rustls: rustls is told WARN\n";
        let ours = "warn polygate: a disk is wrong\n";
        assert_eq!(told(Level::Info, tell), (format!("info polygate: it begins\n{ours}{of_libraries}"), 0));
        assert_eq!(told(Level::Warn, tell), (format!("{ours}{of_libraries}"), 0));
    }

    #[test]
    fn libraries_cannot_fill_the_log() {
        let (text, left_out) = told(Level::Info, |_| {
            (0..1_000).for_each(|_| warn!(target: "h2", "a peer is wrong"));
            (0..30).for_each(|_| warn!(target: PROGRAM, "a disk is wrong"));
        });
        assert_eq!((text.matches("a peer").count(), left_out, text.matches("a disk").count()), (20, 980, 30));
    }
}
