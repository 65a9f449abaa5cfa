//! Tests of the whole, in one program: a file a feature.

mod analytics;
mod calls;
mod desk;
mod golden;
mod handover;
mod hostile;
mod http2;
mod inputs;
mod keys;
mod layers;
mod ledger;
mod limits;
mod log;
mod model;
mod notices;
mod private;
mod program;
mod reload;
mod secrecy;
mod sockets;
mod spec;
mod support;
mod tls;
mod traces;
mod upstream;
mod vectors;
