//! The accept loop: connections in, the chain inside, a graceful end.
//!
//! `warp::serve` has neither timeouts nor a cap on connections, so the loop is ours and the chain is warp's. One thread
//! accepts and deals connections out in turn to workers, each a thread with a runtime of its own: a call stays on one
//! core from its first byte to its last, and the cores share the connections evenly.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use futures_util::future;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tracing::warn;

use crate::config::Limits;
use crate::gateway::Current;
use crate::state::events::PROGRAM;
use crate::state::load::Place;

use super::connection::Server;
use super::listeners::Listeners;
use super::progress::{Progress, SWEEP, Verdict};

/// What becomes of the listeners when serving ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// They close.
    Stop,
    /// Somebody else has them too: whoever connects waits in them for the next program.
    HandOn,
}

/// Serves `listeners` until `shutdown` resolves, then lets calls under way finish within `limits.drain_timeout`.
///
/// Blocks the calling thread. Fails when a thread or a runtime cannot be made.
pub fn serve(
    current: Arc<Current>,
    listeners: impl Into<Listeners>,
    shutdown: impl Future<Output = End>,
) -> io::Result<()> {
    let Listeners { sockets, tls, .. } = listeners.into();
    let server = Arc::new(Server { current: current.clone(), tls });
    let count = thread::available_parallelism().map_or(1, usize::from);
    let mut workers = Vec::with_capacity(count);
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let server = server.clone();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(work(server, receiver)))?;
        workers.push((sender, thread));
    }
    let (workers, threads): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    let dealer = Dealer { current, workers, dealt: Cell::new(0) };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Here, and not where they are accepted from: who is asked to stop at once never gets there, and would wait at the end.
    sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
    let end = runtime.block_on(async {
        let accepting = sockets.iter().map(|socket| Box::pin(accept(socket, &dealer)));
        tokio::select! {
            (result, ..) = future::select_all(accepting) => result.map(|()| End::Stop),
            end = shutdown => Ok(end),
        }
    })?;
    // Whose connection the system has made already is not turned away, unless there is somebody else to take it.
    for socket in if end == End::Stop { sockets } else { Vec::new() } {
        while let Ok((stream, peer)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok() {
                dealer.deal(stream, peer)?;
            }
        }
    }
    drop(dealer);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a worker thread panicked"))?;
    }
    Ok(())
}

/// A connection, and its place among those that may be open at once.
type Accepted = (std::net::TcpStream, SocketAddr, Place);

/// Deals connections out to the workers.
struct Dealer {
    current: Arc<Current>,
    workers: Vec<mpsc::UnboundedSender<Accepted>>,
    dealt: Cell<usize>,
}

impl Dealer {
    /// Gives a connection to the worker whose turn it is. One beyond the limits is closed at once: waiting for a place, it
    /// would keep everybody behind it waiting.
    fn deal(&self, stream: std::net::TcpStream, peer: SocketAddr) -> io::Result<()> {
        let gateway = self.current.load();
        let (limits, trusted_proxies) = (&gateway.config.limits, &gateway.config.trusted_proxies);
        let Some(place) = gateway.load.connect(peer.ip(), limits, trusted_proxies) else { return Ok(()) };
        let dealt = self.dealt.get();
        self.dealt.set(dealt.wrapping_add(1));
        let worker = &self.workers[dealt % self.workers.len()];
        worker.send((stream, peer, place)).map_err(|_| io::Error::other("a worker thread ended early"))
    }
}

async fn accept(socket: &TcpListener, dealer: &Dealer) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Ok(stream) = stream.into_std() {
                    dealer.deal(stream, peer)?;
                }
            }
            // Out of descriptors, or the client has already gone: the listener itself is sound.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn work(server: Arc<Server>, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
    let mut connections = Connections::default();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            next = accepted.recv() => match next {
                Some((stream, peer, place)) => connections.open(&server, stream, peer.ip(), place),
                None => break,
            },
            _ = sweep.tick() => connections.sweep(&server.current.load().config.limits),
        }
    }
    let gateway = server.current.load_full();
    connections.drain(&gateway.config.limits, sweep).await;
}

/// The connections of one worker.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Without a share in it, so that a connection gives its place back as it ends.
    open: Vec<(Weak<Progress>, AbortHandle)>,
}

impl Connections {
    fn open(&mut self, server: &Arc<Server>, stream: std::net::TcpStream, peer: IpAddr, place: Place) {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let progress = Arc::new(Progress::new(place));
        let open = Arc::downgrade(&progress);
        let task = self.tasks.spawn(server.clone().serve(stream, peer, progress));
        self.open.push((open, task));
    }

    /// Forgets those that have ended, and ends those that have waited too long.
    fn sweep(&mut self, limits: &Limits) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(progress, task)| match progress.upgrade().map(|progress| progress.sweep(limits)) {
            Some(Verdict::Wait) => true,
            Some(Verdict::Abort) => {
                task.abort();
                false
            }
            None => false,
        });
    }

    fn each(&self, tell: impl Fn(&Progress)) {
        self.open.iter().filter_map(|(progress, _)| progress.upgrade()).for_each(|progress| tell(&progress));
    }

    /// Lets what is under way finish, as long as that may take. What is not gets no longer than [`Progress::sweep`] gives it.
    async fn drain(mut self, limits: &Limits, mut sweep: Interval) {
        self.each(Progress::drain);
        let over = sleep(limits.drain_timeout);
        tokio::pin!(over);
        loop {
            tokio::select! {
                next = self.tasks.join_next() => if next.is_none() { break },
                _ = sweep.tick() => self.sweep(limits),
                () = &mut over => {
                    self.each(Progress::cut_off);
                    break;
                }
            }
        }
    }
}

/// Has the system allow as many open files as `connections` take, and some for everything else: at first it allows few,
/// often 1024, and the journal would have to do without. Where it does not, the operator is told.
pub fn allow_files(connections: usize) {
    let wanted = connections as u64 + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let is_set = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).is_ok();
    if !is_set || current < wanted {
        warn!(target: PROGRAM, "the system allows too few open files for limits.connections: {wanted} are needed");
    }
}

/// What is open beside connections: the database, the journal, listeners, deliveries.
const FILES_BESIDE: u64 = 256;
