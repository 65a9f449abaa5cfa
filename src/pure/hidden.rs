//! Values that are shown to nobody.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A value of which `Debug` tells nothing, and which is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Hidden<T> {
    /// Hides a value.
    pub fn new(value: T) -> Hidden<T> {
        Hidden(Zeroizing::new(value))
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", Some(Hidden::new("hunter2".to_owned()))), "Some(hidden)");
    }
}
