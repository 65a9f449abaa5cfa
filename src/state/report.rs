//! How the threads behind the calls tell the operator what is wrong.

use std::fmt::Display;
use std::sync::Arc;

/// Takes a message for the operator: one or a few lines without keys, secrets or bodies.
pub type Report = Arc<dyn Fn(&dyn Display) + Send + Sync>;
