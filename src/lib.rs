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

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;

use crate::config::Config;
use crate::gateway::Gateway;
use crate::service::catalog::{Catalog, LABELS, NAMES};
use crate::state::clock::Clock;
use crate::state::folder::{self, FoldError, Folder};
use crate::state::keyring::{self, Keyring, KeyringError};
use crate::state::limiter::AddressLimiter;
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
    /// The system refused a thread, or the listener failed.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// The sockets of a server. They are bound outside, so that a port of 0 can be asked what it became.
#[derive(Debug)]
pub struct Listeners {
    /// For calls.
    pub public: TcpListener,
    /// For metrics and health, where that is wanted.
    pub private: Option<TcpListener>,
}

/// Serves `listeners` until `shutdown` resolves and calls under way have finished. Blocks the calling thread.
///
/// The data directory is as [`open`] wants it. `ready` is called once, when all that can fail at a start has been done.
/// `report` is told of accounts whose plan is not defined, of receivers that cannot be reached and of trouble with the
/// disk, while serving goes on; `log` takes a line for each call.
pub fn run(
    config: Config,
    clock: Clock,
    listeners: Listeners,
    report: Report,
    log: Log,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let (data, notices) = (config.data.clone(), config.notices.clone());
    let (gateway, folder) = open(config, clock.clone(), report.clone(), log)?;
    let metrics = gateway.metrics.clone();
    // Ends last, to say that the others are ending.
    let _observing = match listeners.private {
        Some(listener) => Some(edge::private::watch(listener, gateway.clone())?),
        None => None,
    };
    // Ends after the calls: what the last of them cost is folded.
    let _folding = folder::watch(folder)?;
    let _watching = keyring::watch(gateway.keyring.clone(), Store::open(&data)?, report.clone())?;
    let _delivering = edge::notices::watch(&notices, Store::open(&data)?, clock, metrics, report)?;
    // The server first asks whether to stop when its threads are there.
    let shutdown = async {
        ready();
        shutdown.await;
        gateway.meter.health.stop();
    };
    Ok(edge::http::serve::serve(gateway.clone(), listeners.public, shutdown)?)
}

/// All that calls need, over the data directory of `config`, and what folds the ledger behind them.
///
/// The data directory must be there, and this process have it to itself ([`Store::lock_for_serving`]). `report` is told of
/// trouble, `log` of calls.
pub fn open(config: Config, clock: Clock, report: Report, log: Log) -> Result<(Arc<Gateway>, Folder), RunError> {
    let channels = edge::notices::channels(&config.notices);
    let metrics = Arc::new(Metrics::new(&LABELS, clock.unix_s()));
    let store = Store::open(&config.data)?;
    // Balances go on where the ledger stands, so it is folded before the keys are read.
    let folder = folder::open(&config, store, channels, clock.clone(), metrics.clone(), report.clone())?;
    let mut store = Store::open(&config.data)?;
    let numbers = store.api_numbers(&NAMES)?;
    let keyring = Arc::new(Keyring::load(&store, &config.plans, clock.clone())?);
    let gateway = Gateway {
        catalog: Catalog::of(&config, &numbers),
        keyring,
        meter: folder.meter(),
        usage: UsageReader::new(store, report),
        addresses: AddressLimiter::new(config.open, config.limits.open_addresses, clock.clone()),
        log,
        metrics,
        clock,
        config,
    };
    Ok((Arc::new(gateway), folder))
}
