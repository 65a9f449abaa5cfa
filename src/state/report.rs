//! How trouble that no caller can be told of is told to the operator.

use std::fmt::Display;
use std::sync::Arc;

/// Takes a line for the operator; the program prints it to standard error.
pub type Report = Arc<dyn Fn(&dyn Display) + Send + Sync>;
