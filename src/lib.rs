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
use crate::state::clock::Clock;
use crate::state::keyring::{self, Keyring, KeyringError};
use crate::state::store::Store;

/// Why serving ended, or never began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The system refused a thread, or the listener failed.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves `listener` until `shutdown` resolves and calls under way have finished. Blocks the calling thread.
///
/// The listener is bound outside, so that a port of 0 can be asked what it became. `ready` is called once, when all that
/// can fail at a start has been done. `report` is told of accounts whose plan is not defined and of trouble with the
/// store, while serving goes on.
pub fn run(
    config: Config,
    store: Store,
    clock: Clock,
    listener: TcpListener,
    report: impl Fn(&KeyringError) + Send + 'static,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let keyring = Arc::new(Keyring::load(&store, &config.plans, clock.clone())?);
    let _watch = keyring::watch(keyring.clone(), store, report)?;
    let gateway = Arc::new(Gateway::new(config, keyring, clock));
    // The server first asks whether to stop when its threads are there.
    let shutdown = async {
        ready();
        shutdown.await;
    };
    Ok(edge::http::serve::serve(gateway, listener, shutdown)?)
}
