//! Polygate: a multi-format, content-negotiating API gateway.

pub mod accounts;
pub mod config;
pub mod edge;
pub mod pure;
pub mod state;

use std::net::SocketAddr;

use config::Config;
use state::clock::Clock;
use state::store::Store;

/// Placeholder for the server, which another branch brings; binds, announces and returns.
pub async fn serve(
    config: Config,
    _store: Store,
    _clock: Clock,
    announce: impl FnOnce(SocketAddr),
) -> std::io::Result<()> {
    announce(std::net::TcpListener::bind(config.listen)?.local_addr()?);
    Ok(())
}
