//! Notices as signed messages over HTTP (<https://www.standardwebhooks.com>).

use std::error::Error;
use std::io;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;

use super::{CONNECT_TIMEOUT, Outcome, cause};
use crate::config::Webhook;
use crate::pure::notice::Notice;
use crate::pure::webhook::SigningSecret;

/// What the program calls itself.
const AGENT: &str = concat!("polygate/", env!("CARGO_PKG_VERSION"));

/// Posts to the configured receiver.
pub(super) struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    secret: SigningSecret,
}

impl Sender {
    /// Fails when TLS cannot be set up, which does not depend on the receiver.
    pub(super) fn new(config: &Webhook) -> io::Result<Sender> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // The authorities that the program brings along: a bare machine or container has none.
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring::default_provider())
            .map_err(io::Error::other)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // No connection is kept: hours pass between notices, and a receiver closes what is idle.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https);
        Ok(Sender { client, uri: config.url.uri().clone(), secret: config.secret.clone() })
    }

    /// One attempt. Of the answer, the status counts; its body is not read.
    pub(super) async fn send(&self, notice: &Notice, now_unix_s: u64) -> Outcome {
        let (id, body) = (notice.id(), notice.json());
        let request = Request::post(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .header("webhook-signature", self.secret.sign(&id, now_unix_s, body.as_bytes()))
            .header("webhook-id", id)
            .header("webhook-timestamp", now_unix_s)
            .body(Full::from(body))
            .expect("an address, ASCII and a number make a request");
        match self.client.request(request).await.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Outcome::delivered(status.as_str()),
            Ok(StatusCode::GONE) => Outcome::refused("status 410"),
            Ok(status) => Outcome::failed(format!("status {}", status.as_str())),
            Err(error) => Outcome::failed(explain(&error)),
        }
    }
}

fn explain(error: &legacy::Error) -> String {
    let told = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    let text = match told {
        Some(error) if error.is_incomplete_message() => "connection closed without an answer",
        Some(error) if error.is_parse() => "the answer is no HTTP",
        _ => return cause(error).unwrap_or_else(|| "no connection".to_owned()),
    };
    text.to_owned()
}
