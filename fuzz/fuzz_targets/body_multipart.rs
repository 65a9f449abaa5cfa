//! Any bytes as a multipart body with a short boundary: parameters or a fault come of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::input::BodyKind;
use polygate_fuzz::read_body;

fuzz_target!(|data: &[u8]| {
    let _ = read_body(BodyKind::Multipart { boundary: "x" }, data);
});
