//! Active checks of health: each target is asked from time to time whether it works.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use tokio::time::sleep;

use super::Upstream;
use crate::state::background::{self, Background};
use crate::state::report::Report;

/// How long after a round of checks the next begins.
const INTERVAL: Duration = Duration::from_secs(5);

/// Checks those of `upstreams` that want it, and tells of targets that fail or work again. Without any, does nothing.
///
/// # Errors
/// The system refuses a thread or a runtime.
pub fn watch<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>, report: Report) -> io::Result<Option<Background>> {
    let checked = |upstream: &Arc<Upstream>| {
        let path = upstream.settings().health_check.clone()?;
        Some((Arc::clone(upstream), path))
    };
    let checked: Vec<(Arc<Upstream>, String)> = upstreams.filter_map(checked).collect();
    if checked.is_empty() {
        return Ok(None);
    }
    let rounds = async move || {
        loop {
            future::join_all(checked.iter().map(|(upstream, path)| check(upstream, path, &report))).await;
            sleep(INTERVAL).await;
        }
    };
    background::start("checks", rounds).map(Some)
}

async fn check(upstream: &Upstream, path: &str, report: &Report) {
    let name = &upstream.settings().name;
    for (target, is_well) in upstream.checked(path).await {
        if is_well {
            report(&format_args!("{target}, a server of {name}, works again"));
        } else {
            report(&format_args!("{target}, a server of {name}, fails its health check"));
        }
    }
}
