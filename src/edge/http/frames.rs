//! Floods of HTTP/2 frames that carry nothing of a call.
//!
//! h2 ends connections that take calls back faster than they begin, whose heads have no end, or that send empty bodies in
//! pieces. It answers each PING and SETTINGS, and reads PRIORITY, WINDOW_UPDATE, RST_STREAM and unknown frames, for as long
//! as they come: work that no limit of calls would count. So the kinds of frames are followed here on their way to h2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that fails once too many frames have brought nothing.
pub struct Calm<C> {
    connection: C,
    frames: Frames,
}

impl<C> Calm<C> {
    /// Follows `connection` from the first byte. `idle_max` frames in excess of what calls account for are too many.
    pub fn new(connection: C, idle_max: usize) -> Calm<C> {
        Calm { connection, frames: Frames::new(idle_max) }
    }
}

/// Follows the frames of a connection (RFC 9113 section 4.1).
#[derive(Debug)]
struct Frames {
    /// Bytes to come before the next frame: the rest of the preface, or of a payload.
    skip_bytes: usize,
    /// A frame's head, as far as it has arrived.
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Frames that may still bring nothing.
    idle_left: usize,
    idle_max: usize,
}

impl Frames {
    fn new(idle_max: usize) -> Frames {
        let preface_bytes = super::connection::PREFACE.len();
        Frames { skip_bytes: preface_bytes, head: [0; HEAD_BYTES], head_bytes: 0, idle_left: idle_max, idle_max }
    }

    /// Follows what was read; `false` when there have been too many.
    fn follow(&mut self, mut read: &[u8]) -> bool {
        loop {
            let skipped = self.skip_bytes.min(read.len());
            self.skip_bytes -= skipped;
            read = &read[skipped..];
            if read.is_empty() {
                return true;
            }
            let here = (HEAD_BYTES - self.head_bytes).min(read.len());
            self.head[self.head_bytes..][..here].copy_from_slice(&read[..here]);
            self.head_bytes += here;
            read = &read[here..];
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                let [high, middle, low, kind, ..] = self.head;
                self.skip_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
                match kind {
                    HEADERS => self.idle_left = (self.idle_left + IDLE_A_CALL).min(self.idle_max),
                    // Of these h2 itself bears only so many.
                    DATA | CONTINUATION => {}
                    _ => match self.idle_left.checked_sub(1) {
                        Some(left) => self.idle_left = left,
                        None => return false,
                    },
                }
            }
        }
    }
}

/// What comes before the payload: its length in three bytes, the kind, flags and stream.
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// How many frames a call accounts for: window updates above all.
const IDLE_A_CALL: usize = 100;

impl<C: AsyncRead + Unpin> AsyncRead for Calm<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let earlier = to.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(context, to))?;
        let calm = self.frames.follow(&to.filled()[earlier..]);
        Poll::Ready(if calm { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) })
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Calm<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::PREFACE;
    use super::*;

    const PING: u8 = 6;

    /// Frames of these kinds with payloads of these lengths.
    fn bytes(frames: &[(u8, u8)]) -> Vec<u8> {
        let of = |&(kind, length): &(u8, u8)| {
            [&[0, 0, length, kind, 0, 0, 0, 0, 1], &vec![kind; length.into()][..]].concat()
        };
        [PREFACE.to_vec(), frames.iter().flat_map(of).collect()].concat()
    }

    /// Whether `frames` are borne with `idle_max`, however they are cut into pieces.
    fn is_calm(idle_max: usize, frames: &[(u8, u8)]) -> bool {
        let bytes = bytes(frames);
        let in_pieces = |size: usize| {
            let mut frames = Frames::new(idle_max);
            bytes.chunks(size).all(|piece| frames.follow(piece))
        };
        let whole = in_pieces(bytes.len());
        assert!((1..40).all(|size| in_pieces(size) == whole));
        whole
    }

    #[test]
    fn frames_that_bring_nothing_are_borne_for_a_while_and_for_calls() {
        assert!(is_calm(3, &[(PING, 8); 3]));
        assert!(!is_calm(3, &[(PING, 8); 4]));
        assert!(!is_calm(3, &[(0xbe, 0), (PING, 8), (2, 5), (3, 4)]));
        // What a call brings does not count, and it makes room for others, up to the limit.
        assert!(is_calm(
            3,
            &[(DATA, 0), (DATA, 200), (CONTINUATION, 7), (HEADERS, 99), (PING, 8), (PING, 8), (PING, 8)]
        ));
        let call = [(PING, 8), (PING, 8), (PING, 8), (HEADERS, 9)];
        assert!(is_calm(3, &call.repeat(50)));
        assert!(!is_calm(3, &[&call[..], &[(PING, 8); 4]].concat()));
    }
}
