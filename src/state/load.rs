//! How much is going on at once: connections, in all and for each client address, and calls.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use ipnet::IpNet;

use crate::config::Limits;
use crate::pure::address::Neighbourhood;

/// What is counted, by all threads together. How far it may go is said each time: that may change.
#[derive(Debug, Default)]
pub struct Load {
    connections: AtomicUsize,
    by_address: Mutex<HashMap<Neighbourhood, usize, RandomState>>,
    requests: AtomicUsize,
    refused: AtomicU64,
    shed: AtomicU64,
}

impl Load {
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

    /// A place for a connection from `peer`, unless there are too many of them; `trusted_proxies` bring the connections of
    /// many.
    pub fn connect(self: &Arc<Load>, peer: IpAddr, limits: &Limits, trusted_proxies: &[IpNet]) -> Option<Place> {
        let place = self.place(peer, limits, trusted_proxies);
        if place.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    fn place(self: &Arc<Load>, peer: IpAddr, limits: &Limits, trusted_proxies: &[IpNet]) -> Option<Place> {
        if !begin(&self.connections, limits.connections) {
            return None;
        }
        // Given back when dropped, also by the returns below.
        let mut place = Place { load: self.clone(), neighbourhood: None };
        let peer = peer.to_canonical();
        if trusted_proxies.iter().any(|network| network.contains(&peer)) {
            return Some(place);
        }
        let neighbourhood = Neighbourhood::of(peer);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(neighbourhood).or_default();
        if *count >= limits.connections_an_address {
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
    /// Counts a call; `false` when there are as many as `requests_max`.
    pub fn begin_call(&self, requests_max: usize) -> bool {
        let begun = begin(&self.load.requests, requests_max);
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

    fn config(yaml: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        Config::load(Some(file.path()), std::iter::empty()).unwrap()
    }

    fn connect(load: &Arc<Load>, config: &Config, peer: &str) -> Option<Place> {
        load.connect(peer.parse().unwrap(), &config.limits, &config.trusted_proxies)
    }

    #[test]
    fn a_place_that_is_left_is_free_again() {
        let (load, config) = (Arc::default(), config("limits: { connections: 2 }"));
        let connect = || connect(&load, &config, "192.0.2.1");
        let first = connect().unwrap();
        let _second = connect().unwrap();
        assert!(connect().is_none());
        assert_eq!((load.connections(), load.refused()), (2, 1));
        drop(first);
        assert!(connect().is_some());
        assert_eq!(load.connections(), 1);
    }

    #[test]
    fn an_address_has_places_of_its_own() {
        let config = config("limits: { connections_an_address: 1 }\ntrusted_proxies: [10.0.0.0/8]");
        let load = Arc::default();
        let connect = |peer: &str| connect(&load, &config, peer);
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
    fn limits_may_become_others_while_places_are_taken() {
        let (load, narrow) = (Arc::default(), config("limits: { connections: 1, connections_an_address: 1 }"));
        let (wide, proxied) = (Config::default(), config("trusted_proxies: [192.0.2.0/24]"));
        let first = connect(&load, &wide, "192.0.2.1").unwrap();
        let second = connect(&load, &wide, "192.0.2.1").unwrap();
        assert!(connect(&load, &narrow, "192.0.2.2").is_none());
        drop(first);
        // Who has come as a client leaves as one.
        let third = connect(&load, &proxied, "192.0.2.1").unwrap();
        drop((second, third));
        assert!(connect(&load, &narrow, "192.0.2.1").is_some());
        assert!(load.by_address.lock().unwrap().is_empty());
    }

    #[test]
    fn calls_beyond_the_limit_are_counted_and_not_begun() {
        let (load, config) = (Arc::default(), Config::default());
        let place = connect(&load, &config, "192.0.2.1").unwrap();
        assert!(place.begin_call(1));
        assert!(!place.begin_call(1));
        place.end_call();
        assert!(place.begin_call(1));
        assert_eq!((load.requests(), load.shed()), (1, 1));
    }
}
