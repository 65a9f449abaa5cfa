//! Layer 3: what a call reaches.

pub mod analytics;
pub mod catalog;
pub mod totp;
pub mod upstream;
