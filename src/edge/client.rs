//! The client by which Polygate itself sends something over HTTP, and what it says when that fails.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::state::authorities::{self, Authorities};

/// What the program calls itself.
pub const AGENT: &str = concat!("polygate/", env!("CARGO_PKG_VERSION"));
/// How long a receiver may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests, encrypted where their address says so.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for the receiver at `uri` that keeps no connection: it is used seldom, and receivers close what is idle. Fails
/// where the receiver is to be trusted by the certificate authorities of the system, and there are none; `key` says in the
/// configuration where it is.
pub fn new(key: &str, uri: &Uri) -> io::Result<HttpClient> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let roots = if uri.scheme() == Some(&Scheme::HTTPS) { trusted(key)?.roots } else { RootCertStore::empty().into() };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https))
}

/// The certificate authorities by which the receiver is trusted that `key` names.
pub fn trusted(key: &str) -> io::Result<Authorities> {
    authorities::system().map_err(|error| io::Error::other(format!("{key}: {error}")))
}

/// In a few words, why a request got no answer.
pub fn explain(error: &legacy::Error) -> String {
    let told = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    let text = match told {
        Some(error) if error.is_incomplete_message() => "connection closed without an answer",
        Some(error) if error.is_parse() => "the answer is no HTTP",
        _ => return cause(error).unwrap_or_else(|| "no connection".to_owned()),
    };
    text.to_owned()
}

/// In a few words, what is behind an error of a connection; `None` when that is neither the system nor TLS.
///
/// The texts are fixed: those that come with errors may repeat what was sent or received.
pub fn cause(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(tls_cause(error).to_owned());
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // What such an error wraps is not its source.
        let wrapped = error.get_ref().and_then(|inner| cause(inner));
        let unknown = error.to_string().starts_with("failed to lookup address information");
        let text = || if unknown { "the host's name is not known".to_owned() } else { error.kind().to_string() };
        return Some(wrapped.unwrap_or_else(text));
    }
    cause(error.source()?)
}

fn tls_cause(error: &rustls::Error) -> &'static str {
    use CertificateError::*;
    match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "the certificate has expired",
        rustls::Error::InvalidCertificate(UnknownIssuer) => "the certificate is from an unknown issuer",
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "the certificate is for another name"
        }
        rustls::Error::InvalidCertificate(_) => "the certificate is not valid",
        _ => "no TLS connection",
    }
}
