//! Layer 1: values and functions. No I/O, no clock, no async, no logging.

pub mod accept;
pub mod address;
pub mod book;
pub mod bounds;
pub mod contract;
pub mod description;
pub mod envelope;
pub mod fault;
pub mod format;
pub mod freshness;
pub mod hidden;
pub mod input;
pub mod key;
pub mod log_line;
pub mod notice;
pub mod period;
pub mod plan;
pub mod record;
pub mod retry;
pub mod secret;
pub mod stamp;
pub mod totp;
pub mod trace;
pub mod usage;
pub mod webhook;
