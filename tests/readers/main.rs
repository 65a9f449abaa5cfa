//! Writes the corpus that readers in other languages check: documents as JSON beside what Polygate makes of them.
//!
//! `target/readers/corpus.jsonl` gets a line a document, `{name, json, xml, yaml, csv}`, each format as a string.
//! `check.py` and `check.mjs` beside this file read it; `make test` runs them.

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::path::Path;

use polygate::pure::format::{Format, Style, transcode};
use serde_json::{Value, json};

mod corpus;

#[test]
fn write_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/readers");
    create_dir_all(&folder).unwrap();
    let mut file = BufWriter::new(File::create(folder.join("corpus.jsonl")).unwrap());
    let documents = corpus::documents();
    assert!(documents.len() > 500, "the corpus has shrunk to {}", documents.len());
    for (name, text) in documents {
        let written = |format: Format| -> Value {
            let mut out = Vec::new();
            transcode(text.as_bytes(), format, Style::default(), &mut out)
                .unwrap_or_else(|error| panic!("{name} as {format:?}: {error}"));
            String::from_utf8(out).unwrap().into()
        };
        let mut line = json!({"name": name, "json": text});
        for format in [Format::Xml, Format::Yaml, Format::Csv] {
            line[format.name()] = written(format);
        }
        writeln!(file, "{line}").unwrap();
    }
    file.flush().unwrap();
}
