//! Streamed as whole: any text, cut anywhere, in every format, beside what the typed answers of our own services are.

use proptest::prelude::*;
use serde_json::Value;

use super::super::format::csv;
use super::super::format::properties::{any_document, any_json_or_nearly};
use super::super::format::tokens::CARRY_BYTES_MAX;
use super::super::format::transcode;
use super::*;

const PLAIN: Style = Style { pretty: false, csv_guard: false };
const STYLES: [Style; 2] = [PLAIN, Style { pretty: true, csv_guard: true }];

/// How a text is to be written.
#[derive(Clone, Debug)]
struct Way {
    dialect: Dialect,
    format: Format,
    style: Style,
    pointer: Option<Pointer>,
}

impl Way {
    fn enveloped(format: Format) -> Way {
        Way { dialect: Dialect::Enveloped, format, style: PLAIN, pointer: None }
    }

    fn every() -> impl Iterator<Item = Way> {
        let styled = |format| STYLES.map(|style| Way { style, ..Way::enveloped(format) });
        let enveloped = || Format::ALL.into_iter().flat_map(styled);
        enveloped().chain(enveloped().map(|way| Way { dialect: Dialect::Flat, ..way }))
    }

    fn at(&self, pointer: &str) -> Way {
        Way { pointer: Some(Pointer::parse(pointer).unwrap()), ..self.clone() }
    }

    fn transcoder(&self) -> Transcoder {
        Transcoder::new(self.dialect, self.format, self.style, self.pointer.clone(), usize::MAX)
    }

    /// What comes of the pieces, the output drained after each.
    fn written<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<String, JsonError> {
        let (mut all, mut out, mut transcoder) = (Vec::new(), Vec::new(), self.transcoder());
        for piece in pieces {
            transcoder.feed(piece, &mut out)?;
            all.append(&mut out);
        }
        transcoder.finish(&mut all)?;
        Ok(String::from_utf8(all).unwrap())
    }

    fn whole(&self, json: &[u8]) -> Result<String, JsonError> {
        self.written([json])
    }

    /// What the typed answer with such data is.
    fn typed(&self, data: &Value) -> String {
        let mut out = Vec::new();
        match self.dialect {
            Dialect::Enveloped => envelope::enveloped(data, self.format, self.style, &mut out).unwrap(),
            Dialect::Flat => super::super::format::encode(data, self.format, self.style, &mut out).unwrap(),
        }
        String::from_utf8(out).unwrap()
    }
}

/// The text in two pieces, cut in every place, and in pieces of a byte.
#[track_caller]
fn check_every_split(way: &Way, json: &[u8]) {
    let whole = way.whole(json);
    let same = |streamed: Result<String, JsonError>| match (&whole, &streamed) {
        (Ok(whole), Ok(streamed)) => whole == streamed,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    for cut in 0..=json.len() {
        let (first, second) = json.split_at(cut);
        assert!(same(way.written([first, second])), "{way:?} cut at {cut}: {}", String::from_utf8_lossy(json));
    }
    assert!(same(way.written(json.chunks(1))), "{way:?} byte by byte: {}", String::from_utf8_lossy(json));
}

#[derive(serde::Deserialize)]
struct Case {
    text: Option<String>,
    hex: Option<String>,
    #[serde(default)]
    accept: bool,
}

/// The texts of the fixtures, with whether they are JSON.
fn fixtures() -> Vec<(Vec<u8>, bool)> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../fixtures/formats/json_cases.json")).unwrap();
    let bytes = |case: &Case| match (&case.text, &case.hex) {
        (Some(text), _) => text.clone().into_bytes(),
        (_, hex) => data_encoding::HEXLOWER.decode(hex.as_deref().unwrap().as_bytes()).unwrap(),
    };
    // A byte order mark is passed over here, where readers of JSON refuse it.
    let cases = cases.iter().filter(|case| !bytes(case).starts_with(BYTE_ORDER_MARK));
    let mut texts: Vec<(Vec<u8>, bool)> = cases.map(|case| (bytes(case), case.accept)).collect();
    for file in [
        include_str!("../../../fixtures/formats/hostile_document.json"),
        r#"{"status":"ok","error":null,"data":[{"a":1},{"b":"é\n\"x\""}]}"#,
        r#" { "error" : "\u006eo" , "status" : "error" , "data" : null , "more" : [ ] } "#,
        r#"{"data":{},"status":"ok","error":null}"#,
    ] {
        texts.push((file.as_bytes().to_vec(), true));
    }
    texts
}

#[test]
fn fixtures_are_streamed_as_whole_wherever_they_are_cut() {
    for (json, accepted) in fixtures() {
        for way in Way::every().filter(|way| !way.style.pretty || json.len() < 200) {
            if json.len() < 4_000 {
                check_every_split(&way, &json);
            }
            // YAML refuses keys that come twice, and all of them what is too deep for it.
            if !accepted || way.format != Format::Yaml {
                assert_eq!(way.whole(&json).is_ok(), accepted, "{way:?}: {}", String::from_utf8_lossy(&json));
            }
        }
    }
}

proptest! {
    #[test]
    fn streamed_is_as_typed(document in any_document(), cuts in prop::collection::vec(0..400_usize, 0..12)) {
        let json = serde_json::to_vec(&document).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < json.len()).chain([0, json.len()]).collect();
        cuts.sort_unstable();
        for way in Way::every() {
            let expected = way.typed(&document);
            prop_assert_eq!(&way.whole(&json).unwrap(), &expected);
            prop_assert_eq!(&way.written(cuts.windows(2).map(|cut| &json[cut[0]..cut[1]])).unwrap(), &expected);
            prop_assert_eq!(&way.written(json.chunks(1)).unwrap(), &expected);
        }
    }

    #[test]
    fn any_text_is_written_or_refused_alike_however_it_is_cut(json in any_json_or_nearly(), size in 1..40_usize) {
        let ways = Way::every().flat_map(|way| [way.at("/a"), way.at(""), way]);
        for way in ways {
            let whole = way.whole(&json);
            prop_assert_eq!(&way.written(json.chunks(size)), &whole, "{:?}", way);
            prop_assert_eq!(&way.written(json.chunks(1)), &whole, "{:?}", way);
        }
    }

    #[test]
    fn what_lies_at_a_pointer_is_as_typed(document in any_document(), turns in prop::collection::vec(any::<usize>(), 0..4)) {
        let (mut pointer, mut value) = (String::new(), &document);
        for turn in turns {
            let (token, next) = match value {
                Value::Array(items) if !items.is_empty() => {
                    let i = turn % items.len();
                    (i.to_string(), &items[i])
                }
                Value::Object(members) if !members.is_empty() => {
                    let (key, value) = members.iter().nth(turn % members.len()).unwrap();
                    (key.replace('~', "~0").replace('/', "~1"), value)
                }
                _ => break,
            };
            pointer = format!("{pointer}/{token}");
            value = next;
        }
        let json = serde_json::to_vec(&document).unwrap();
        for way in Way::every().map(|way| way.at(&pointer)) {
            let expected = way.typed(value);
            prop_assert_eq!(&way.whole(&json).unwrap(), &expected, "{}", pointer);
            prop_assert_eq!(&way.written(json.chunks(3)).unwrap(), &expected, "{}", pointer);
            // No key of these documents is that long.
            let nowhere = Way { pointer: None, ..way.clone() }.at(&format!("{pointer}/no such key, and no place"));
            prop_assert_eq!(nowhere.whole(&json).unwrap_err(), JsonError { offset: json.len(), reason: Reason::NothingThere });
        }
    }

    #[test]
    fn what_is_in_the_envelope_stays_in_it(document in any_document(), status in "[a-z]{0,4}", swapped in any::<bool>()) {
        let data = serde_json::to_string(&document).unwrap();
        let text = if swapped {
            format!(r#"{{"error":"{status}","status":"","data":{data}}}"#)
        } else {
            format!(r#"{{"status":"{status}","error":null,"data":{data},"more":[1]}}"#)
        };
        for way in Way::every() {
            let mut expected = Vec::new();
            match (way.dialect, way.format) {
                (Dialect::Enveloped, Format::Csv) => transcode(data.as_bytes(), way.format, way.style, &mut expected).unwrap(),
                _ => transcode(text.as_bytes(), way.format, way.style, &mut expected).unwrap(),
            }
            let expected = String::from_utf8(expected).unwrap();
            prop_assert_eq!(&way.whole(text.as_bytes()).unwrap(), &expected);
            prop_assert_eq!(&way.written(text.as_bytes().chunks(5)).unwrap(), &expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_split_is_as_the_whole(document in any_document()) {
        let json = serde_json::to_vec(&document).unwrap();
        if json.len() < 400 {
            Way::every().for_each(|way| check_every_split(&way, &json));
        }
    }
}

#[test]
fn the_envelope_in_each_format() {
    let json = br#"[{"id":1,"name":"Ann"},{"id":2.50}]"#;
    let written = |format| Way::enveloped(format).whole(json).unwrap();
    assert_eq!(written(Format::Json), r#"{"status":"ok","error":null,"data":[{"id":1,"name":"Ann"},{"id":2.50}]}"#);
    assert_eq!(written(Format::Yaml), "status: ok\nerror: null\ndata:\n  - id: 1\n    name: Ann\n  - id: 2.50\n");
    assert_eq!(written(Format::Csv), "id,name\r\n1,Ann\r\n2.50,\r\n");
    let xml = written(Format::Xml);
    let (head, rest) = xml.split_once("<status>ok</status>").unwrap();
    assert!(head.ends_with("<response>\n  ") && rest.contains("<data>\n    <item>\n      <id>1</id>"), "{xml}");
    assert!(xml.ends_with("</data>\n</response>\n"), "{xml}");
}

#[test]
fn nothing_is_written_before_there_is_data() {
    let far = format!(r#"{{"meta":{{"data":[{{}}]}},"pad":"{}","data":[7,8]}}"#, " ".repeat(100_000));
    let before = far.find("[7").unwrap();
    for way in Way::every().map(|way| way.at("/data")) {
        let (mut transcoder, mut out) = (way.transcoder(), Vec::new());
        for piece in far.as_bytes()[..before].chunks(PIECE_BYTES) {
            transcoder.feed(piece, &mut out).unwrap();
        }
        assert_eq!(out, b"", "{way:?}");
        transcoder.feed(&far.as_bytes()[before..], &mut out).unwrap();
        transcoder.finish(&mut out).unwrap();
        assert_ne!(out, b"");
    }
    for format in Format::ALL {
        let (mut transcoder, mut out) = (Way::enveloped(format).transcoder(), Vec::new());
        transcoder.feed(b" \n", &mut out).unwrap();
        transcoder.feed(br#"{"status":"ok","error":null,"dat"#, &mut out).unwrap();
        assert_eq!(out, b"", "{format:?}");
        transcoder.feed(br#"a":{"a":1,"#, &mut out).unwrap();
        assert_ne!(out, b"", "{format:?}");
    }
}

#[test]
fn bytes_leave_before_the_text_has_ended() {
    let row = br#"{"id":1,"name":"somebody"},"#;
    for way in Way::every() {
        let (mut transcoder, mut out, mut most) = (way.transcoder(), Vec::new(), 0);
        transcoder.feed(b"[", &mut out).unwrap();
        for _ in 0..2 * csv::WINDOW_BYTES / row.len() {
            out.clear();
            transcoder.feed(row, &mut out).unwrap();
            most = most.max(out.len());
        }
        assert!(!out.is_empty() && out.len() < 10 * row.len(), "{way:?}");
        // The window of a table comes out at once, and nothing else waits.
        assert!(most < if way.format == Format::Csv { csv::WINDOW_BYTES } else { 10 * row.len() }, "{way:?}");
    }
}

#[test]
fn what_lies_beside_the_pointer_is_checked() {
    let find = |pointer: &str, json: &str| Way::enveloped(Format::Json).at(pointer).whole(json.as_bytes());
    assert_eq!(find("/a", r#"{"x":[1],"a":2,"y":{}}"#).unwrap(), r#"{"status":"ok","error":null,"data":2}"#);
    assert_eq!(find("/a/1/b", r#"{"a":[{"b":1},{"c":{"b":2},"b":[3]},{"b":4}]}"#).unwrap(), find("", "[3]").unwrap());
    for (json, reason) in [
        (r#"{"x":[1,],"a":2}"#, Reason::UnexpectedByte),
        (r#"{"a":2,"x":01}"#, Reason::InvalidNumber),
        (r#"{"a":2"#, Reason::UnexpectedEnd),
        (r#"{"a":2}}"#, Reason::UnexpectedByte),
        (r#"{"a":2,"a":3}"#, Reason::DuplicateKey),
        (r#"{"a":{"x":2},"\u0061":{"x":2}}"#, Reason::DuplicateKey),
        (r#"{"b":{"a":1}}"#, Reason::NothingThere),
        (r#"["a"]"#, Reason::NothingThere),
        ("1", Reason::NothingThere),
    ] {
        assert_eq!(find("/a", json).unwrap_err().reason, reason, "{json}");
    }
    assert_eq!(find("/a/x", r#"{"a":{"y":1},"a":{"x":2}}"#).unwrap_err().reason, Reason::DuplicateKey);
    // Keys that come twice elsewhere are none of the pointer's business.
    assert_eq!(find("/a", r#"{"x":1,"x":2,"a":{"a":1,"a":2}}"#).unwrap(), find("", r#"{"a":1,"a":2}"#).unwrap());
}

#[test]
fn the_text_is_taken_up_to_its_limit() {
    let json = br#"{"a":[1,2,3]}"#;
    for way in Way::every() {
        let limited = |bytes_max| {
            let mut transcoder = Transcoder::new(way.dialect, way.format, way.style, None, bytes_max);
            let mut out = Vec::new();
            json.chunks(4).try_for_each(|piece| transcoder.feed(piece, &mut out))?;
            transcoder.finish(&mut out)
        };
        assert_eq!(limited(json.len()), Ok(()));
        let error = JsonError { offset: json.len() - 1, reason: Reason::TooLong };
        assert_eq!(limited(json.len() - 1), Err(error));
    }
}

/// What would take minutes if anything looked again, at each byte, at what came before.
#[test]
fn small_pieces_cost_no_more_than_large_ones() {
    let long = "x".repeat(CARRY_BYTES_MAX / 2);
    let texts = [
        format!("{{\"{}\":\"{long}\"}}", &long[..4_000]),
        format!("[{}]", "1".repeat(CARRY_BYTES_MAX / 2)),
        format!("{}1", " ".repeat(CARRY_BYTES_MAX / 2)),
        format!(r#"{{"status":"{}","error":null,"data":1}}"#, &long[..envelope::PREFIX_BYTES_MAX - 100]),
        format!("[{}{{}}]", r#"{"a":{"b":[0,"\n"]}},"#.repeat(10_000)),
    ];
    for json in texts {
        for format in Format::ALL {
            let way = Way::enveloped(format);
            let whole = way.whole(json.as_bytes()).unwrap();
            assert!(way.written(json.as_bytes().chunks(1)).unwrap() == whole, "{format:?}: {}", &json[..20]);
        }
    }
}

#[test]
fn a_byte_order_mark_is_passed_over_however_it_is_cut() {
    for size in 1..8 {
        let written = |json: &[u8], format| {
            let mut transcoder = Transcoder::new(Dialect::Enveloped, format, Style::default(), None, 1_000);
            let mut out = Vec::new();
            json.chunks(size).try_for_each(|piece| transcoder.feed(piece, &mut out))?;
            transcoder.finish(&mut out).map(|()| out)
        };
        for format in Format::ALL {
            assert_eq!(written("\u{feff}{\"a\":1}".as_bytes(), format), written(b"{\"a\":1}", format));
            for broken in
                ["\u{feff}\u{feff}1".as_bytes(), b"\xEF\xBB1", b"\xEF\xBB", b"\xEF", b"", "\u{feff}".as_bytes()]
            {
                assert!(written(broken, format).is_err(), "{broken:?}");
            }
        }
    }
}
