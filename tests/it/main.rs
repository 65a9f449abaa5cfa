//! Tests of the whole, in one program: a file a feature.

mod analytics;
mod calls;
mod golden;
mod inputs;
mod keys;
mod layers;
mod sockets;
mod spec;
mod support;
mod vectors;
