//! Notices as signed messages over HTTP (<https://www.standardwebhooks.com>).

use std::io;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;

use super::Outcome;
use crate::config::Webhook;
use crate::edge::client::{self, AGENT, HttpClient};
use crate::pure::notice::Notice;
use crate::pure::webhook::SigningSecret;

/// Posts to the configured receiver.
pub(super) struct Sender {
    client: HttpClient,
    uri: Uri,
    secret: SigningSecret,
}

impl Sender {
    /// Fails as [`client::new`].
    pub(super) fn new(config: &Webhook) -> io::Result<Sender> {
        let uri = config.url.uri().clone();
        Ok(Sender { client: client::new("notices.webhook.url", &uri)?, uri, secret: config.secret.clone() })
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
            Err(error) => Outcome::failed(client::explain(&error)),
        }
    }
}
