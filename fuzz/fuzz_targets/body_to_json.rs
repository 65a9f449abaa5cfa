//! Any bytes as a body to be rewritten: JSON comes of them, or a fault.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::fault::Fault;
use polygate::pure::input::{BodyKind, rewrite};

fuzz_target!(|data: &[u8]| {
    for kind in [BodyKind::Form, BodyKind::Xml, BodyKind::Yaml] {
        match rewrite::json_of(kind, data) {
            Ok(json) => assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok()),
            Err(Fault::InvalidBody(reason)) => assert!(reason.is_ascii() && reason.len() < 80, "{reason}"),
            Err(other) => panic!("{other:?}"),
        }
    }
});
