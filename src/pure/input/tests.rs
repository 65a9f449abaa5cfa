//! Every way of sending the same parameters gives the same answer, and nothing that is sent breaks reading.

use super::*;
use crate::pure::totp::Params;
use proptest::prelude::*;
use serde_json::{Map, Value as Json};

/// One way of sending parameters: the content type, and how the parameters are written.
struct Way {
    content_type: &'static str,
    write: fn(&Map<String, Json>) -> Option<String>,
}

const WAYS: [Way; 6] = [
    Way { content_type: "application/json", write: |all| Some(Json::from(all.clone()).to_string()) },
    Way { content_type: "application/x-www-form-urlencoded", write: form },
    Way { content_type: "multipart/form-data; boundary=frontier", write: multipart },
    Way { content_type: "application/xml", write: xml },
    Way { content_type: "application/yaml", write: yaml },
    Way { content_type: "text/yaml", write: |all| Some(Json::from(all.clone()).to_string()) },
];

/// What a kind without types sends for a value: nothing for null, and there is no way to send anything nested.
fn plain(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Null => Some(String::new()),
        Json::Array(_) | Json::Object(_) => None,
        other => Some(other.to_string()),
    }
}

fn form(all: &Map<String, Json>) -> Option<String> {
    let mut writer = form_urlencoded::Serializer::new(String::new());
    for (name, value) in all {
        writer.append_pair(name, &plain(value)?);
    }
    Some(writer.finish())
}

fn multipart(all: &Map<String, Json>) -> Option<String> {
    let mut body = String::new();
    for (name, value) in all {
        let value = plain(value)?;
        body += &format!(
            "--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\nX-Any: thing\r\n\r\n{value}\r\n"
        );
    }
    Some(body + "--frontier--\r\n")
}

fn xml(all: &Map<String, Json>) -> Option<String> {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<request xmlns:xsi=\"http://x\">\n");
    for (name, value) in all {
        if value.is_null() {
            body += &format!("  <{name} xsi:nil=\"true\"/>\n");
        } else {
            body += &format!("  <{name}>{}</{name}>\n", quick_xml::escape::escape(plain(value)?));
        }
    }
    Some(body + "</request>\n")
}

fn yaml(all: &Map<String, Json>) -> Option<String> {
    all.iter().map(|(name, value)| Some(format!("{name}: {value}\n"))).collect()
}

/// Reads parameters as a body, and shows them or the message of the fault.
fn body(content_type: &str, body: &[u8]) -> Result<Params, Fault> {
    let mut input = Input::new(Params::NAMES);
    let kind = BodyKind::from_content_type(content_type.as_bytes()).expect("a known kind");
    input.read_body(kind, body)?;
    Params::read(&input)
}

fn query(text: &str) -> Result<Params, Fault> {
    let mut input = Input::new(Params::NAMES);
    input.read_query(text)?;
    Params::read(&input)
}

fn query_and_json(text: &str, json: &str) -> Result<Params, Fault> {
    let mut input = Input::new(Params::NAMES);
    input.read_query(text)?;
    input.read_body(BodyKind::Json, json.as_bytes())?;
    Params::read(&input)
}

fn check(found: Result<Params, Fault>, case: &Json, way: &str) {
    let id = &case["id"];
    let Some(message) = case["message"].as_str() else {
        let params = found.unwrap_or_else(|fault| panic!("{id} as {way}: {fault}"));
        for (name, expected) in case["echo"].as_object().into_iter().flatten() {
            match name.as_str() {
                "algorithm" => assert_eq!(params.algorithm.name(), expected, "{id} as {way}"),
                "digits" => assert_eq!(Json::from(params.digits), *expected, "{id} as {way}"),
                "period" => assert_eq!(Json::from(params.period), *expected, "{id} as {way}"),
                name => panic!("{id}: nothing echoes {name}"),
            }
        }
        return;
    };
    let fault = found.err().unwrap_or_else(|| panic!("{id} as {way} passed"));
    assert_eq!(Json::from(fault.status()), case["status"], "{id} as {way}");
    if message == "Invalid request body" {
        assert!(fault.message().starts_with("Invalid request body: "), "{id} as {way}: {fault}");
    } else {
        assert_eq!(fault.message(), message, "{id} as {way}");
    }
}

#[test]
fn every_error_case_by_every_way_it_can_be_sent() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/totp/error_cases.json");
    let cases: Vec<Json> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 94);
    let mut checked = 0;
    for case in &cases {
        // This one is about a route that does not read XML at all.
        if case["id"] == "e093" {
            continue;
        }
        let send = &case["send"];
        if let Some(all) = send["json"].as_object() {
            for way in WAYS {
                let Some(written) = (way.write)(all) else { continue };
                // Without types a number is the text of its digits, so it is refused for another reason or not at all.
                let is_typed = way.content_type.ends_with("json") || way.content_type.ends_with("yaml");
                if case["group"] == "secret-type" && !is_typed {
                    continue;
                }
                check(body(way.content_type, written.as_bytes()), case, way.content_type);
                checked += 1;
            }
            if let Some(text) = form(all)
                && case["group"] != "secret-type"
            {
                check(query(&text), case, "query");
            }
        } else if let Some(text) = send["query"].as_str().or(send["form"].as_str()) {
            check(query(text), case, "query");
            check(body("application/x-www-form-urlencoded", text.as_bytes()), case, "form");
            checked += 1;
        } else {
            let raw = send["raw"].as_str().unwrap();
            check(body(send["content_type"].as_str().unwrap(), raw.as_bytes()), case, "as it is");
            checked += 1;
        }
    }
    assert!(checked > 400, "{checked}");
}

/// The whole message, or the digits and period that were read.
fn outcome(found: Result<Params, Fault>) -> String {
    found.map_or_else(|fault| fault.to_string(), |params| format!("{}/{}", params.digits, params.period))
}

#[test]
fn query_and_body_may_agree() {
    let secret = "secret=JBSWY3DPEHPK3PXP";
    for (text, json, expected) in [
        (secret, "{}", "6/30"),
        (secret, r#"{"secret":"JBSWY3DPEHPK3PXP","digits":8}"#, "8/30"),
        ("secret=JBSW&digits=07", r#"{"digits":7,"secret":null}"#, "7/30"),
        ("secret=JBSW&digits=7", r#"{"digits":7.0}"#, "7/30"),
        (secret, r#"{"secret":"JBSWY3DPEHPK3PXQ"}"#, "Duplicate parameter: secret"),
        ("digits=7", r#"{"digits":8}"#, "Duplicate parameter: digits"),
        ("digits=7", r#"{"digits":true}"#, "Duplicate parameter: digits"),
        (secret, r#"{"period":null,"period":null}"#, "Duplicate parameter: period"),
    ] {
        assert_eq!(outcome(query_and_json(text, json)), expected, "{text} {json}");
    }
}

#[test]
fn queries_and_forms() {
    for (text, expected) in [
        ("secret=JBSW&&=&digits", "6/30"),
        ("%73ecret=%4ABSW%20&digits=%37&d%69gits=8", "Duplicate parameter: digits"),
        ("secret=a=b", "Invalid secret format. Must contain only A-Z and 2-7 (base32)."),
        ("secret=JBSW&other=%zz&%=%ff", "6/30"),
        ("secret=JBSW%3d&period=1.000&digits=0000000000000000000007", "7/1"),
        ("secret=%E2%82%AC", "Invalid secret format. Must contain only A-Z and 2-7 (base32)."),
    ] {
        assert_eq!(outcome(query(text)), expected, "{text}");
        assert_eq!(outcome(body("application/x-www-form-urlencoded", text.as_bytes())), expected, "{text}");
    }
    for text in ["secret=%", "secret=%4", "secret=%zz", "secret=%ff", "secret=%+1", "digits=%C3%28"] {
        let reason = format!("parameter `{}` is not percent-encoded UTF-8", text.split_once('=').unwrap().0);
        assert_eq!(outcome(query(text)), format!("Invalid query string: {reason}"));
        let found = outcome(body("application/x-www-form-urlencoded", text.as_bytes()));
        assert_eq!(found, format!("Invalid request body: {reason}"));
    }
}

fn check_bodies(content_type: &str, rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        assert_eq!(outcome(body(content_type, text.as_bytes())), *expected, "{text}");
    }
}

const SECRET: &str = "Invalid secret format. Must contain only A-Z and 2-7 (base32).";
const DIGITS: &str = "Invalid digits. Must be between 6 and 8.";
const PERIOD: &str = "Invalid period. Must be between 1 and 300 seconds.";

#[test]
fn json_bodies() {
    let deep = format!(r#"{{"other":{}1{},"secret":"JBSW"}}"#, "[".repeat(5_000), "]".repeat(5_000));
    check_bodies(
        "application/json",
        &[
            (r#"{"s\u0065cret":"\u004aBSW\n","other":{"secret":1,"secret":2}}"#, "6/30"),
            (r#" {"secret":"JBSW","digits":6.0,"period":3e1} "#, "6/30"),
            (&deep, "6/30"),
            (r#"{"secret":1e999}"#, SECRET),
            (r#"{"secret":18446744073709551615}"#, SECRET),
            (r#"{"secret":"\ud800"}"#, SECRET),
            (r#"{"secret":"JBSW","digits":01}"#, "Invalid request body: not valid JSON at line 1 column 28"),
            ("{\"secret\":\"\n\"}", "Invalid request body: not valid JSON at line 1 column 11"),
            (r#"{"secret":"JBSW"} x"#, "Invalid request body: not valid JSON at line 1 column 19"),
            (r#"{"secret":"JBSW""#, "Invalid request body: JSON that ends too early at line 1 column 16"),
            ("", "Invalid request body: it is empty"),
            ("\"JBSW\"", "Invalid request body: not a JSON object at line 1 column 6"),
            ("\u{feff}{}", "Invalid request body: not valid JSON at line 1 column 1"),
        ],
    );
    assert_eq!(outcome(body("application/json", b"{\xff}")), "Invalid request body: not valid UTF-8 at byte 1");
}

#[test]
fn a_json_number_keeps_every_digit() {
    let long = "1".repeat(310);
    for (number, expected) in [
        ("6", Some("6/30")),
        ("6.0", Some("6/30")),
        ("7.000", Some("7/30")),
        ("70e-1", Some("7/30")),
        ("0.08E+2", Some("8/30")),
        ("6.00000000000000000001", None),
        ("5.99999999999999999999", None),
        ("1e400", None),
        ("1e309", None),
        ("7e99999999999999999999", None),
        ("7e-99999999999999999999", None),
        ("0.000e-2147483648", None),
        ("-6", None),
        ("-0", None),
        ("4294967302", None),
        ("18446744073709551622", None),
        (&long, None),
    ] {
        let json = format!(r#"{{"secret":"JBSW","digits":{number}}}"#);
        assert_eq!(outcome(body("application/json", json.as_bytes())), expected.unwrap_or(DIGITS), "{number}");
    }
    check_bodies(
        "application/json",
        &[
            (r#"{"secret":"JBSW","period":-1e999}"#, PERIOD),
            (r#"{"secret":"JBSW","period":29.999999999999999999999}"#, PERIOD),
            (r#"{"secret":"JBSW","other":1e999}"#, "6/30"),
        ],
    );
    let found = query_and_json("secret=JBSW&digits=6", r#"{"digits":6.00000000000000000001}"#);
    assert_eq!(outcome(found), "Duplicate parameter: digits");
}

#[test]
fn yaml_bodies() {
    let deep = format!("other: {}1{}\nsecret: JBSW", "[".repeat(20), "]".repeat(20));
    let deep_block = format!("other:\n{}x", "- ".repeat(20));
    let large = format!("secret: JBSW\nother: [{}]", "1,".repeat(600));
    check_bodies(
        "application/yaml",
        &[
            ("# a comment\nsecret: jbsw y3dp\ndigits: 8 # eight\nperiod: '60'\n", "8/60"),
            ("{secret: \"JBSW\", digits: 7}", "7/30"),
            ("---\nsecret: |\n  JBSW\n  Y3DP\n...\n", "6/30"),
            ("secret: JBSW\nperiod: 030\ndigits: 6.0\nother: yes\n1: 2\n? [a]\n: b\n~: c", "6/30"),
            ("secret: JBSW\nperiod: ~\ndigits:", "6/30"),
            ("secret: 234567", SECRET),
            ("secret: '234567'", "Failed to generate OTP: secret has an impossible base32 length (6 characters)"),
            ("secret: 2e777777", SECRET),
            ("secret: .inf", SECRET),
            ("secret: true", SECRET),
            ("secret: [JBSW]", SECRET),
            ("secret: JBSW\nsecret: JBSW", "Duplicate parameter: secret"),
            ("secret: JBSW\nperiod: 1_0", PERIOD),
            ("secret: JBSW\nperiod: 6.5", PERIOD),
            ("secret: JBSW\nperiod: 29.999999999999999999999", PERIOD),
            ("secret: JBSW\nperiod: 1e999 # €", PERIOD),
            ("é: € # 😀\nsecret: JBSW\ndigits: 7.0 # seven\nperiod: 3e1", "7/30"),
            ("secret: JBSW\ndigits: 0x7", DIGITS),
            ("secret: JBSW\ndigits: 0o7", DIGITS),
            ("{secret: JBSW, digits: +6}", DIGITS),
            ("secret: JBSW\ndigits: !!int 8", "8/30"),
            ("secret: JBSW\ndigits: !!int '8'", "8/30"),
            ("\u{feff}secret: JBSW\ndigits: 8", "8/30"),
            ("secret: &a JBSW", "Invalid request body: YAML with anchors or aliases at line 1 column 12"),
            ("a: &a x\nb: *a", "Invalid request body: YAML with anchors or aliases at line 1 column 7"),
            ("secret: !x JBSW", "Invalid request body: YAML with a tag that is not accepted at line 1 column 12"),
            ("secret: JBSW\r\ndigits: 7\r\nperiod: !!float \"6e1\"\r\n", "7/60"),
            ("digits: !!bool yes", "Invalid request body: YAML with a tag that is not accepted at line 1 column 16"),
            ("digits: !!null x", "Missing secret parameter"),
            ("digits: !!seq 6", "Invalid request body: YAML with a tag that is not accepted at line 1 column 15"),
            ("secret: !!binary x", "Invalid request body: YAML with a tag that is not accepted at line 1 column 18"),
            ("digits: !!int x", "Invalid request body: YAML with a tag that is not accepted at line 1 column 15"),
            ("a: {<<: {}, <<: {}}", "Invalid request body: YAML with merge keys at line 1 column 5"),
            ("<<: {secret: JBSW}", "Invalid request body: YAML with merge keys at line 1 column 1"),
            ("secret: JBSW\n--- {}", "Invalid request body: more than one YAML document at line 2 column 1"),
            ("- secret", "Invalid request body: not a YAML mapping"),
            ("# nothing", "Invalid request body: an empty YAML document at line 1 column 10"),
            ("a: b: c", "Invalid request body: not valid YAML at line 1 column 5"),
            (&deep, "Invalid request body: YAML nested too deep at line 1 column 24"),
            (&"[".repeat(5_000), "Invalid request body: YAML nested too deep at line 1 column 17"),
            (&deep_block, "Invalid request body: YAML nested too deep at line 2 column 31"),
            (&large, "Invalid request body: YAML with too much in it at line 2 column 1023"),
        ],
    );
}

#[test]
fn xml_bodies() {
    check_bodies(
        "application/xml",
        &[
            ("<a><secret>JBSW</secret><digits> 7 </digits><b><c><d/></c></b></a>", "7/30"),
            ("\u{feff}<a>text<secret>JB<![CDATA[S]]><!-- x -->&#87;</secret></a><!-- end -->\n", "6/30"),
            ("<a b='1'><secret x:nil='0'>JBSW</secret><digits x:nil='1'/><period/></a>", "6/30"),
            ("<a/>", "Missing secret parameter"),
            ("<secret>JBSW</secret>", "Missing secret parameter"),
            ("<a><secret><b>JBSW</b></secret></a>", SECRET),
            ("<a><secret>&lt;&amp;</secret></a>", SECRET),
            ("<a><secret>JBSW</secret><secret/></a>", "Duplicate parameter: secret"),
            ("<!DOCTYPE a><a/>", "Invalid request body: XML with a document type declaration"),
            ("<a><secret>&x;</secret></a>", "Invalid request body: XML with an unknown entity"),
            ("<a><secret>&#0;</secret></a>", "Invalid request body: XML with an unknown entity"),
            ("<a><b><c><d><e/></d></c></b></a>", "Invalid request body: XML deeper than 4 elements"),
            (
                "<?xml version='1.0' encoding='latin1'?><a/>",
                "Invalid request body: XML in an encoding other than UTF-8",
            ),
            ("<a><secret>JBSW</a>", "Invalid request body: not valid XML at byte 15"),
            ("<a><secret>JBSW</secret>", "Invalid request body: not valid XML at byte 24"),
            ("<a/><b/>", "Invalid request body: not valid XML at byte 8"),
            ("<a/>b", "Invalid request body: not valid XML at byte 5"),
            ("<a></a></a>", "Invalid request body: not valid XML at byte 7"),
            ("<1/>", "Invalid request body: not valid XML at byte 4"),
            ("<a><b/c></b/c></a>", "Invalid request body: not valid XML at byte 8"),
            ("<é.-_:1><secret>JBSW</secret></é.-_:1>", "6/30"),
            ("<a>\u{1}</a>", "Invalid request body: not valid XML at byte 3"),
            ("<a>\u{fffe}</a>", "Invalid request body: not valid XML at byte 3"),
            ("<a><secret>JB&#1;SW</secret></a>", "Invalid request body: XML with an unknown entity"),
            ("<a b=c/>", "Invalid request body: not valid XML at byte 8"),
            ("JBSW", "Invalid request body: not valid XML at byte 4"),
            ("  ", "Invalid request body: not valid XML at byte 2"),
        ],
    );
}

#[test]
fn multipart_bodies() {
    let part = |header: &str, content: &str| {
        format!("--frontier\r\nContent-Disposition: form-data; {header}\r\n\r\n{content}\r\n")
    };
    let whole = |parts: &[String]| format!("{}--frontier--\r\n", parts.concat());
    let secret = part("name=secret", "JBSW");
    let malformed = "Invalid request body: not valid multipart/form-data";
    check_bodies(
        "multipart/form-data; boundary=frontier",
        &[
            (&whole(&[secret.clone(), part("name=\"digits\"", " 8 ")]), "8/30"),
            (&whole(&[secret.clone(), part("name=f; filename=x.bin", "any")]), "6/30"),
            (&whole(&[]), "Missing secret parameter"),
            (&whole(&[secret.clone(), secret.clone()]), "Duplicate parameter: secret"),
            (
                &whole(&[part("name=secret; filename=s.txt", "JBSW")]),
                "Invalid request body: parameter `secret` was sent as a file",
            ),
            (&whole(&vec![part("name=x", "y"); 17]), "Invalid request body: more than 16 parts"),
            (&secret, malformed),
            ("JBSW", malformed),
            ("", "Invalid request body: it is empty"),
        ],
    );
}

#[test]
fn a_part_that_is_no_text_is_named() {
    let sent = b"--frontier\r\nContent-Disposition: form-data; name=period\r\n\r\n\xff\r\n--frontier--\r\n";
    let found = outcome(body("multipart/form-data; boundary=frontier", sent));
    assert_eq!(found, "Invalid request body: parameter `period` is not valid UTF-8");
}

#[test]
fn an_empty_form_gives_nothing() {
    assert_eq!(outcome(body("application/x-www-form-urlencoded", b"")), "Missing secret parameter");
}

#[test]
fn debug_shows_names_only() {
    let mut input = Input::new(Params::NAMES);
    input.read_query("secret=JBSWY3DPEHPK3PXP&period=77").unwrap();
    assert_eq!(format!("{input:?}"), r#"{"secret", "period"}"#);
}

#[test]
fn text_that_needs_no_decoding_is_borrowed() {
    let request = String::from(r#"{"secret":"JBSWY3DPEHPK3PXP"}"#);
    let mut input = Input::new(Params::NAMES);
    input.read_body(BodyKind::Json, request.as_bytes()).unwrap();
    assert!(matches!(input.value("secret"), Value::Borrowed(_)));
    let mut input = Input::new(Params::NAMES);
    input.read_query("secret=JBSWY3DPEHPK3PXP").unwrap();
    assert!(matches!(input.value("secret"), Value::Borrowed(_)));
}

#[test]
fn whole_numbers() {
    for (text, expected) in [("6", Some(6)), (" 7 ", Some(7)), ("07", Some(7)), ("6.0", Some(6)), ("0", Some(0))] {
        assert_eq!(whole_number(text), expected, "{text}");
    }
    for text in ["", " ", "+6", "-6", "0x6", "6e0", "6.0.0", "6.5", "6.", ".0", ".", "6 7", "٦", "99999999999999999999"]
    {
        assert_eq!(whole_number(text), None, "{text}");
    }
}

fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        "[A-Za-z2-7 =-]{0,40}".prop_map(Json::from),
        "\\PC{0,12}".prop_map(Json::from),
        prop::sample::select(vec!["sha1", "SHA-256", "HmacSHA512", "md5", "", "6", " 7 ", "6.0", "x<&>\"'%+"])
            .prop_map(Json::from),
        (-2..400i64).prop_map(Json::from),
        Just(Json::Null),
    ]
}

proptest! {
    #[test]
    fn every_way_reads_the_same(
        secret in "[A-Za-z2-7 =-]{0,40}|\\PC{0,12}",
        algorithm in prop::option::of(prop::sample::select(vec!["sha1", "SHA-256", "HmacSHA512", "md5", ""])),
        digits in prop::option::of(value()),
        period in prop::option::of(value()),
        other in prop::option::of(value()),
    ) {
        let mut all = Map::new();
        all.insert("secret".into(), secret.into());
        for (name, value) in [("algorithm", algorithm.map(Json::from)), ("digits", digits), ("period", period), ("other", other)] {
            all.extend(value.map(|value| (name.to_owned(), value)));
        }
        let shown = |found: Result<Params, Fault>| found.map_or_else(
            |fault| fault.to_string(),
            |params| format!("{params:?} {:?}", params.secret.bytes()),
        );
        let expected = shown(query(&form(&all).unwrap()));
        for way in WAYS {
            let written = (way.write)(&all).unwrap();
            prop_assert_eq!(shown(body(way.content_type, written.as_bytes())), &expected[..], "{}", written);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for way in WAYS {
            let _ = body(way.content_type, &bytes);
        }
        let _ = query(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_content_type_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[a-z/+;= \"-]{0,40}") {
        for value in [&bytes[..], text.as_bytes(), format!("multipart/form-data;boundary={text}").as_bytes()] {
            let kind = BodyKind::from_content_type(value);
            if let Some(BodyKind::Multipart { boundary }) = kind {
                prop_assert!((1..=70).contains(&boundary.len()));
            }
        }
    }

    #[test]
    fn any_near_miss_is_answered(
        text in "(secret|digits|[{}\\[\\]:,\"'<>/&*!|=%;\n -]|<secret>|</secret>|\\PC|--frontier\r\n|\r\n|[0-9.]){0,40}",
        start in prop::sample::select(vec!["", "{\"secret\":", "<a><secret>", "secret: ", "--frontier\r\nContent-Disposition: form-data; "]),
    ) {
        for way in WAYS {
            let _ = body(way.content_type, format!("{start}{text}").as_bytes());
        }
    }
}
