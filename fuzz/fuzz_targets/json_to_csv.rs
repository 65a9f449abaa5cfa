//! Any bytes as JSON to be written as CSV: text comes of it, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::format::{Format, Style, transcode};

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    if transcode(data, Format::Csv, Style::default(), &mut out).is_err() {
        return;
    }
    assert!(!out.is_empty());
    assert!(std::str::from_utf8(&out).is_ok());
});
