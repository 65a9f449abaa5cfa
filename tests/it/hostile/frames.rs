//! HTTP/2 by hand: frames as bytes, sent whatever the rules say, and the frames that come back.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Kinds of frames and flags (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status that HEADERS begin with: a place in the static table, or spelt out (RFC 7541 appendix A). The end of the
    /// dynamic table, which [`Wire`] asks for, may stand before it.
    pub fn status(&self) -> u16 {
        const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match self.payload.strip_prefix(&[0x20]).unwrap_or(&self.payload) {
            [place @ 0x88..=0x8e, ..] => STATIC[usize::from(place - 0x88)],
            [0x08 | 0x48, 3, text @ ..] => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
            [0x08 | 0x48, length, text @ ..] => {
                // Huffman's code of digits: 0 to 2 in five bits, 3 to 9 in six (RFC 7541 appendix B).
                let bits: String =
                    text[..usize::from(length & 0x7f)].iter().map(|byte| format!("{byte:08b}")).collect();
                let (mut bits, mut status) = (&bits[..], 0);
                for _ in 0..3 {
                    let five = u16::from_str_radix(&bits[..5], 2).unwrap();
                    let six = u16::from_str_radix(&bits[..6], 2).unwrap();
                    let (digit, length) = if five < 3 { (five, 5) } else { (six - 0b01_1001 + 3, 6) };
                    status = status * 10 + digit;
                    bits = &bits[length..];
                }
                status
            }
            other => panic!("{other:x?}"),
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header line without compression or a place in the table (RFC 7541 section 6.2.2).
pub fn line(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [integer(0x00, 7, text.len()), text.as_bytes().to_vec()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// An integer behind `bits` of the first byte (RFC 7541 section 5.1).
pub fn integer(first: u8, bits: u8, mut value: usize) -> Vec<u8> {
    let max = (1 << bits) - 1;
    if value < max {
        return vec![first | value as u8];
    }
    let mut all = vec![first | max as u8];
    value -= max;
    while value >= 128 {
        all.push(value as u8 | 128);
        value /= 128;
    }
    all.push(value as u8);
    all
}

/// The head of a GET, whose answers are in YAML.
pub fn head(path: &str) -> Vec<u8> {
    [
        vec![0x82, 0x86],
        line(":path", path),
        line(":authority", "t"),
        line("accept", "application/yaml"),
        line("x-request-id", "by-hand"),
    ]
    .concat()
}

/// A connection that has said what HTTP/2 begins with.
pub struct Wire(pub TcpStream);

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        let mut wire = Wire(stream);
        // Without a table, heads can be read by themselves (SETTINGS_HEADER_TABLE_SIZE = 0).
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat());
        wire
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next frame, until the other end closes.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("{error}"),
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], stream, payload })
    }

    /// Sends `first`, and then `next` of 0, 1, 2, … until the other end hangs up, which it has to within `count_max`. The
    /// code that it gives, if it gives one.
    pub fn flood(mut self, first: &[u8], count_max: u32, mut next: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
        self.0.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut reader = Wire(self.0.try_clone().unwrap());
        let read = thread::spawn(move || {
            let mut code = None;
            while let Some(frame) = reader.next() {
                code = if frame.kind == GOAWAY { Some(frame.code()) } else { code };
            }
            code
        });
        let mut sent = self.0.write_all(first);
        let mut number = 0;
        while sent.is_ok() && !read.is_finished() {
            assert!(number < count_max, "the connection goes on");
            let batch: Vec<u8> = (number..number + 100).flat_map(&mut next).collect();
            number += 100;
            sent = self.0.write_all(&batch);
        }
        let code = read.join().unwrap();
        if let Err(error) = sent {
            assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        }
        code
    }
}
