//! YAML to a document, read as bodies of parameters are, with every number to the digit.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::super::yaml::{options, refused, written};
use super::super::{Fault, invalid_body};
use super::{Document, NODES_MAX};

/// Reads the only document.
pub(super) fn read(text: &str) -> Result<Document, Fault> {
    let options = options(NODES_MAX, DuplicateKeyPolicy::Error);
    let node =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| Spanned::deserialize(reader));
    document(text, node.map_err(|error| refused(&error))?)
}

/// A node as the reader tells of it: of a number, only its place says how it was written.
enum Node {
    Null,
    Bool(bool),
    /// Its value where it is a whole one.
    Number(Option<i128>),
    Text(String),
    Sequence(Vec<Spanned<Node>>),
    /// Names are nodes, too.
    Mapping(Vec<(Node, Spanned<Node>)>),
}

fn document(text: &str, Spanned { value, defined, .. }: Spanned<Node>) -> Result<Document, Fault> {
    let refused = |reason| invalid_body(format!("{reason} at line {} column {}", defined.line(), defined.column()));
    Ok(match value {
        Node::Null => Document::Null,
        Node::Bool(value) => Document::Bool(value),
        Node::Text(text) => Document::Text(text),
        Node::Number(whole) => {
            let spelled = written(text, &defined).and_then(spelled).or_else(|| whole.map(|value| value.to_string()));
            Document::Number(spelled.ok_or_else(|| refused("YAML with a number that JSON lacks"))?)
        }
        Node::Sequence(items) => {
            Document::Array(items.into_iter().map(|item| document(text, item)).collect::<Result<_, _>>()?)
        }
        Node::Mapping(members) => {
            let member = |(name, value)| match name {
                Node::Text(name) => Ok((name, document(text, value)?)),
                _ => Err(refused("YAML with a name that is no text")),
            };
            Document::Object(members.into_iter().map(member).collect::<Result<_, Fault>>()?)
        }
    })
}

/// A decimal number as JSON spells it (RFC 8259 section 6), its digits as they are; `None` for hexadecimal, infinity and
/// what is no number.
fn spelled(written: &str) -> Option<String> {
    let (sign, unsigned) = match written.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", written.strip_prefix('+').unwrap_or(written)),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => unsigned.split_at(at),
        None => (unsigned, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, rest)| (whole, Some(rest)));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let power = exponent.get(1..).map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let is_number = is_digits(whole)
        && fraction.is_none_or(is_digits)
        && !(whole.is_empty() && fraction.is_none_or(str::is_empty))
        && power.is_none_or(|power| !power.is_empty() && is_digits(power));
    let whole = Some(whole.trim_start_matches('0')).filter(|digits| !digits.is_empty()).unwrap_or("0");
    let fraction = fraction.map(|digits| if digits.is_empty() { ".0".to_owned() } else { format!(".{digits}") });
    is_number.then(|| format!("{sign}{whole}{}{exponent}", fraction.unwrap_or_default()))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Node, D::Error> {
        reader.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(Some(value.into())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(Some(value.into())))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element()? {
            sequence.push(item);
        }
        Ok(Node::Sequence(sequence))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut mapping = Vec::new();
        while let Some(member) = members.next_entry()? {
            mapping.push(member);
        }
        Ok(Node::Mapping(mapping))
    }
}
