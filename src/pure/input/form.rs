//! Queries and forms: `application/x-www-form-urlencoded` (URL standard section 5), read strictly.
//!
//! The common decoders put replacement characters where the encoding is broken; a secret must not change that quietly.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::{Fault, Input, Value};

/// Reads `name=value` pairs between `&`; a value begins after the first `=`, and `+` is a space.
///
/// `invalid` is the fault when the value of a known parameter cannot be decoded: it depends on where the text stood.
pub(super) fn read<'a>(
    input: &mut Input<'a>,
    text: &'a str,
    invalid: fn(Cow<'static, str>) -> Fault,
) -> Result<(), Fault> {
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_named = |known: &&str| Decoder(name.bytes()).eq(known.bytes().map(Some));
        let Some(index) = input.names.iter().position(is_named) else { continue };
        let unreadable = || invalid(format!("parameter `{}` is not percent-encoded UTF-8", input.names[index]).into());
        let value = decode(value).ok_or_else(unreadable)?;
        input.put(index, value)?;
    }
    Ok(())
}

/// The text that is written so; `None` when it is not percent-encoded UTF-8.
pub(super) fn decode(text: &str) -> Option<Value<'_>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Value::Borrowed(text));
    }
    // Decoding never lengthens, so the buffer never moves and leaves a copy behind.
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    for byte in Decoder(text.bytes()) {
        decoded.push(byte?);
    }
    owned(decoded)
}

/// Takes bytes as text without copying them; `None` when they are no UTF-8.
pub(super) fn owned(mut bytes: Zeroizing<Vec<u8>>) -> Option<Value<'static>> {
    std::str::from_utf8(&bytes).ok()?;
    let text = String::from_utf8(std::mem::take(&mut *bytes)).ok()?;
    Some(Value::Owned(Zeroizing::new(text)))
}

/// Yields the decoded bytes, and `None` in place of a `%` that two hexadecimal digits do not follow.
struct Decoder<'a>(std::str::Bytes<'a>);

impl Iterator for Decoder<'_> {
    type Item = Option<u8>;

    fn next(&mut self) -> Option<Option<u8>> {
        let hexadecimal = |byte: Option<u8>| char::from(byte?).to_digit(16);
        Some(match self.0.next()? {
            b'+' => Some(b' '),
            b'%' => match (hexadecimal(self.0.next()), hexadecimal(self.0.next())) {
                (Some(high), Some(low)) => Some((high * 16 + low) as u8),
                _ => None,
            },
            byte => Some(byte),
        })
    }
}
