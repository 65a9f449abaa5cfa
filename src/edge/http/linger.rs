//! The end of a connection whose client may still be sending.
//!
//! Closing a connection with bytes in it that nobody has read makes the system reset it, and a reset can take the answer
//! from a client that has not read it yet. So the side that writes is closed first, and what still comes is thrown away
//! until the client closes too, for as long and as much as is bearable (RFC 9112 section 9.6).

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::progress::Progress;

/// A connection that is read to its end after it has been shut down, unless it was idle.
pub struct Lingering<C> {
    connection: C,
    progress: Arc<Progress>,
    is_shut_down: bool,
    /// How much more is thrown away.
    bytes_left: usize,
}

impl<C> Lingering<C> {
    /// Lets `connection` end in order. `progress` ends it when that takes too long.
    pub fn new(connection: C, progress: Arc<Progress>) -> Lingering<C> {
        Lingering { connection, progress, is_shut_down: false, bytes_left: BYTES_MAX }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Lingering<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, to)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut_down {
            ready!(Pin::new(&mut this.connection).poll_shutdown(context))?;
            this.is_shut_down = true;
            // Nobody was saying anything.
            if this.progress.is_closing() {
                return Poll::Ready(Ok(()));
            }
            this.progress.lingers();
        }
        while this.bytes_left > 0 {
            let mut bytes = [MaybeUninit::uninit(); 4096];
            let mut to = ReadBuf::uninit(&mut bytes);
            let read = ready!(Pin::new(&mut this.connection).poll_read(context, &mut to));
            if read.is_err() || to.filled().is_empty() {
                break;
            }
            this.bytes_left = this.bytes_left.saturating_sub(to.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

/// The most that is thrown away. Reading it costs a few milliseconds.
const BYTES_MAX: usize = 16 * 1024 * 1024;
