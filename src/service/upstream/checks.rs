//! Active checks of health: each target is asked from time to time whether it works.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Upstream;
use crate::state::report::Report;

/// How long after a round of checks the next begins.
const INTERVAL: Duration = Duration::from_secs(5);

/// The thread that checks. Dropping this ends it.
#[derive(Debug)]
pub struct Checks {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Checks those of `upstreams` that want it, and tells of targets that fail or work again. Without any, does nothing.
///
/// # Errors
/// The system refuses a thread or a runtime.
pub fn watch<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>, report: Report) -> io::Result<Option<Checks>> {
    let checked = |upstream: &Arc<Upstream>| {
        let path = upstream.settings().health_check.clone()?;
        Some((Arc::clone(upstream), path))
    };
    let checked: Vec<(Arc<Upstream>, String)> = upstreams.filter_map(checked).collect();
    if checked.is_empty() {
        return Ok(None);
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let rounds = async move {
        loop {
            future::join_all(checked.iter().map(|(upstream, path)| check(upstream, path, &report))).await;
            sleep(INTERVAL).await;
        }
    };
    let thread = thread::Builder::new().name("checks".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // Nothing is ever sent: the channel closes when the checks are dropped.
                _ = stopped => {}
                () = rounds => {}
            }
        });
    })?;
    Ok(Some(Checks { stop: Some(stop), thread: Some(thread) }))
}

async fn check(upstream: &Upstream, path: &str, report: &Report) {
    let name = &upstream.settings().name;
    for (target, is_well) in upstream.check(path).await {
        if is_well {
            report(&format_args!("{target}, a server of {name}, works again"));
        } else {
            report(&format_args!("{target}, a server of {name}, fails its health check"));
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked is as ended as any.
            let _ = thread.join();
        }
    }
}
