//! Polygate: a multi-format, content-negotiating API gateway.

pub mod config;
pub mod pure;
pub mod state;
