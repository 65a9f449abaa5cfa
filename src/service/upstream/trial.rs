//! One attempt at one target, in full, for an operator to look at. Nothing of it is kept or held against the target.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use tokio::time::sleep;

use super::answer::{Answer, Body, Content};
use super::client::Failure;
use super::request::Ask;
use super::targets::Chosen;
use super::{Kept, LATE, Place, Upstream, before};
use crate::pure::fault::Fault;
use crate::state::clock::Clock;

/// An attempt that has not been made yet.
pub struct Trial<'a> {
    upstream: &'a Upstream,
    chosen: Chosen,
    request: Request<Full<Bytes>>,
}

/// What a target has answered.
pub struct Tried {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// How long they took.
    pub head_took: Duration,
    /// What its body is, without its coding, and how long all of it took; or what callers are told instead.
    pub body: Result<(Content, Bytes, Duration), Fault>,
}

impl Upstream {
    /// The attempt at the target that would be asked first.
    ///
    /// # Errors
    /// [`Fault::InvalidPath`] where there can be none.
    pub fn trial(&self, ask: &Ask) -> Result<Trial<'_>, Fault> {
        let chosen = self.targets.choose(&[]);
        let request = ask.request(chosen.base())?;
        Ok(Trial { upstream: self, chosen, request })
    }
}

impl Trial<'_> {
    /// What is sent. Header values that the configuration gives are marked as sensitive.
    pub fn request(&self) -> &Request<Full<Bytes>> {
        &self.request
    }

    /// Sends it, and waits for all of the answer, within the time that a call has.
    ///
    /// # Errors
    /// What callers are told of why there is no answer, and the reason in words.
    pub async fn send(self, clock: &Clock) -> Result<Tried, (Fault, String)> {
        let Trial { upstream, chosen, request } = self;
        let start = clock.monotonic();
        let took = || clock.monotonic().saturating_sub(start);
        let mut deadline = pin!(sleep(upstream.settings.timeout));
        let sent = upstream.clients.send(chosen.at(), chosen.base(), request);
        let sent = before(deadline.as_mut(), pin!(sent)).await;
        let (response, connection) = match sent.unwrap_or_else(|| Err((Failure::Timeout, LATE.to_owned()))) {
            Ok(answered) => answered,
            Err((failure, reason)) => return Err((failure.fault(), reason)),
        };
        let (status, headers, head_took) = (response.status(), response.headers().clone(), took());
        let place = Place::take(&upstream.under_way, usize::MAX).ok_or((Fault::UpstreamBusy, String::new()))?;
        let kept = Kept { chosen: Arc::new(chosen), _connection: connection, _place: place };
        let whole = async {
            let answer = Answer::read(response, &upstream.settings, kept).await?;
            Ok((answer.content, whole(answer.body).await?))
        };
        let body = before(deadline, pin!(whole)).await.unwrap_or(Err(Fault::UpstreamTimeout));
        Ok(Tried { status, headers, head_took, body: body.map(|(content, body)| (content, body, took())) })
    }
}

/// All of a body; its length is bounded by the settings of its API.
async fn whole(body: Body) -> Result<Bytes, Fault> {
    match body {
        Body::Whole(bytes) => Ok(bytes),
        Body::Streamed(mut source) => {
            let mut bytes = Vec::new();
            while let Some(piece) = source.next().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes.into())
        }
    }
}
