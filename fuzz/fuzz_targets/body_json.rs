//! Any bytes as a JSON body: every object is read, unless it names a parameter twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::fault::Fault;
use polygate::pure::input::BodyKind;
use polygate_fuzz::read_body;

fuzz_target!(|data: &[u8]| {
    let result = read_body(BodyKind::Json, data);
    if serde_json::from_slice::<serde_json::Value>(data).is_ok_and(|value| value.is_object()) {
        assert!(matches!(result, Ok(_) | Err(Fault::DuplicateParameter(_))));
    }
});
