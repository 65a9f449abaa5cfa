//! Upstream APIs, as far as they are values and functions: where requests go, and when they had better not.

pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod target;
