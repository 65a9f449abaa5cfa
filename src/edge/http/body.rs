//! The request body: read whole, capped in size and time, and not too slowly.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header;
use tokio::time::{sleep, timeout};

use crate::config::Limits;
use crate::gateway::{Admitted, Flow, Received};
use crate::pure::fault::Fault;

/// Reads the body of an admitted call. Bodies of GET and HEAD mean nothing (RFC 9110 section 9.3.1) and stay unread.
pub async fn read<B: Buf, E>(flow: Flow<Admitted>, stream: impl Stream<Item = Result<B, E>>) -> Flow<Received> {
    let call = flow?;
    if !call.state.request.may_have_body {
        return Ok(call.received(Bytes::new()));
    }
    let limits = &call.context.gateway.config.limits;
    let limit_bytes = call.state.request.route.body_bytes;
    let announced =
        call.state.request.head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > limit_bytes as u64) {
        return Err(call.unread(Fault::BodyTooLarge { limit_bytes }));
    }
    let arrived_bytes = AtomicUsize::new(0);
    let mut all = pin!(collect(stream, limit_bytes, &arrived_bytes));
    // Most bodies have arrived with the head: a timer is made only for those that have not.
    let at_once = poll_fn(|context| Poll::Ready(all.as_mut().poll(context))).await;
    let result = match at_once {
        Poll::Ready(result) => result,
        Poll::Pending => in_time(all, &arrived_bytes, limits).await,
    };
    match result {
        Ok(body) => Ok(call.received(body)),
        Err(fault) => Err(call.unread(fault)),
    }
}

/// What `all` comes to, if it comes soon enough and by enough bytes a second.
async fn in_time(
    mut all: Pin<&mut impl Future<Output = Result<Bytes, Fault>>>,
    arrived_bytes: &AtomicUsize,
    limits: &Limits,
) -> Result<Bytes, Fault> {
    // What has arrived is worth so much time; when that is over, no more may have come.
    let worth = |bytes: usize| GRACE + Duration::from_secs_f64(bytes as f64 / limits.body_bytes_a_second as f64);
    let steady = async {
        let mut patience = pin!(sleep(GRACE));
        let start = patience.deadline() - GRACE;
        loop {
            tokio::select! {
                result = &mut all => return result,
                () = &mut patience => {}
            }
            let end = start + worth(arrived_bytes.load(Ordering::Relaxed));
            if end <= patience.deadline() {
                return Err(Fault::RequestTimeout);
            }
            patience.as_mut().reset(end);
        }
    };
    timeout(limits.body_read_timeout, steady).await.unwrap_or(Err(Fault::RequestTimeout))
}

/// How long a body may take to begin.
const GRACE: Duration = Duration::from_secs(3);

/// All chunks as one; a single chunk is not copied.
async fn collect<B: Buf, E>(
    stream: impl Stream<Item = Result<B, E>>,
    limit_bytes: usize,
    arrived_bytes: &AtomicUsize,
) -> Result<Bytes, Fault> {
    let mut stream = pin!(stream);
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        // It ended early, or its chunks are none.
        let mut chunk = chunk.map_err(|_| Fault::MalformedRequest)?;
        let chunk = chunk.copy_to_bytes(chunk.remaining());
        arrived_bytes.fetch_add(chunk.len(), Ordering::Relaxed);
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
