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
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::{Config, Limits};
use crate::gateway::Gateway;
use crate::state::load::{Load, Place};

use super::connection::Server;
use super::progress::{Progress, SWEEP, Verdict};
use super::tls::{Tls, TlsError};

/// Why nothing can be listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: {cause}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Where clients connect, bound before anything else is done.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
}

impl Listeners {
    /// Binds the addresses of `config`, and reads its certificate if it has one.
    ///
    /// # Errors
    /// The first address or file that cannot be had.
    pub fn bind(config: &Config) -> Result<Listeners, ListenError> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let of = |&address: &SocketAddr| {
            bind(address, &config.listen).map_err(|cause| ListenError::Address { address, cause })
        };
        Ok(Listeners { sockets: config.listen.iter().map(of).collect::<Result<_, _>>()?, tls })
    }

    /// What the addresses have become: a port of 0 is another now.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// The certificate that connections are encrypted with, if they are.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }
}

impl From<TcpListener> for Listeners {
    fn from(socket: TcpListener) -> Listeners {
        Listeners { sockets: vec![socket], tls: None }
    }
}

fn bind(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // `[::]` is IPv4 as well, unless that has a listener of its own.
    if address.is_ipv6() && all.iter().any(SocketAddr::is_ipv4) {
        socket.set_only_v6(true)?;
    }
    // A server that has just stopped leaves connections behind that would keep the next one from its address.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that may wait to be accepted, as far as the system allows.
const BACKLOG: i32 = 4096;

/// Serves `listeners` until `shutdown` resolves, then lets calls under way finish within `limits.drain_timeout`.
///
/// Blocks the calling thread. Fails when a thread or a runtime cannot be made.
pub fn serve(
    gateway: Arc<Gateway>,
    listeners: impl Into<Listeners>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let Listeners { sockets, tls } = listeners.into();
    let server = Arc::new(Server::new(gateway.clone(), tls));
    let count = thread::available_parallelism().map_or(1, usize::from);
    let mut workers = Vec::with_capacity(count);
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (server, gateway) = (server.clone(), gateway.clone());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(work(server, &gateway.config.limits, receiver)))?;
        workers.push((sender, thread));
    }
    let (workers, threads): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    let dealer = Dealer { load: gateway.load.clone(), workers, dealt: Cell::new(0) };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Here, and not where they are accepted from: who is asked to stop at once never gets there, and would wait at the end.
    sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
    runtime.block_on(async {
        let accepting = sockets.iter().map(|socket| Box::pin(accept(socket, &dealer)));
        tokio::select! {
            (result, ..) = future::select_all(accepting) => result,
            () = shutdown => Ok(()),
        }
    })?;
    // Whose connection the system has made already is not turned away.
    for socket in sockets {
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
    load: Arc<Load>,
    workers: Vec<mpsc::UnboundedSender<Accepted>>,
    dealt: Cell<usize>,
}

impl Dealer {
    /// Gives a connection to the worker whose turn it is. One beyond the limits is closed at once: waiting for a place, it
    /// would keep everybody behind it waiting.
    fn deal(&self, stream: std::net::TcpStream, peer: SocketAddr) -> io::Result<()> {
        let Some(place) = self.load.connect(peer.ip()) else { return Ok(()) };
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

async fn work(server: Arc<Server>, limits: &Limits, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
    let mut connections = Connections::default();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            next = accepted.recv() => match next {
                Some((stream, peer, place)) => connections.open(&server, stream, peer.ip(), place),
                None => break,
            },
            _ = sweep.tick() => connections.sweep(limits),
        }
    }
    connections.drain(limits).await;
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

    /// Lets what is under way finish, as long as that may take.
    async fn drain(mut self, limits: &Limits) {
        self.each(Progress::drain);
        let over = sleep(limits.drain_timeout);
        let lingered = sleep(LINGER.min(limits.drain_timeout / 2));
        tokio::pin!(over, lingered);
        let mut lingers = true;
        loop {
            tokio::select! {
                next = self.tasks.join_next() => if next.is_none() { break },
                () = &mut lingered, if lingers => {
                    lingers = false;
                    self.each(Progress::close_if_idle);
                }
                () = &mut over => {
                    self.each(Progress::cut_off);
                    break;
                }
            }
        }
    }
}

/// How long idle connections stay open at the end, so that a request that is on its way is still answered.
const LINGER: Duration = Duration::from_secs(1);
