//! What bodies become, and that what we write ourselves reads back.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::pure::format::properties::any_document;
use crate::pure::format::{Format, Style, transcode};

const KINDS: [BodyKind<'_>; 3] = [BodyKind::Form, BodyKind::Xml, BodyKind::Yaml];

fn rewritten(kind: BodyKind<'_>, body: &str) -> Result<String, String> {
    match json_of(kind, body.as_bytes()) {
        Ok(json) => Ok(String::from_utf8(json.into_owned()).unwrap()),
        Err(Fault::InvalidBody(reason)) => Err(reason.into_owned()),
        Err(other) => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(kind: BodyKind<'_>, cases: &[(&str, Result<&str, &str>)]) {
    for (body, wanted) in cases {
        assert_eq!(rewritten(kind, body), wanted.map(str::to_owned).map_err(str::to_owned), "{body}");
    }
}

#[test]
fn json_stays_as_it_is() {
    for body in ["{\"a\" : 1.50}\n", "{\"a\":1,\"a\":2}", "no JSON"] {
        assert!(matches!(json_of(BodyKind::Json, body.as_bytes()), Ok(Cow::Borrowed(same)) if same == body.as_bytes()));
    }
}

#[test]
fn forms() {
    check(
        BodyKind::Form,
        &[
            ("a=1&b=x+y%C3%A9&c", Ok(r#"{"a":"1","b":"x yé","c":""}"#)),
            ("b=1&a=2&b=3&b=", Ok(r#"{"b":["1","3",""],"a":"2"}"#)),
            ("%61=1&a=2", Ok(r#"{"a":["1","2"]}"#)),
            ("&&a=%00%22=&&", Ok(r#"{"a":"\u0000\"="}"#)),
            ("&", Ok("{}")),
            ("=", Ok(r#"{"":""}"#)),
            ("a=%", Err("a form that is not percent-encoded UTF-8")),
            ("%zz=1", Err("a form that is not percent-encoded UTF-8")),
            ("a=%FF", Err("a form that is not percent-encoded UTF-8")),
        ],
    );
    assert_eq!(json_of(BodyKind::Form, b"a=\xff"), Err(invalid_body("not valid UTF-8 at byte 2")));
    let most = "a&".repeat(NODES_MAX);
    assert!(rewritten(BodyKind::Form, &most).is_ok());
    assert_eq!(rewritten(BodyKind::Form, &(most + "a")), Err("a form with too much in it".into()));
}

#[test]
fn xml() {
    let nil = r#"xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true""#;
    check(
        BodyKind::Xml,
        &[
            ("<r><a>1</a><b> x &lt;&#233;<![CDATA[<]]> </b><c/></r>", Ok(r#"{"a":"1","b":" x <é< ","c":""}"#)),
            ("<r><b>1</b><a>2</a><b><c>3</c></b></r>", Ok(r#"{"b":["1",{"c":"3"}],"a":"2"}"#)),
            ("<r><a>\n <item>1</item> <item><item/></item></a></r>", Ok(r#"{"a":["1",[""]]}"#)),
            ("<r><item>1</item><other>2</other></r>", Ok(r#"{"item":"1","other":"2"}"#)),
            ("<r><item>1</item></r>", Ok(r#"["1"]"#)),
            (&format!("<r><a {nil}/><b {nil}>\n</b></r>"), Ok(r#"{"a":null,"b":null}"#)),
            (
                r#"<r><a type="object"/><b type="array"> </b><c type="array">x</c></r>"#,
                Ok(r#"{"a":{},"b":[],"c":"x"}"#),
            ),
            (r#"<r id="1"><n:a x="y">1</n:a><!-- c --><?p i?></r>"#, Ok(r#"{"n:a":"1"}"#)),
            ("<r><a_x0020_b>1</a_x0020_b><_x_/><a_xyz/></r>", Ok(r#"{"a b":"1","":"","a_xyz":""}"#)),
            ("<r>text</r>", Ok(r#""text""#)),
            ("<r/>", Ok(r#""""#)),
            ("<r>x<a/></r>", Err("XML with text beside elements")),
            ("<r><a><b/>&amp;</a></r>", Err("XML with text beside elements")),
            (&format!("<r><a {nil}>1</a></r>"), Err("XML with something in an element that is nil")),
            (&format!("<r {nil}><a/></r>"), Err("XML with something in an element that is nil")),
            ("<!DOCTYPE r><r/>", Err("XML with a document type declaration")),
            ("<r>&e;</r>", Err("XML with an unknown entity")),
            ("<r>&#0;</r>", Err("XML with an unknown entity")),
            ("<r>\u{1}</r>", Err("not valid XML at byte 3")),
            ("<r><1/></r>", Err("not valid XML at byte 7")),
            ("<r/><r/>", Err("not valid XML at byte 8")),
            ("<r><a></r>", Err("not valid XML at byte 6")),
            ("<r>", Err("not valid XML at byte 3")),
            ("", Err("not valid XML at byte 0")),
        ],
    );
    let nested = |depth| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(rewritten(BodyKind::Xml, &nested(DEPTH_MAX)).is_ok());
    assert_eq!(rewritten(BodyKind::Xml, &nested(DEPTH_MAX + 1)), Err("XML deeper than 16 elements".into()));
    let many = |count: usize| format!("<r>{}</r>", "<a/>".repeat(count - 1));
    assert!(rewritten(BodyKind::Xml, &many(NODES_MAX)).is_ok());
    assert_eq!(rewritten(BodyKind::Xml, &many(NODES_MAX + 1)), Err("XML with too much in it".into()));
}

#[test]
fn yaml() {
    check(
        BodyKind::Yaml,
        &[
            (
                "a: 1\nb: [x, yes, true, null, ~, '1', '', ]\nc:\n",
                Ok(r#"{"a":1,"b":["x","yes",true,null,null,"1",""],"c":null}"#),
            ),
            (
                "[1.50, -0, 1e3, 1.0e+3, 123456789012345678901234567890, 0.1000000000000000055511151231257827]",
                Ok("[1.50,-0,1e3,1.0e+3,123456789012345678901234567890,0.1000000000000000055511151231257827]"),
            ),
            ("[+1, .5, -.5, 1., 0x1F, 0o17, 0755, 1_000, 1e999]", Ok(r#"[1,0.5,-0.5,1.0,31,15,"0755","1_000",1e999]"#)),
            ("é: 1.10\nb: !!int '7'\nc: !!str 8\n", Ok(r#"{"é":1.10,"b":7,"c":"8"}"#)),
            ("\u{feff}a: 1.10", Ok(r#"{"a":1.10}"#)),
            ("a: |\n  x\n  y\n", Ok(r#"{"a":"x\ny\n"}"#)),
            ("--- 1.0\n...\n", Ok("1.0")),
            ("text", Ok(r#""text""#)),
            ("{}", Ok("{}")),
            ("[[], {}]", Ok("[[],{}]")),
            ("a: .inf", Err("YAML with a number that JSON lacks at line 1 column 4")),
            ("- .nan", Err("YAML with a number that JSON lacks at line 1 column 3")),
            ("a:\n  1: x", Err("YAML with a name that is no text at line 2 column 3")),
            ("? [a]\n: x", Err("YAML with a name that is no text at line 1 column 1")),
            ("a: 1\nb: 2\na: 3", Err("YAML with a name that comes twice at line 3 column 1")),
            ("a: &x 1\nb: *x", Err("YAML with anchors or aliases at line 1 column 7")),
            ("a: !own x", Err("YAML with a tag that is not accepted at line 1 column 9")),
            ("a: {<<: {b: 1}}", Err("YAML with merge keys at line 1 column 5")),
            ("1\n---\n2", Err("more than one YAML document at line 2 column 1")),
            ("# nothing", Ok("null")),
            ("[", Err("not valid YAML at line 1 column 1")),
        ],
    );
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(rewritten(BodyKind::Yaml, &nested(DEPTH_MAX)).is_ok());
    assert!(rewritten(BodyKind::Yaml, &nested(DEPTH_MAX + 1)).unwrap_err().starts_with("YAML nested too deep"));
    let many = |count: usize| format!("[{}]", "a,".repeat(count - 1));
    assert!(rewritten(BodyKind::Yaml, &many(NODES_MAX)).is_ok());
    assert!(rewritten(BodyKind::Yaml, &many(NODES_MAX + 1)).unwrap_err().starts_with("YAML with too much in it"));
}

/// What comes back of a document by XML: no types, nothing that XML forbids, and no object that looks like an array.
fn by_xml(document: &Json) -> Json {
    let forbidden =
        |c: char| matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}');
    match document {
        Json::Null => Json::Null,
        Json::Bool(_) | Json::Number(_) => Json::String(document.to_string()),
        Json::String(text) => Json::String(text.replace(forbidden, "\u{FFFD}")),
        Json::Array(items) => items.iter().map(by_xml).collect(),
        Json::Object(members) if members.len() == 1 && members.contains_key("item") => {
            members.values().map(by_xml).collect()
        }
        Json::Object(members) => members.iter().map(|(name, value)| (name.clone(), by_xml(value))).collect(),
    }
}

fn read_back(document: &Json, format: Format, kind: BodyKind<'_>) -> Json {
    let mut body = Vec::new();
    transcode(&serde_json::to_vec(document).unwrap(), format, Style::default(), &mut body).unwrap();
    let json = json_of(kind, &body).unwrap_or_else(|fault| panic!("{fault:?}: {}", String::from_utf8_lossy(&body)));
    serde_json::from_slice(&json).unwrap()
}

proptest! {
    #[test]
    fn our_own_xml_reads_back(document in any_document()) {
        prop_assert_eq!(read_back(&document, Format::Xml, BodyKind::Xml), by_xml(&document));
    }

    #[test]
    fn our_own_yaml_reads_back(document in any_document()) {
        // serde_json reads some floats one digit off, so both sides are read by it.
        let expected: Json = serde_json::from_slice(&serde_json::to_vec(&document).unwrap()).unwrap();
        prop_assert_eq!(read_back(&document, Format::Yaml, BodyKind::Yaml), expected);
    }

    #[test]
    fn forms_are_read_as_others_read_them(pairs in prop::collection::vec(("[ab]?|(?s).{0,4}", "(?s).{0,8}"), 0..8)) {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let json: Json = serde_json::from_slice(&json_of(BodyKind::Form, body.as_bytes()).unwrap()).unwrap();
        let members = json.as_object().unwrap();
        for (name, value) in members {
            let given = pairs.iter().filter(|pair| pair.0 == *name);
            let wanted: Vec<Json> = given.map(|pair| pair.1.clone().into()).collect();
            match &wanted[..] {
                [only] => prop_assert_eq!(value, only),
                _ => prop_assert_eq!(value, &Json::from(wanted)),
            }
        }
        prop_assert!(pairs.iter().all(|(name, _)| members.contains_key(name)));
    }

    #[test]
    fn no_bytes_panic_and_what_comes_of_them_is_json(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            r#"(<[a-c]( a="b")?/?>|</[a-c]>|&[#a-z0-9]{1,4};|<!\[CDATA\[|\]\]>|[<>&;]|[a-z0-9]){0,20}"#
                .prop_map(String::into_bytes),
            r#"([\[\]{},:?&*!|>'"%@`#~+-]|[.0-9eExo]{1,5}|\n|\n  | |[a-z]|!!(int|float|str|null|bool|binary) |<<: |\u{feff}){0,24}"#
                .prop_map(String::into_bytes),
        ],
    ) {
        for kind in KINDS {
            match json_of(kind, &bytes) {
                Ok(json) => prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok()),
                Err(Fault::InvalidBody(reason)) => prop_assert!(reason.is_ascii() && reason.len() < 80, "{}", reason),
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
