//! APIs that an upstream answers, over real sockets.

mod behaviours;
mod calls;
mod others;
mod promises;
mod server;
mod streams;
mod tries;
