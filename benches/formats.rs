//! How fast documents are written: the emitters beside `serde_json::Value` with the crates of each format.
//!
//! `envelope` is the seed's answer from its struct; `transcode` turns JSON bytes of 10 KB and 1 MB into each format;
//! `stream` does so in the envelope, with 10 KB and 10 MB that come in pieces; `quotes` with what the load tests' upstream
//! answers, one quote of 130 bytes and 10 KB of them, beside `serde_json`'s reading of it into nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polygate::pure::envelope::Dialect;
use polygate::pure::format::{Format, Style, encode, transcode};
use polygate::pure::transcode::{PIECE_BYTES, Transcoder};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;

criterion_group!(benches, envelope, transcoding, streaming, quoting);
criterion_main!(benches);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    status: &'static str,
    error: Option<&'static str>,
    data: Data,
}

#[derive(Serialize)]
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

fn envelope(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    let envelope = Envelope { status: "ok", error: None, data: DATA };
    let mut out = Vec::with_capacity(1024);
    for format in Format::ALL {
        group.bench_function(BenchmarkId::new("ours", format.name()), |bencher| {
            bencher.iter(|| {
                out.clear();
                let (envelope, data) = black_box((&envelope, &DATA));
                match format {
                    // CSV is rows of `data` alone.
                    Format::Csv => encode(data, format, Style::default(), &mut out),
                    _ => encode(envelope, format, Style::default(), &mut out),
                }
            });
        });
        group.bench_function(BenchmarkId::new("crates", format.name()), |bencher| {
            bencher.iter(|| {
                out.clear();
                let value = match format {
                    Format::Csv => serde_json::to_value(black_box(&DATA)),
                    _ => serde_json::to_value(black_box(&envelope)),
                };
                write_by_crate(&value.unwrap(), format, &mut out);
            });
        });
    }
}

fn transcoding(criterion: &mut Criterion) {
    for (size, bytes) in [("10 KB", 10_000), ("1 MB", 1_000_000)] {
        let mut group = criterion.benchmark_group(format!("transcode {size}"));
        let json = records(bytes);
        group.throughput(Throughput::Bytes(json.len() as u64));
        let mut out = Vec::with_capacity(4 * bytes);
        for format in Format::ALL {
            group.bench_function(BenchmarkId::new("ours", format.name()), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    transcode(black_box(json.as_bytes()), format, Style::default(), &mut out)
                });
            });
            group.bench_function(BenchmarkId::new("crates", format.name()), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let value = serde_json::from_slice(black_box(json.as_bytes())).unwrap();
                    write_by_crate(&value, format, &mut out);
                });
            });
        }
    }
}

fn streaming(criterion: &mut Criterion) {
    for (size, bytes) in [("10 KB", 10_000), ("10 MB", 10_000_000)] {
        let mut group = criterion.benchmark_group(format!("stream {size}"));
        group.sample_size(10);
        let json = records(bytes);
        group.throughput(Throughput::Bytes(json.len() as u64));
        stream(&mut group, &json);
    }
}

fn quoting(criterion: &mut Criterion) {
    for (size, json) in [("of one", quote(7, "Polygate Ltd")), ("10 KB", quotes(10_000))] {
        let mut group = criterion.benchmark_group(format!("quotes {size}"));
        group.throughput(Throughput::Bytes(json.len() as u64));
        stream(&mut group, &json);
        group.bench_function(BenchmarkId::new("serde_json", "ignored"), |bencher| {
            bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(json.as_bytes())));
        });
    }
}

fn stream(group: &mut BenchmarkGroup<WallTime>, json: &str) {
    let mut out = Vec::with_capacity(4 * PIECE_BYTES);
    for format in Format::ALL {
        group.bench_function(BenchmarkId::new("ours", format.name()), |bencher| {
            bencher.iter(|| {
                let mut transcoder = Transcoder::new(Dialect::Enveloped, format, Style::default(), None, usize::MAX);
                for piece in black_box(json.as_bytes()).chunks(PIECE_BYTES) {
                    out.clear();
                    transcoder.feed(piece, &mut out).unwrap();
                }
                transcoder.finish(&mut out)
            });
        });
    }
}

/// An array of quotes of at least so many bytes.
fn quotes(bytes: usize) -> String {
    const COMPANIES: [&str; 4] = ["Harbour & Sons, Ltd.", "Nordlicht AG", r#"The \"Blue\" Lamp"#, "Société Générale"];
    let mut json = String::from("[");
    for i in 0.. {
        json += if i > 0 { "," } else { "" };
        json += &quote(i, COMPANIES[i % 4]);
        if json.len() >= bytes {
            break;
        }
    }
    json + "]"
}

fn quote(i: usize, company: &str) -> String {
    let (whole, cents, volume, halted) = (10 + i * 7 % 990, i * 37 % 100, i * 7_919, i.is_multiple_of(16));
    format!(
        r#"{{"symbol":"Q{i:06}","company":"{company}","price":{whole}.{cents:02},"change":-0.{cents:02},"volume":{volume},"halted":{halted},"at":"2026-01-02T15:04:05Z"}}"#
    )
}

/// An array of records of at least so many bytes: text with escapes and beyond ASCII, numbers, nesting, nulls.
fn records(bytes: usize) -> String {
    let mut json = String::from("[");
    for i in 0.. {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(
            json,
            r#"{comma}{{"id":{i},"name":"Person {i}","email":"person{i}@example.com","active":{},"balance":{}.{:02},"#,
            i % 3 == 0,
            i * 37 % 10_000,
            i % 100,
        );
        let _ = write!(
            json,
            r#""city":"Zürich","note":"Said \"hello\" on day {i},\nthen left & came back","ratio":{}e-7,"referrer":null,"#,
            i % 9 + 1,
        );
        let _ = write!(
            json,
            r#""tags":["alpha","beta","{}"],"address":{{"street":"{i} Long Street","zip":"{:05}","geo":[47.{i},8.{i}]}}}}"#,
            i % 7,
            i * 13 % 100_000,
        );
        if json.len() >= bytes {
            break;
        }
    }
    json + "]"
}

fn write_by_crate(value: &Value, format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Json => serde_json::to_writer(out, value).unwrap(),
        Format::Xml => {
            // quick-xml wants one root.
            let xml = match value {
                Value::Array(_) => quick_xml::se::to_string_with_root("response", &Items { item: value }),
                _ => quick_xml::se::to_string_with_root("response", value),
            };
            out.extend_from_slice(xml.unwrap().as_bytes());
        }
        Format::Yaml => serde_yaml::to_writer(out, value).unwrap(),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            if let Value::Array(items) = value {
                // The same table as ours: the union of the columns, in order of first sight.
                let rows: Vec<Vec<(String, String)>> = items.iter().map(|item| cells(item, "")).collect();
                let mut places: HashMap<&str, usize> = HashMap::new();
                let mut columns: Vec<&str> = Vec::new();
                for (key, _) in rows.iter().flatten() {
                    places.entry(key).or_insert_with(|| {
                        columns.push(key);
                        columns.len() - 1
                    });
                }
                writer.write_record(&columns).unwrap();
                for row in &rows {
                    let mut record = vec![""; columns.len()];
                    row.iter().for_each(|(key, value)| record[places[key.as_str()]] = value);
                    writer.write_record(record).unwrap();
                }
            } else {
                writer.write_record(["key", "value"]).unwrap();
                cells(value, "").iter().for_each(|(key, value)| writer.write_record([key, value]).unwrap());
            }
        }
    }
}

#[derive(Serialize)]
struct Items<'a> {
    item: &'a Value,
}

/// The leaves of a value with their joined keys.
fn cells(value: &Value, path: &str) -> Vec<(String, String)> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(members) => members.iter().flat_map(|(key, value)| cells(value, &below(key))).collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, item)| cells(item, &below(&i.to_string()))).collect()
        }
        Value::String(text) => vec![(path.to_owned(), text.clone())],
        Value::Null => vec![(path.to_owned(), String::new())],
        other => vec![(path.to_owned(), other.to_string())],
    }
}
