//! The bodies of answers on their way out. One that is streamed is part of its call, and does not wait for its client for
//! ever.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;

use super::progress::Begun;

/// Over HTTP/2 a client can leave answers where they are, as many as it has streams. Up to so many bytes, one may stay.
const LEFT_BYTES_MAX: u64 = 1 << 10;

/// The body of an answer.
pub enum Outgoing<B> {
    /// All of it is there.
    Whole(B),
    /// It leaves while it is still coming in, or is too long to be left lying.
    Streamed(Arc<Streamed<B>>),
}

/// A body that is streamed, for the protocol that asks for it and for who watches over it.
pub struct Streamed<B>(Mutex<Held<B>>);

struct Held<B> {
    /// Until it ends, or its client has had time enough.
    body: Option<B>,
    begun: Option<Begun>,
    /// How often it was asked for.
    asked: u64,
    /// Whether it waits for more to come in, and not for its client.
    is_waiting: bool,
}

impl<B> Streamed<B> {
    fn held(&self) -> MutexGuard<'_, Held<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body + Send + 'static> Outgoing<B> {
    /// The body of an answer to the call that `begun` holds. Over HTTP/2, where streams stand still one by one, a client gets
    /// `patience` to take each piece; connections of HTTP/1.1 are watched as a whole.
    pub fn new(body: B, begun: Begun, patience: Duration) -> Outgoing<B> {
        let (length, is_http2) = (body.size_hint().exact(), begun.is_http2());
        if length.is_some_and(|length| !is_http2 || length <= LEFT_BYTES_MAX) {
            return Outgoing::Whole(body);
        }
        let held = Held { body: Some(body), begun: Some(begun), asked: 0, is_waiting: false };
        let streamed = Arc::new(Streamed(Mutex::new(held)));
        if is_http2 {
            tokio::spawn(watch(Arc::downgrade(&streamed), patience));
        }
        Outgoing::Streamed(streamed)
    }
}

/// Lets go of a body, and with it of its call, once its client has not asked for more for so long.
async fn watch<B>(streamed: Weak<Streamed<B>>, patience: Duration) {
    let mut asked_before = 0;
    loop {
        sleep(patience).await;
        let Some(streamed) = streamed.upgrade() else { return };
        let mut held = streamed.held();
        if held.asked == asked_before && !held.is_waiting {
            let given_up = (held.body.take(), held.begun.take());
            // Neither is dropped while the lock is held.
            drop(held);
            return drop(given_up);
        }
        asked_before = held.asked;
    }
}

/// Its client took too long.
#[derive(Debug, thiserror::Error)]
#[error("the client has not taken the answer")]
struct NotTaken;

impl<B: Body + Unpin> Body for Outgoing<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let streamed = match &mut *self {
            Outgoing::Whole(body) => return Pin::new(body).poll_frame(context).map_err(Into::into),
            Outgoing::Streamed(streamed) => streamed,
        };
        let mut held = streamed.held();
        let Some(body) = &mut held.body else { return Poll::Ready(Some(Err(Box::new(NotTaken)))) };
        let polled = Pin::new(body).poll_frame(context);
        held.asked += 1;
        held.is_waiting = polled.is_pending();
        match &polled {
            Poll::Ready(Some(Ok(_))) => held.begun.iter().for_each(|begun| begun.streams(true)),
            Poll::Ready(_) => held.begun = None,
            Poll::Pending => held.begun.iter().for_each(|begun| begun.streams(false)),
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(body) => body.is_end_stream(),
            Outgoing::Streamed(streamed) => streamed.held().body.as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(body) => body.size_hint(),
            Outgoing::Streamed(streamed) => {
                streamed.held().body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
            }
        }
    }
}
