//! Requests whose ends are in doubt, although hyper reads them.
//!
//! How long a request is has to be beyond doubt: where a proxy before us sees its end elsewhere, what one of the two takes
//! for a body the other takes for a request. hyper takes `Transfer-Encoding` and hides the `Content-Length` beside it, takes
//! lines that end without a carriage return, and both are allowed (RFC 9112 sections 2.2 and 6.3); we refuse them. That
//! shows only in the bytes themselves, so they are followed here on their way to hyper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Request;
use memchr::memchr;

/// The mark of a request that comes after a doubtful head, or is it.
#[derive(Clone, Copy, Debug)]
pub struct DoubtfulFraming;

/// Whether the framing of a connection is in doubt. Once it is, it stays so.
#[derive(Clone, Debug, Default)]
pub struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// Marks `request` if there is a doubt.
    pub fn mark<B>(&self, mut request: Request<B>) -> Request<B> {
        if self.exists() {
            request.extensions_mut().insert(DoubtfulFraming);
        }
        request
    }

    fn exists(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Follows the requests of a connection, to see where each of them ends.
pub struct Framing {
    place: Place,
    /// The length that the head under way announces.
    length: Option<Length>,
    line: Line,
    doubt: Doubt,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Head,
    /// A body, or a chunk with the line end behind it, of which so many bytes are still to come.
    Body {
        bytes: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    Bytes(u64),
    Chunked,
}

impl Framing {
    /// Follows a connection from its first byte, and tells `doubt`.
    pub fn new(doubt: Doubt) -> Framing {
        Framing { place: Place::Head, length: None, line: Line::default(), doubt }
    }

    /// Follows what was read.
    pub fn follow(&mut self, mut read: &[u8]) {
        while !read.is_empty() && !self.doubt.exists() {
            if let Place::Body { bytes, chunked } = self.place {
                let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(read.len());
                read = &read[here..];
                self.place = match bytes - here as u64 {
                    0 if chunked => Place::ChunkSize,
                    0 => Place::Head,
                    bytes => Place::Body { bytes, chunked },
                };
            } else {
                let end = memchr(b'\n', read);
                let (part, rest) = read.split_at(end.unwrap_or(read.len()));
                if end.is_none() {
                    return self.line.add(part);
                }
                read = &rest[1..];
                // Most lines arrive whole.
                let next = if self.line.is_empty() {
                    self.after(Line::start(part), part.last())
                } else {
                    self.line.add(part);
                    let line = std::mem::take(&mut self.line);
                    self.after(&line.start[..line.kept], Some(&line.last))
                };
                match next {
                    Some(place) => self.place = place,
                    None => self.doubt.0.store(true, Ordering::Relaxed),
                }
            }
        }
    }

    /// The place behind a line that starts with `start`, the line end not included, and ends in `last`; `None` when in doubt.
    fn after(&mut self, start: &[u8], last: Option<&u8>) -> Option<Place> {
        if last != Some(&b'\r') {
            return None;
        }
        let is_blank = start == b"\r";
        match (self.place, is_blank) {
            (Place::Head, false) => {
                if let Some(length) = length(start)? {
                    // Two lines that say the same are one too many, too.
                    return self.length.replace(length).is_none().then_some(Place::Head);
                }
                Some(Place::Head)
            }
            (Place::Head, true) => Some(match self.length.take() {
                Some(Length::Chunked) => Place::ChunkSize,
                Some(Length::Bytes(bytes @ 1..)) => Place::Body { bytes, chunked: false },
                _ => Place::Head,
            }),
            (Place::ChunkSize, _) => {
                let digits = start.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let bytes = u64::from_str_radix(std::str::from_utf8(&start[..digits]).ok()?, 16).ok()?;
                Some(match bytes {
                    0 => Place::Trailers,
                    _ => Place::Body { bytes: bytes.checked_add(2)?, chunked: true },
                })
            }
            (Place::Trailers, true) => Some(Place::Head),
            (place, _) => Some(place),
        }
    }
}

/// What the start of a line says of the length of the body, if that is what the line is about; `None` when in doubt.
fn length(start: &[u8]) -> Option<Option<Length>> {
    // Nearly all lines are about something else.
    if !matches!(start.first(), Some(b'c' | b'C' | b't' | b'T')) {
        return Some(None);
    }
    let value_of =
        |name: &[u8]| start.split_at_checked(name.len()).filter(|(start, _)| start.eq_ignore_ascii_case(name));
    if let Some((_, value)) = value_of(b"content-length:") {
        let digits = std::str::from_utf8(value.trim_ascii()).ok().filter(|digits| !digits.starts_with('+'))?;
        // A line that is longer than what is kept of it ends in something else, and is as good as unreadable.
        return (start.len() < START_BYTES).then_some(Some(Length::Bytes(digits.parse().ok()?)));
    }
    Some(value_of(b"transfer-encoding:").map(|_| Length::Chunked))
}

/// As much of a line as tells what it is about: a name, white space and twenty digits.
const START_BYTES: usize = 64;

/// A line that has not arrived whole.
struct Line {
    start: [u8; START_BYTES],
    kept: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Line {
        Line { start: [0; START_BYTES], kept: 0, last: 0 }
    }
}

impl Line {
    fn start(whole: &[u8]) -> &[u8] {
        &whole[..whole.len().min(START_BYTES)]
    }

    fn is_empty(&self) -> bool {
        self.kept == 0
    }

    fn add(&mut self, part: &[u8]) {
        let here = part.len().min(START_BYTES - self.kept);
        self.start[self.kept..][..here].copy_from_slice(&part[..here]);
        self.kept += here;
        self.last = part.last().copied().unwrap_or(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::{Doubt, Framing, Place};

    /// Whether requests are in doubt, however they are cut into pieces.
    #[track_caller]
    fn is_doubtful(requests: &str) -> bool {
        let of_pieces = |bytes: usize| {
            let doubt = Doubt::default();
            let mut framing = Framing::new(doubt.clone());
            requests.as_bytes().chunks(bytes).for_each(|piece| framing.follow(piece));
            (doubt.exists(), framing.place)
        };
        let whole = of_pieces(usize::MAX);
        for bytes in 1..=requests.len() {
            assert_eq!(of_pieces(bytes), whole, "pieces of {bytes} bytes of {requests:?}");
        }
        assert!(whole.0 || whole.1 == Place::Head, "{requests:?} does not end between two requests: {:?}", whole.1);
        whole.0
    }

    #[test]
    fn requests_of_one_length_are_beyond_doubt() {
        let filler = "a".repeat(200);
        let requests = [
            "GET / HTTP/1.1\r\nHost: t\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-LENGTH: \t3 \r\n\r\na\nb",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nContent-Type: a\r\nTE: trailers\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n1F ;a=\"b\"\r\n0123456789012345678901234567890\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00\r\nContent-Length: 7\r\nTrailer: a\r\n\r\n",
            // A body may say what it likes.
            "POST / HTTP/1.1\r\nContent-Length: 41\r\n\r\n\nContent-Length: 1\nTransfer-Encoding: x\r\n\r\n",
            &format!("GET /{filler} HTTP/1.1\r\nContent-Filler: {filler}\r\n\r\n"),
        ];
        for request in requests {
            assert!(!is_doubtful(request), "{request:?}");
        }
        assert!(!is_doubtful(&requests.concat()));
    }

    #[test]
    fn two_lengths_and_lines_that_end_in_doubt_are_seen() {
        for head in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 3\r\n\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Content-Length: +3\r\n\r\n",
            "Content-Length: 3, 3\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "X: y\n\r\n",
            "X: y\r\n\n",
            "Transfer-Encoding: chunked\r\n\r\n1\na\r\n",
            "Transfer-Encoding: chunked\r\n\r\nx\r\n",
            "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n",
        ] {
            assert!(is_doubtful(&format!("POST / HTTP/1.1\r\n{head}")), "{head:?}");
            assert!(is_doubtful(&format!("GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n{head}")), "{head:?}");
        }
        let padded = format!("POST / HTTP/1.1\r\nContent-Length: {}3\r\n\r\n", " ".repeat(100));
        assert!(is_doubtful(&padded));
    }
}
