//! Polygate: a multi-format, content-negotiating API gateway.
//!
//! The map, from the inside out; imports point upwards only.
//!
//! - [`pure`]: values and functions. One-time passwords, request input, negotiation, formats, envelopes, faults.
//! - [`state`]: what outlives a call. The clock, keys and accounts, limits, credits, the database.
//! - [`service`]: what a call reaches, and the catalog of paths that lead there.
//! - [`gateway`]: the life of a call, one function per step.
//! - [`accounts`]: what is done about accounts and keys.
//! - [`edge`]: protocols. HTTP, with [`edge::http::chain`] where the order of the steps is decided, and the command line.
//! - [`config`]: what an operator can set.

pub mod accounts;
pub mod config;
pub mod edge;
pub mod gateway;
pub mod pure;
pub mod service;
pub mod state;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::Config;
use crate::edge::http::listeners::Listeners;
use crate::edge::http::serve::End;
use crate::edge::http::tls;
use crate::edge::private::Control;
use crate::edge::reload::{self, Reloader, Source};
use crate::gateway::{Current, Gateway};
use crate::service::catalog::Catalog;
use crate::service::upstream::UpstreamError;
use crate::state::clock::Clock;
use crate::state::folder::{self, FoldError, Folder};
use crate::state::keyring::{self, Keyring, KeyringError};
use crate::state::limiter::AddressLimiter;
use crate::state::load::Load;
use crate::state::log::Log;
use crate::state::metrics::Metrics;
use crate::state::report::Report;
use crate::state::store::{Store, StoreError};
use crate::state::usage::UsageReader;

/// Why serving ended, or never began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] FoldError),
    /// The keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// An API cannot be set up.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The system refused a thread, or the listener failed.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves `listeners` with what [`open`] has made, until `shutdown` resolves and calls under way have finished. Blocks the
/// calling thread.
///
/// The listeners are bound outside, so that a port of 0 can be asked what it became. The configuration follows `source`.
/// Operators can end serving at the private listener, too.
/// `ready` is called once, when all that can fail at a start has been done. `report` is told of accounts whose plan is not
/// defined, of receivers that cannot be reached and of trouble with the disk, while serving goes on.
pub fn run(
    gateway: Arc<Gateway>,
    folder: Folder,
    listeners: impl Into<Listeners>,
    source: Source,
    report: Report,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = End>,
) -> Result<(), RunError> {
    let mut listeners = listeners.into();
    let current = Arc::new(Current::new(gateway.clone()));
    // Ends last, to say that the others are ending.
    let private = listeners.private.take();
    let drain = Arc::new(Notify::new());
    let control = Control { current: current.clone(), asker: source.asker(), drain: drain.clone() };
    let _observing = private.map(|private| edge::private::watch(private, control)).transpose()?;
    // Ends after the calls: what the last of them cost is folded.
    let settings = folder.settings();
    let _folding = folder::watch(folder)?;
    let _watching = keyring::watch(gateway.keyring.clone(), Store::open(&gateway.config.data)?, report.clone())?;
    let _following = reload::watch(source, Reloader::start(current.clone(), settings, report.clone())?)?;
    let _renewing = listeners.tls.as_ref().map(|tls| tls::watch(tls.clone(), report)).transpose()?;
    let mut shutdown = pin!(async {
        tokio::select! {
            end = shutdown => end,
            () = drain.notified() => End::Stop,
        }
    });
    let mut ready = Some(ready);
    // The server first asks whether to stop when its threads are there; and what asks it to is listened to from then on.
    let shutdown = poll_fn(|context| {
        let asked = shutdown.as_mut().poll(context);
        if let Some(ready) = ready.take() {
            ready();
        }
        if asked.is_ready() {
            gateway.meter.health.stop();
        }
        asked
    });
    let served = edge::http::serve::serve(current, listeners, shutdown);
    gateway.traces.end();
    Ok(served?)
}

/// All that calls need, over the data directory of `config`, and what folds the ledger behind them.
///
/// The data directory must be there, and this process have it to itself ([`Store::wait_to_serve`]). `report` is told of
/// trouble, `log` of calls.
pub fn open(config: Config, clock: Clock, report: Report, log: Log) -> Result<(Arc<Gateway>, Folder), RunError> {
    let channels = edge::notices::channels(&config.notices);
    let metrics = Arc::new(Metrics::new(clock.unix_s()));
    let store = Store::open(&config.data)?;
    // Balances go on where the ledger stands, so it is folded before the keys are read.
    let folder = folder::open(&config, store, channels, clock.clone(), metrics.clone(), report.clone())?;
    let mut store = Store::open(&config.data)?;
    let numbers = store.api_numbers(config.apis.names())?;
    let keyring = Arc::new(Keyring::load(&store, &config.plans, clock.clone())?);
    let traces = edge::traces::start(&config, metrics.clone(), report.clone())?;
    let gateway = Gateway {
        catalog: Catalog::of(&config, &numbers, &metrics, &clock)?,
        keyring,
        meter: folder.meter(),
        usage: Arc::new(UsageReader::new(store, report)),
        addresses: Arc::new(AddressLimiter::new(config.open, config.limits.open_addresses, clock.clone())),
        load: Arc::new(Load::default()),
        log,
        traces,
        metrics,
        clock,
        config,
    };
    Ok((Arc::new(gateway), folder))
}
