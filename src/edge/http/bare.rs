//! Answers to what is no HTTP.
//!
//! hyper answers a request line or a header that it cannot read by itself, with an empty body, and offers no way to say
//! more. Every answer of ours has a request id; one that leaves without it is hyper's, and goes out as ours instead.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::{Current, Refused};
use crate::pure::fault::Fault;

use super::framing::{Doubt, Framing};
use super::{claim, seal};

/// A connection on which no bare answer leaves, and whose requests are watched for [doubtful framing](super::framing).
pub struct Dressed<C> {
    connection: C,
    gateway: Arc<Current>,
    peer: IpAddr,
    /// What is still to be sent in place of a bare answer.
    instead: Bytes,
    framing: Framing,
}

impl<C> Dressed<C> {
    /// Wraps a connection whose other end is `peer`. Should the framing of its requests be in doubt, `doubt` is told.
    pub fn new(connection: C, gateway: Arc<Current>, peer: IpAddr, doubt: Doubt) -> Dressed<C> {
        Dressed { connection, gateway, peer, instead: Bytes::new(), framing: Framing::new(doubt) }
    }

    /// The answer to send in place of `written`, if that is a bare one.
    fn dress(&self, written: &[u8]) -> Option<Bytes> {
        // hyper answers in the version of the request before.
        let is_http = written.starts_with(b"HTTP/1.1 4") || written.starts_with(b"HTTP/1.0 4");
        if !is_http || !written.ends_with(b"\r\n\r\n") || memmem::find(written, b"\r\nx-request-id: ").is_some() {
            return None;
        }
        let fault = match &written[9..12] {
            b"414" | b"431" => Fault::HeadersTooLarge,
            _ => Fault::MalformedRequest,
        };
        let context = claim::context(&self.gateway.load(), &HeaderMap::new(), self.peer);
        let mut response = seal::seal(Err(Refused { context, fault }));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let date = memmem::find(written, b"\r\ndate: ").map_or(&b""[..], |at| &written[at + 2..]);
        let date = date.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut text = Vec::with_capacity(1024);
        text.extend_from_slice(format!("HTTP/1.1 {}\r\n", response.status()).as_bytes());
        for (name, value) in response.headers() {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        let body = response.into_body().collect().now_or_never()?.ok()?.to_bytes();
        text.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        text.extend_from_slice(date);
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(&body);
        Some(text.into())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Dressed<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let earlier = to.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(context, to))?;
        self.framing.follow(&to.filled()[earlier..]);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Dressed<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_empty() {
            match this.dress(from) {
                Some(answer) => this.instead = answer,
                None => return Pin::new(&mut this.connection).poll_write(context, from),
            }
        }
        while !this.instead.is_empty() {
            let sent = ready!(Pin::new(&mut this.connection).poll_write(context, &this.instead))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.instead = this.instead.slice(sent..);
        }
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
