//! Layer 2: what outlives a call and is shared by all of them. No HTTP.

pub mod authorities;
pub mod background;
pub mod cache;
pub mod clock;
pub mod events;
pub mod folder;
pub mod health;
pub mod journal;
pub mod keyring;
pub mod limiter;
pub mod load;
pub mod log;
pub mod meter;
pub mod metrics;
pub mod process;
pub mod report;
pub mod routine;
pub mod store;
pub mod tally;
pub mod traces;
pub mod usage;
