//! APIs that an upstream answers, over real sockets.

mod authorities;
mod behaviours;
mod bodies;
mod calls;
mod others;
mod promises;
mod server;
mod streams;
mod tries;
