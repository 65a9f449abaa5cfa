//! Connections of HTTP/1.1 that are kept for the next request, those of each thread by itself.
//!
//! They are hyper's. hyper-util's client keeps them too, but what it does for each request is a tenth of a whole call.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use ahash::HashMap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use tokio::time::sleep;

use super::client::{HEAD_BYTES_MAX, HEAD_LINES_MAX, IDLE_MAX, IDLE_TIMEOUT};

/// Whose connections they are. They are kept for as long as it is.
#[derive(Debug)]
pub struct Owner {
    /// No others of this process have it.
    number: u64,
}

thread_local! {
    /// By the number of their owner and that of the target they lead to. The last that came back is the last of its list, and
    /// the first to be taken.
    static AT_REST: RefCell<HashMap<(u64, usize), AtRest>> = RefCell::default();
}

struct AtRest {
    owner: Weak<Owner>,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    usage: Arc<Usage>,
}

/// A connection that is in use. Dropped, it is kept for the next request, if it is still good for one by then.
#[derive(Debug)]
pub struct InUse {
    owner: Weak<Owner>,
    target: usize,
    /// Until it is dropped.
    connection: Option<Connection>,
}

impl Owner {
    /// One that has no connections.
    pub fn new() -> Arc<Owner> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Owner { number: NEXT.fetch_add(1, Relaxed) })
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A connection to its target of that number which has been used before, if there is one.
    pub fn take(self: &Arc<Owner>, target: usize) -> Option<InUse> {
        let connection = AT_REST.with_borrow_mut(|at_rest| {
            let connections = &mut at_rest.get_mut(&(self.number, target))?.connections;
            std::iter::from_fn(|| connections.pop()).find(|connection| connection.requests.is_ready())
        })?;
        connection.usage.enter(Usage::NOW);
        Some(InUse { owner: Arc::downgrade(self), target, connection: Some(connection) })
    }

    /// A connection to that target over `io`.
    ///
    /// # Errors
    /// hyper's, should it refuse to begin.
    pub async fn open<C>(self: &Arc<Owner>, target: usize, io: C) -> hyper::Result<InUse>
    where
        C: Read + Write + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_LINES_MAX).writev(false);
        let (requests, connection) = builder.handshake(io).await?;
        let usage = Arc::new(Usage(AtomicU8::new(Usage::NOW)));
        tokio::spawn(drive(connection, Arc::clone(&usage)));
        // Another configuration may have other owners: what those before have left goes now.
        AT_REST.with_borrow_mut(|at_rest| at_rest.retain(|_, at_rest| at_rest.owner.strong_count() > 0));
        let connection = Some(Connection { requests, usage });
        Ok(InUse { owner: Arc::downgrade(self), target, connection })
    }
}

/// Drives a connection to its end, or until nobody has used it for [`IDLE_TIMEOUT`] at most, and for half of that at least.
async fn drive(connection: impl Future<Output = hyper::Result<()>>, usage: Arc<Usage>) {
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            biased;
            // Whoever waits for an answer is told of its errors.
            _ = connection.as_mut() => return,
            () = sleep(IDLE_TIMEOUT / 2) => if usage.is_over() { return },
        }
    }
}

impl InUse {
    /// Sends a request, which has its `Host`.
    ///
    /// # Errors
    /// hyper's, with the request if nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let Connection { requests, .. } = self.connection.as_mut().expect("it is there until it is dropped");
        requests.try_send_request(request).await
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|connection| !connection.requests.is_closed());
        let (Some(connection), Some(owner)) = (connection, self.owner.upgrade()) else { return };
        connection.usage.enter(Usage::BEFORE);
        // Where the thread ends, so does the connection.
        let _ = AT_REST.try_with(|at_rest| {
            let mut at_rest = at_rest.borrow_mut();
            let new = || AtRest { owner: self.owner.clone(), connections: Vec::new() };
            let connections = &mut at_rest.entry((owner.number, self.target)).or_insert_with(new).connections;
            if connections.len() < IDLE_MAX {
                connections.push(connection);
            }
        });
    }
}

/// When a connection was last used, as far as its task has to know. All of it is in one thread.
#[derive(Debug)]
struct Usage(AtomicU8);

impl Usage {
    /// It is in use.
    const NOW: u8 = 0;
    /// It has been since its task last looked.
    const BEFORE: u8 = 1;
    /// It has not.
    const LONG_AGO: u8 = 2;

    fn enter(&self, usage: u8) {
        self.0.store(usage, Relaxed);
    }

    /// Looks whether nobody has used the connection since the last look.
    fn is_over(&self) -> bool {
        let usage = self.0.load(Relaxed);
        if usage == Usage::BEFORE {
            self.enter(Usage::LONG_AGO);
        }
        usage == Usage::LONG_AGO
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;

    use super::*;

    #[tokio::test]
    async fn connections_go_with_their_owner() {
        let at_rest =
            || AT_REST.with_borrow(|at_rest| at_rest.values().map(|it| it.connections.len()).collect::<Vec<_>>());
        let (io, _other_end) = tokio::io::duplex(64);
        let owner = Owner::new();
        drop(owner.open(0, TokioIo::new(io)).await.unwrap());
        tokio::task::yield_now().await;
        assert_eq!(at_rest(), [1]);
        let used = owner.take(0).unwrap();
        assert!(owner.take(0).is_none() && owner.take(1).is_none());
        drop(used);
        drop(owner);
        let (io, _other_end) = tokio::io::duplex(64);
        let next = Owner::new();
        let in_use = next.open(0, TokioIo::new(io)).await.unwrap();
        assert_eq!(at_rest(), [0; 0]);
        drop(next);
        drop(in_use);
        assert_eq!(at_rest(), [0; 0], "nobody will ask for it");
    }

    #[test]
    fn a_connection_is_given_up_when_nobody_has_used_it_between_two_looks() {
        let usage = Usage(AtomicU8::new(Usage::NOW));
        assert!(!usage.is_over() && !usage.is_over(), "a call may take as long as it likes");
        usage.enter(Usage::BEFORE);
        assert!(!usage.is_over());
        usage.enter(Usage::NOW);
        usage.enter(Usage::BEFORE);
        assert!(!usage.is_over(), "it has been used since");
        assert!(usage.is_over());
    }
}
