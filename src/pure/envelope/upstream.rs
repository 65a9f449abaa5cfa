//! What the answers of others say: whether one is in the envelope already, and the message of one that is an error.

use serde_json::Value;

use super::super::format::Reason;
use super::super::format::emit::{Emit, Emitted};
use super::super::format::tokens::Tokenizer;
use super::super::pointer::Pointer;

/// How much of a text is looked at, in bytes, before it is taken not to be in the envelope.
pub const PREFIX_BYTES_MAX: usize = 64 << 10;
/// The longest message that is passed on, in characters.
pub const MESSAGE_CHARS_MAX: usize = 500;

/// Finds out from its beginning whether a JSON text is in the envelope already: an object whose first members are
/// `status`, a string, and `error`, a string or null, in either order, and then `data`.
pub struct Prefix {
    tokenizer: Tokenizer,
    shape: Shape,
    bytes_left: usize,
}

impl Prefix {
    /// Ready for the first piece.
    #[expect(clippy::new_without_default, reason = "nothing asks for a default")]
    pub fn new() -> Prefix {
        let shape = Shape { place: Place::Before, has_status: false, has_error: false, enveloped: false };
        Prefix { tokenizer: Tokenizer::new(), shape, bytes_left: PREFIX_BYTES_MAX }
    }

    /// Takes the next piece; answers as soon as it is certain, at the latest after [`PREFIX_BYTES_MAX`].
    pub fn feed(&mut self, piece: &[u8]) -> Option<bool> {
        // In short parts: all of one is checked for UTF-8, although the first bytes mostly settle it.
        for part in piece[..piece.len().min(self.bytes_left)].chunks(64) {
            self.bytes_left -= part.len();
            if self.tokenizer.feed(part, &mut self.shape).is_err() {
                return Some(self.shape.enveloped);
            }
        }
        (self.bytes_left == 0).then_some(false)
    }
}

/// Follows the events of a text and refuses the one that settles what it is.
struct Shape {
    place: Place,
    has_status: bool,
    has_error: bool,
    enveloped: bool,
}

#[derive(PartialEq)]
enum Place {
    Before,
    Member,
    Status,
    Error,
}

/// It never leaves this file: that the tokenizer stopped is all there is to know.
const SETTLED: Emitted = Err(Reason::UnexpectedByte);

impl Emit for Shape {
    fn begin_object(&mut self) -> Emitted {
        if self.place != Place::Before {
            return SETTLED;
        }
        self.place = Place::Member;
        Ok(())
    }
    fn end_object(&mut self) -> Emitted {
        SETTLED
    }
    fn key(&mut self, key: &str) -> Emitted {
        match key {
            "status" if !self.has_status => (self.has_status, self.place) = (true, Place::Status),
            "error" if !self.has_error => (self.has_error, self.place) = (true, Place::Error),
            _ => {
                self.enveloped = key == "data" && self.has_status && self.has_error;
                return SETTLED;
            }
        }
        Ok(())
    }
    fn begin_array(&mut self) -> Emitted {
        SETTLED
    }
    fn end_array(&mut self) -> Emitted {
        SETTLED
    }
    fn null(&mut self) -> Emitted {
        if self.place != Place::Error {
            return SETTLED;
        }
        self.place = Place::Member;
        Ok(())
    }
    fn bool(&mut self, _: bool) -> Emitted {
        SETTLED
    }
    fn number(&mut self, _: &str) -> Emitted {
        SETTLED
    }
    fn string(&mut self, _: &str) -> Emitted {
        if self.place == Place::Before {
            return SETTLED;
        }
        self.place = Place::Member;
        Ok(())
    }
}

/// What some programs begin their JSON with, and readers may pass over (RFC 8259 section 8.1).
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The message of an upstream's error: the text at the pointer, or where such messages usually are (`title` and `detail`
/// are RFC 9457's). A list of mistakes, as many frameworks answer it, comes to its first. On one line, and cut after
/// [`MESSAGE_CHARS_MAX`] characters. `None` when the body is no JSON or has no such text.
pub fn message(body: &[u8], pointer: Option<&Pointer>) -> Option<String> {
    const USUAL: [&str; 5] = ["error", "message", "detail", "title", "errors"];
    let body: Value = serde_json::from_slice(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)).ok()?;
    let configured = pointer.and_then(|pointer| pointer.find(&body));
    let usual = USUAL.iter().filter_map(|place| body.get(place));
    configured.into_iter().chain(usual).find_map(said)
}

/// What a message is: a text, or the first of a list, or an object that has one, perhaps with the place that it is about.
fn said(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => one_line(text),
        Value::Array(items) => said(items.first()?),
        Value::Object(members) => {
            let text = ["message", "msg", "text", "detail"].iter().find_map(|name| members.get(*name)?.as_str())?;
            let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
            let place =
                members.get("loc").and_then(Value::as_array).map(|steps| steps.iter().map(step).collect::<Vec<_>>());
            one_line(&place.map_or(text.to_owned(), |steps| format!("{}: {text}", steps.join("."))))
        }
        _ => None,
    }
}

/// The text without what could break a line or a terminal; `None` when nothing is left.
fn one_line(text: &str) -> Option<String> {
    let text = text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ");
    let text = text.trim();
    let end = text.char_indices().nth(MESSAGE_CHARS_MAX).map_or(text.len(), |(end, _)| end);
    if text.is_empty() { None } else { Some(text[..end].trim_end().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: Option<bool>) {
        assert_eq!(Prefix::new().feed(json.as_bytes()), expected, "{json}");
        for size in [1, 2, 3, 7] {
            let mut prefix = Prefix::new();
            assert_eq!(json.as_bytes().chunks(size).find_map(|piece| prefix.feed(piece)), expected, "{json} by {size}");
        }
    }

    #[test]
    fn the_envelope_is_known_by_its_first_members() {
        for enveloped in [
            r#"{"status":"ok","error":null,"data":"#,
            r#" { "error" : "no" , "status" : "error" , "data""#,
            r#"{"st\u0061tus":"","error":"\ud83d\ude00","data":{"a":1},"more":1}"#,
        ] {
            check(enveloped, Some(true));
        }
        for other in [
            "[",
            "{}",
            "null ",
            "\"status\"",
            "<html>",
            "\u{feff}{",
            r#"{"data":{},"status":"ok","error":null}"#,
            r#"{"status":"ok","data":"#,
            r#"{"status":"ok","status":"ok","data":"#,
            r#"{"status":200,"error":null,"data":1}"#,
            r#"{"status":null,"error":null,"data":1}"#,
            r#"{"status":"ok","error":false,"data":1}"#,
            r#"{"status":"ok","error":{"message":"no"},"data":1}"#,
            r#"{"status":{"status":"ok"},"error":null,"data":1}"#,
            r#"{"status":"ok","error":null}"#,
            r#"{"status":"ok","error":null,"meta":1,"data":1}"#,
        ] {
            check(other, Some(false));
        }
        for unsettled in ["", "  ", "{", r#"{"status":"ok","error":null,"dat"#] {
            check(unsettled, None);
        }
    }

    #[test]
    fn only_the_beginning_is_looked_at() {
        let prefixed = |blanks: usize| format!("{}{{\"status\":\"\",\"error\":\"\",\"data\":1}}", " ".repeat(blanks));
        let needed = r#"{"status":"","error":"","data""#.len();
        check(&prefixed(PREFIX_BYTES_MAX - needed), Some(true));
        check(&prefixed(PREFIX_BYTES_MAX - needed + 1), Some(false));
    }

    #[test]
    fn messages_are_found_where_they_usually_are() {
        for (body, expected) in [
            (r#"{"error":"a","message":"b"}"#, Some("a")),
            (r#"{"error":{"message":"a","code":1},"message":"b"}"#, Some("a")),
            (r#"{"error":true,"message":"b"}"#, Some("b")),
            (r#"{"error":" ","message":"\u0000\n","detail":"c"}"#, Some("c")),
            (r#"{"type":"about:blank","title":"Not found","detail":"No such quote"}"#, Some("No such quote")),
            (r#"{"title":"Not found","status":404}"#, Some("Not found")),
            (r#"{"errors":[{"message":"a"},{"message":"b"}]}"#, Some("a")),
            (r#"{"errors":["a","b"]}"#, Some("a")),
            (r#"{"status":"error","error":"a","data":null}"#, Some("a")),
            (r#"{"message":" \tone\r\ntwo\u001b[0m\u2028 "}"#, Some("one  two [0m")),
            (
                r#"{"detail":[{"type":"int_parsing","loc":["path","ids",0],"msg":"Should be an integer","input":"x"}]}"#,
                Some("path.ids.0: Should be an integer"),
            ),
            (r#"{"detail":{"code":7,"text":"Taken"}}"#, Some("Taken")),
            (r#"{"error":{"code":7},"message":"b"}"#, Some("b")),
            ("\u{feff}{\"error\":\"a\"}", Some("a")),
            (r#"{"message":404}"#, None),
            (r#"{"errors":[]}"#, None),
            (r#""text""#, None),
            ("<html>", None),
            ("", None),
            (r#"{"message":"cut"#, None),
        ] {
            assert_eq!(message(body.as_bytes(), None).as_deref(), expected, "{body}");
        }
        assert_eq!(message(b"{\"message\":\"\xFF\"}", None), None);
    }

    #[test]
    fn the_configured_place_comes_first() {
        let pointer = Pointer::parse("/fault/text/0").unwrap();
        let body = br#"{"fault":{"text":["a"]},"error":"b"}"#;
        assert_eq!(message(body, Some(&pointer)).as_deref(), Some("a"));
        assert_eq!(message(br#"{"fault":{"text":[1]},"error":"b"}"#, Some(&pointer)).as_deref(), Some("b"));
        assert_eq!(message(br#"{"error":"b"}"#, Some(&pointer)).as_deref(), Some("b"));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let cut = |text: &str| message(serde_json::json!({ "error": text }).to_string().as_bytes(), None).unwrap();
        let (fits, long) = ("é".repeat(MESSAGE_CHARS_MAX), "é".repeat(MESSAGE_CHARS_MAX + 1));
        assert_eq!(cut(&fits), fits);
        assert_eq!(cut(&long), fits);
    }
}
