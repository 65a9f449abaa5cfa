//! JSON bodies (RFC 8259): one object at the top, read without a value tree.

use serde::de::DeserializeSeed;
use serde_json::error::Category;

use super::members::Members;
use super::{Fault, Input, invalid_body};

/// Reads the members of the object. A byte order mark and anything after the object are refused (RFC 8259 section 8.1).
pub(super) fn read<'a>(input: &mut Input<'a>, text: &'a str) -> Result<(), Fault> {
    let mut fault = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let result = Members { input, fault: &mut fault }.deserialize(&mut reader).and_then(|()| reader.end());
    result.map_err(|error| {
        fault.unwrap_or_else(|| {
            let reason = match error.classify() {
                Category::Data => "not a JSON object",
                Category::Eof => "JSON that ends too early",
                Category::Syntax | Category::Io => "not valid JSON",
            };
            invalid_body(format!("{reason} at line {} column {}", error.line(), error.column()))
        })
    })
}
