//! Formats: the four ways a document is written, from serde values or straight from JSON bytes.
//!
//! One stream of events ([`emit::Emit`]) drives every format but serde_json's own, fed either by serde or by the JSON
//! tokenizer ([`tokens`]); no tree of values is built on the way. How documents map to each format stands at the top
//! of its file.

use std::fmt;

use serde::Serialize;

use emit::Writer;

pub mod csv;
pub mod emit;
pub mod json;
mod lexemes;
mod seen;
pub mod tokens;
pub mod xml;
mod xml_names;
pub mod yaml;

/// The most containers a document may nest. YAML and XML readers recurse, so that more would break some of them.
pub const DEPTH_MAX: usize = 100;

/// What a document can be written as, in our order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// XML 1.0.
    Xml,
    /// YAML that readers of 1.1 and 1.2 understand alike.
    Yaml,
    /// RFC 4180, with a header.
    Csv,
}

impl Format {
    /// Every format, in our order of preference.
    pub const ALL: [Format; 4] = [Format::Json, Format::Xml, Format::Yaml, Format::Csv];

    /// The name that `?format=` takes: `json`, `xml`, `yaml` or `csv`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Xml => "xml",
            Format::Yaml => "yaml",
            Format::Csv => "csv",
        }
    }

    /// The format of a name, whatever its case; `None` when there is none of that name.
    pub fn parse_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| name.eq_ignore_ascii_case(format.name()))
    }
}

/// How a format is written, as far as the caller may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// JSON on several lines, indented by two spaces. The other formats have one look only.
    pub pretty: bool,
    /// CSV for spreadsheets that would run text as a formula: puts `'` before text, keys included, that begins with
    /// `=`, `+`, `-`, `@`, tab or CR. Numbers are left alone. This changes data, so it is off unless asked for.
    pub csv_guard: bool,
}

/// Appends a document to `out` in a format.
///
/// # Errors
/// When the document has no form in the format, or none at all; see [`Reason`]. What was appended until then is
/// incomplete and has to be thrown away.
pub fn encode<T: Serialize + ?Sized>(
    document: &T,
    format: Format,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match format {
        Format::Json => json::encode(document, style.pretty, out),
        Format::Xml => xml::Xml::default().write_to(out, |xml| emit::send(document, xml)),
        Format::Yaml => yaml::Yaml::default().write_to(out, |yaml| emit::send(document, yaml)),
        Format::Csv => csv::Csv::new(style.csv_guard).write_to(out, |csv| emit::send(document, csv)),
    }
}

/// Appends a JSON text to `out` in a format, with numbers to the digit and keys in their order.
///
/// JSON to JSON checks the text and copies its bytes as they are, unless `pretty` asks for another layout. A key that
/// comes twice in an object passes, except to YAML, whose readers refuse such a document or silently drop a value.
///
/// # Errors
/// When the text is not JSON (RFC 8259 in UTF-8, at most [`DEPTH_MAX`] deep) or has no form in the format. What was
/// appended until then is incomplete and has to be thrown away.
pub fn transcode(json: &[u8], format: Format, style: Style, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match format {
        Format::Json if style.pretty => json::Json::new(true).write_to(out, |pretty| tokens::read(json, pretty)),
        Format::Json => json::splice(json, out),
        Format::Xml => xml::Xml::default().write_to(out, |xml| tokens::read(json, xml)),
        Format::Yaml => yaml::Yaml::default().write_to(out, |yaml| tokens::read_without_duplicates(json, yaml)),
        Format::Csv => csv::Csv::new(style.csv_guard).write_to(out, |csv| tokens::read(json, csv)),
    }
}

/// Why a document cannot be read or written. It never carries any of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The text ends before the document does.
    UnexpectedEnd,
    /// A byte that cannot stand where it does.
    UnexpectedByte,
    /// A byte order mark, which RFC 8259 section 8.1 forbids.
    ByteOrderMark,
    /// The text is not UTF-8.
    InvalidUtf8,
    /// A control character stands in a string without an escape.
    ControlCharacter,
    /// An escape that JSON does not have.
    InvalidEscape,
    /// Half of a surrogate pair is escaped without the other, which is no character.
    LoneSurrogate,
    /// A number that is not spelled as RFC 8259 section 6 says.
    InvalidNumber,
    /// More than [`DEPTH_MAX`] containers in each other, or [`yaml::YAML_DEPTH_MAX`] for YAML.
    TooDeep,
    /// A string or number that came in pieces is longer than is kept.
    TokenTooLong,
    /// An object has the same key twice and the format cannot say so.
    DuplicateKey,
    /// A map key that is not text.
    KeyNotText,
    /// A value that failed to serialize itself.
    NotSerializable,
    /// A CSV table would have too many columns.
    TooManyColumns,
    /// The rows of a CSV table would leave too many cells empty.
    TooManyCells,
    /// A column of a CSV table came when its header was written already.
    LateColumn,
    /// A row of a CSV table is longer than is kept.
    RowTooLong,
    /// Nested keys are too long: joined to one for CSV, or kept for the end tags of XML.
    PathTooLong,
    /// The objects that are open have more keys than are kept, where none may come twice.
    TooManyKeys,
    /// The text is longer than is taken.
    TooLong,
    /// The text holds nothing at the place that is asked for.
    NothingThere,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::UnexpectedEnd => "unexpected end",
            Reason::UnexpectedByte => "unexpected byte",
            Reason::ByteOrderMark => "byte order mark",
            Reason::InvalidUtf8 => "invalid UTF-8",
            Reason::ControlCharacter => "control character in a string",
            Reason::InvalidEscape => "invalid escape in a string",
            Reason::LoneSurrogate => "lone surrogate in a string",
            Reason::InvalidNumber => "invalid number",
            Reason::TooDeep => "nested too deep",
            Reason::TokenTooLong => "string or number too long",
            Reason::DuplicateKey => "duplicate key in an object",
            Reason::KeyNotText => "map key that is not text",
            Reason::NotSerializable => "value that cannot be serialized",
            Reason::TooManyColumns => "too many columns for CSV",
            Reason::TooManyCells => "too many empty cells for CSV",
            Reason::LateColumn => "new column after the first rows of CSV",
            Reason::RowTooLong => "row too long for CSV",
            Reason::PathTooLong => "nested keys too long",
            Reason::TooManyKeys => "too many keys for YAML",
            Reason::TooLong => "text too long",
            Reason::NothingThere => "nothing at the pointer",
        })
    }
}

/// A JSON text that cannot be transcoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct JsonError {
    /// Where: bytes from the start of the text.
    pub offset: usize,
    /// Why.
    pub reason: Reason,
}

/// A document that cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(pub Reason);

impl From<Reason> for EncodeError {
    fn from(reason: Reason) -> EncodeError {
        EncodeError(reason)
    }
}

impl serde::ser::Error for EncodeError {
    /// Drops the message: it may quote the value.
    fn custom<T: fmt::Display>(_: T) -> EncodeError {
        EncodeError(Reason::NotSerializable)
    }
}

#[cfg(test)]
pub(super) mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers of the seed services, as their structs would be.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope {
        status: &'static str,
        error: Option<&'static str>,
        data: Data,
    }

    #[derive(Clone, Copy, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        token: &'static str,
        digits: u32,
        period: u32,
        time_remaining: u64,
        expires_at: &'static str,
    }

    const DATA: Data =
        Data { token: "935324", digits: 6, period: 30, time_remaining: 25, expires_at: "2025-12-16T22:31:00Z" };

    const JSON: &str = r#"{"status":"ok","error":null,"data":{"token":"935324","digits":6,"period":30,"timeRemaining":25,"expiresAt":"2025-12-16T22:31:00Z"}}"#;

    #[track_caller]
    fn check(document: &impl Serialize, format: Format, expected: &str) {
        let style = Style::default();
        let mut typed = Vec::new();
        encode(document, format, style, &mut typed).unwrap();
        assert_eq!(String::from_utf8(typed).unwrap(), expected);
        let mut transcoded = Vec::new();
        transcode(&serde_json::to_vec(document).unwrap(), format, style, &mut transcoded).unwrap();
        assert_eq!(String::from_utf8(transcoded).unwrap(), expected);
    }

    #[test]
    fn the_seed_in_each_format() {
        let envelope = Envelope { status: "ok", error: None, data: DATA };
        check(&envelope, Format::Json, JSON);
        check(
            &envelope,
            Format::Xml,
            r#"<?xml version="1.0" encoding="UTF-8"?>
<response>
  <status>ok</status>
  <error xsi:nil="true" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"/>
  <data>
    <token>935324</token>
    <digits>6</digits>
    <period>30</period>
    <timeRemaining>25</timeRemaining>
    <expiresAt>2025-12-16T22:31:00Z</expiresAt>
  </data>
</response>
"#,
        );
        check(
            &envelope,
            Format::Yaml,
            "status: ok
error: null
data:
  token: '935324'
  digits: 6
  period: 30
  timeRemaining: 25
  expiresAt: '2025-12-16T22:31:00Z'
",
        );
        check(
            &DATA,
            Format::Csv,
            "key,value\r\ntoken,935324\r\ndigits,6\r\nperiod,30\r\ntimeRemaining,25\r\nexpiresAt,2025-12-16T22:31:00Z\r\n",
        );
    }

    #[test]
    fn pretty_json_is_alike_from_values_and_from_bytes() {
        let style = Style { pretty: true, ..Style::default() };
        let document = serde_json::json!({"a": [1, {"b": null}, [], {}], "c": "\"\u{1}é\n", "d": {}, "e": [[]]});
        let (mut typed, mut transcoded) = (Vec::new(), Vec::new());
        encode(&document, Format::Json, style, &mut typed).unwrap();
        transcode(&serde_json::to_vec(&document).unwrap(), Format::Json, style, &mut transcoded).unwrap();
        assert_eq!(String::from_utf8(transcoded), String::from_utf8(typed));
    }

    #[test]
    fn json_to_json_keeps_the_bytes() {
        let mut out = Vec::new();
        transcode(b" {\"a\" : 1.50,\n\"a\":1E400}\r\n", Format::Json, Style::default(), &mut out).unwrap();
        assert_eq!(out, b"{\"a\" : 1.50,\n\"a\":1E400}");
    }

    #[test]
    fn serde_shapes_are_those_of_serde_json() {
        #[derive(Serialize)]
        enum Kind {
            Unit,
            Newtype(u8),
            Tuple(i8, Option<f64>),
            Struct { x: char, y: () },
        }
        #[derive(Serialize)]
        struct Pair(i128, f32);
        let map = std::collections::BTreeMap::from([(7_u16, Some("seven")), (8, None)]);
        let flags = std::collections::BTreeMap::from([(true, f64::NAN), (false, 1e300)]);
        let kinds = [Kind::Unit, Kind::Newtype(1), Kind::Tuple(-1, Some(0.1)), Kind::Struct { x: 'ß', y: () }];
        let document = (kinds, Pair(i128::MIN, 1.5), map, flags, (u64::MAX, [(); 0], f64::INFINITY));
        for format in Format::ALL {
            let (mut typed, mut transcoded) = (Vec::new(), Vec::new());
            encode(&document, format, Style::default(), &mut typed).unwrap();
            transcode(&serde_json::to_vec(&document).unwrap(), format, Style::default(), &mut transcoded).unwrap();
            assert_eq!(String::from_utf8(typed), String::from_utf8(transcoded), "{format:?}");
        }
    }

    #[test]
    fn what_cannot_be_encoded_is_an_error() {
        let fails =
            |document: &dyn Fn(&mut Vec<u8>) -> Result<(), EncodeError>| document(&mut Vec::new()).unwrap_err().0;
        let bad_key = std::collections::BTreeMap::from([([1_u8], 2_u8)]);
        assert_eq!(fails(&|out| encode(&bad_key, Format::Xml, Style::default(), out)), Reason::KeyNotText);
        let mut deep = serde_json::json!(1);
        for _ in 0..DEPTH_MAX {
            deep = serde_json::json!([deep]);
        }
        assert_eq!(fails(&|out| encode(&deep, Format::Yaml, Style::default(), out)), Reason::TooDeep);
        encode(&deep, Format::Xml, Style::default(), &mut Vec::new()).unwrap();
        let deep = serde_json::json!({"a": deep});
        assert_eq!(fails(&|out| encode(&deep, Format::Xml, Style::default(), out)), Reason::TooDeep);
    }

    #[test]
    fn names_of_formats() {
        for format in Format::ALL {
            assert_eq!(Format::parse_name(format.name()), Some(format));
        }
        assert_eq!(Format::parse_name("YAML"), Some(Format::Yaml));
        assert_eq!(Format::parse_name("yml"), None);
        assert_eq!(Format::parse_name(""), None);
    }
}
