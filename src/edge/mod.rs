//! Layer 5: protocols. The only layer that names warp or hyper.

pub mod cli;
pub mod client;
pub mod http;
pub mod notices;
pub mod private;
pub mod reload;
pub mod traces;
