//! XML bodies (XML 1.0): the children of the root element, whatever its name, are the parameters.

use std::borrow::Cow;

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, escape};
use zeroize::Zeroizing;

use super::{Fault, Input, Value, invalid_body};

/// How deep elements may nest, the root included.
const DEPTH_MAX: usize = 4;

/// Reads the root's children. Values are text; `xsi:nil="true"` is null; a child with children of its own is of the
/// wrong type. A document type declaration is refused, and with it every entity beyond the five of XML itself.
pub(super) fn read<'a>(input: &mut Input<'a>, text: &'a str) -> Result<(), Fault> {
    walk(text, DEPTH_MAX, &mut Parameters { input, depth: 0, parameter: None, length_max: text.len() })
}

/// What is told of the elements of a document, in its order.
pub(super) trait Elements<'a> {
    /// An element begins.
    fn open(&mut self, name: &str, empty: Empty) -> Result<(), Fault>;
    /// A piece of the text of the innermost element.
    fn text(&mut self, piece: Cow<'a, str>);
    /// The innermost element ends.
    fn close(&mut self) -> Result<(), Fault>;
}

/// What an element is that has nothing in it, as its attributes say.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Empty {
    /// They say nothing: it is an empty text.
    Text,
    /// `xsi:nil="true"`.
    Null,
    /// `type="object"`, as in our own answers.
    Object,
    /// `type="array"`, as in our own answers.
    Array,
}

/// Tells `elements` of a document whose elements nest at most `depth_max` deep, the root included.
pub(super) fn walk<'a>(text: &'a str, depth_max: usize, elements: &mut impl Elements<'a>) -> Result<(), Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find(is_forbidden) {
        return Err(malformed(at as u64));
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut depth = 0;
    let mut has_root = false;
    loop {
        let event = reader.read_event().map_err(|_| malformed(reader.error_position()))?;
        let at = reader.buffer_position();
        match event {
            Event::Start(tag) => {
                depth += 1;
                if depth > depth_max {
                    return Err(invalid_body(format!("XML deeper than {depth_max} elements")));
                }
                if depth == 1 && has_root || !is_name(tag.name().as_ref()) {
                    return Err(malformed(at));
                }
                has_root = true;
                elements.open(tag.name().as_ref(), empty(&tag).ok_or_else(|| malformed(at))?)?;
            }
            Event::End(_) => {
                depth -= 1;
                elements.close()?;
            }
            Event::Text(chunk) if depth == 0 => {
                if !chunk.xml10_content().trim_ascii().is_empty() {
                    return Err(malformed(at));
                }
            }
            Event::Text(chunk) => elements.text(chunk.xml10_content()),
            Event::CData(chunk) => elements.text(chunk.xml10_content()),
            Event::GeneralRef(entity) => {
                elements.text(resolved(&entity).ok_or_else(|| invalid_body("XML with an unknown entity"))?);
            }
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(|_| malformed(at))?;
                if encoding.is_some_and(|name| !name.eq_ignore_ascii_case("utf-8")) {
                    return Err(invalid_body("XML in an encoding other than UTF-8"));
                }
            }
            Event::DocType(_) => return Err(invalid_body("XML with a document type declaration")),
            Event::Comment(_) | Event::PI(_) | Event::Empty(_) => {}
            Event::Eof if depth == 0 && has_root => return Ok(()),
            Event::Eof => return Err(malformed(at)),
        }
    }
}

/// The root's children as parameters.
struct Parameters<'i, 'a> {
    input: &'i mut Input<'a>,
    depth: usize,
    /// The known one that is open.
    parameter: Option<Parameter<'a>>,
    /// What all pieces of text together cannot exceed.
    length_max: usize,
}

impl<'a> Elements<'a> for Parameters<'_, 'a> {
    fn open(&mut self, name: &str, empty: Empty) -> Result<(), Fault> {
        self.depth += 1;
        match self.depth {
            1 => {}
            2 => {
                let named = self.input.index(name);
                self.parameter = named.map(|index| Parameter::new(index, empty == Empty::Null));
            }
            _ => self.parameter.iter_mut().for_each(|parameter| parameter.value = Value::Other),
        }
        Ok(())
    }

    fn text(&mut self, piece: Cow<'a, str>) {
        add(&mut self.parameter, piece, self.length_max);
    }

    fn close(&mut self) -> Result<(), Fault> {
        self.depth -= 1;
        match self.parameter.take_if(|_| self.depth == 1) {
            Some(Parameter { index, value }) => self.input.put(index, value),
            None => Ok(()),
        }
    }
}

/// The parameter whose element is open.
struct Parameter<'a> {
    index: usize,
    value: Value<'a>,
}

impl Parameter<'_> {
    fn new(index: usize, is_nil: bool) -> Self {
        Parameter { index, value: if is_nil { Value::Null } else { Value::Borrowed("") } }
    }
}

/// Adds a piece of text to the open parameter: borrowed while it is the only one. `length_max` is what all pieces
/// together cannot exceed, so that the buffer never moves and leaves a copy behind.
fn add<'a>(parameter: &mut Option<Parameter<'a>>, piece: Cow<'a, str>, length_max: usize) {
    let Some(Parameter { value, .. }) = parameter else { return };
    match (&mut *value, piece) {
        (Value::Borrowed(""), Cow::Borrowed(piece)) => *value = Value::Borrowed(piece),
        (Value::Borrowed(first), piece) => {
            let mut text = Zeroizing::new(String::with_capacity(length_max));
            text.push_str(first);
            text.push_str(&piece);
            *value = Value::Owned(text);
        }
        (Value::Owned(text), piece) => text.push_str(&piece),
        _ => {}
    }
}

/// What the element is if there is nothing in it; `None` when its attributes cannot be read.
fn empty(tag: &BytesStart<'_>) -> Option<Empty> {
    let mut empty = Empty::Text;
    // Looking for duplicates compares every attribute with every other, and nothing depends on it here.
    for attribute in tag.attributes().with_checks(false) {
        let attribute = attribute.ok()?;
        let is_called_nil = attribute.key.prefix().is_some() && attribute.key.local_name().as_ref() == "nil";
        match &*attribute.value {
            "true" | "1" if is_called_nil => empty = Empty::Null,
            "object" if attribute.key.as_ref() == "type" && empty == Empty::Text => empty = Empty::Object,
            "array" if attribute.key.as_ref() == "type" && empty == Empty::Text => empty = Empty::Array,
            _ => {}
        }
    }
    Some(empty)
}

/// The text of a character reference or of one of the five entities that XML itself defines.
fn resolved(entity: &BytesRef<'_>) -> Option<Cow<'static, str>> {
    if entity.is_char_ref() {
        let character = entity.resolve_char_ref().ok()??;
        return (!is_forbidden(character)).then(|| character.to_string().into());
    }
    escape::resolve_predefined_entity(&entity.xml10_content()).map(Cow::Borrowed)
}

/// Whether XML has no place for a character (XML 1.0 section 2.2).
fn is_forbidden(character: char) -> bool {
    matches!(character, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

/// Whether the ASCII in a name may stand where it does (XML 1.0 section 2.3); of the rest, no known name has any.
fn is_name(name: &str) -> bool {
    let may_begin = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':') || !byte.is_ascii();
    let may_follow = |byte: u8| may_begin(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    name.bytes().next().is_some_and(may_begin) && name.bytes().all(may_follow)
}

fn malformed(at: u64) -> Fault {
    invalid_body(format!("not valid XML at byte {at}"))
}
