//! Any bytes as JSON to be written as JSON: JSON with the same meaning comes of it, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::format::{Format, Style, transcode};
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    if transcode(data, Format::Json, Style::default(), &mut out).is_err() {
        return;
    }
    assert!(!out.is_empty());
    assert!(std::str::from_utf8(&out).is_ok());
    assert!(serde_json::from_slice::<IgnoredAny>(&out).is_ok());
    // The tree has limits that the transcoder does not share: depth, and the size of a number.
    if let Ok(theirs) = serde_json::from_slice::<Value>(data) {
        assert!(serde_json::from_slice::<Value>(&out).is_ok_and(|ours| ours == theirs));
    }
});
