//! Polygate: a multi-format, content-negotiating API gateway.

pub mod accounts;
pub mod config;
pub mod pure;
pub mod state;
