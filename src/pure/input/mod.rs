//! What a caller sent, from query and body alike: one small bag of the parameters a service knows.
//!
//! Unknown names are passed over with their values; a known name may come once in a source, and a body may repeat what
//! the query said but not contradict it. Text that needs no decoding is borrowed from the request; text that had to be
//! decoded may be a secret and is wiped when dropped (the scratch space of the parsers themselves is out of reach).

mod form;
mod json;
mod kind;
mod members;
mod multipart;
pub mod rewrite;
mod xml;
mod yaml;

use std::fmt;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

use super::fault::Fault;
pub use kind::BodyKind;

/// The most parameters a service may know.
pub const NAMES_MAX: usize = 8;

/// The parameters of one call. The caller bounds the sizes of query and body.
pub struct Input<'a> {
    names: &'static [&'static str],
    fields: [Value<'a>; NAMES_MAX],
    /// Which names the source that is being read has given, a bit each.
    given: u8,
}

/// What was sent for a text parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sent<'i> {
    /// Nothing, or null.
    Absent,
    /// A text, which may be empty.
    Text(&'i str),
    /// A number, a boolean, an array or an object.
    WrongType,
}

impl<'a> Input<'a> {
    /// An empty bag for a service that knows `names`, at most [`NAMES_MAX`]; names beyond that are never filled.
    pub fn new(names: &'static [&'static str]) -> Input<'a> {
        debug_assert!(names.len() <= NAMES_MAX);
        Input { names: &names[..names.len().min(NAMES_MAX)], fields: Default::default(), given: 0 }
    }

    /// Reads a query string, without its `?`. Where a query and a body are read, the query comes first.
    ///
    /// # Errors
    /// [`Fault::InvalidQuery`] when a known parameter is no percent-encoded UTF-8, [`Fault::DuplicateParameter`].
    pub fn read_query(&mut self, raw: &'a str) -> Result<(), Fault> {
        self.given = 0;
        form::read(self, raw, Fault::InvalidQuery)
    }

    /// Reads a body of a known kind. An empty form gives nothing; any other kind of body must not be empty.
    ///
    /// # Errors
    /// [`Fault::InvalidBody`] with a fixed reason and at most a position, [`Fault::DuplicateParameter`].
    pub fn read_body(&mut self, kind: BodyKind<'_>, body: &'a [u8]) -> Result<(), Fault> {
        self.given = 0;
        if body.is_empty() {
            return if kind == BodyKind::Form { Ok(()) } else { Err(invalid_body("it is empty")) };
        }
        if let BodyKind::Multipart { boundary } = kind {
            return multipart::read(self, boundary, body);
        }
        let text = text_of(body)?;
        match kind {
            BodyKind::Json => json::read(self, text),
            BodyKind::Xml => xml::read(self, text),
            BodyKind::Yaml => yaml::read(self, text),
            _ => form::read(self, text, Fault::InvalidBody),
        }
    }

    /// The text sent for `name`.
    pub fn text(&self, name: &str) -> Sent<'_> {
        match self.value(name) {
            Value::Absent | Value::Null => Sent::Absent,
            Value::Borrowed(text) => Sent::Text(text),
            Value::Owned(text) => Sent::Text(text),
            Value::Number(_) | Value::Other => Sent::WrongType,
        }
    }

    /// The whole number sent for `name`, as a number or as decimal text; `None` when nothing, null or an empty text was.
    ///
    /// # Errors
    /// `fault` when it is anything else, or outside `range`. Nothing wraps: what has no exact value is refused.
    pub fn integer(&self, name: &str, range: RangeInclusive<u32>, fault: Fault) -> Result<Option<u32>, Fault> {
        let value = self.value(name);
        let is_blank = value.as_text().is_some_and(|text| text.trim_ascii().is_empty());
        if is_blank || matches!(value, Value::Absent | Value::Null) {
            return Ok(None);
        }
        let number = value.as_number().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).map(Some).ok_or(fault)
    }

    fn value(&self, name: &str) -> &Value<'a> {
        self.index(name).map_or(&Value::Absent, |index| &self.fields[index])
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| *known == name)
    }

    /// Takes what the current source says about the parameter at `index`.
    fn put(&mut self, index: usize, value: Value<'a>) -> Result<(), Fault> {
        let field = &mut self.fields[index];
        let is_second = self.given & (1 << index) != 0;
        if is_second || !value.agrees_with(field) {
            return Err(Fault::DuplicateParameter(self.names[index]));
        }
        self.given |= 1 << index;
        if !matches!(value, Value::Null) {
            *field = value;
        }
        Ok(())
    }
}

/// Shows which parameters were given, never what they are.
impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.names.iter().zip(&self.fields).filter(|(_, value)| !matches!(value, Value::Absent));
        f.debug_set().entries(given.map(|(name, _)| name)).finish()
    }
}

/// One value, as far as any service wants to know it.
#[derive(Default)]
enum Value<'a> {
    #[default]
    Absent,
    Null,
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
    /// A number as it was written: a double would round it.
    Number(&'a str),
    /// A boolean, an array or an object.
    Other,
}

impl Value<'_> {
    fn as_text(&self) -> Option<&str> {
        match self {
            Value::Borrowed(text) => Some(text),
            Value::Owned(text) => Some(text),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<u64> {
        match self {
            Value::Number(written) => whole_value(written),
            value => value.as_text().and_then(whole_number),
        }
    }

    /// Whether a body's value may stand beside what the query gave: it says nothing, or the same.
    fn agrees_with(&self, earlier: &Value<'_>) -> bool {
        match (self, earlier) {
            (Value::Null, _) | (_, Value::Absent) => true,
            (Value::Number(_), earlier) => self.as_number().is_some() && self.as_number() == earlier.as_number(),
            (value, earlier) => value.as_text().is_some() && value.as_text() == earlier.as_text(),
        }
    }
}

/// Reads decimal digits, white space around and `.0` behind them allowed; signs, exponents and other bases are not.
fn whole_number(text: &str) -> Option<u64> {
    let text = text.trim_ascii();
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let has_ends = is_digit(text.as_bytes().first()) && is_digit(text.as_bytes().last());
    if is_plain && has_ends { whole_value(text) } else { None }
}

/// The whole number that a decimal number is, digit by digit: `6.0` and `60e-1` are 6. Signs and other bases are refused,
/// and so is anything that would have to be rounded.
fn whole_value(written: &str) -> Option<u64> {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut places = i64::from(exponent.parse::<i32>().ok()?) + whole.len() as i64;
    let mut number = 0u64;
    for byte in whole.bytes().chain(fraction.bytes()) {
        let digit = char::from(byte).to_digit(10)?;
        if places > 0 {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
        } else if digit != 0 {
            return None;
        }
        places -= 1;
    }
    // At most twenty turns: more would overflow.
    while number != 0 && places > 0 {
        number = number.checked_mul(10)?;
        places -= 1;
    }
    Some(number)
}

fn text_of(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(body).map_err(|error| invalid_body(format!("not valid UTF-8 at byte {}", error.valid_up_to())))
}

fn invalid_body(reason: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::InvalidBody(reason.into())
}

#[cfg(test)]
mod tests;
