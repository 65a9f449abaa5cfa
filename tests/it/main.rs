//! Tests of the whole, in one program: a file a feature.

mod analytics;
mod calls;
mod desk;
mod golden;
mod inputs;
mod keys;
mod layers;
mod ledger;
mod log;
mod model;
mod notices;
mod private;
mod program;
mod secrecy;
mod sockets;
mod spec;
mod support;
mod vectors;
