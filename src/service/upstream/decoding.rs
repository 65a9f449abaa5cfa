//! Content codings of answers (RFC 9110 section 8.4.1), taken off piece by piece.

use std::io::{self, BufRead, Read};

use brotli_decompressor::Decompressor;
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, header};

/// The largest window that zstd may ask for, as a power of two: 8 MiB, which RFC 8878 section 3.1.1.1.2 recommends.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The most that is decoded at once, bytes, however much it would come to.
const PIECE_BYTES: usize = 16 << 10;
/// What brotli reads at once, bytes.
const BROTLI_BUFFER_BYTES: usize = 4 << 10;

/// Takes the coding off an answer's bytes.
pub enum Decoding {
    /// There is none.
    Identity(Feed),
    /// RFC 1952.
    Gzip(Box<MultiGzDecoder<Feed>>),
    /// RFC 7932.
    Brotli(Box<Decompressor<Feed>>),
    /// RFC 8878.
    Zstd(Box<zstd::stream::read::Decoder<'static, Feed>>),
}

/// What the next step of decoding came to.
pub enum Step {
    /// So much.
    Piece(Bytes),
    /// Nothing, until there is more to decode.
    Hungry,
    /// Everything has been decoded.
    End,
}

impl Decoding {
    /// The decoding of an answer with these headers; `None` for a coding that is not known, or several on top of each
    /// other.
    pub fn of(headers: &HeaderMap) -> Option<Decoding> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let (coding, feed) = (codings.next(), Feed::default());
        if codings.next().is_some() {
            return None;
        }
        let coding = coding.map_or("identity", |coding| coding.to_str().unwrap_or_default()).trim();
        Some(match &*coding.to_ascii_lowercase() {
            "" | "identity" => Decoding::Identity(feed),
            "gzip" | "x-gzip" => Decoding::Gzip(Box::new(MultiGzDecoder::new(feed))),
            "br" => Decoding::Brotli(Box::new(Decompressor::new(feed, BROTLI_BUFFER_BYTES))),
            "zstd" => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(feed).ok()?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
                Decoding::Zstd(Box::new(decoder))
            }
            _ => return None,
        })
    }

    /// Whether the bytes are what they seem.
    pub fn is_identity(&self) -> bool {
        matches!(self, Decoding::Identity(_))
    }

    /// Gives it more to decode, or, if that is nothing, tells it that there will be no more. Asked for only when hungry.
    pub fn feed(&mut self, bytes: Option<Bytes>) {
        let feed = match self {
            Decoding::Identity(feed) => feed,
            Decoding::Gzip(decoder) => decoder.get_mut(),
            Decoding::Brotli(decoder) => decoder.get_mut(),
            Decoding::Zstd(decoder) => decoder.get_mut(),
        };
        match bytes {
            Some(bytes) => feed.bytes = bytes,
            None => feed.has_ended = true,
        }
    }

    /// Decodes some of what there is.
    ///
    /// # Errors
    /// It is not what it says, or ends too early.
    pub fn step(&mut self) -> io::Result<Step> {
        let reader: &mut dyn Read = match self {
            Decoding::Identity(feed) => {
                return Ok(match std::mem::take(&mut feed.bytes) {
                    bytes if !bytes.is_empty() => Step::Piece(bytes),
                    _ if feed.has_ended => Step::End,
                    _ => Step::Hungry,
                });
            }
            Decoding::Gzip(decoder) => decoder,
            Decoding::Brotli(decoder) => decoder,
            Decoding::Zstd(decoder) => decoder,
        };
        let mut piece = vec![0; PIECE_BYTES];
        match reader.read(&mut piece) {
            Ok(0) => Ok(Step::End),
            Ok(length) => {
                piece.truncate(length);
                Ok(Step::Piece(piece.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Hungry),
            Err(error) => Err(error),
        }
    }
}

/// Bytes that come from time to time.
#[derive(Default)]
pub struct Feed {
    bytes: Bytes,
    has_ended: bool,
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.bytes.is_empty() && !self.has_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes)
    }

    fn consume(&mut self, amount: usize) {
        self.bytes.advance(amount);
    }
}

impl Read for Feed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let length = from.len().min(to.len());
        to[..length].copy_from_slice(&from[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::HeaderValue;

    use super::*;

    fn decoding(coding: &str) -> Option<Decoding> {
        let value = HeaderValue::from_str(coding).unwrap();
        Decoding::of(&HeaderMap::from_iter([(header::CONTENT_ENCODING, value)]))
    }

    /// What comes of `bytes` that come `at_once` at a time.
    fn decoded(coding: &str, bytes: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
        let mut decoding = decoding(coding).unwrap();
        let (mut pieces, mut out) = (bytes.chunks(at_once), Vec::new());
        loop {
            match decoding.step()? {
                Step::Piece(piece) => out.extend_from_slice(&piece),
                Step::Hungry => decoding.feed(pieces.next().map(Bytes::copy_from_slice)),
                Step::End => return Ok(out),
            }
        }
    }

    fn text() -> Vec<u8> {
        (0..20_000).flat_map(|number: u32| format!("{{\"number\":{number}}},").into_bytes()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// `{"a":1}` by `brotli`, the reference program.
    const BROTLI: &[u8] = b"\x0b\x03\x80\x7b\x22\x61\x22\x3a\x31\x7d\x03";

    #[test]
    fn every_coding_comes_off_whatever_pieces_it_comes_in() {
        let text = text();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let twice = [gzip(&text[..1_000]), gzip(&text[1_000..])].concat();
        for at_once in [1, 7, 1_000, 1 << 20] {
            assert!(decoded("gzip", &gzip(&text), at_once).unwrap() == text, "gzip by {at_once}");
            assert!(decoded("X-GZIP", &twice, at_once).unwrap() == text, "two members by {at_once}");
            assert!(decoded("zstd", &zstd, at_once).unwrap() == text, "zstd by {at_once}");
            assert!(decoded("identity", &text, at_once).unwrap() == text, "identity by {at_once}");
            assert_eq!(decoded("br", BROTLI, at_once).unwrap(), br#"{"a":1}"#, "br by {at_once}");
        }
    }

    #[test]
    fn what_is_cut_off_or_broken_is_an_error() {
        let text = text();
        for (coding, whole) in
            [("gzip", gzip(&text)), ("zstd", zstd::encode_all(&text[..], 1).unwrap()), ("br", BROTLI.to_vec())]
        {
            for length in [1, whole.len() / 2, whole.len() - 1] {
                assert!(decoded(coding, &whole[..length], 100).is_err(), "{coding} cut off at {length}");
            }
            assert!(decoded(coding, b"{\"a\":1}", 100).is_err(), "{coding} that is none");
        }
        let mut wrong_sum = gzip(&text);
        let end = wrong_sum.len();
        wrong_sum[end - 8] ^= 1;
        assert!(decoded("gzip", &wrong_sum, 100).is_err());
    }

    #[test]
    fn a_bomb_is_let_off_in_small_pieces() {
        let bomb = zstd::encode_all(&vec![b'0'; 64 << 20][..], 1).unwrap();
        let mut decoding = decoding("zstd").unwrap();
        decoding.feed(Some(bomb.into()));
        let mut length = 0;
        while let Step::Piece(piece) = decoding.step().unwrap() {
            assert!(piece.len() <= PIECE_BYTES);
            length += piece.len();
        }
        assert_eq!(length, 64 << 20);
    }

    #[test]
    fn other_codings_are_not_known() {
        for coding in ["deflate", "compress", "gzip, br", "x"] {
            assert!(decoding(coding).is_none(), "{coding}");
        }
        assert!(Decoding::of(&HeaderMap::new()).is_some_and(|decoding| decoding.is_identity()));
        let wide = {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(27).unwrap();
            encoder.write_all(&text()).unwrap();
            encoder.finish().unwrap()
        };
        assert!(decoded("zstd", &wide, 1_000).is_err(), "128 MiB for the asking");
    }
}
