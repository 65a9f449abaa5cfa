//! Layer 1: values and functions. No I/O, no clock, no async, no logging.

pub mod bounds;
pub mod fault;
pub mod format;
pub mod key;
pub mod period;
pub mod plan;
