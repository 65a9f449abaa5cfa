//! Layer 5: protocols. How the world reaches what the layers below do.

pub mod cli;
