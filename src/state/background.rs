//! A thread with a runtime, for what waits on sockets behind the calls.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::sync::oneshot;

/// Drives what `work` makes, from a thread and a runtime of its own, until it ends or the [`Background`] is dropped. Fails
/// when the system refuses one of the two.
pub fn start<F: Future>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> io::Result<Background> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // Nothing is ever sent: the channel closes when this is to end.
                _ = stopped => {}
                _ = work() => {}
            }
        });
        // Not dropped, which would wait for look-ups of names.
        runtime.shutdown_background();
    })?;
    Ok(Background { stop: Some(stop), thread: Some(thread) })
}

/// A thread at work; dropping this ends it at once, with what it had begun.
#[derive(Debug)]
pub struct Background {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked is as ended as any.
            let _ = thread.join();
        }
    }
}
