//! The bytes of a connection, in the clear or by TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection, whose first bytes can be looked at before they are read.
pub struct Stream {
    transport: Transport,
    /// What has been looked at and is still to be read.
    seen: Bytes,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// In the clear.
    pub fn plain(stream: TcpStream) -> Stream {
        Stream { transport: Transport::Plain(stream), seen: Bytes::new() }
    }

    /// By TLS, after the handshake.
    pub fn tls(stream: TlsStream<TcpStream>) -> Stream {
        Stream { transport: Transport::Tls(Box::new(stream)), seen: Bytes::new() }
    }

    /// Whether the client begins with `wanted`. Waits only until that is decided; asked once, before anything is read.
    pub async fn begins_with(&mut self, wanted: &[u8]) -> io::Result<bool> {
        let mut seen = Vec::with_capacity(wanted.len());
        while seen.len() < wanted.len() && wanted.starts_with(&seen) {
            let missing = (wanted.len() - seen.len()) as u64;
            if (&mut *self).take(missing).read_buf(&mut seen).await? == 0 {
                break;
            }
        }
        let begins = seen == wanted;
        self.seen = seen.into();
        Ok(begins)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.seen.is_empty() {
            let count = self.seen.len().min(to.remaining());
            to.put_slice(&self.seen[..count]);
            self.seen.advance(count);
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, to),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, to),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, from),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, from),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
