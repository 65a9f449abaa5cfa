//! JSON pointers (RFC 6901): the name of a place in a JSON text.

use std::sync::Arc;

use serde_json::Value;

/// The longest pointer, in bytes.
pub const POINTER_BYTES_MAX: usize = 1_024;

/// A place in a JSON text; the default is all of it. Copies share their memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(Arc<[Step]>);

/// One step down: a reference token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The key in an object.
    pub key: String,
    /// The place in an array, if the key is spelled as one (RFC 6901 section 4).
    pub index: Option<usize>,
}

/// Why a text is no JSON pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It is not empty and begins with something else.
    #[error("must be empty or begin with /")]
    NoSlash,
    /// `~` escapes only itself and the slash.
    #[error("must not have a ~ that is not ~0 or ~1")]
    Tilde,
    /// It has more than [`POINTER_BYTES_MAX`] bytes.
    #[error("must not be longer than {POINTER_BYTES_MAX} bytes")]
    TooLong,
}

impl Pointer {
    /// Reads a pointer as RFC 6901 section 3 writes it: `/result/items/0`, with `~1` for `/` and `~0` for `~`. Empty, it
    /// is the whole document.
    ///
    /// # Errors
    /// When the text is no pointer.
    pub fn parse(text: &str) -> Result<Pointer, PointerError> {
        if text.len() > POINTER_BYTES_MAX {
            return Err(PointerError::TooLong);
        }
        let Some(tokens) = text.strip_prefix('/') else {
            return if text.is_empty() { Ok(Pointer::default()) } else { Err(PointerError::NoSlash) };
        };
        tokens.split('/').map(Step::parse).collect::<Result<_, _>>().map(Pointer)
    }

    /// The member of an object.
    pub fn member(key: &str) -> Pointer {
        Pointer(Arc::new([Step { key: key.to_owned(), index: None }]))
    }

    /// The steps to the place, from the top.
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What lies at the place.
    pub(super) fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, step| match value {
            Value::Object(members) => members.get(&step.key),
            Value::Array(items) => items.get(step.index?),
            _ => None,
        })
    }
}

impl Step {
    fn parse(token: &str) -> Result<Step, PointerError> {
        let mut escapes = token.split('~').skip(1);
        if escapes.any(|after| !after.starts_with(['0', '1'])) {
            return Err(PointerError::Tilde);
        }
        // In this order, or `~01` would become a slash.
        let key = token.replace("~1", "/").replace("~0", "~");
        let digits = key.bytes().all(|byte| byte.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
        let index = if digits { key.parse().ok() } else { None };
        Ok(Step { key, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_6901_section_5() {
        let document = serde_json::json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8
        });
        let find = |pointer: &str| Pointer::parse(pointer).unwrap().find(&document).cloned();
        assert_eq!(find(""), Some(document.clone()));
        assert_eq!(find("/foo"), Some(document["foo"].clone()));
        assert_eq!(find("/foo/0"), Some("bar".into()));
        for (value, pointer) in
            ["/", "/a~1b", "/c%d", "/e^f", "/g|h", "/i\\j", "/k\"l", "/ ", "/m~0n"].iter().enumerate()
        {
            assert_eq!(find(pointer), Some(value.into()), "{pointer}");
        }
        for nowhere in ["/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/", "/foo/0/x", "//", "/bar", "/m~01n"] {
            assert_eq!(find(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_told_so() {
        assert_eq!(Pointer::parse("foo"), Err(PointerError::NoSlash));
        assert_eq!(Pointer::parse("#/foo"), Err(PointerError::NoSlash));
        assert_eq!(Pointer::parse("/a~"), Err(PointerError::Tilde));
        assert_eq!(Pointer::parse("/a~2"), Err(PointerError::Tilde));
        assert_eq!(Pointer::parse("/~~0"), Err(PointerError::Tilde));
        assert_eq!(Pointer::parse(&format!("/{}", "a".repeat(POINTER_BYTES_MAX))), Err(PointerError::TooLong));
        assert!(Pointer::parse(&format!("/{}", "a".repeat(POINTER_BYTES_MAX - 1))).is_ok());
        assert_eq!(PointerError::TooLong.to_string(), "must not be longer than 1024 bytes");
    }

    #[test]
    fn a_step_is_a_key_or_a_place() {
        let step = |pointer: &str| Pointer::parse(pointer).unwrap().steps()[0].index;
        assert_eq!(step("/0"), Some(0));
        assert_eq!(step("/120"), Some(120));
        for key in ["/", "/01", "/-1", "/a", "/99999999999999999999999"] {
            assert_eq!(step(key), None, "{key}");
        }
        let tilde = Pointer::parse("/~01~10").unwrap();
        assert_eq!(tilde.steps()[0].key, "~1/0");
    }
}
