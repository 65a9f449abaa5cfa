//! Answers of upstreams: written at once where they are short, and otherwise while they come.

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use super::{Body, Context, Kept, Reply, charge};
use crate::pure::fault::Fault;
use crate::pure::log_line::{Level, UNANSWERED};
use crate::pure::transcode::{PIECE_BYTES, Transcoder};
use crate::pure::usage::Outcome;
use crate::service::upstream::{self, Answer, Content, Source, Upstream};
use crate::state::meter::Hold;

/// What the log says tells of flaws.
const TARGET: &str = "polygate::upstream";
/// The longest answer, bytes, to a client that could not see that it has broken off.
const UNSTREAMED_BYTES_MAX: usize = 1 << 20;
/// Room for what is around a piece.
const ENVELOPE_BYTES: usize = 64;
/// What the log says of a call whose client left before the end of its answer.
const CLIENT_CLOSED: &str = "client-closed";

/// Writes an upstream's answer: all of it, or the beginning, once there is something of what the caller wants.
///
/// # Errors
/// The answer cannot be read, or has no form in the caller's format.
pub(super) async fn begin(context: &Context, upstream: &Upstream, answer: Answer) -> Result<Reply, Fault> {
    let Answer { status, content, body, .. } = answer;
    // No body at all says that there is nothing to say, wherever it was to be said.
    let is_empty = matches!(&body, upstream::Body::Whole(body) if body.is_empty());
    let mut writer = match &content {
        Content::Json => Writer::json(context, upstream, is_empty),
        Content::Other { .. } => Writer::Copy,
    };
    let mut out = Vec::new();
    let body = match body {
        // How long it would have been, nobody knows.
        _ if context.method == "HEAD" => Body::Whole(Bytes::new()),
        upstream::Body::Whole(whole) if matches!(writer, Writer::Copy) => Body::Whole(whole),
        upstream::Body::Whole(whole) => {
            let whole = if is_empty && content == Content::Json { Bytes::from_static(b"null") } else { whole };
            let written = writer.write(&whole, &mut out).and_then(|()| writer.finish(&mut out));
            written.map_err(|flaw| flaw.told(context))?;
            Body::Whole(out.into())
        }
        upstream::Body::Streamed(mut source) => loop {
            let written = match source.next().await? {
                Some(piece) => writer.write(&piece, &mut out),
                None => {
                    writer.finish(&mut out).map_err(|flaw| flaw.told(context))?;
                    break Body::Whole(out.into());
                }
            };
            written.map_err(|flaw| flaw.told(context))?;
            if !context.can_stream && out.len() > UNSTREAMED_BYTES_MAX {
                return Err(Flaw("too long for HTTP/1.0".to_owned()).told(context));
            }
            if !out.is_empty() && context.can_stream {
                break Body::Streamed(Box::new(Streamed { source, writer: Some(writer), first: out }));
            }
        },
    };
    let content = Some(content).filter(|content| *content != Content::Json);
    Ok(Reply { status, body, content, short_secret_bits: None })
}

/// How an answer is written.
enum Writer {
    /// In the format of the caller.
    Json(Box<Transcoder>),
    /// As it is.
    Copy,
}

/// What is wrong with an upstream's JSON; none of it.
struct Flaw(String);

impl Flaw {
    /// Tells the operator, who alone can do something about it.
    fn told(self, context: &Context) -> Fault {
        let Flaw(reason) = self;
        let message = format_args!("the upstream of {} gave an answer with a flaw: {reason}", context.reached.name);
        context.gateway.log.event(Level::Warn, TARGET, &message, false);
        Fault::UpstreamUnreadable
    }
}

impl Writer {
    fn json(context: &Context, upstream: &Upstream, is_empty: bool) -> Writer {
        let settings = upstream.settings();
        let pointer = settings.data.clone().filter(|_| !is_empty);
        let bytes_max = usize::try_from(settings.answer_bytes).unwrap_or(usize::MAX);
        let (format, style) = (context.choice.format, context.style);
        Writer::Json(Box::new(Transcoder::new(context.dialect, format, style, pointer, bytes_max)))
    }

    fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
        out.reserve(piece.len() + ENVELOPE_BYTES);
        match self {
            Writer::Json(transcoder) => piece
                .chunks(PIECE_BYTES)
                .try_for_each(|piece| transcoder.feed(piece, out).map_err(|flaw| Flaw(flaw.to_string()))),
            Writer::Copy => {
                out.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<(), Flaw> {
        match self {
            Writer::Json(transcoder) => transcoder.finish(out).map_err(|flaw| Flaw(flaw.to_string())),
            Writer::Copy => Ok(()),
        }
    }
}

/// The rest of an answer, and its beginning as far as that is written.
pub struct Streamed {
    source: Box<Source>,
    /// Until the end.
    writer: Option<Writer>,
    first: Vec<u8>,
}

/// An answer has broken off, and its caller is to see that it is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer has broken off")]
pub struct Broken;

impl Streamed {
    /// The body as it leaves, of an answer with this status. It ends only after the call has been charged; should it break
    /// off, or nobody take it any more, what is held is given back. The call is written down when it has ended.
    pub fn leave(
        self,
        context: Kept,
        hold: Option<Hold>,
        status: u16,
    ) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        let leaving = Leaving { context, streamed: self, hold, status, bytes: 0, end: None };
        stream::try_unfold(leaving, async |mut leaving| {
            let piece = leaving.next().await?;
            Ok(piece.map(|piece| (piece, leaving)))
        })
    }

    /// The next piece, perhaps an empty one; `None` at the end.
    async fn next(&mut self, context: &Context) -> Result<Option<Vec<u8>>, Fault> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        let Some(writer) = &mut self.writer else { return Ok(None) };
        let mut out = Vec::new();
        match self.source.next().await? {
            Some(piece) => writer.write(&piece, &mut out).map_err(|flaw| flaw.told(context))?,
            None => {
                let writer = self.writer.take().ok_or(Fault::Internal)?;
                writer.finish(&mut out).map_err(|flaw| flaw.told(context))?;
            }
        }
        Ok(Some(out))
    }
}

/// An answer on its way to the caller.
struct Leaving {
    context: Kept,
    streamed: Streamed,
    hold: Option<Hold>,
    status: u16,
    /// What has left.
    bytes: usize,
    /// How it has ended: well, or by a fault.
    end: Option<Result<(), Fault>>,
}

impl Leaving {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            match self.streamed.next(&self.context).await {
                Ok(Some(piece)) if self.streamed.writer.is_some() && piece.is_empty() => {}
                Ok(Some(piece)) if self.streamed.writer.is_some() => return Ok(Some(self.count(piece))),
                Ok(Some(last)) => {
                    charge(&self.context, self.hold.take()).await.map_err(|fault| self.broken(fault))?;
                    self.end = Some(Ok(()));
                    return Ok(Some(self.count(last)).filter(|last| !last.is_empty()));
                }
                Ok(None) => return Ok(None),
                Err(fault) => return Err(self.broken(fault)),
            }
        }
    }

    fn count(&mut self, piece: Vec<u8>) -> Bytes {
        self.bytes += piece.len();
        piece.into()
    }

    fn broken(&mut self, fault: Fault) -> Broken {
        self.hold = None;
        self.end = Some(Err(fault));
        Broken
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let format = Some(self.context.choice.format);
        match &self.end {
            Some(Ok(())) => self.context.ended(self.status, None, format, self.bytes),
            Some(Err(fault)) => {
                self.context.count(Outcome::of(fault));
                self.context.ended(fault.status(), Some(fault.code()), format, self.bytes);
            }
            None => self.context.ended(UNANSWERED, Some(CLIENT_CLOSED), None, self.bytes),
        }
    }
}
