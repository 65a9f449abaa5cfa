//! JSON: serde_json for values, byte splicing for texts that are JSON already, and an emitter for parts of such texts and
//! for the indented look.

use serde::Serialize;

use super::emit::{Emit, Emitted, Writer, new_line};
use super::{EncodeError, JsonError, Reason, tokens};

/// Appends a document: compact, or indented by two spaces.
pub(super) fn encode<T: Serialize + ?Sized>(document: &T, pretty: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let written =
        if pretty { serde_json::to_writer_pretty(out, document) } else { serde_json::to_writer(out, document) };
    written.map_err(|_| EncodeError(Reason::NotSerializable))
}

/// Checks a JSON text, then appends its bytes as they are.
pub(super) fn splice(json: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    tokens::read(json, &mut Check)?;
    out.extend_from_slice(json.trim_ascii());
    Ok(())
}

/// Writes JSON as serde_json does, with numbers as they came.
pub struct Json {
    out: Vec<u8>,
    /// On several lines, indented by two spaces.
    pretty: bool,
    depth: usize,
    place: Place,
}

/// What stands right before the next event.
#[derive(PartialEq)]
enum Place {
    /// A container was just opened.
    Opened,
    /// A key was just written.
    Key,
    /// A value was just written, or nothing yet.
    After,
}

impl Json {
    /// Compact, or on several lines if `pretty`.
    pub fn new(pretty: bool) -> Json {
        Json { out: Vec::new(), pretty, depth: 0, place: Place::After }
    }

    /// Comma and line break, as the place asks for, before a key or a value.
    fn separate(&mut self) {
        if self.place != Place::Key && self.depth > 0 {
            if self.place == Place::After {
                self.out.push(b',');
            }
            self.new_line();
        }
        self.place = Place::After;
    }

    fn new_line(&mut self) {
        if self.pretty {
            new_line(self.depth, &mut self.out);
        }
    }

    fn scalar(&mut self, text: &str) -> Emitted {
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn begin(&mut self, bracket: u8) -> Emitted {
        self.separate();
        self.out.push(bracket);
        self.depth += 1;
        self.place = Place::Opened;
        Ok(())
    }

    fn end(&mut self, bracket: u8) -> Emitted {
        self.depth -= 1;
        if self.place != Place::Opened {
            self.new_line();
        }
        self.out.push(bracket);
        self.place = Place::After;
        Ok(())
    }

    fn quoted(&mut self, text: &str) -> Emitted {
        serde_json::to_writer(&mut self.out, text).map_err(|_| Reason::NotSerializable)
    }
}

impl Writer for Json {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl Emit for Json {
    fn begin_object(&mut self) -> Emitted {
        self.begin(b'{')
    }
    fn end_object(&mut self) -> Emitted {
        self.end(b'}')
    }
    fn key(&mut self, key: &str) -> Emitted {
        self.separate();
        self.quoted(key)?;
        self.out.extend_from_slice(if self.pretty { b": " } else { b":" });
        self.place = Place::Key;
        Ok(())
    }
    fn begin_array(&mut self) -> Emitted {
        self.begin(b'[')
    }
    fn end_array(&mut self) -> Emitted {
        self.end(b']')
    }
    fn null(&mut self) -> Emitted {
        self.scalar("null")
    }
    fn bool(&mut self, value: bool) -> Emitted {
        self.scalar(if value { "true" } else { "false" })
    }
    fn number(&mut self, lexeme: &str) -> Emitted {
        self.scalar(lexeme)
    }
    fn string(&mut self, text: &str) -> Emitted {
        self.separate();
        self.quoted(text)
    }
}

/// Takes every event and writes nothing: the tokenizer in front of it is the check.
pub struct Check;

impl Emit for Check {
    const TEXT: bool = false;

    fn begin_object(&mut self) -> Emitted {
        Ok(())
    }
    fn end_object(&mut self) -> Emitted {
        Ok(())
    }
    fn key(&mut self, _: &str) -> Emitted {
        Ok(())
    }
    fn begin_array(&mut self) -> Emitted {
        Ok(())
    }
    fn end_array(&mut self) -> Emitted {
        Ok(())
    }
    fn null(&mut self) -> Emitted {
        Ok(())
    }
    fn bool(&mut self, _: bool) -> Emitted {
        Ok(())
    }
    fn number(&mut self, _: &str) -> Emitted {
        Ok(())
    }
    fn string(&mut self, _: &str) -> Emitted {
        Ok(())
    }
}
