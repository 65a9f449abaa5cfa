//! How requests come to targets, and why they do not.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::TrustAnchor;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::UpstreamError;
use super::pool::{InUse, Owner};
use crate::config::UpstreamApi;
use crate::pure::fault::Fault;
use crate::pure::upstream::target::Base;
use crate::state::authorities;

/// The longest head of an answer, bytes.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most header lines of an answer.
pub(super) const HEAD_LINES_MAX: usize = 256;
/// How long a connection is kept that nobody uses. Most servers keep theirs for longer.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that each thread keeps to a target when nobody uses them.
pub(super) const IDLE_MAX: usize = 64;
/// What may be under way to us on a stream of HTTP/2 before somebody reads it.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// How long a connection that idles is taken to be alive without asking, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What makes connections, TLS included, in the time they may take.
#[derive(Clone, Debug)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connection = timeout(self.timeout, self.https.call(uri));
        Box::pin(async { connection.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) })
    }
}

/// hyper-util's client, which speaks HTTP/2 wherever it can.
type Http2 = Client<Connector, Full<Bytes>>;

/// How the targets of one API are connected to.
#[derive(Debug)]
pub struct Clients(Arc<Terms>);

#[derive(Debug)]
struct Terms {
    owner: Arc<Owner>,
    http2: bool,
    connector: Connector,
    /// What a file of certificate authorities holds, if there is one.
    trusted: Option<Vec<TrustAnchor<'static>>>,
}

thread_local! {
    static MINE: RefCell<HashMap<(u64, bool), Own>> = RefCell::default();
}

/// A client of one thread, for the targets of one API that are reached by http or by https. It goes when there is a new one
/// and its API is no more.
struct Own {
    terms: Weak<Terms>,
    client: Http2,
}

/// How an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection: nothing has been sent.
    Connect,
    /// There was none in time.
    ConnectTimeout,
    /// The connection ended without an answer.
    Lost,
    /// There was no answer in time.
    Timeout,
    /// The answer is no HTTP, or its head is too long.
    Unreadable,
}

impl Failure {
    /// What the caller is told.
    pub fn fault(self) -> Fault {
        match self {
            Failure::Connect | Failure::Lost => Fault::UpstreamUnreachable,
            Failure::ConnectTimeout | Failure::Timeout => Fault::UpstreamTimeout,
            Failure::Unreadable => Fault::UpstreamUnreadable,
        }
    }

    /// Whether nothing of the request has reached the target.
    pub fn is_unsent(self) -> bool {
        matches!(self, Failure::Connect | Failure::ConnectTimeout)
    }
}

/// With a connection: it has been lost, or what came over it is no answer.
fn of_answer(error: &(dyn Error + 'static)) -> (Failure, String) {
    let http = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let failure = if http.is_some_and(hyper::Error::is_parse) { Failure::Unreadable } else { Failure::Lost };
    (failure, reason(error))
}

/// Without one.
fn of_connection(error: &(dyn Error + 'static)) -> (Failure, String) {
    let is_late = |cause: &io::Error| cause.kind() == io::ErrorKind::TimedOut;
    let has_timed_out = causes(error).any(|cause| cause.downcast_ref().is_some_and(is_late));
    (if has_timed_out { Failure::ConnectTimeout } else { Failure::Connect }, reason(error))
}

/// What has gone wrong, in the words of those who noticed: none of them has seen more of a request than its address.
fn reason(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// An error and what led to it.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

impl Clients {
    /// The terms of an API.
    ///
    /// # Errors
    /// As of [`Upstream::new`](super::Upstream::new).
    pub fn new(settings: &UpstreamApi) -> Result<Clients, UpstreamError> {
        let api = || settings.name.clone();
        let roots: Arc<RootCertStore> = match &settings.ca {
            Some(file) => authorities::of_file(file)
                .map_err(|cause| UpstreamError::Certificates { api: api(), file: file.clone(), cause })?
                .into(),
            None if settings.targets.iter().any(Base::is_https) => {
                authorities::system().map_err(|cause| UpstreamError::NoAuthorities { api: api(), cause })?.roots
            }
            // A machine that needs none may have none.
            None => RootCertStore::empty().into(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has all versions")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.connect_timeout));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let https = if settings.http2 {
            https.enable_all_versions().wrap_connector(http)
        } else {
            https.enable_http1().wrap_connector(http)
        };
        let connector = Connector { https, timeout: settings.connect_timeout };
        let trusted = settings.ca.is_some().then(|| roots.roots.clone());
        Ok(Clients(Arc::new(Terms { owner: Owner::new(), http2: settings.http2, connector, trusted })))
    }

    /// Whether they go by the file of certificate authorities as it is now, if their API names one.
    pub fn are_up_to_date(&self, settings: &UpstreamApi) -> bool {
        let now = settings.ca.as_deref().map(authorities::of_file).transpose();
        now.is_ok_and(|now| now.map(|now| now.roots) == self.0.trusted)
    }

    /// Sends a request to the target of that number, whose address is `base`. The connection that comes with the answer is to
    /// be held for as long as the body is read.
    ///
    /// # Errors
    /// Why there is no answer, and that in words.
    pub async fn send(
        &self,
        target: usize,
        base: &Base,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Option<InUse>), (Failure, String)> {
        if self.0.http2 {
            let answered = self.mine(base.is_https()).request(request).await;
            return answered
                .map(|response| (response, None))
                .map_err(|error| if error.is_connect() { of_connection(&error) } else { of_answer(&error) });
        }
        let mut request = base.addressed(request);
        while let Some(mut connection) = self.0.owner.take(target) {
            match connection.send(request).await {
                Ok(response) => return Ok((response, Some(connection))),
                Err(mut error) => match error.take_message() {
                    // The target has closed the connection meanwhile, and nothing was sent over it.
                    Some(unsent) => request = unsent,
                    None => return Err(of_answer(error.error())),
                },
            }
        }
        // Boxed, because it is large, and most requests find a connection.
        let mut connection = Box::pin(self.open(target, base)).await?;
        match connection.send(request).await {
            Ok(response) => Ok((response, Some(connection))),
            Err(error) => Err(of_answer(error.error())),
        }
    }

    async fn open(&self, target: usize, base: &Base) -> Result<InUse, (Failure, String)> {
        let io = self.0.connector.clone().call(base.uri()).await.map_err(|error| of_connection(&*error))?;
        self.0.owner.open(target, io).await.map_err(|error| of_answer(&error))
    }

    fn mine(&self, is_https: bool) -> Http2 {
        MINE.with_borrow_mut(|mine| {
            let whose = (self.0.owner.number(), is_https);
            if let Some(own) = mine.get(&whose) {
                return own.client.clone();
            }
            mine.retain(|_, own| own.terms.strong_count() > 0);
            let own = Own { terms: Arc::downgrade(&self.0), client: self.0.client(is_https) };
            mine.entry(whose).or_insert(own).client.clone()
        })
    }
}

impl Terms {
    fn client(&self, is_https: bool) -> Http2 {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            // Over TLS, the two agree on it.
            .http2_only(!is_https)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEAD_LINES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(self.connector.clone())
    }
}
