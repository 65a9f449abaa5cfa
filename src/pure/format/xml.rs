//! XML: the seed's look, readable by every XML 1.0 reader.
//!
//! The root is `response`, two spaces indent each level, and the text ends in a line break. A member of an object is an
//! element by its key; an array is an element that holds an `item` for each of its own; null is `xsi:nil`. An empty
//! object or array would look like an empty string, so it says `type="object"` or `type="array"`. A key that comes twice
//! is two elements.
//!
//! A key that is no XML name is escaped as ISO 9075-14 maps identifiers: each character that cannot stand where it
//! does is `_xHHHH_` (more digits beyond U+FFFF), and so are the colon, the `_` of a literal `_x` and the first letter of
//! a reserved `xml…`; the empty key is `_x_`. In text, `& < >` and CR are escaped by quick-xml, and characters that XML
//! forbids become U+FFFD.

use std::fmt::Write as _;

use super::Reason;
use super::emit::{Emit, Emitted, Writer, new_line};
use super::xml_names::{continues_name, starts_name};

const DECLARATION: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>"#;
const NIL: &[u8] = br#" xsi:nil="true" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"/>"#;

/// The most bytes that the names of all open elements may have together: they are kept for the end tags.
pub const NAMES_BYTES_MAX: usize = 1 << 20;

/// Writes XML as events come, the declaration first.
pub struct Xml {
    out: Vec<u8>,
    /// The names of the open elements and of the key that waits for its value, end to end.
    names: String,
    open: Vec<Open>,
    /// The last start tag lacks its `>`: what comes next tells whether the element is empty.
    tag_open: bool,
}

/// An open element.
struct Open {
    /// Where its name ends in `names`; the name of a member begins where that of its parent ends.
    name_end: usize,
    array: bool,
}

impl Default for Xml {
    fn default() -> Xml {
        Xml { out: Vec::new(), names: String::from("response"), open: Vec::new(), tag_open: false }
    }
}

impl Xml {
    /// Writes `<name` on a line of its own.
    fn start_tag(&mut self) {
        if self.tag_open {
            self.out.push(b'>');
            self.tag_open = false;
        }
        match self.open.last() {
            None => self.out.extend_from_slice(DECLARATION),
            Some(parent) if parent.array => self.names.push_str("item"),
            Some(_) => {}
        }
        self.new_line();
        self.out.push(b'<');
        self.push_name();
    }

    /// Writes `</name>`.
    fn end_tag(&mut self) {
        self.out.extend_from_slice(b"</");
        self.push_name();
        self.out.push(b'>');
    }

    /// Forgets the name of the element that was just completed.
    fn complete(&mut self) -> Emitted {
        self.names.truncate(self.parent_end());
        if self.open.is_empty() {
            self.out.push(b'\n');
        }
        Ok(())
    }

    fn parent_end(&self) -> usize {
        self.open.last().map_or(0, |parent| parent.name_end)
    }

    fn push_name(&mut self) {
        let name = &self.names.as_bytes()[self.parent_end()..];
        self.out.extend_from_slice(name);
    }

    fn new_line(&mut self) {
        new_line(self.open.len(), &mut self.out);
    }

    fn begin(&mut self, array: bool) -> Emitted {
        self.start_tag();
        self.open.push(Open { name_end: self.names.len(), array });
        self.tag_open = true;
        Ok(())
    }

    fn end(&mut self, empty: &[u8]) -> Emitted {
        self.open.pop();
        if self.tag_open {
            self.tag_open = false;
            self.out.extend_from_slice(empty);
        } else {
            self.new_line();
            self.end_tag();
        }
        self.complete()
    }
}

impl Writer for Xml {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl Emit for Xml {
    fn begin_object(&mut self) -> Emitted {
        self.begin(false)
    }
    fn end_object(&mut self) -> Emitted {
        self.end(br#" type="object"/>"#)
    }
    fn key(&mut self, key: &str) -> Emitted {
        push_key(key, &mut self.names);
        if self.names.len() > NAMES_BYTES_MAX { Err(Reason::PathTooLong) } else { Ok(()) }
    }
    fn begin_array(&mut self) -> Emitted {
        self.begin(true)
    }
    fn end_array(&mut self) -> Emitted {
        self.end(br#" type="array"/>"#)
    }
    fn null(&mut self) -> Emitted {
        self.start_tag();
        self.out.extend_from_slice(NIL);
        self.complete()
    }
    fn bool(&mut self, value: bool) -> Emitted {
        self.number(if value { "true" } else { "false" })
    }
    fn number(&mut self, lexeme: &str) -> Emitted {
        self.start_tag();
        self.out.push(b'>');
        self.out.extend_from_slice(lexeme.as_bytes());
        self.end_tag();
        self.complete()
    }
    fn string(&mut self, text: &str) -> Emitted {
        self.start_tag();
        self.out.push(b'>');
        push_text(text, &mut self.out);
        self.end_tag();
        self.complete()
    }
}

/// What a byte asks for, as bits; a text's own are those of its bytes together.
mod class {
    /// An escape in text.
    pub const ESCAPE: u8 = 1;
    /// A closer look at text: it is a forbidden character, or may begin one.
    pub const SUSPECT: u8 = 2;
    /// A closer look at a key: it is neither a letter nor a digit of ASCII.
    pub const UNNAMELY: u8 = 4;

    pub fn of(text: &str) -> u8 {
        text.bytes().fold(0, |classes, byte| classes | OF[usize::from(byte)])
    }

    const OF: [u8; 256] = {
        let mut of = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            of[byte] = match byte as u8 {
                b'\t' | b'\n' => UNNAMELY,
                b'\r' | b'&' | b'<' | b'>' => ESCAPE | UNNAMELY,
                0..0x20 | 0xEF => SUSPECT | UNNAMELY,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => 0,
                _ => UNNAMELY,
            };
            byte += 1;
        }
        of
    };
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    let classes = class::of(text);
    if classes & class::SUSPECT != 0 && text.contains(forbidden) {
        push_text(&text.replace(forbidden, "\u{FFFD}"), out);
    } else if classes & class::ESCAPE != 0 {
        out.extend_from_slice(quick_xml::escape::partial_escape(text).as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

/// True for what is no `Char` of XML 1.0 (production 2).
fn forbidden(character: char) -> bool {
    matches!(character, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

/// Appends a key as an XML name.
fn push_key(key: &str, names: &mut String) {
    let bytes = key.as_bytes();
    let starts_plainly = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'x' | b'X'));
    if starts_plainly && class::of(key) & class::UNNAMELY == 0 {
        names.push_str(key);
        return;
    }
    if key.is_empty() {
        names.push_str("_x_");
        return;
    }
    let reserved = bytes.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"xml"));
    for (i, character) in key.char_indices() {
        let fits = match character {
            'a'..='z' | 'A'..='Z' => !(reserved && i == 0),
            '_' => bytes.get(i + 1) != Some(&b'x'),
            '0'..='9' | '-' | '.' => i > 0,
            other if i == 0 => starts_name(other),
            other => continues_name(other),
        };
        if fits {
            names.push(character);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(names, "_x{:04X}_", u32::from(character));
        }
    }
}

/// The key that an XML name was made of. Names of others stay as they are where nothing in them looks like an escape.
pub fn key_of(name: &str) -> String {
    if name == "_x_" {
        return String::new();
    }
    let mut key = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("_x") {
        key.push_str(&rest[..at]);
        let escape = &rest[at + 2..];
        let escaped = escape.split_once('_').and_then(|(code, after)| Some((character_of(code)?, after)));
        let (character, after) = escaped.unwrap_or(('_', &rest[at + 1..]));
        key.push(character);
        rest = after;
    }
    key + rest
}

/// The character of an escape's four to six hexadecimal digits.
fn character_of(code: &str) -> Option<char> {
    let is_code = (4..=6).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_hexdigit());
    char::from_u32(u32::from_str_radix(code, 16).ok().filter(|_| is_code)?)
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Style, transcode};
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let mut out = Vec::new();
        transcode(json.as_bytes(), Format::Xml, Style::default(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let body = out.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap();
        assert_eq!(body.replace(" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"", ""), expected);
    }

    #[test]
    fn values_of_every_kind() {
        check(
            r#"{"n":[1,null,[],[[true]]],"o":{},"s":"","a":1,"a":2}"#,
            r#"<response>
  <n>
    <item>1</item>
    <item xsi:nil="true"/>
    <item type="array"/>
    <item>
      <item>
        <item>true</item>
      </item>
    </item>
  </n>
  <o type="object"/>
  <s></s>
  <a>1</a>
  <a>2</a>
</response>
"#,
        );
        check("[]", "<response type=\"array\"/>\n");
        check("{}", "<response type=\"object\"/>\n");
        check("null", "<response xsi:nil=\"true\"/>\n");
        check("1E5", "<response>1E5</response>\n");
        check(r#""a""#, "<response>a</response>\n");
    }

    #[test]
    fn text_is_escaped() {
        check(r#""<&>]]>\r\n\t\"'""#, "<response>&lt;&amp;&gt;]]&gt;&#13;\n\t\"'</response>\n");
        check(
            r#""\u0000a\u001f&\ufffe\uffff\ufffd\ufeff\u0085""#,
            "<response>\u{FFFD}a\u{FFFD}&amp;\u{FFFD}\u{FFFD}\u{FFFD}\u{FEFF}\u{85}</response>\n",
        );
    }

    #[test]
    fn names_of_open_elements_are_kept_up_to_a_limit() {
        let written = |json: &str| {
            let mut out = Vec::new();
            transcode(json.as_bytes(), Format::Xml, Style::default(), &mut out).map_err(|error| error.reason)
        };
        let half = "k".repeat(NAMES_BYTES_MAX / 2);
        assert_eq!(written(&format!("{{\"{half}\":1,\"a\":{{\"{half}\":1}}}}")), Ok(()));
        assert_eq!(written(&format!("{{\"{half}\":{{\"{half}\":1}}}}")), Err(Reason::PathTooLong));
    }

    #[test]
    fn keys_become_names() {
        for (key, name) in [
            ("token", "token"),
            ("a-b.c_d1", "a-b.c_d1"),
            ("", "_x_"),
            ("_x_", "_x005F_x_"),
            ("_x0041_", "_x005F_x0041_"),
            ("a_x", "a_x005F_x"),
            ("_", "_"),
            ("x", "x"),
            ("1st", "_x0031_st"),
            ("-a", "_x002D_a"),
            ("first name", "first_x0020_name"),
            ("@id", "_x0040_id"),
            ("$ref", "_x0024_ref"),
            ("a:b", "a_x003A_b"),
            ("a><b/>", "a_x003E__x003C_b_x002F__x003E_"),
            ("xml", "_x0078_ml"),
            ("XMLHttp", "_x0058_MLHttp"),
            ("straße", "straße"),
            ("中文", "中文"),
            ("\u{301}", "_x0301_"),
            ("e\u{301}", "e\u{301}"),
            ("😀", "_x1F600_"),
            ("\u{218F}", "_x218F_"),
        ] {
            let mut names = String::new();
            push_key(key, &mut names);
            assert_eq!(names, name, "{key:?}");
            assert_eq!(key_of(name), key);
        }
        for name in ["a_x", "a_xyz_", "_x41_", "_xD800_", "_x110000_", "_x0041", "_x+041_", "_x_x_"] {
            assert_eq!(key_of(name), name, "no escape of ours");
        }
    }
}
