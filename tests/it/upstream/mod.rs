//! APIs that an upstream answers, over real sockets.

mod behaviours;
mod calls;
mod others;
mod server;
mod streams;
