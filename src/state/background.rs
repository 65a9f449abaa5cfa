//! A thread with a runtime, for what waits on sockets behind the calls.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;

/// Drives what `work` makes, from a thread and a runtime of its own, until it ends or the [`Background`] is dropped. Fails
/// when the system refuses one of the two.
pub fn start<F: Future>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> io::Result<Background> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let (at_work, ended) = mpsc::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nothing is ever sent: the channel closes last.
        let _at_work = at_work;
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
    Ok(Background { stop: Some(stop), ended })
}

/// A thread at work; dropping this ends it at once, with what it had begun. One that hangs, as over a disk that does not
/// answer, is waited for so long and then left alone: it ends with the process.
#[derive(Debug)]
pub struct Background {
    stop: Option<oneshot::Sender<Infallible>>,
    ended: mpsc::Receiver<Infallible>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop = None;
        // A thread that has panicked is as ended as any.
        let _ = self.ended.recv_timeout(END_TIMEOUT);
    }
}

const END_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_not_waited_for_for_ever() {
        let (_let_go, held) = mpsc::channel::<Infallible>();
        let (begins, begun) = mpsc::channel();
        let background = start("hangs", move || async move {
            begins.send(()).unwrap();
            held.recv()
        });
        begun.recv().unwrap();
        let (ends, ended) = mpsc::channel();
        thread::spawn(move || {
            drop(background);
            ends.send(()).unwrap();
        });
        assert_eq!(ended.recv_timeout(END_TIMEOUT * 12), Ok(()));
    }
}
