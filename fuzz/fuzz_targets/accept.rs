//! Any bytes as `Accept` lines: an answer always comes, and asking for what it says gives the same format.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::accept::choose;

fuzz_target!(|data: &[u8]| {
    if let Some(choice) = choose(data.split(|byte| *byte == b'\n')) {
        let again = choose(std::iter::once(choice.content_type.as_bytes())).expect("our own media type");
        assert_eq!((again.format, again.content_type), (choice.format, choice.content_type));
    }
});
