//! YAML: the seed's look (that of js-yaml), with every string quoted that some reader would take for something else.
//!
//! Block style, two spaces indent, lines never folded, and a line break at the end. Strings are plain where readers of
//! YAML 1.1 and 1.2 agree that they are strings, in single quotes where one of them would misread, and in double quotes
//! where they hold control characters, line breaks or other characters that YAML wants escaped. Numbers keep their
//! digits, and an exponent gets the dot and the sign without which YAML 1.1 sees a string: `1e3` is `1.0e+3`. One that
//! is beyond doubles is `.inf`, which is what readers make of it where they do not take it for a string.
//!
//! Keys that come twice must not be sent: most readers refuse them, PyYAML silently keeps the last.

use std::fmt::Write as _;

use super::Reason;
use super::emit::{Emit, Emitted, Writer, new_line};

/// The most containers a YAML document may nest. js-yaml gives up at a hundred nodes from the document to a scalar, and
/// counts an item that begins on the line of its dash as two.
pub const YAML_DEPTH_MAX: usize = 98;

/// The longest key, in characters, that YAML lets stand without a `?` (YAML 1.2 section 7.4.2); we count bytes.
const PLAIN_KEY_BYTES_MAX: usize = 1024;

/// Writes YAML as events come.
#[derive(Default)]
pub struct Yaml {
    out: Vec<u8>,
    open: Vec<Open>,
}

/// An open container.
struct Open {
    array: bool,
    empty: bool,
    /// Its first line follows what opened it: it is an item of an array, or the document itself.
    inline: bool,
}

impl Yaml {
    /// Goes to where the next member of the innermost container begins.
    fn member(&mut self) {
        let depth = self.open.len();
        if let Some(parent) = self.open.last_mut() {
            if !(std::mem::take(&mut parent.empty) && parent.inline) {
                self.new_line(depth);
            } else if depth > 1 {
                self.out.push(b' ');
            }
        }
    }

    fn new_line(&mut self, depth: usize) {
        new_line(depth - 1, &mut self.out);
    }

    /// Writes the dash of an item. The colon of a key stands already.
    fn dash(&mut self) {
        if self.in_array() {
            self.member();
            self.out.push(b'-');
        }
    }

    fn in_array(&self) -> bool {
        self.open.last().is_some_and(|parent| parent.array)
    }

    /// Goes to where a value that fits one line is written.
    fn scalar(&mut self) {
        self.dash();
        if !self.open.is_empty() {
            self.out.push(b' ');
        }
    }

    fn begin(&mut self, array: bool) -> Emitted {
        if self.open.len() == YAML_DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        self.dash();
        let inline = self.open.is_empty() || self.in_array();
        self.open.push(Open { array, empty: true, inline });
        Ok(())
    }

    fn end(&mut self, empty: &[u8]) -> Emitted {
        if self.open.pop().is_some_and(|closed| closed.empty) {
            if !self.open.is_empty() {
                self.out.push(b' ');
            }
            self.out.extend_from_slice(empty);
        }
        self.complete()
    }

    /// Ends the last line once the document is complete.
    fn complete(&mut self) -> Emitted {
        if self.open.is_empty() {
            self.out.push(b'\n');
        }
        Ok(())
    }
}

impl Writer for Yaml {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl Emit for Yaml {
    fn begin_object(&mut self) -> Emitted {
        self.begin(false)
    }
    fn end_object(&mut self) -> Emitted {
        self.end(b"{}")
    }
    fn key(&mut self, key: &str) -> Emitted {
        self.member();
        let start = self.out.len();
        push_string(key, &mut self.out);
        if self.out.len() - start > PLAIN_KEY_BYTES_MAX {
            self.out.splice(start..start, *b"? ");
            self.new_line(self.open.len());
        }
        self.out.push(b':');
        Ok(())
    }
    fn begin_array(&mut self) -> Emitted {
        self.begin(true)
    }
    fn end_array(&mut self) -> Emitted {
        self.end(b"[]")
    }
    fn null(&mut self) -> Emitted {
        self.scalar();
        self.out.extend_from_slice(b"null");
        self.complete()
    }
    fn bool(&mut self, value: bool) -> Emitted {
        self.scalar();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        self.complete()
    }
    fn number(&mut self, lexeme: &str) -> Emitted {
        self.scalar();
        push_number(lexeme, &mut self.out);
        self.complete()
    }
    fn string(&mut self, text: &str) -> Emitted {
        self.scalar();
        push_string(text, &mut self.out);
        self.complete()
    }
}

fn push_number(lexeme: &str, out: &mut Vec<u8>) {
    let Some((mantissa, exponent)) = lexeme.split_once(['e', 'E']) else {
        return out.extend_from_slice(lexeme.as_bytes());
    };
    if lexeme.parse().is_ok_and(f64::is_infinite) {
        return out.extend_from_slice(if lexeme.starts_with('-') { b"-.inf" } else { b".inf" });
    }
    out.extend_from_slice(mantissa.as_bytes());
    out.extend_from_slice(if mantissa.contains('.') { b"e" } else { b".0e" });
    if !exponent.starts_with(['+', '-']) {
        out.push(b'+');
    }
    out.extend_from_slice(exponent.as_bytes());
}

/// What a byte may mean to a reader, as bits; a string's own are those of its bytes together.
mod class {
    /// Must be escaped, which only double quotes can.
    pub const ESCAPE: u8 = 1;
    /// May begin a character beyond ASCII that must be escaped.
    pub const LEAD: u8 = 2;
    /// Ends a plain string next to a space: `:` and `#`.
    pub const MARK: u8 = 4;
    /// Belongs to no number, date or time in any reader, so that a string with it is none.
    pub const WORDLY: u8 = 8;

    pub const OF: [u8; 256] = {
        let mut of = [WORDLY; 256];
        let mut byte = 0;
        while byte < 0x20 {
            of[byte] = ESCAPE;
            byte += 1;
        }
        of[0x7F] = ESCAPE;
        of[0xC2] = LEAD | WORDLY;
        of[0xE2] = LEAD | WORDLY;
        of[0xEF] = LEAD | WORDLY;
        let numeric = b" +-.,_0123456789abcdefABCDEFxXoOinfINFtTzZ";
        let mut i = 0;
        while i < numeric.len() {
            of[numeric[i] as usize] = 0;
            i += 1;
        }
        of[b':' as usize] = MARK;
        of[b'#' as usize] = MARK | WORDLY;
        of
    };
}

/// Appends a string in the simplest style that every reader reads back.
fn push_string(text: &str, out: &mut Vec<u8>) {
    let classes = text.bytes().fold(0, |classes, byte| classes | class::OF[usize::from(byte)]);
    if classes & class::ESCAPE != 0 || classes & class::LEAD != 0 && text.chars().any(wants_escape) {
        push_double_quoted(text, out);
    } else if is_plain(text, classes) {
        out.extend_from_slice(text.as_bytes());
    } else {
        push_single_quoted(text, out);
    }
}

/// True where every reader takes the bare text for this string. `classes` are those of its bytes.
fn is_plain(text: &str, classes: u8) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    let begins_well = match first {
        b'0'..=b'9' | b'+' | b'e' | b'E' => classes & class::WORDLY != 0,
        b'.' => classes & class::WORDLY != 0 && !text.starts_with(".."),
        b'<' => text != "<<",
        b'~' => text.len() > 1,
        b' ' | b'-' | b'?' | b':' | b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>'
        | b'=' | b'\'' | b'"' | b'%' | b'@' | b'`' => false,
        _ => true,
    };
    begins_well
        && last != b' '
        && last != b':'
        && !(classes & class::MARK != 0 && bytes.windows(2).any(|pair| pair == b": " || pair == b" #"))
        && !is_reserved_word(text)
}

/// True for the words that some reader takes for a boolean or null.
fn is_reserved_word(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.len() <= 5 && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// True for characters that YAML calls not printable (YAML 1.2 production 1), and for those it or a reader takes for a
/// line break or a space.
fn wants_escape(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1F}' | '\u{7F}'..='\u{A0}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}')
}

fn push_single_quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'\'');
    for (i, part) in text.split('\'').enumerate() {
        if i > 0 {
            out.extend_from_slice(b"''");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'\'');
}

fn push_double_quoted(text: &str, out: &mut Vec<u8>) {
    let mut quoted = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Writing to a String cannot fail.
            other if wants_escape(other) && u32::from(other) < 0x100 => {
                let _ = write!(quoted, "\\x{:02X}", u32::from(other));
            }
            other if wants_escape(other) => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    out.push(b'"');
    out.extend_from_slice(quoted.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::{Format, JsonError, Reason, Style, transcode};
    use super::*;

    fn yaml(json: &str) -> Result<String, JsonError> {
        let mut out = Vec::new();
        transcode(json.as_bytes(), Format::Yaml, Style::default(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[track_caller]
    fn check(json: &str, expected: &str) {
        assert_eq!(yaml(json).unwrap(), expected);
    }

    #[test]
    fn values_of_every_kind() {
        check(
            r#"{"a":[1,[2,[]],{"k":"v","l":{"m":null}},{}],"b":{},"c":true}"#,
            "a:
  - 1
  - - 2
    - []
  - k: v
    l:
      m: null
  - {}
b: {}
c: true
",
        );
        check("[[[1]],{}]", "- - - 1\n- {}\n");
        check("[]", "[]\n");
        check("{}", "{}\n");
        check("null", "null\n");
        check(r#""no""#, "'no'\n");
    }

    #[test]
    fn numbers_are_numbers_to_every_reader() {
        for (json, expected) in [
            ("0", "0"),
            ("-12", "-12"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1.50", "1.50"),
            ("1e3", "1.0e+3"),
            ("1E-3", "1.0e-3"),
            ("-1.5e03", "-1.5e+03"),
            ("1e400", ".inf"),
            ("-1.5e400", "-.inf"),
            ("1e-400", "1.0e-400"),
        ] {
            check(json, &format!("{expected}\n"));
        }
    }

    #[test]
    fn strings_take_the_simplest_safe_style() {
        let json = |text: &str| serde_json::to_string(text).unwrap();
        for plain in [
            "a",
            "hello world",
            "a:b",
            "a#b",
            "it's",
            "http://x.y/z?a=b#c",
            "2 apples",
            "é",
            "😀",
            "/path",
            "$1",
            "~a",
            "error",
        ] {
            check(&json(plain), &format!("{plain}\n"));
        }
        for single in [
            "", " ", "a ", "yes", "NULL", "~", "1", "007", "1_000", "12:30:45", "e5", "+1", "a: b", "a #b", "a:",
            "- a", "=", "<<", "...", "{a}",
        ] {
            check(&json(single), &format!("'{single}'\n"));
        }
        check(r#""'a'""#, "'''a'''\n");
        check(r#""a\nb\t\"\\""#, "\"a\\nb\\t\\\"\\\\\"\n");
        check(r#""\u0000\u0085\u00a0\u2028\ufeff""#, "\"\\x00\\x85\\xA0\\u2028\\uFEFF\"\n");
    }

    #[test]
    fn long_keys_are_marked() {
        let (fits, long) = ("k".repeat(PLAIN_KEY_BYTES_MAX), "k".repeat(PLAIN_KEY_BYTES_MAX + 1));
        check(&format!("{{\"{fits}\":1}}"), &format!("{fits}: 1\n"));
        check(&format!("[{{\"{long}\":{{\"a\":1}}}}]"), &format!("- ? {long}\n  :\n    a: 1\n"));
    }

    #[test]
    fn what_readers_refuse_is_refused() {
        assert_eq!(yaml(r#"{"a":1,"a":2}"#).unwrap_err().reason, Reason::DuplicateKey);
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(yaml(&nested(YAML_DEPTH_MAX)).is_ok());
        assert_eq!(yaml(&nested(YAML_DEPTH_MAX + 1)).unwrap_err().reason, Reason::TooDeep);
    }
}
