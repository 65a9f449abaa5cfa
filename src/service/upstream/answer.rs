//! What a target has answered: a success whose body is on its way, or the fault that it comes to.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::IgnoredAny;
use tokio::time::timeout;

use super::Kept;
use super::client::{HEAD_BYTES_MAX, causes};
use super::decoding::{Decoding, Step};
use super::request::TOLD;
use crate::config::{AnswerFormats, UpstreamApi};
use crate::pure::envelope;
use crate::pure::fault::Fault;
use crate::pure::freshness;

/// An answer of at most so many bytes, decoded, is handled as a whole.
const WHOLE_BYTES_MAX: usize = 64 << 10;
/// Of the answer to a mistake, so much is read.
const MISTAKE_BYTES_MAX: usize = 64 << 10;
/// How long each piece of it may take.
const MISTAKE_PATIENCE: Duration = Duration::from_secs(1);
/// The longest that a caller is told to wait, seconds.
const RETRY_AFTER_S_MAX: u64 = 86_400;

/// A success.
#[derive(Debug)]
pub struct Answer {
    /// 200, or 201 or 202 if the upstream has said so.
    pub status: StatusCode,
    /// What the body is.
    pub content: Content,
    /// The body.
    pub body: Body,
    /// Seconds for which it may be given again.
    pub lifetime_s: Option<u64>,
}

/// What an answer's body is.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// JSON; nothing at all where the body is empty.
    Json,
    /// Something else, which is passed on as it is.
    Other {
        /// What it says it is.
        content_type: HeaderValue,
        /// How it wants to be shown.
        disposition: Option<HeaderValue>,
    },
}

/// An answer's body.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Streamed(Box<Source>),
}

impl Answer {
    /// One that was kept.
    pub(super) fn kept(json: Bytes) -> Answer {
        Answer { status: StatusCode::OK, content: Content::Json, body: Body::Whole(json), lifetime_s: None }
    }

    /// The JSON that it is, where all of it is there and is sound: what has a flaw is asked for again.
    pub(super) fn json(&self) -> Option<Bytes> {
        match (&self.content, &self.body) {
            (Content::Json, Body::Whole(json)) if serde_json::from_slice::<IgnoredAny>(json).is_ok() => {
                // On its own, without what came beside it.
                Some(Bytes::copy_from_slice(json))
            }
            _ => None,
        }
    }

    /// What `response` comes to. Waits for a body only where it is sure to be short.
    pub(super) async fn read(
        response: Response<Incoming>,
        settings: &UpstreamApi,
        kept: Kept,
    ) -> Result<Answer, Fault> {
        let (head, incoming) = response.into_parts();
        let status = head.status;
        // The connection takes somewhat more, depending on how it comes.
        let head_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let chosen = Arc::clone(&kept.chosen);
        let unreadable = |reason: &str| {
            chosen.tell(reason);
            Fault::UpstreamUnreadable
        };
        if head_bytes > HEAD_BYTES_MAX {
            return Err(unreadable("the head of its answer is too long"));
        }
        if is_overloaded(status) {
            kept.chosen.ended(false);
        }
        let decoding = Decoding::of(&head.headers);
        if status.is_client_error() {
            if is_about_us(status) {
                chosen.tell(&format!("it has refused the gateway's own credentials with {}", status.as_u16()));
            }
            let source = decoding.map(|decoding| Source::new(incoming, decoding, settings, kept));
            return Err(Box::pin(mistake(status, &head.headers, settings, source)).await);
        }
        if status.is_server_error() {
            chosen.tell(&format!("it has answered {}", status.as_u16()));
            return Err(Fault::UpstreamFailed);
        }
        // Redirects would be followed with credentials that are for this target; nobody has asked for part of an answer, nor
        // whether it has changed.
        if !status.is_success() || status == StatusCode::PARTIAL_CONTENT {
            return Err(unreadable(&format!("it has answered {}, which is not passed on", status.as_u16())));
        }
        let content = content(&head.headers, settings.formats).ok_or_else(|| unreadable("its answer is not JSON"))?;
        let decoding = decoding.ok_or_else(|| unreadable("its answer has a content coding that is not known"))?;
        let length = length(&head.headers);
        if decoding.is_identity() && length.is_some_and(|length| length > settings.answer_bytes) {
            return Err(unreadable("its answer is longer than answer_bytes"));
        }
        let is_short = length.is_some_and(|length| length <= WHOLE_BYTES_MAX as u64);
        let body = Source::new(incoming, decoding, settings, kept).begin(is_short).await?;
        let status =
            if [StatusCode::CREATED, StatusCode::ACCEPTED].contains(&status) { status } else { StatusCode::OK };
        let lifetime_s = if head.status == StatusCode::OK { lifetime_s(&head.headers) } else { None };
        Ok(Answer { status, content, body, lifetime_s })
    }
}

fn lifetime_s(headers: &HeaderMap) -> Option<u64> {
    let lines = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let (cache_control, vary, age) = (lines(CACHE_CONTROL), lines(VARY), lines(AGE));
    let sets_cookie = headers.contains_key(SET_COOKIE);
    freshness::Answer { cache_control: &cache_control, vary: &vary, age: &age, sets_cookie, told: &TOLD }.lifetime_s()
}

/// Whether the target itself is in trouble, whatever it was asked.
fn is_overloaded(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a body with these headers is; `None` for what the API is not to answer. Without a type it is taken for JSON.
fn content(headers: &HeaderMap, formats: AnswerFormats) -> Option<Content> {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Some(Content::Json) };
    let essence = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let essence = essence.to_ascii_lowercase();
    if essence == b"application/json" || essence == b"text/json" || essence.ends_with(b"+json") {
        return Some(Content::Json);
    }
    let disposition = headers.get(CONTENT_DISPOSITION).cloned();
    let other = Content::Other { content_type: content_type.clone(), disposition };
    (formats == AnswerFormats::Passthrough).then_some(other)
}

/// Whether a status is about who asks, which is us.
fn is_about_us(status: StatusCode) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::PROXY_AUTHENTICATION_REQUIRED].contains(&status)
}

/// The fault that a status from 400 to 499 comes to.
async fn mistake(status: StatusCode, headers: &HeaderMap, settings: &UpstreamApi, source: Option<Source>) -> Fault {
    if is_about_us(status) {
        return Fault::UpstreamRefusedUs;
    }
    let said = match source {
        // The status is known; its text is not worth waiting for.
        Some(source) => envelope::message(&source.start(MISTAKE_BYTES_MAX).await, settings.error_message.as_ref()),
        None => None,
    };
    let retry_after_s = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Fault::UpstreamRejected {
        status: status.as_u16(),
        message: said.map_or(status.canonical_reason().unwrap_or("The API refused the request").into(), Into::into),
        retry_after_s: retry_after_s.map(|seconds: u64| seconds.min(RETRY_AFTER_S_MAX)),
    }
}

/// Pieces of a body that are to be one. The first is not copied unless there are more.
#[derive(Default)]
struct Pieces {
    only: Bytes,
    all: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.only.len() + self.all.len()
    }

    fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.only = piece;
        } else {
            self.all.extend_from_slice(&std::mem::take(&mut self.only));
            self.all.extend_from_slice(&piece);
        }
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.only } else { self.all.freeze() }
    }
}

/// A body on its way, without its content coding.
pub struct Source {
    incoming: Incoming,
    decoding: Decoding,
    /// What has come already.
    first: Bytes,
    /// Whether anything has come at all, with its coding; and whether nothing more will.
    has_begun: bool,
    has_ended: bool,
    /// How much more it may come to.
    left: u64,
    /// How long each piece may take.
    patience: Duration,
    kept: Kept,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Source {
    fn new(incoming: Incoming, decoding: Decoding, settings: &UpstreamApi, kept: Kept) -> Source {
        let (left, patience) = (settings.answer_bytes, settings.timeout);
        Source { incoming, decoding, first: Bytes::new(), has_begun: false, has_ended: false, left, patience, kept }
    }

    /// All of a body that is short, or has come already; else what there is of it, and the rest to come.
    async fn begin(mut self, is_short: bool) -> Result<Body, Fault> {
        let mut first = Pieces::default();
        while first.len() <= WHOLE_BYTES_MAX {
            let mut next = pin!(self.piece());
            let at_once = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
            let next = match at_once {
                Poll::Ready(next) => next?,
                // Without a time of its own: whoever waits for the answer has one.
                Poll::Pending if is_short => next.await?,
                Poll::Pending => break,
            };
            match next {
                Some(piece) => first.push(piece),
                None => return Ok(Body::Whole(first.whole())),
            }
        }
        self.first = first.whole();
        Ok(Body::Streamed(Box::new(self)))
    }

    /// The beginning of the body, up to so many bytes, or nothing if there is more or it does not come.
    async fn start(mut self, bytes_max: usize) -> Bytes {
        self.patience = self.patience.min(MISTAKE_PATIENCE);
        let mut start = BytesMut::new();
        while let Ok(Some(piece)) = self.next().await {
            start.extend_from_slice(&piece);
            if start.len() > bytes_max {
                return Bytes::new();
            }
        }
        start.freeze()
    }

    /// The next piece, which is not empty, or `None` at the end. Given up while it waits, it loses nothing.
    ///
    /// # Errors
    /// The body ends early, comes too slowly, is not encoded as it says, or is too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        match timeout(self.patience, self.piece()).await {
            Ok(next) => next,
            Err(_) => {
                self.kept.chosen.tell("its answer stopped coming");
                self.kept.chosen.ended(false);
                Err(Fault::UpstreamTimeout)
            }
        }
    }

    /// The same, however long it takes.
    async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        loop {
            let step = self.decoding.step().map_err(|_| self.unreadable("its answer is not coded as it says"))?;
            match step {
                Step::Piece(piece) => {
                    let left = self.left.checked_sub(piece.len() as u64);
                    self.left = left.ok_or_else(|| self.unreadable("its answer is longer than answer_bytes"))?;
                    return Ok(Some(piece));
                }
                Step::End if self.has_ended => return Ok(None),
                // The coding is at its end, which need not be that of the answer.
                Step::End => match self.more().await? {
                    None => return Ok(None),
                    Some(_) => return Err(self.unreadable("its answer goes on behind the end of its coding")),
                },
                Step::Hungry => match self.more().await? {
                    // Of nothing, there is no coding: answers to HEAD have one all the same.
                    None if !self.has_begun => return Ok(None),
                    more => self.decoding.feed(more),
                },
            }
        }
    }

    fn unreadable(&self, reason: &str) -> Fault {
        self.kept.chosen.tell(reason);
        Fault::UpstreamUnreadable
    }

    /// The next bytes as they come over the connection; trailers are passed over.
    async fn more(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            match self.incoming.frame().await {
                None => {
                    self.has_ended = true;
                    return Ok(None);
                }
                Some(Err(error)) => {
                    self.kept
                        .chosen
                        .tell(&format!("its answer has broken off: {}", causes(&error).last().unwrap_or(&error)));
                    self.kept.chosen.ended(false);
                    return Err(Fault::UpstreamUnreachable);
                }
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.into_data().ok().filter(|bytes| !bytes.is_empty()) {
                        self.has_begun = true;
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}
