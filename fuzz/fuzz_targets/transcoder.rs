//! Any bytes as an upstream's JSON, cut anywhere: in pieces it is written as in one, or refused as in one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polygate::pure::envelope::Dialect;
use polygate::pure::format::{Format, Style};
use polygate::pure::pointer::Pointer;
use polygate::pure::transcode::Transcoder;

fuzz_target!(|data: &[u8]| {
    let Some((&[way, place, size], json)) = data.split_first_chunk() else { return };
    let dialect = if way & 1 == 0 { Dialect::Enveloped } else { Dialect::Flat };
    let style = Style { pretty: way & 2 != 0, csv_guard: way & 2 != 0 };
    let format = Format::ALL[usize::from(way >> 2) % 4];
    let pointer = ["/a", "/a/0", "/0/a", ""].get(usize::from(place)).map(|text| Pointer::parse(text).unwrap());
    let written = |size: usize| {
        let mut transcoder = Transcoder::new(dialect, format, style, pointer.clone(), 1 << 20);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for piece in json.chunks(size) {
            transcoder.feed(piece, &mut out).ok()?;
            all.append(&mut out);
        }
        transcoder.finish(&mut all).ok()?;
        Some(all)
    };
    let whole = written(usize::MAX);
    assert_eq!(written(usize::from(size).max(1)), whole);
    if let Some(whole) = whole {
        assert!(!whole.is_empty());
        assert!(std::str::from_utf8(&whole).is_ok());
    }
});
