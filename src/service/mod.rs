//! Layer 3: what a call reaches.

pub mod catalog;
pub mod totp;
