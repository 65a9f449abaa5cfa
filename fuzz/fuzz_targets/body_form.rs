//! Any bytes as a form: what is read is what the common decoder reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::input::{BodyKind, Sent};
use polygate::pure::totp::Params;
use polygate_fuzz::read_body;

fuzz_target!(|data: &[u8]| {
    let Ok(input) = read_body(BodyKind::Form, data) else { return };
    for known in Params::NAMES {
        let mut theirs = form_urlencoded::parse(data).filter(|(name, _)| name == known);
        match input.text(known) {
            Sent::Absent => assert!(theirs.next().is_none()),
            Sent::Text(text) => assert!(theirs.next().is_some_and(|(_, value)| value == text)),
            Sent::WrongType => panic!("a form has only text"),
        }
        assert!(theirs.next().is_none());
    }
});
