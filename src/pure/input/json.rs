//! JSON bodies (RFC 8259): one object at the top, read without a value tree.

use serde::Deserializer;
use serde::de::{Deserialize, DeserializeSeed};
use serde_json::error::Category;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::members::Members;
use super::{Fault, Input, Value, invalid_body};

/// Reads the members of the object. A byte order mark and anything after the object are refused (RFC 8259 section 8.1).
pub(super) fn read<'a>(input: &mut Input<'a>, text: &'a str) -> Result<(), Fault> {
    let mut fault = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let result =
        Members { input, fault: &mut fault, value: Member }.deserialize(&mut reader).and_then(|()| reader.end());
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

/// Reads a value as it is written, so that a number is neither rounded nor too large.
#[derive(Clone, Copy)]
struct Member;

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value<'de>, D::Error> {
        <&RawValue>::deserialize(reader).map(|raw| value(raw.get()))
    }
}

/// The value that a piece of valid JSON is.
fn value(written: &str) -> Value<'_> {
    match written.as_bytes().first() {
        Some(b'"') => string(written),
        Some(b'n') => Value::Null,
        Some(b'-' | b'0'..=b'9') => Value::Number(written),
        _ => Value::Other,
    }
}

/// The text between the quotes. Escapes may make half a surrogate pair, which is no text (RFC 8259 section 8.2).
fn string(written: &str) -> Value<'_> {
    if !written.contains('\\') {
        return Value::Borrowed(written.trim_matches('"'));
    }
    serde_json::from_str(written).map_or(Value::Other, |text| Value::Owned(Zeroizing::new(text)))
}
