//! `polygate serve`: a server put together, started, told by signals what to do, and ended.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::RunError;
use crate::accounts;
use crate::edge::http::listeners::{ListenError, Listeners};
use crate::edge::http::serve::{End, allow_files};
use crate::edge::reload::{Asker, Source};
use crate::state::clock::Clock;
use crate::state::events::{self, PROGRAM};
use crate::state::log::Log;
use crate::state::store::Store;

use super::handover::Held;
use super::{Failure, Options, handover, print, print_error, show, standard_error};

/// Serves until told to stop, or to make room for another program: then becomes that.
pub(super) fn serve(options: Options) -> Result<(), Failure> {
    // Before anything that takes time: both would end a process that does not listen to them.
    let mut signals = Signals::listen()?;
    let Some((sockets, mut stops)) = serve_here(&options, &mut signals)? else { return Ok(()) };
    // All else that this program had is closed by now.
    let stop = || signals.runtime.block_on(stops.came());
    Ok(handover::exec(&options, &sockets, stop, |error| print_error(&format!("polygate: {error}\n")))?)
}

/// Takes the addresses, the data directory and the ledger before it makes the first key: a start that fails should not have
/// made a key that nobody has seen. Returns the sockets that are to be handed on, if any, and what would keep it from that.
fn serve_here(options: &Options, signals: &mut Signals) -> Result<Option<(Vec<Held>, Stops)>, Failure> {
    let source = {
        let options = options.clone();
        Source::new(options.file(), move || options.reload())
    };
    let asker = source.asker();
    let config = options.load()?;
    let (mut inherited, handed_on) = handover::inherited()?;
    let listeners = Listeners::bind(&config, &mut inherited)?;
    // Whoever hands sockets on may have been told of another configuration; systemd would let clients wait for ever.
    let unnamed: Vec<_> = inherited.left().collect();
    if let (false, Some(address)) = (handed_on, unnamed.first()) {
        return Err(ListenError::Unnamed(*address).into());
    }
    drop(inherited);
    let (addresses, is_encrypted) = (listeners.addresses()?, config.tls.is_some());
    let private_address = listeners.private.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut store = Store::open(&config.data)?;
    let _lock = Store::wait_to_serve(&config.data)?;
    let clock = Clock::system();
    let apis = config.apis.clone();
    // Dropped last: it writes what the others say at their end.
    let (log, _writer) = Log::start(config.logs, clock.clone(), standard_error())?;
    events::start(log.clone(), clock.clone()).map_err(io::Error::other)?;
    tell_of_panics();
    unnamed.iter().for_each(|address| warn!(target: PROGRAM, "nobody listens on {address} any more"));
    allow_files(config.limits.connections);
    let (gateway, folder) = crate::open(config, clock.clone(), events::report(), log)?;
    let first = accounts::first_start(&mut store, &gateway.config, clock.unix_s())?;
    gateway.keyring.refresh(&store).map_err(RunError::from)?;
    drop(store);
    let ready = || {
        // A server whose output nobody reads serves all the same.
        let _ = print(&Zeroizing::new(show::welcome(&addresses, is_encrypted, private_address, first.as_ref(), &apis)));
        for address in &addresses {
            info!(target: PROGRAM, "polygate {} serves {address}", env!("CARGO_PKG_VERSION"));
        }
    };
    let held = Arc::new(listeners.copies()?);
    let mut stops = signals.stops()?;
    let mut handed_on = None;
    let ended = async {
        tokio::select! {
            () = stops.recv() => {
                info!(target: PROGRAM, "polygate stops: calls under way are finished");
                End::Stop
            }
            sockets = successor(options, signals, &asker, held) => {
                info!(target: PROGRAM, "polygate makes room for its successor: calls under way are finished");
                handed_on = Some(sockets);
                End::HandOn
            }
        }
    };
    crate::run(gateway, folder, listeners, source, events::report(), ready, ended)?;
    info!(target: PROGRAM, "polygate has stopped");
    Ok(handed_on.map(|sockets| (sockets, stops)))
}

/// Does what signals say, until there is a program to hand over to: returns the sockets that are handed on. `held` are open
/// no longer than until then.
async fn successor(options: &Options, signals: &mut Signals, asker: &Asker, held: Arc<Vec<Held>>) -> Vec<Held> {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => asker.ask(),
            _ = signals.handover.recv() => match prepare(options.clone(), held.clone()).await {
                Ok(sockets) => return sockets,
                Err(error) => warn!(target: PROGRAM, "polygate goes on: {error}"),
            }
        }
    }
}

/// [`handover::prepare`] on a thread of its own, and not longer than a program may take to read its configuration.
async fn prepare(options: Options, held: Arc<Vec<Held>>) -> Result<Vec<Held>, String> {
    let (done, prepared) = oneshot::channel();
    let begun = thread::Builder::new().name("handover".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = done.send(handover::prepare(&options, &held).map_err(|error| error.to_string()));
    });
    begun.map_err(|error| error.to_string())?;
    match timeout(PREPARE_TIMEOUT, prepared).await {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(_)) => Err("a mistake in the program: it panicked".to_owned()),
        Err(_) => Err(format!("its successor has not read the configuration within {} s", PREPARE_TIMEOUT.as_secs())),
    }
}

const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// The signals that a server does not end at.
struct Signals {
    /// Where they were first listened to; they are received anywhere.
    runtime: Runtime,
    /// SIGHUP: the configuration is to be read again.
    hangup: Signal,
    /// SIGUSR2: the program that is there now is to take over.
    handover: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (hangup, handover) = {
            let _here = runtime.enter();
            (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?)
        };
        Ok(Signals { runtime, hangup, handover })
    }

    /// Those that it does end at. Until this is called, they end it at once.
    fn stops(&self) -> io::Result<Stops> {
        let _here = self.runtime.enter();
        Ok(Stops { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// SIGTERM, and SIGINT from a terminal.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Whether one has come up to now.
    async fn came(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.recv() => true,
            // Signals are looked for between two polls.
            () = yield_now() => false,
        }
    }
}

/// Tells of panics in one line, with their places and without their messages: those can quote what a client sent.
fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" in {}:{}", place.file(), place.line())).unwrap_or_default();
        warn!(target: PROGRAM, "a mistake in the program{place}: please report it");
    }));
}
