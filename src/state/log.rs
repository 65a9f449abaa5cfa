//! The log: lines are put together where they come up, gathered in memory, and written by a thread of their own.
//!
//! Nobody but that thread waits for where the log goes. When it takes less than there is, lines are dropped and counted,
//! and the log says so once it takes them again.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::Logs;
use crate::pure::log_line::{CallLine, EventLine, Level, LogFormat};

use super::clock::Clock;
use super::events::PROGRAM;

/// How long a line may wait to be written.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// With so much of it waiting, it is written at once.
const FLUSH_BYTES: usize = 64 << 10;
/// The most that calls may have waiting.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Room beyond it for what the operator is told, which calls in their thousands must not crowd out.
const EVENTS_BYTES: usize = 64 << 10;
/// Enough for most lines.
const LINE_BYTES: usize = 320;
/// How long the program waits for its last lines when it ends.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes lines. Clones share it.
#[derive(Clone, Debug)]
pub struct Log(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    logs: ArcSwap<Logs>,
    clock: Clock,
    waiting: Mutex<Waiting>,
    /// Rung when there is something to be done before the interval is over.
    bell: Condvar,
    /// Lines that were dropped since the start.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines dropped of which the log has yet to tell.
    dropped: u64,
    /// Whether something is not to wait for the interval.
    urgent: bool,
    ending: bool,
}

impl Log {
    /// A log that takes nothing.
    pub fn off() -> Log {
        Log(None)
    }

    /// A log that goes to `sink`, and the thread that writes it. Fails when the system refuses one.
    pub fn start(logs: Logs, clock: Clock, sink: impl Write + Send + 'static) -> io::Result<(Log, Writer)> {
        let (waiting, bell) = (Mutex::default(), Condvar::new());
        let shared =
            Arc::new(Shared { logs: ArcSwap::from_pointee(logs), clock, waiting, bell, dropped: AtomicU64::new(0) });
        let (ended, end) = mpsc::channel();
        let at_work = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            at_work.write_all(sink);
            // Whoever waited for it may have given up.
            let _ = ended.send(());
        })?;
        Ok((Log(Some(Arc::clone(&shared))), Writer { shared, end }))
    }

    /// Takes other lines from now on, or writes them in another way.
    pub fn set(&self, logs: Logs) {
        if let Some(shared) = &self.0 {
            shared.logs.store(Arc::new(logs));
        }
    }

    /// Writes a call down.
    pub fn call(&self, call: &CallLine<'_>) {
        let Some((shared, format)) = self.takes(Level::of_status(call.status)) else { return };
        let mut line = String::with_capacity(LINE_BYTES);
        call.write(format, &mut line);
        shared.push(&line, WAITING_BYTES_MAX, false);
    }

    /// Writes down what `target` tells the operator, without delay if it is `urgent`: the program may be about to end.
    pub fn event(&self, level: Level, target: &str, message: &dyn Display, urgent: bool) {
        let Some((shared, _)) = self.takes(level) else { return };
        shared.push(&shared.event(level, target, message), WAITING_BYTES_MAX + EVENTS_BYTES, urgent);
    }

    /// Counts a line that is left out because there are too many of its kind.
    pub fn leave_out(&self) {
        if let Some(shared) = &self.0 {
            shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many lines were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.dropped.load(Relaxed))
    }

    /// Where a line of this level goes, if it is taken, and in which format.
    fn takes(&self, level: Level) -> Option<(&Shared, LogFormat)> {
        let shared = self.0.as_deref()?;
        let logs = shared.logs.load();
        (level >= logs.level).then_some((shared, logs.format))
    }
}

/// The thread of a [`Log`]. Dropping this writes what is waiting, as far as that takes no longer than a second, and ends
/// it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    end: Receiver<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.waiting().ending = true;
        self.shared.bell.notify_one();
        let _ = self.end.recv_timeout(END_TIMEOUT);
    }
}

impl Shared {
    /// Held for some moves in memory.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, level: Level, target: &str, message: &dyn Display) -> String {
        let mut line = String::with_capacity(LINE_BYTES);
        EventLine { unix_ms: self.clock.unix_ms(), level, target, message }.write(self.logs.load().format, &mut line);
        line
    }

    fn push(&self, line: &str, bytes_max: usize, urgent: bool) {
        let mut waiting = self.waiting();
        let before = waiting.lines.len();
        if before + line.len() > bytes_max {
            waiting.dropped += 1;
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line.as_bytes());
        waiting.urgent |= urgent;
        if urgent || (before < FLUSH_BYTES && waiting.lines.len() >= FLUSH_BYTES) {
            drop(waiting);
            self.bell.notify_one();
        }
    }

    /// Writes until the end, and what is there then.
    fn write_all(&self, mut sink: impl Write) {
        let mut lines = Vec::new();
        loop {
            let idle = |waiting: &mut Waiting| !waiting.ending && !waiting.urgent && waiting.lines.len() < FLUSH_BYTES;
            let waited = self.bell.wait_timeout_while(self.waiting(), FLUSH_INTERVAL, idle);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            std::mem::swap(&mut lines, &mut waiting.lines);
            let (dropped, ending) = (std::mem::take(&mut waiting.dropped), waiting.ending);
            waiting.urgent = false;
            drop(waiting);
            if dropped > 0 {
                let told = format_args!("{dropped} lines of the log are missing here: it is read too slowly");
                lines.extend_from_slice(self.event(Level::Warn, PROGRAM, &told).as_bytes());
            }
            if !lines.is_empty() && sink.write_all(&lines).and_then(|()| sink.flush()).is_err() {
                // There is nobody left to tell but the metrics.
                let count = memchr::memchr_iter(b'\n', &lines).count();
                self.dropped.fetch_add(count as u64, Relaxed);
            }
            // The memory is used again, but not all of it that a rush took.
            lines.clear();
            lines.shrink_to(2 * FLUSH_BYTES);
            if ending {
                return;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::{Sender, SyncSender, sync_channel};

    use super::*;

    const LOGS: Logs = Logs { format: LogFormat::Human, level: Level::Info };
    const PATIENCE: Duration = Duration::from_secs(20);

    fn call(status: u16) -> CallLine<'static> {
        CallLine {
            unix_ms: 0,
            request_id: "id",
            trace_id: None,
            method: "GET",
            route: "totpgenerator",
            status,
            code: None,
            format: None,
            account: None,
            key: None,
            request_bytes: 0,
            response_bytes: 0,
            elapsed_us: 0,
        }
    }

    /// A sink that sends on what is written to it.
    pub(in crate::state) struct Told(Sender<String>);

    impl Told {
        /// A sink, and where what is written to it arrives until it is dropped.
        pub(in crate::state) fn channel() -> (Told, Receiver<String>) {
            let (sender, lines) = mpsc::channel();
            (Told(sender), lines)
        }
    }

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until it is let, and says when it is asked to take something.
    struct Slow {
        asked: SyncSender<()>,
        may: Receiver<()>,
        told: Told,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.try_send(());
            self.may.recv().map_err(io::Error::other)?;
            self.told.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_soon_and_the_last_ones_at_the_end() {
        let (told, lines) = Told::channel();
        let (log, writer) = Log::start(LOGS, Clock::fixed(0), told).unwrap();
        log.call(&call(200));
        assert!(lines.recv_timeout(PATIENCE).unwrap().contains(" totpgenerator 200 "));
        log.event(Level::Info, PROGRAM, &"the end", true);
        drop(writer);
        assert_eq!(lines.try_recv().unwrap(), "1970-01-01T00:00:00.000Z info polygate: the end\n");
    }

    #[test]
    fn what_is_below_the_level_is_left_out() {
        let (told, lines) = Told::channel();
        let logs = Logs { level: Level::Warn, ..LOGS };
        let (log, writer) = Log::start(logs, Clock::fixed(0), told).unwrap();
        for status in [200, 404, 500] {
            log.call(&call(status));
        }
        log.event(Level::Info, PROGRAM, &"not told", true);
        log.event(Level::Warn, PROGRAM, &"told", true);
        // Which can change.
        log.set(LOGS);
        log.call(&call(201));
        log.set(logs);
        log.call(&call(202));
        drop(writer);
        let all: String = lines.iter().collect();
        let told = [" 500 ", "warn polygate: told\n", " 201 "];
        assert!(told.iter().all(|told| all.contains(told)) && all.lines().count() == 3, "{all}");
    }

    #[test]
    fn a_log_that_is_not_read_costs_lines_but_never_time_or_memory() {
        let ((told, lines), (asked, being_asked), (let_it, may)) = (Told::channel(), sync_channel(1), mpsc::channel());
        let slow = Slow { asked, may, told };
        let (log, writer) = Log::start(LOGS, Clock::fixed(0), slow).unwrap();
        log.call(&call(200));
        being_asked.recv_timeout(PATIENCE).unwrap();
        // From here on nothing is taken.
        for _ in 0..100_000 {
            log.call(&call(200));
        }
        assert!(log.dropped() > 0);
        let waiting_bytes = log.0.as_ref().unwrap().waiting().lines.len();
        assert!((WAITING_BYTES_MAX - LINE_BYTES..=WAITING_BYTES_MAX).contains(&waiting_bytes), "{waiting_bytes}");
        log.event(Level::Warn, PROGRAM, &"there is room for this", true);
        for _ in 0..1_000 {
            let_it.send(()).unwrap();
        }
        drop(writer);
        let all: String = lines.iter().collect();
        assert!(all.contains("warn polygate: there is room for this\n"));
        let told = format!("warn polygate: {} lines of the log are missing here", log.dropped());
        assert!(all.contains(&told), "{}", &all[all.len() - 300..]);
        assert_eq!(all.matches("totpgenerator").count() as u64 + log.dropped(), 100_001);
    }

    #[test]
    fn the_end_does_not_wait_for_a_log_that_is_never_read() {
        let ((told, _lines), (asked, _), (_let_it, may)) = (Told::channel(), sync_channel(1), mpsc::channel());
        let (log, writer) = Log::start(LOGS, Clock::fixed(0), Slow { asked, may, told }).unwrap();
        log.call(&call(200));
        // Returns, or the test does not.
        drop(writer);
    }

    #[test]
    fn a_log_nobody_can_write_is_counted() {
        let (told, lines) = Told::channel();
        drop(lines);
        let (log, writer) = Log::start(LOGS, Clock::fixed(0), told).unwrap();
        log.call(&call(200));
        log.call(&call(200));
        drop(writer);
        assert_eq!(log.dropped(), 2);
    }
}
