//! A thread that does the same thing again and again.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Runs `step` from a thread of its own: at once, then each time `interval` has passed, and a last time when the
/// [`Routine`] is dropped.
pub fn start(name: &str, interval: Duration, mut step: impl FnMut() + Send + 'static) -> io::Result<Routine> {
    let (stop, stopped) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        loop {
            step();
            // Nothing is ever sent: the channel closes when the routine is dropped.
            if stopped.recv_timeout(interval) != Err(mpsc::RecvTimeoutError::Timeout) {
                return step();
            }
        }
    })?;
    Ok(Routine { stop: Some(stop), thread: Some(thread) })
}

/// A thread at work; dropping this lets it finish and ends it.
#[derive(Debug)]
pub struct Routine {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Routine {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked is as ended as any.
            let _ = thread.join();
        }
    }
}
