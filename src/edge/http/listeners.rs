//! Where clients connect: sockets that are bound here, or were bound by another program and inherited.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

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
    /// What was inherited is no socket for TCP.
    #[error("what was inherited by LISTEN_FDS cannot be listened to: {0}")]
    Inherited(io::Error),
    /// A socket was inherited that the configuration does not name: nobody would ever answer there.
    #[error("a socket for {0} was inherited by LISTEN_FDS, which neither listen nor private_listen names")]
    Unnamed(SocketAddr),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Where clients connect, bound before anything else is done.
#[derive(Debug)]
pub struct Listeners {
    /// The public ones.
    pub sockets: Vec<TcpListener>,
    /// The certificate that their connections are encrypted with, if they are.
    pub tls: Option<Arc<Tls>>,
    /// The one for metrics and health, where they are wanted.
    pub private: Option<TcpListener>,
}

impl Listeners {
    /// Takes those addresses of `config` from `inherited` that are there, binds the others, and reads the certificate if
    /// there is one.
    ///
    /// # Errors
    /// The first address or file that cannot be had.
    pub fn bind(config: &Config, inherited: &mut Inherited) -> Result<Listeners, ListenError> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let mut of = |side, address: SocketAddr, bind: &dyn Fn(SocketAddr) -> io::Result<TcpListener>| {
            let socket = inherited.take(side, address, config);
            socket.map_or_else(|| bind(address).map_err(|cause| ListenError::Address { address, cause }), Ok)
        };
        let public = |address| bind(address, &config.listen);
        let sockets =
            config.listen.iter().map(|&address| of(Side::Public, address, &public)).collect::<Result<_, _>>()?;
        let private =
            config.private_listen.map(|address| of(Side::Private, address, &TcpListener::bind)).transpose()?;
        Ok(Listeners { sockets, tls, private })
    }

    /// What the public addresses have become: a port of 0 is another now.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// The same sockets once more: they stay open until both are closed.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn copies(&self) -> io::Result<Vec<(Side, TcpListener)>> {
        let public = self.sockets.iter().map(|socket| (Side::Public, socket));
        let private = self.private.iter().map(|socket| (Side::Private, socket));
        public.chain(private).map(|(side, socket)| Ok((side, socket.try_clone()?))).collect()
    }
}

/// Whom a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// All clients.
    Public,
    /// Operators.
    Private,
}

impl From<TcpListener> for Listeners {
    fn from(socket: TcpListener) -> Listeners {
        Listeners { sockets: vec![socket], tls: None, private: None }
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

/// Sockets that another program has bound, in its order, with whom they were for and their addresses.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(Side, SocketAddr, TcpListener)>);

impl Inherited {
    /// These sockets.
    ///
    /// # Errors
    /// The system does not say where one of them is bound.
    pub fn new(sockets: Vec<(Side, TcpListener)>) -> io::Result<Inherited> {
        let with_address = |(side, socket): (Side, TcpListener)| Ok((side, socket.local_addr()?, socket));
        Ok(Inherited(sockets.into_iter().map(with_address).collect::<io::Result<_>>()?))
    }

    /// The socket for an address of `config`, which is for `side`. Port 0 is any that was for that side too and that `config`
    /// does not name: nobody's clients should find themselves among the metrics.
    fn take(&mut self, side: Side, address: SocketAddr, config: &Config) -> Option<TcpListener> {
        let same = |bound: &SocketAddr, named: &SocketAddr| (bound.ip(), bound.port()) == (named.ip(), named.port());
        let is_named =
            |bound: &SocketAddr| config.listen.iter().chain(&config.private_listen).any(|named| same(bound, named));
        let any = |was: Side, bound: &SocketAddr| {
            address.port() == 0 && was == side && bound.ip() == address.ip() && !is_named(bound)
        };
        let at = self.0.iter().position(|(was, bound, _)| same(bound, &address) || any(*was, bound))?;
        Some(self.0.remove(at).2)
    }

    /// The addresses of those that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|(_, address, _)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn each_address_gets_the_socket_that_is_bound_to_it() {
        let sockets = [bound(), bound(), bound(), bound()];
        let [any, named, private, unnamed] = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let mut inherited = Inherited::new(sockets.into_iter().map(|socket| (Side::Public, socket)).collect()).unwrap();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap(), named, "127.0.0.2:0".parse().unwrap()],
            private_listen: Some(private),
            ..Config::default()
        };
        let listeners = Listeners::bind(&config, &mut inherited).unwrap();
        let addresses = listeners.addresses().unwrap();
        assert_eq!(addresses[..2], [any, named]);
        // Nobody had it.
        assert_eq!(addresses[2].ip().to_string(), "127.0.0.2");
        assert_eq!(listeners.private.unwrap().local_addr().unwrap(), private);
        assert_eq!(inherited.left().collect::<Vec<_>>(), [unnamed]);
    }

    #[test]
    fn any_socket_is_one_of_the_same_side() {
        let sockets = [bound(), bound(), bound(), bound()];
        let [named, free, private, other] = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let sides = [Side::Public, Side::Public, Side::Private, Side::Private];
        let mut inherited = Inherited::new(sides.into_iter().zip(sockets).collect()).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        // What is named has changed sides because somebody says so.
        let config = Config { listen: vec![other, any, any], private_listen: Some(any), ..Config::default() };
        let listeners = Listeners::bind(&config, &mut inherited).unwrap();
        let addresses = listeners.addresses().unwrap();
        assert_eq!(addresses, [other, named, free]);
        assert_eq!(listeners.private.unwrap().local_addr().unwrap(), private);
        assert_eq!(inherited.left().count(), 0);
    }

    #[test]
    fn a_taken_address_is_named() {
        let taken = bound();
        let config = Config { listen: vec![taken.local_addr().unwrap()], ..Config::default() };
        let error = Listeners::bind(&config, &mut Inherited::default()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", config.listen[0])), "{error}");
    }
}
