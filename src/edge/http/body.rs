//! The request body: read whole, capped in size and time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header;
use tokio::time::timeout;

use crate::gateway::{Admitted, Flow, Received};
use crate::pure::fault::Fault;

/// Reads the body of an admitted call. Bodies of GET and HEAD mean nothing (RFC 9110 section 9.3.1) and stay unread.
pub async fn read<B: Buf, E>(flow: Flow<Admitted>, stream: impl Stream<Item = Result<B, E>>) -> Flow<Received> {
    let call = flow?;
    if !call.state.request.may_have_body {
        return Ok(call.received(Bytes::new()));
    }
    let limits = &call.context.gateway.config.limits;
    let (limit_bytes, within) = (limits.body_bytes, limits.body_read_timeout);
    let announced =
        call.state.request.head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > limit_bytes as u64) {
        return Err(call.unread(Fault::BodyTooLarge { limit_bytes }));
    }
    let mut all = pin!(collect(stream, limit_bytes));
    // Most bodies have arrived with the head: a timer is made only for those that have not.
    let at_once = poll_fn(|context| Poll::Ready(all.as_mut().poll(context))).await;
    let result = match at_once {
        Poll::Ready(result) => result,
        Poll::Pending => timeout(within, all).await.unwrap_or(Err(Fault::RequestTimeout)),
    };
    match result {
        Ok(body) => Ok(call.received(body)),
        Err(fault) => Err(call.unread(fault)),
    }
}

/// All chunks as one; a single chunk is not copied.
async fn collect<B: Buf, E>(stream: impl Stream<Item = Result<B, E>>, limit_bytes: usize) -> Result<Bytes, Fault> {
    let mut stream = pin!(stream);
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        // It ended early, or its chunks are none.
        let mut chunk = chunk.map_err(|_| Fault::MalformedRequest)?;
        let chunk = chunk.copy_to_bytes(chunk.remaining());
        if whole.len() + parts.len() + chunk.len() > limit_bytes {
            return Err(Fault::BodyTooLarge { limit_bytes });
        }
        if whole.is_empty() && parts.is_empty() {
            whole = chunk;
        } else {
            parts.extend_from_slice(&std::mem::take(&mut whole));
            parts.extend_from_slice(&chunk);
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}
