//! Connections to targets. Each worker thread has its own, so that a call stays on its core.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use super::UpstreamError;
use crate::config::UpstreamApi;
use crate::pure::fault::Fault;
use crate::pure::upstream::target::Base;
use crate::state::authorities;

/// The longest head of an answer, bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most header lines of an answer.
const HEAD_LINES_MAX: usize = 256;
/// How long a connection is kept that nobody uses. Most servers keep theirs for longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that each thread keeps to a target when nobody uses them.
const IDLE_MAX: usize = 64;
/// What may be under way to us on a stream of HTTP/2 before somebody reads it.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// How long a connection that idles is taken to be alive without asking, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// How the targets of one API are connected to.
#[derive(Debug)]
pub struct Clients(Arc<Terms>);

#[derive(Debug)]
struct Terms {
    /// No others of this process have it.
    number: u64,
    connect_timeout: Duration,
    http2: bool,
    tls: ClientConfig,
}

thread_local! {
    static MINE: RefCell<HashMap<(u64, bool), Own>> = RefCell::default();
}

/// A client of one thread, for the targets of one API that are reached by http or by https. It goes when there is a new one
/// and its API is no more.
struct Own {
    terms: Weak<Terms>,
    client: Http,
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

    /// What it is, in the words of those who noticed: none of them has seen more of a request than its address.
    pub fn reason(error: &legacy::Error) -> String {
        causes(error).last().map(ToString::to_string).unwrap_or_default()
    }

    fn of(error: &legacy::Error) -> Failure {
        let has_timed_out = causes(error).any(|cause| {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            kind == Some(io::ErrorKind::TimedOut)
        });
        let http = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
        match http {
            _ if error.is_connect() && has_timed_out => Failure::ConnectTimeout,
            _ if error.is_connect() => Failure::Connect,
            Some(error) if error.is_parse() => Failure::Unreadable,
            _ => Failure::Lost,
        }
    }
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
            .with_root_certificates(roots)
            .with_no_client_auth();
        let UpstreamApi { connect_timeout, http2, .. } = *settings;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Clients(Arc::new(Terms { number: NEXT.fetch_add(1, Relaxed), connect_timeout, http2, tls })))
    }

    /// Sends a request to the target at `base`.
    ///
    /// # Errors
    /// Why there is no answer, and that in words.
    pub async fn send(
        &self,
        base: &Base,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (Failure, String)> {
        let answered = self.mine(base.is_https()).request(request);
        answered.await.map_err(|error| (Failure::of(&error), Failure::reason(&error)))
    }

    fn mine(&self, is_https: bool) -> Http {
        MINE.with_borrow_mut(|mine| {
            let place = (self.0.number, is_https);
            if let Some(own) = mine.get(&place) {
                return own.client.clone();
            }
            mine.retain(|_, own| own.terms.strong_count() > 0);
            let own = Own { terms: Arc::downgrade(&self.0), client: self.0.client(is_https) };
            mine.entry(place).or_insert(own).client.clone()
        })
    }
}

impl Terms {
    fn client(&self, is_https: bool) -> Http {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.connect_timeout));
        let https = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_or_http();
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            // Over TLS, the two agree on it.
            .http2_only(self.http2 && !is_https)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEAD_LINES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(if self.http2 {
                https.enable_all_versions().wrap_connector(http)
            } else {
                https.enable_http1().wrap_connector(http)
            })
    }
}
