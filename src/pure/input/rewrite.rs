//! Bodies in other formats to JSON, for services that read nothing else.
//!
//! A form is an object of texts. XML is read as our own answers write it, so that what was answered can be sent back; its
//! numbers and booleans are texts. YAML keeps its types. A name that comes again makes an array, but in YAML, where it is
//! a mistake.

mod xml;
mod yaml;

use std::borrow::Cow;

use ahash::{HashMap, HashMapExt};

use super::{BodyKind, Fault, form, invalid_body, text_of};
use crate::pure::format::emit::{Emit, Emitted, Writer};
use crate::pure::format::json::Json;

/// How deep a document may nest.
const DEPTH_MAX: usize = 16;

/// How many nodes a document may have, or a form pairs.
const NODES_MAX: usize = 10_000;

/// A body as JSON: lent where it is JSON already, whatever it says.
///
/// # Errors
/// [`Fault::InvalidBody`] with a fixed reason and at most a position.
pub fn json_of<'b>(kind: BodyKind<'_>, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Fault> {
    let document = match kind {
        BodyKind::Json => return Ok(Cow::Borrowed(body)),
        BodyKind::Multipart { .. } => return Err(invalid_body("multipart has no form in JSON")),
        BodyKind::Form => of_form(text_of(body)?)?,
        BodyKind::Xml => xml::read(text_of(body)?)?,
        BodyKind::Yaml => yaml::read(text_of(body)?)?,
    };
    let mut json = Json::new(false);
    document.send(&mut json).map_err(|_| Fault::Internal)?;
    Ok(Cow::Owned(std::mem::take(json.out())))
}

/// A document.
enum Document {
    Null,
    Bool(bool),
    /// Spelled as in JSON.
    Number(String),
    Text(String),
    Array(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Document {
    fn send(&self, emit: &mut impl Emit) -> Emitted {
        match self {
            Document::Null => emit.null(),
            Document::Bool(value) => emit.bool(*value),
            Document::Number(lexeme) => emit.number(lexeme),
            Document::Text(text) => emit.string(text),
            Document::Array(items) => {
                emit.begin_array()?;
                items.iter().try_for_each(|item| item.send(emit))?;
                emit.end_array()
            }
            Document::Object(members) => {
                emit.begin_object()?;
                for (name, value) in members {
                    emit.key(name)?;
                    value.send(emit)?;
                }
                emit.end_object()
            }
        }
    }

    /// An object of members in the order in which their names came first; those of one name are an array.
    fn grouped(members: Vec<(String, Document)>) -> Document {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(members.len());
        let mut groups: Vec<(String, Vec<Document>)> = Vec::new();
        for (name, value) in members {
            match places.get(&name) {
                Some(&place) => groups[place].1.push(value),
                None => {
                    places.insert(name.clone(), groups.len());
                    groups.push((name, vec![value]));
                }
            }
        }
        let value = |mut group: Vec<Document>| match group.pop() {
            Some(only) if group.is_empty() => only,
            last => Document::Array(group.into_iter().chain(last).collect()),
        };
        Document::Object(groups.into_iter().map(|(name, group)| (name, value(group))).collect())
    }
}

/// The pairs of a form (URL standard section 5). Between two `&` there may be nothing.
fn of_form(text: &str) -> Result<Document, Fault> {
    let decoded = |text| form::decode(text).and_then(|value| value.as_text().map(str::to_owned));
    let mut members = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        if members.len() == NODES_MAX {
            return Err(invalid_body("a form with too much in it"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let unreadable = || invalid_body("a form that is not percent-encoded UTF-8");
        let name = decoded(name).ok_or_else(unreadable)?;
        members.push((name, Document::Text(decoded(value).ok_or_else(unreadable)?)));
    }
    Ok(Document::grouped(members))
}

#[cfg(test)]
mod tests;
