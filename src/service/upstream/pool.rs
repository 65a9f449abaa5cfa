//! Connections of HTTP/1.1 that are kept for the next request, those of each thread by itself.
//!
//! They are hyper's. hyper-util's client keeps them too, but what it does for each request is a tenth of a whole call.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

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

/// The number of an API, and that of the target among its own.
pub type Place = (u64, usize);

thread_local! {
    /// The last that came back is the last of its list, and the first to be taken.
    static AT_REST: RefCell<HashMap<Place, Vec<Connection>>> = RefCell::default();
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    usage: Arc<Usage>,
}

/// A connection that is in use. Dropped, it is kept for the next request, if it is still good for one by then.
#[derive(Debug)]
pub struct InUse {
    place: Place,
    /// Until it is dropped.
    connection: Option<Connection>,
}

/// A connection to `place` that has been used before, if there is one.
pub fn take(place: Place) -> Option<InUse> {
    let connection = AT_REST.with_borrow_mut(|at_rest| {
        let connections = at_rest.get_mut(&place)?;
        std::iter::from_fn(|| connections.pop()).find(|connection| connection.requests.is_ready())
    })?;
    connection.usage.enter(Usage::NOW);
    Some(InUse { place, connection: Some(connection) })
}

/// A connection to `place` over `io`.
///
/// # Errors
/// hyper's, should it refuse to begin.
pub async fn open<C: Read + Write + Unpin + Send + 'static>(place: Place, io: C) -> hyper::Result<InUse> {
    let mut builder = Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_LINES_MAX).writev(false);
    let (requests, connection) = builder.handshake(io).await?;
    let usage = Arc::new(Usage(AtomicU8::new(Usage::NOW)));
    tokio::spawn(drive(connection, Arc::clone(&usage)));
    Ok(InUse { place, connection: Some(Connection { requests, usage }) })
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
        let Some(connection) = self.connection.take().filter(|connection| !connection.requests.is_closed()) else {
            return;
        };
        connection.usage.enter(Usage::BEFORE);
        // Where the thread ends, so does the connection.
        let _ = AT_REST.try_with(|at_rest| {
            let mut at_rest = at_rest.borrow_mut();
            let connections = at_rest.entry(self.place).or_default();
            if connections.len() < IDLE_MAX {
                connections.push(connection);
            }
        });
    }
}

/// When a connection was last used, as far as its task has to know.
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
    use super::*;

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
