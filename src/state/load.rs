//! How much is going on at once: connections, in all and for each client address, and calls.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use ipnet::IpNet;

use crate::config::Limits;
use crate::pure::address::Neighbourhood;

/// What is counted, by all threads together, and how far it may go.
#[derive(Debug)]
pub struct Load {
    connections: AtomicUsize,
    connections_max: usize,
    by_address: Mutex<HashMap<Neighbourhood, usize, RandomState>>,
    by_address_max: usize,
    trusted_proxies: Vec<IpNet>,
    requests: AtomicUsize,
    requests_max: usize,
    refused: AtomicU64,
    shed: AtomicU64,
}

impl Load {
    /// Nothing yet, under `limits`; `trusted_proxies` bring the connections of many.
    pub fn new(limits: &Limits, trusted_proxies: &[IpNet]) -> Load {
        Load {
            connections: AtomicUsize::new(0),
            connections_max: limits.connections,
            by_address: Mutex::default(),
            by_address_max: limits.connections_an_address,
            trusted_proxies: trusted_proxies.to_vec(),
            requests: AtomicUsize::new(0),
            requests_max: limits.requests,
            refused: AtomicU64::new(0),
            shed: AtomicU64::new(0),
        }
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Calls under way now.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections that were closed as they came, because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Calls that were answered 503 as they came, because there were too many.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// A place for a connection from `peer`, unless there are too many of them.
    pub fn connect(self: &Arc<Load>, peer: IpAddr) -> Option<Place> {
        let place = self.place(peer);
        if place.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    fn place(self: &Arc<Load>, peer: IpAddr) -> Option<Place> {
        if !begin(&self.connections, self.connections_max) {
            return None;
        }
        // Given back when dropped, also by the returns below.
        let mut place = Place { load: self.clone(), neighbourhood: None };
        let peer = peer.to_canonical();
        if self.trusted_proxies.iter().any(|network| network.contains(&peer)) {
            return Some(place);
        }
        let neighbourhood = Neighbourhood::of(peer);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(neighbourhood).or_default();
        if *count >= self.by_address_max {
            drop(by_address);
            return None;
        }
        *count += 1;
        place.neighbourhood = Some(neighbourhood);
        drop(by_address);
        Some(place)
    }
}

/// The place of a connection among those that may be open; dropping it makes room for another.
#[derive(Debug)]
pub struct Place {
    load: Arc<Load>,
    neighbourhood: Option<Neighbourhood>,
}

impl Place {
    /// Counts a call; `false` when there are too many.
    pub fn begin_call(&self) -> bool {
        let begun = begin(&self.load.requests, self.load.requests_max);
        if !begun {
            self.load.shed.fetch_add(1, Ordering::Relaxed);
        }
        begun
    }

    /// A call that was begun has ended.
    pub fn end_call(&self) {
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(neighbourhood) = self.neighbourhood {
            let mut by_address = self.load.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_address.get_mut(&neighbourhood) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&neighbourhood);
                }
            }
        }
        self.load.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, if that is not too many.
fn begin(count: &AtomicUsize, max: usize) -> bool {
    let fits = count.fetch_add(1, Ordering::Relaxed) < max;
    if !fits {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(yaml: &str) -> Arc<Load> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let config = Config::load(Some(file.path()), std::iter::empty()).unwrap();
        Arc::new(Load::new(&config.limits, &config.trusted_proxies))
    }

    #[test]
    fn a_place_that_is_left_is_free_again() {
        let load = load("limits: { connections: 2 }");
        let peer = IpAddr::from([192, 0, 2, 1]);
        let first = load.connect(peer).unwrap();
        let _second = load.connect(peer).unwrap();
        assert!(load.connect(peer).is_none());
        assert_eq!((load.connections(), load.refused()), (2, 1));
        drop(first);
        assert!(load.connect(peer).is_some());
        assert_eq!(load.connections(), 1);
    }

    #[test]
    fn an_address_has_places_of_its_own() {
        let load = load("limits: { connections_an_address: 1 }\ntrusted_proxies: [10.0.0.0/8]");
        let connect = |peer: &str| load.connect(peer.parse().unwrap());
        let places = [connect("192.0.2.1"), connect("192.0.2.2"), connect("2001:db8:0:1::1"), connect("10.0.0.1")];
        assert!(places.iter().all(Option::is_some));
        for taken in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8:0:1:ffff::"] {
            assert!(connect(taken).is_none(), "{taken}");
        }
        for free in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8:0:2::1"] {
            assert!(connect(free).is_some(), "{free}");
        }
        drop(places);
        assert_eq!(load.connections(), 0);
        assert!(load.by_address.lock().unwrap().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn calls_beyond_the_limit_are_counted_and_not_begun() {
        let load = load("limits: { requests: 1 }");
        let place = load.connect([192, 0, 2, 1].into()).unwrap();
        assert!(place.begin_call());
        assert!(!place.begin_call());
        place.end_call();
        assert!(place.begin_call());
        assert_eq!((load.requests(), load.shed()), (1, 1));
    }
}
