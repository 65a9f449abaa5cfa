//! Properties of every emitter: random documents read back equal, in pieces as whole, typed as from bytes.

use proptest::prelude::*;
use quick_xml::events::{BytesStart, Event};
use serde_json::Value;

use super::tokens::Tokenizer;
use super::*;

/// Strings of letters that matter to one format or another, and of any others.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[a-z]{0,8}",
        2 => "[-0-9a-fxo_+.:, eETZ]{0,10}",
        2 => "[-?:,\\[\\]{}#&*!|>'\"%@`=~<\\\\ ab\n\t.]{0,8}",
        1 => "(?s).{0,10}",
        1 => "(y|Yes|NO|on|Off|true|False|NULL|~|<<|=|_x_|_x0041_|xmlns|item|\\.inf|1e3|\u{85}|\u{2028}|\u{FEFF}|\u{FFFF})",
    ]
}

pub(in crate::pure) fn any_document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1000_i64..1000).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has finite numbers only", |float| float.is_finite()).prop_map(Value::from),
        any_text().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any_text(), inner), 0..6).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn transcoded(json: &[u8], format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    transcode(json, format, Style::default(), &mut out).unwrap();
    out
}

/// Documents, compact and indented, of which a few bytes are others or are gone.
pub(in crate::pure) fn any_json_or_nearly() -> impl Strategy<Value = Vec<u8>> {
    const WRONG: [&[u8]; 31] = [
        b"",
        b"\"",
        b"\\",
        b"\\\"",
        b"\\u",
        b"\\u00e9",
        b"\\ud83d",
        b"\\udE00",
        b"\\q",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"-",
        b"0",
        b"12",
        b".",
        b"e+",
        b"tru",
        b"null",
        b" ",
        b"\n\t",
        b"\x01",
        b"\xC3",
        b"\xA9",
        b"\xFF",
        b"\xED\xA0\x80",
        b"\xEF\xBB\xBF",
        b"a\":",
    ];
    let change = (any::<prop::sample::Index>(), 0..3_usize, prop::sample::select(&WRONG));
    (any_document(), any::<bool>(), prop::collection::vec(change, 0..4)).prop_map(|(document, pretty, changes)| {
        let written = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) };
        let mut json = written.unwrap();
        for (place, gone, come) in changes {
            let start = place.index(json.len() + 1);
            let end = json.len().min(start + gone);
            json.splice(start..end, come.iter().copied());
        }
        json
    })
}

fn fed(mut tokenizer: Tokenizer, pieces: &[&[u8]], sink: &mut impl emit::Emit) -> Result<(), JsonError> {
    pieces.iter().try_for_each(|piece| tokenizer.feed(piece, sink))?;
    tokenizer.finish(sink)
}

fn indented(tokenizer: Tokenizer, pieces: &[&[u8]]) -> Result<String, JsonError> {
    let mut sink = json::Json::new(true);
    fed(tokenizer, pieces, &mut sink)?;
    Ok(String::from_utf8(std::mem::take(sink.out())).unwrap())
}

fn text_of(document: &Value, format: Format) -> String {
    String::from_utf8(transcoded(&serde_json::to_vec(document).unwrap(), format)).unwrap()
}

proptest! {
    #[test]
    fn json_reads_back(document in any_document()) {
        let json = serde_json::to_vec(&document).unwrap();
        // serde_json reads some floats one digit off, so both sides are read by it.
        let expected: Value = serde_json::from_slice(&json).unwrap();
        for style in [Style::default(), Style { pretty: true, ..Style::default() }] {
            let mut out = Vec::new();
            transcode(&json, Format::Json, style, &mut out).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Value>(&out).unwrap(), &expected);
        }
    }

    #[test]
    fn xml_reads_back(document in any_document()) {
        let xml = text_of(&document, Format::Xml);
        let root = Element::read(&xml);
        prop_assert_eq!(root.name.as_str(), "response");
        prop_assert!(root.holds(&document), "{}", xml);
    }

    #[test]
    fn yaml_reads_back(document in any_document()) {
        let yaml = text_of(&document, Format::Yaml);
        prop_assert_eq!(serde_yaml::from_str::<Value>(&yaml).unwrap(), document, "{}", yaml);
    }

    #[test]
    fn csv_reads_back(document in any_document()) {
        let csv = text_of(&document, Format::Csv);
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
        let rows: Vec<Vec<String>> =
            reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        prop_assert_eq!(rows, table_of(&document), "{}", csv);
    }

    #[test]
    fn typed_is_as_from_bytes(document in any_document()) {
        for format in Format::ALL {
            let mut typed = Vec::new();
            encode(&document, format, Style::default(), &mut typed).unwrap();
            prop_assert_eq!(String::from_utf8(typed).unwrap(), text_of(&document, format), "{:?}", format);
        }
    }

    #[test]
    fn pieces_are_as_the_whole(document in any_document(), cuts in prop::collection::vec(0..200_usize, 0..12)) {
        let json = serde_json::to_vec(&document).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < json.len()).collect();
        cuts.sort_unstable();
        let mut sink = xml::Xml::default();
        let mut tokenizer = Tokenizer::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([json.len()]) {
            tokenizer.feed(&json[start..cut], &mut sink).unwrap();
            start = cut;
        }
        tokenizer.finish(&mut sink).unwrap();
        let whole = transcoded(&json, Format::Xml);
        prop_assert_eq!(std::str::from_utf8(sink.out()), std::str::from_utf8(&whole));
    }

    #[test]
    fn any_text_reads_alike_however_it_is_cut(json in any_json_or_nearly(), cuts in prop::collection::vec(0..200_usize, 0..12)) {
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < json.len()).chain([0, json.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &json[cut[0]..cut[1]]).collect();
        let bytes: Vec<&[u8]> = json.chunks(1).collect();
        for tokenizer in [Tokenizer::new as fn() -> Tokenizer, Tokenizer::without_duplicates] {
            let whole = indented(tokenizer(), &[&json]);
            prop_assert_eq!(&indented(tokenizer(), &pieces), &whole);
            prop_assert_eq!(&indented(tokenizer(), &bytes), &whole);
            // Without the text of what is read, and with it.
            let whole = whole.map(drop);
            prop_assert_eq!(&fed(tokenizer(), &[&json], &mut json::Check), &whole);
            prop_assert_eq!(&fed(tokenizer(), &pieces, &mut json::Check), &whole);
            prop_assert_eq!(&fed(tokenizer(), &bytes, &mut json::Check), &whole);
        }
    }

    #[test]
    fn accepts_what_serde_json_accepts(text in r#"([\[\]{},: \n]|"a"|"\\n"|"\\ud83d\\ude00"|"\\u"|-?0|12|1\.5|1e3|true|null|\.|-|x|"){0,14}"#) {
        let ours = transcode(text.as_bytes(), Format::Json, Style::default(), &mut Vec::new());
        // Into nothing: a `Value` has no room for numbers such as 1e312, which are JSON all the same.
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}: {:?}", ours, theirs.err());
    }

    #[test]
    fn no_bytes_panic_and_pieces_agree(bytes in prop::collection::vec(any::<u8>(), 0..40), size in 1..8_usize) {
        let mut json = b"[\"".to_vec();
        json.extend(bytes);
        for format in Format::ALL {
            let whole = transcode(&json, format, Style::default(), &mut Vec::new()).is_ok();
            let mut tokenizer = Tokenizer::new();
            let mut sink = yaml::Yaml::default();
            let fed = json.chunks(size).try_for_each(|piece| tokenizer.feed(piece, &mut sink));
            prop_assert_eq!(fed.and_then(|()| tokenizer.finish(&mut sink)).is_ok(), whole);
        }
    }
}

/// An element as quick-xml reads it.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn read(xml: &str) -> Element {
        let mut reader = quick_xml::Reader::from_str(xml);
        let mut open = vec![Element::opened(&BytesStart::new("document"))];
        loop {
            let closed = match reader.read_event().unwrap() {
                Event::Start(start) => {
                    open.push(Element::opened(&start));
                    continue;
                }
                Event::Empty(start) => Element::opened(&start),
                Event::End(_) => open.pop().unwrap(),
                Event::Text(text) => {
                    open.last_mut().unwrap().text.push_str(&text);
                    continue;
                }
                Event::GeneralRef(entity) => {
                    let text = match entity.resolve_char_ref().unwrap() {
                        Some(character) => character.to_string(),
                        None => quick_xml::escape::resolve_xml_entity(&entity).unwrap().to_owned(),
                    };
                    open.last_mut().unwrap().text.push_str(&text);
                    continue;
                }
                Event::Decl(_) => continue,
                Event::Eof => break,
                other => panic!("unexpected {other:?}"),
            };
            open.last_mut().unwrap().children.push(closed);
        }
        let mut document = open.pop().unwrap();
        assert!(open.is_empty() && document.children.len() == 1);
        document.children.remove(0)
    }

    fn opened(start: &BytesStart) -> Element {
        let attributes = start.attributes().map(|attribute| {
            let attribute = attribute.unwrap();
            let name = attribute.key.as_ref().to_owned();
            (name, attribute.value.into_owned())
        });
        let name = start.name().as_ref().to_owned();
        Element { name, attributes: attributes.collect(), text: String::new(), children: Vec::new() }
    }

    /// True when the element says what the value says.
    fn holds(&self, value: &Value) -> bool {
        let attributed = |name: &str, text: &str| self.attributes.iter().any(|(n, t)| n == name && t == text);
        let allowed =
            |c: char| !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}');
        let says = |text: &str| self.children.is_empty() && self.attributes.is_empty() && self.text == text;
        let blank = self.text.chars().all(|c| c == ' ' || c == '\n');
        match value {
            Value::Null => self.children.is_empty() && self.text.is_empty() && attributed("xsi:nil", "true"),
            Value::Bool(value) => says(&value.to_string()),
            Value::Number(number) => says(&number.to_string()),
            Value::String(text) => says(&text.replace(|c| !allowed(c), "\u{FFFD}")),
            Value::Array(items) if items.is_empty() => blank && attributed("type", "array"),
            Value::Object(members) if members.is_empty() => blank && attributed("type", "object"),
            Value::Array(items) => {
                let pairs = || self.children.iter().zip(items);
                blank
                    && self.children.len() == items.len()
                    && pairs().all(|(child, item)| child.name == "item" && child.holds(item))
            }
            Value::Object(members) => {
                let pairs = || self.children.iter().zip(members);
                blank
                    && self.children.len() == members.len()
                    && pairs().all(|(child, (key, value))| unescaped(&child.name) == *key && child.holds(value))
            }
        }
    }
}

/// The key behind an XML name.
fn unescaped(name: &str) -> String {
    if name == "_x_" {
        return String::new();
    }
    let mut key = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("_x") {
        let (code, after) = after.split_once('_').unwrap();
        key.push_str(before);
        key.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        rest = after;
    }
    key + rest
}

/// The rows that a document becomes, by another way than the emitter's.
fn table_of(document: &Value) -> Vec<Vec<String>> {
    let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
    if document.is_object() {
        let leaves = leaves_of(document, None).into_iter().map(|(key, value)| vec![key, value]);
        return [row(["key", "value"])].into_iter().chain(leaves).collect();
    }
    let one = [document.clone()];
    let items = document.as_array().map_or(&one[..], Vec::as_slice);
    let rows: Vec<Vec<(String, String)>> = items
        .iter()
        .map(|item| match item {
            Value::Array(_) | Value::Object(_) => leaves_of(item, None),
            scalar => vec![("value".to_owned(), spelled(scalar))],
        })
        .collect();
    let mut columns: Vec<String> = Vec::new();
    for (key, _) in rows.iter().flatten() {
        if !columns.contains(key) {
            columns.push(key.clone());
        }
    }
    if columns.is_empty() {
        columns.push("value".to_owned());
    }
    let cells = |row: &Vec<(String, String)>| -> Vec<String> {
        let cell = |column: &String| row.iter().rfind(|(key, _)| key == column).map(|(_, value)| value.clone());
        columns.iter().map(|column| cell(column).unwrap_or_default()).collect()
    };
    let body: Vec<Vec<String>> = rows.iter().map(cells).collect();
    [columns].into_iter().chain(body).collect()
}

fn leaves_of(value: &Value, path: Option<String>) -> Vec<(String, String)> {
    let below = |key: String| Some(path.as_ref().map_or(key.clone(), |path| format!("{path}.{key}")));
    match value {
        Value::Array(items) if !items.is_empty() || path.is_none() => {
            items.iter().enumerate().flat_map(|(i, item)| leaves_of(item, below(i.to_string()))).collect()
        }
        Value::Object(members) if !members.is_empty() || path.is_none() => members
            .iter()
            .flat_map(|(key, value)| leaves_of(value, below(key.replace('\\', "\\\\").replace('.', "\\."))))
            .collect(),
        scalar => vec![(path.unwrap_or_default(), spelled(scalar))],
    }
}

fn spelled(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}
