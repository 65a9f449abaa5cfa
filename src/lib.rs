//! Polygate: a multi-format, content-negotiating API gateway.

pub mod accounts;
pub mod config;
pub mod edge;
pub mod pure;
pub mod state;

use std::net::TcpListener;

use config::Config;
use state::clock::Clock;
use state::store::Store;

/// Placeholder for the server, which another branch brings.
pub async fn serve(_: Config, _: TcpListener, _: Store, _: Clock) -> std::io::Result<()> {
    Ok(())
}
