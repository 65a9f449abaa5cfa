//! How far a connection has come, and for how long it has been there.
//!
//! A timer for each wait of each connection would cost more than all that is done for it. So connections only note what they
//! wait for, and their worker, which looks at all of them a few times a second, ends those that have waited too long.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::Limits;
use crate::state::load::Place;

/// How often a worker looks at its connections.
pub const SWEEP: Duration = Duration::from_millis(250);

/// A call that this many sweeps have found under way has lasted for one whole [`SWEEP`] at least.
const LONG: u32 = 2;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The client to shake hands.
    Handshake,
    /// The first byte there is.
    Fresh,
    /// The rest of a head.
    Head,
    /// Us, or the body, which has timers of its own.
    Call,
    /// The client to take an answer.
    Answer,
    /// The next request.
    Idle,
    /// The client to close a connection that has been shut down.
    Linger,
}

const PHASES: [Phase; 7] =
    [Phase::Handshake, Phase::Fresh, Phase::Head, Phase::Call, Phase::Answer, Phase::Idle, Phase::Linger];

/// For how many turns of its worker a client that sends no more is taken to be there still, which is more than any call takes
/// that waits for nobody else.
const TURNS: u8 = 8;

/// How long a connection that has been shut down is read for.
const LINGER: Duration = Duration::from_secs(5);

/// How long the end waits for a connection that no call is under way on, so that a request that is on its way is still
/// answered.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Wait,
    /// It has waited too long: nothing is to be said to it any more.
    Abort,
}

/// The state of one connection, shared by all that handle it. They run on one thread.
#[derive(Debug)]
pub struct Progress {
    place: Place,
    phase: AtomicU8,
    /// For how many sweeps the phase has lasted.
    age: AtomicU32,
    /// Calls under way: one at most, except with HTTP/2.
    calls: AtomicU32,
    is_http2: AtomicBool,
    /// How many turns the end of what the client sends may still be held back.
    turns: AtomicU8,
    /// Answers from now on are the last.
    is_draining: AtomicBool,
    /// Nothing new is to begin.
    is_closing: AtomicBool,
    /// What is under way has had its time.
    is_cut_off: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Progress {
    /// A connection that has only just been accepted.
    pub fn new(place: Place) -> Progress {
        Progress {
            place,
            phase: AtomicU8::new(Phase::Handshake as u8),
            age: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            is_http2: AtomicBool::new(false),
            turns: AtomicU8::new(0),
            is_draining: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.age.store(0, Ordering::Relaxed);
    }

    /// The first byte of HTTP may come.
    pub fn connected(&self) {
        self.enter(Phase::Fresh);
    }

    /// HTTP/2 is spoken: silence is looked after by pings, and requests come side by side.
    pub fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
        self.enter(Phase::Idle);
    }

    /// Begins a call, one of at most `requests_max`, which lasts until what this returns is dropped.
    pub fn begin(self: &Arc<Progress>, requests_max: usize) -> Begun {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.enter(Phase::Call);
        Begun { progress: Arc::clone(self), has_place: self.place.begin_call(requests_max) }
    }

    /// The connection has been shut down, and the client may still be sending.
    pub fn lingers(&self) {
        self.enter(Phase::Linger);
    }

    /// Whether answers are to say that the connection closes.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed) || self.is_closing.load(Ordering::Relaxed)
    }

    /// Whether the protocol is to close the connection as soon as it can.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
            || self.is_draining.load(Ordering::Relaxed) && self.is_http2.load(Ordering::Relaxed)
    }

    /// Has the task of the connection look at [`is_closing`](Progress::is_closing) when that changes.
    pub fn wakes(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Answers from now on are the last. A client that speaks HTTP/2 is told at once; others would take the end of an idle
    /// connection for a failure if they had just sent a request.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        // What is waited for has from now on what the end gives it.
        self.age.store(0, Ordering::Relaxed);
        self.wake();
    }

    /// The end does not wait for this connection any longer.
    pub fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
    }

    /// Whether it was we who ended what was under way.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// Closes the connection if nothing is going on.
    pub fn close_if_idle(&self) {
        if matches!(self.phase(), Phase::Fresh | Phase::Idle) && !self.is_closing.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// For how long a call has been under way at least, if for long enough to look at the time. Those of HTTP/2 come side by
    /// side, so that nobody knows of one of them.
    pub fn lasts(&self) -> Option<Duration> {
        if self.is_http2.load(Ordering::Relaxed) {
            return Some(Duration::ZERO);
        }
        (self.age.load(Ordering::Relaxed) >= LONG).then_some(SWEEP)
    }

    /// Looks whether the connection has waited too long; called every [`SWEEP`].
    pub fn sweep(&self, limits: &Limits) -> Verdict {
        let phase = self.phase();
        let limit = match phase {
            Phase::Handshake => limits.handshake_timeout,
            Phase::Fresh | Phase::Head => limits.header_read_timeout,
            Phase::Call => {
                if self.age.fetch_add(1, Ordering::Relaxed) + 1 == LONG {
                    // The call is to have a look at the time.
                    self.wake();
                }
                return Verdict::Wait;
            }
            Phase::Answer => limits.answer_write_timeout,
            Phase::Idle => limits.idle_timeout,
            Phase::Linger => LINGER,
        };
        let is_last = self.is_draining.load(Ordering::Relaxed) && phase != Phase::Answer;
        let limit = if is_last { limit.min(LAST_WAIT).min(limits.drain_timeout / 2) } else { limit };
        let age = self.age.fetch_add(1, Ordering::Relaxed);
        if u128::from(age) * SWEEP.as_millis() < limit.as_millis() {
            Verdict::Wait
        } else if matches!(phase, Phase::Fresh | Phase::Idle) && self.waker.get().is_some() && !self.is_closing() {
            // Whoever does not take the answers that are still to go has the same time again.
            self.enter(phase);
            self.close_if_idle();
            Verdict::Wait
        } else {
            Verdict::Abort
        }
    }

    fn read(&self) {
        self.turns.store(TURNS, Ordering::Relaxed);
        if matches!(self.phase(), Phase::Fresh | Phase::Idle) && !self.is_http2.load(Ordering::Relaxed) {
            self.enter(Phase::Head);
        }
    }

    /// Whether the end of what the client sends is to be held back for a turn. The first turn is for a request that hyper has
    /// read and nobody has looked at: its call is to begin, and so to be known of. The others are for calls that wait for
    /// nobody, so that they have an answer; not where the client `is_gone` for certain.
    fn holds_back_end(&self, is_gone: bool) -> bool {
        let turns = self.turns.load(Ordering::Relaxed);
        let is_asked = matches!(self.phase(), Phase::Head | Phase::Call) && !is_gone;
        let holds_back = turns == TURNS || turns > 0 && is_asked;
        if holds_back {
            self.turns.store(turns - 1, Ordering::Relaxed);
        }
        holds_back && !self.is_http2.load(Ordering::Relaxed)
    }

    fn wrote(&self) {
        // HTTP/2 does not say when the last answers have been taken: whoever takes some of them is not idle.
        if self.is_draining.load(Ordering::Relaxed) && self.phase() == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }

    fn flushed(&self) {
        if self.phase() == Phase::Answer {
            self.enter(Phase::Idle);
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub struct Begun {
    progress: Arc<Progress>,
    /// Whether it is one of those that may be under way at once.
    pub has_place: bool,
}

impl Begun {
    /// Whether it is one of several of its connection.
    pub fn is_http2(&self) -> bool {
        self.progress.is_http2.load(Ordering::Relaxed)
    }

    /// Its answer leaves while it is still coming in: there is a piece for the client to take, or else one is waited for.
    pub fn streams(&self, has_piece: bool) {
        // The streams of a connection have that to themselves.
        if !self.is_http2() {
            self.progress.enter(if has_piece { Phase::Answer } else { Phase::Call });
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.has_place {
            self.progress.place.end_call();
        }
        if self.progress.calls.fetch_sub(1, Ordering::Relaxed) == 1 {
            let is_http2 = self.progress.is_http2.load(Ordering::Relaxed);
            self.progress.enter(if is_http2 { Phase::Idle } else { Phase::Answer });
        }
    }
}

/// A connection that notes when a head begins to arrive and when an answer has gone; of HTTP/2, what goes at the end.
pub struct Noted<C> {
    connection: C,
    progress: Arc<Progress>,
}

impl<C> Noted<C> {
    /// Notes what happens on `connection` in `progress`.
    pub fn new(connection: C, progress: Arc<Progress>) -> Noted<C> {
        Noted { connection, progress }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Noted<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = ready!(Pin::new(&mut self.connection).poll_read(context, to));
        if read.is_ok() && to.filled().len() > before {
            self.progress.read();
        } else if self.progress.holds_back_end(read.is_err()) {
            // It is still there when it is asked for again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(read)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Noted<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, from))?;
        self.progress.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.connection).poll_flush(context))?;
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
