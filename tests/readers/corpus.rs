//! The documents of the corpus: fixtures, the seeds' answers, and random ones that are the same in every run.

use std::fmt::Write;

use polygate::pure::format::yaml::YAML_DEPTH_MAX;
use serde_json::{Value, json};

/// Every document: its name and its JSON.
pub fn documents() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add = |name: String, document: Value| all.push((name, document.to_string()));
    for (name, document) in whole_documents() {
        add(name.into(), document);
    }
    for (i, string) in strings().iter().enumerate() {
        add(format!("string {i}"), roles(string));
        add(format!("string {i} alone"), json!(string));
    }
    // Characters from all over Unicode at the beginning of a key and within.
    let characters = (0..0x1_1000_u32).step_by(CHARACTER_STEP).filter_map(char::from_u32);
    let keys = characters.flat_map(|character| [format!("{character}a"), format!("a{character}")]);
    add("characters in keys".into(), Value::Object(keys.map(|key| (key, json!(1))).collect()));
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for (name, letters) in [("numeric", NUMERIC), ("indicator", INDICATORS), ("odd", ODD)] {
        for i in 0..40 {
            let strings: Vec<String> = (0..25).map(|_| dice.string(letters, 9)).collect();
            let members = strings.iter().map(|string| (string.clone(), json!(string))).collect();
            add(format!("{name} strings {i}"), json!({"items": strings, "members": Value::Object(members)}));
        }
    }
    for i in 0..300 {
        // Numbers are written as text, so that they keep more digits than a value of serde_json holds.
        let mut text = String::new();
        dice.document(&mut text, 5);
        all.push((format!("random {i}"), text));
    }
    all.push(("integers".into(), format!("[{INTEGERS}]")));
    all.push(("numbers".into(), format!("[{NUMBERS}]")));
    all.push(("table of numbers".into(), format!("[{{\"a\":{}}}]", NUMBERS.replace(',', "},{\"a\":"))));
    all
}

/// Documents with a shape of their own.
fn whole_documents() -> Vec<(&'static str, Value)> {
    let mut deep = json!("core");
    for i in 0..YAML_DEPTH_MAX - 1 {
        deep = if i % 2 == 0 { json!([deep]) } else { json!({"k": deep, "l": [1]}) };
    }
    let long = |length: usize| "k".repeat(length);
    vec![
        ("hostile", serde_json::from_str(include_str!("../../fixtures/formats/hostile_document.json")).unwrap()),
        (
            "enveloped success",
            json!({"status": "ok", "error": null, "data": {"token": "935324", "digits": 6, "period": 30, "timeRemaining": 25, "expiresAt": "2025-12-16T22:31:00Z"}}),
        ),
        ("enveloped failure", json!({"status": "error", "error": "Missing secret parameter", "data": null})),
        (
            "flat success",
            json!({"status": "success", "otp": "000802", "algorithm": "sha1", "digits": 6, "period": 30, "expires_at": "2025-07-06 10:14:30"}),
        ),
        (
            "flat failure",
            json!({"status": "error", "message": "Invalid secret format. Must contain only A-Z and 2-7 (base32)."}),
        ),
        ("deep", deep),
        ("nothing", json!({})),
        ("no items", json!([])),
        ("empty items", json!([{}, [], "", null])),
        ("empty lists in a list", json!([[[]], [{}], {"a": {}}, {"a": []}])),
        ("null", json!(null)),
        ("true", json!(true)),
        ("table", json!([{"id": 1, "a": {"b": "x", "c": [1, 2]}}, {"id": 2, "z": null}, {"a": {"c": [3]}, "id": 3}])),
        ("table of one column", json!([{"": ""}, {"": "x"}, {}])),
        ("list of scalars", json!(["a", 1, null, true, "", "a,b", "\"", "\r\n"])),
        ("mixed list", json!([1, {"a": 2}, [3, [4]], "x"])),
        ("dots in keys", json!({"a.b": {"c\\d": [0]}, "a": {"b": 1}, "\\": {".": 2}, "": {"": {"": 3}}})),
        ("long keys", json!({long(1020): 1, "a": {long(1000): {"b": [1]}}, "é".repeat(500): [], ": ".repeat(505): {}})),
    ]
}

/// A string as value, as key, as item, and nested in either.
fn roles(string: &str) -> Value {
    json!({"value": string, "items": [string, [string, {string: string}]], "keys": {string: {string: [string]}}, string: null})
}

fn strings() -> Vec<String> {
    let fixture: Value = serde_json::from_str(include_str!("../../fixtures/formats/yaml_strings.json")).unwrap();
    let listed = fixture.as_array().unwrap().iter().map(|case| case["s"].as_str().unwrap().to_owned());
    let mut strings: Vec<String> = listed.chain(MORE.iter().map(|&string| string.to_owned())).collect();
    // Spaces and invisible characters in every place where a reader may trim, break or resolve.
    for space in "\u{85}\u{A0}\u{AD}\u{1680}\u{180E}\u{2000}\u{2009}\u{200A}\u{200D}\u{2028}\u{202F}\u{205F}\u{2060}\u{3000}\u{FEFF}".chars() {
        strings.push(format!("{space}a{space}#b:{space}c{space}"));
        strings.push(format!("{space}{space}"));
        strings.push(format!("1{space}"));
        strings.push(format!("{space}true"));
    }
    strings
}

const MORE: [&str; 66] = [
    "=",
    "= a",
    "~a",
    "~",
    "<a",
    "<<a",
    "a<<",
    "+1",
    "+a",
    "+",
    "-",
    "- ",
    "--",
    "--- q",
    "...",
    "... q",
    "...q",
    "..",
    ".e1",
    "._1",
    "1__0",
    "0b_",
    "12e+3",
    "1:2",
    "1:60:3",
    "-1:30",
    "2001-1-1",
    "2001-1-1 1:1:1 Z",
    "1,000",
    "0x_",
    "2001-01-01 00:00:00 +1:00",
    "2001-01-01T00:00:00-05:00",
    "0o17 x",
    "null ",
    "Null:",
    "!",
    "TRUE",
    "yEs",
    "Y",
    "N",
    "@a",
    "? a",
    "a: ",
    "a:\tb",
    "a\t#b",
    "#",
    "a#",
    "'a'",
    "''",
    "\"\"",
    "é:",
    "é #x",
    "] }",
    "a, b]",
    "__proto__",
    "constructor",
    "xml",
    "XMLa",
    "_x0041_",
    "_x_",
    "a:b:c",
    "ns:a",
    "e6",
    "E5",
    "e-3",
    "e1x",
];

/// A prime, so that the characters taken lie differently in each block.
const CHARACTER_STEP: usize = 31;

const NUMERIC: &str = "0123456789abefxo_+-.:, eETZtzinfNa";
const INDICATORS: &str = "-?:,[]{}#&*!|>'\"%@`=~<\\  ab\n\t.";
const ODD: &str = "aZ0 _x:é\u{1}\u{7F}\u{85}\u{A0}\u{200B}\u{2028}\u{FEFF}\u{FFFD}\u{FFFF}😀中\r\n\t&<>]'\"\\.,;=";

const INTEGERS: &str =
    "0,1,-1,2147483648,-9223372036854775808,18446744073709551616,123456789012345678901234567890,9007199254740993";
const NUMBERS: &str = "0.0,-0,-0.0,1.0,1.50,0.1,1e3,1E3,1e+3,1e-3,1.5e10,2.5E-7,-1e1,0e0,1e400,-1e400,1e-400,3.141592653589793238462643383279,0.30000000000000004,5e-324,1e00,12345678.90e05";

/// A generator of chance that gives the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    fn string(&mut self, letters: &str, length_max: usize) -> String {
        let letters: Vec<char> = letters.chars().collect();
        (0..=self.below(length_max)).map(|_| letters[self.below(letters.len())]).collect()
    }

    fn any_string(&mut self) -> String {
        match self.below(6) {
            0 => String::new(),
            1 => self.string(NUMERIC, 12),
            2 => self.string(INDICATORS, 12),
            3 => self.string(ODD, 20),
            // Any characters at all, ASCII more often.
            4 => (0..self.below(12))
                .filter_map(|_| {
                    let end = [0x80, 0x800, 0x1_0000, 0x11_0000][self.below(4)];
                    char::from_u32(self.below(end) as u32)
                })
                .collect(),
            _ => self.string("abcdefghijklmnopqrstuvwxyz ", 30),
        }
    }

    fn number(&mut self) -> String {
        let mut text = String::from(if self.below(3) == 0 { "-" } else { "" });
        let digits = self.below(25);
        text.push_str(if digits == 0 { "0" } else { "7" });
        (1..digits).for_each(|_| text.push(char::from(b'0' + self.below(10) as u8)));
        if self.below(3) == 0 {
            let _ = write!(text, ".{}", self.below(100_000));
        }
        if self.below(4) == 0 {
            let _ = write!(text, "{}{}{}", ["e", "E"][self.below(2)], ["", "+", "-"][self.below(3)], self.below(40));
        }
        text
    }

    fn document(&mut self, text: &mut String, levels: usize) {
        let kind = if levels == 0 { 2 + self.below(6) } else { self.below(8) };
        match kind {
            0 => {
                text.push('[');
                for i in 0..self.below(6) {
                    text.push_str(if i > 0 { "," } else { "" });
                    self.document(text, levels - 1);
                }
                text.push(']');
            }
            1 => {
                let keys: std::collections::BTreeSet<String> = (0..self.below(6)).map(|_| self.any_string()).collect();
                text.push('{');
                for (i, key) in keys.iter().enumerate() {
                    text.push_str(if i > 0 { "," } else { "" });
                    let _ = write!(text, "{}:", json!(key));
                    self.document(text, levels - 1);
                }
                text.push('}');
            }
            2 => text.push_str("null"),
            3 => text.push_str(["true", "false"][self.below(2)]),
            4 | 5 => text.push_str(&self.number()),
            _ => text.push_str(&json!(self.any_string()).to_string()),
        }
    }
}
