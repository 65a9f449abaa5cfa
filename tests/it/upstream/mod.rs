//! APIs that an upstream answers, over real sockets.

mod authorities;
mod behaviours;
mod bodies;
mod calls;
mod others;
mod promises;
pub mod server;
mod streams;
mod tries;
