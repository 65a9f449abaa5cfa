//! Limits of requests a minute: one token bucket for each key, one for each client address of open routes, and one for
//! each of both at an API that has a limit of its own.
//!
//! A bucket holds `burst` requests and refills evenly. With 60 a minute and a burst of 60, a caller that comes after
//! a pause gets 60 at once and one more each second, so up to 119 pass within the worst 60 seconds.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use governor::clock::Clock as _;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, RateLimiter};

use crate::pure::address::Neighbourhood;
use crate::pure::plan::Rate;
use crate::state::clock::Clock;

/// What a limiter says of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the call may go on; if so, it has been counted.
    pub admitted: bool,
    /// Where the caller stands after this call.
    pub quota: Quota,
    /// Whole seconds after which the next call will pass, rounded up; zero for an admitted call.
    pub retry_after_s: u64,
}

/// Where a throttled caller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Calls a minute that the bucket is refilled with.
    pub requests_a_minute: u32,
    /// Calls that would pass at this moment.
    pub remaining: u32,
    /// Whole seconds until the bucket is full again, rounded up.
    pub reset_s: u64,
}

/// The token bucket of one key. Exact, however many calls come at once.
#[derive(Debug)]
pub struct Limiter {
    bucket: Bucket,
    governor: RateLimiter<NotKeyed, InMemoryState, Clock, StateInformationMiddleware>,
}

impl Limiter {
    /// A full bucket.
    pub fn new(rate: Rate, clock: Clock) -> Limiter {
        let bucket = Bucket::new(rate);
        Limiter { bucket, governor: RateLimiter::new(bucket.governor_quota(), InMemoryState::default(), clock) }
    }

    /// The rate this limiter was made for.
    pub fn rate(&self) -> Rate {
        self.bucket.rate
    }

    /// Takes one call from the bucket, if one is left.
    pub fn check(&self) -> Verdict {
        self.bucket.verdict(self.governor.check(), self.governor.clock())
    }
}

/// The token buckets of callers: a bounded number, and one more that all further callers share.
#[derive(Debug)]
pub struct CallerLimiter<C: Clone + Eq + Hash> {
    /// Shared with the limiter before it: what the buckets hold counts from when their governor was made.
    limits: Arc<Limits<C>>,
    buckets_max: usize,
}

#[derive(Debug)]
struct Limits<C: Clone + Eq + Hash> {
    bucket: Bucket,
    governor: RateLimiter<C, Buckets<C>, Clock, StateInformationMiddleware>,
    buckets: Buckets<C>,
    shared: Limiter,
    next_sweep: Mutex<Duration>,
}

/// The token buckets of client addresses.
pub type AddressLimiter = CallerLimiter<Neighbourhood>;

/// Who calls an API that has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The key of this number.
    Key(u32),
    /// Somebody without a key.
    Address(Neighbourhood),
}

impl AddressLimiter {
    /// Takes one call from the address's bucket, if one is left.
    ///
    /// IPv4 counts by the address, IPv6 by the /64 that one customer is given, and IPv4 written as IPv6 as IPv4.
    pub fn check(&self, address: IpAddr) -> Verdict {
        self.check_caller(&Neighbourhood::of(address))
    }
}

impl<C: Clone + Eq + Hash> CallerLimiter<C> {
    /// Full buckets for up to `callers_max` callers at a time.
    pub fn new(rate: Rate, callers_max: usize, clock: Clock) -> CallerLimiter<C> {
        let (bucket, buckets) = (Bucket::new(rate), Buckets(Arc::default()));
        let limits = Limits {
            bucket,
            governor: RateLimiter::new(bucket.governor_quota(), buckets.clone(), clock.clone()),
            buckets,
            shared: Limiter::new(rate, clock),
            next_sweep: Mutex::new(Duration::ZERO),
        };
        CallerLimiter { limits: Arc::new(limits), buckets_max: callers_max }
    }

    /// A limiter under other terms. The buckets go on, unless the rate is another: they are counted in its terms.
    pub fn under(&self, rate: Rate, callers_max: usize) -> CallerLimiter<C> {
        if rate == self.limits.shared.rate() {
            CallerLimiter { limits: Arc::clone(&self.limits), buckets_max: callers_max }
        } else {
            CallerLimiter::new(rate, callers_max, self.limits.governor.clock().clone())
        }
    }

    /// Takes one call from the caller's bucket, if one is left.
    pub fn check_caller(&self, caller: &C) -> Verdict {
        let Limits { bucket, governor, buckets, shared, .. } = &*self.limits;
        if !buckets.0.contains_key(caller) && !self.has_room() {
            return shared.check();
        }
        bucket.verdict(governor.check_key(caller), governor.clock())
    }

    /// Whether another bucket may be added. Threads that ask at the same time may all be told yes, so the bound can
    /// be passed by the number of threads. When there is no room, buckets that have filled up again, which are as
    /// good as new ones, are dropped; at most once a second, because that looks at every bucket.
    fn has_room(&self) -> bool {
        let Limits { governor, buckets, next_sweep, .. } = &*self.limits;
        if buckets.0.len() < self.buckets_max {
            return true;
        }
        let now = governor.clock().now();
        let mut next_sweep = next_sweep.lock().unwrap_or_else(PoisonError::into_inner);
        if now < *next_sweep {
            return false;
        }
        *next_sweep = now + Duration::from_secs(1);
        governor.retain_recent();
        buckets.0.len() < self.buckets_max
    }
}

/// The map of buckets, shared between governor, which changes it, and [`CallerLimiter`], which counts it.
#[derive(Clone, Debug)]
struct Buckets<C: Clone + Eq + Hash>(Arc<DashMap<C, InMemoryState, RandomState>>);

impl<C: Clone + Eq + Hash> StateStore for Buckets<C> {
    type Key = C;

    fn measure_and_replace<T, F, E>(&self, key: &C, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, decide)
    }
}

impl<C: Clone + Eq + Hash> ShrinkableKeyedStateStore<C> for Buckets<C> {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(&*self.0, drop_below);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A rate, and the arithmetic of what is said about it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
}

/// The most that a bucket holds, whatever is asked for: a minute times this still fits the nanoseconds in 64 bits
/// that governor counts in.
const BURST_MAX: NonZeroU32 = NonZeroU32::new(100_000_000).unwrap();

impl Bucket {
    fn new(rate: Rate) -> Bucket {
        Bucket { rate }
    }

    fn burst(self) -> NonZeroU32 {
        self.rate.burst.min(BURST_MAX)
    }

    /// Time in which one call is refilled, rounded as governor rounds it.
    fn interval(self) -> Duration {
        Duration::from_secs(60) / self.rate.requests_a_minute.get()
    }

    fn governor_quota(self) -> governor::Quota {
        governor::Quota::per_minute(self.rate.requests_a_minute).allow_burst(self.burst())
    }

    fn verdict(self, outcome: Result<StateSnapshot, NotUntil<Duration>>, clock: &Clock) -> Verdict {
        match outcome {
            Ok(state) => {
                Verdict { admitted: true, quota: self.quota(state.remaining_burst_capacity()), retry_after_s: 0 }
            }
            Err(refusal) => Verdict {
                admitted: false,
                quota: self.quota(0),
                retry_after_s: seconds_up(refusal.wait_time_from(clock.now()).as_nanos()).max(1),
            },
        }
    }

    fn quota(self, remaining: u32) -> Quota {
        let missing = u128::from(self.burst().get().saturating_sub(remaining));
        Quota {
            requests_a_minute: self.rate.requests_a_minute.get(),
            remaining,
            reset_s: seconds_up(missing * self.interval().as_nanos()),
        }
    }
}

fn seconds_up(nanoseconds: u128) -> u64 {
    u64::try_from(nanoseconds.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn rate(requests_a_minute: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).unwrap();
        Rate { requests_a_minute: number(requests_a_minute), burst: number(burst) }
    }

    #[test]
    fn a_bucket_empties_says_so_and_refills() {
        let clock = Clock::fixed(1_765_924_235);
        let limiter = Limiter::new(rate(60, 3), clock.clone());
        let quota = |remaining, reset_s| Quota { requests_a_minute: 60, remaining, reset_s };
        for (remaining, reset_s) in [(2, 1), (1, 2), (0, 3)] {
            let verdict = limiter.check();
            assert_eq!(verdict, Verdict { admitted: true, quota: quota(remaining, reset_s), retry_after_s: 0 });
        }
        assert_eq!(limiter.check(), Verdict { admitted: false, quota: quota(0, 3), retry_after_s: 1 });
        clock.advance(Duration::from_millis(999));
        assert!(!limiter.check().admitted);
        clock.advance(Duration::from_millis(1));
        assert!(limiter.check().admitted);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(limiter.check().quota.remaining, 2);
    }

    #[test]
    fn waiting_as_long_as_told_is_enough() {
        let clock = Clock::fixed(0);
        let limiter = Limiter::new(rate(7, 1), clock.clone());
        assert!(limiter.check().admitted);
        clock.advance(Duration::from_millis(40));
        let refused = limiter.check();
        assert_eq!((refused.admitted, refused.retry_after_s), (false, 9));
        clock.advance(Duration::from_secs(refused.retry_after_s));
        assert!(limiter.check().admitted);
    }

    #[test]
    fn many_threads_pass_exactly_the_limit() {
        let limiter = Limiter::new(rate(60, 60), Clock::fixed(1_765_924_235));
        let admitted = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..125 {
                        admitted.fetch_add(limiter.check().admitted.into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 60);
    }

    #[test]
    fn addresses_of_one_neighbourhood_share_a_bucket() {
        let limiter = AddressLimiter::new(rate(60, 1), 100, Clock::fixed(0));
        let passes = |text: &str| limiter.check(text.parse().unwrap()).admitted;
        assert!(passes("192.0.2.1"));
        assert!(!passes("192.0.2.1"));
        assert!(!passes("::ffff:192.0.2.1"));
        assert!(passes("192.0.2.2"));
        assert!(passes("2001:db8:1:2::1"));
        assert!(!passes("2001:db8:1:2:ffff::9"));
        assert!(passes("2001:db8:1:3::1"));
    }

    #[test]
    fn a_limiter_under_other_terms_goes_on_however_old_it_is() {
        let clock = Clock::fixed(1_000);
        let limiter = AddressLimiter::new(rate(60, 3), 10, clock.clone());
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!(limiter.check(address).admitted);
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(limiter.check(address).quota.remaining, 2);
        let after = limiter.under(rate(60, 3), 20);
        assert_eq!(after.check(address).quota.remaining, 1);
        assert_eq!(limiter.check(address).quota.remaining, 0, "calls under way count in the same buckets");
        assert!(!after.check(address).admitted);
        assert_eq!(after.under(rate(60, 4), 20).check(address).quota.remaining, 3);
    }

    #[test]
    fn addresses_beyond_the_bound_share_one_bucket_until_there_is_room() {
        let clock = Clock::fixed(1_000);
        let limiter = AddressLimiter::new(rate(60, 2), 10, clock.clone());
        let check = |n: u32| limiter.check(IpAddr::V4(n.into())).admitted;
        assert!((0..10).all(check));
        // The eleventh and twelfth find the shared bucket, the next find it empty, those who were there go on.
        assert!(check(10) && check(11) && !check(12) && !check(10));
        assert!(check(3));
        assert_eq!(limiter.limits.buckets.0.len(), 10);
        clock.advance(Duration::from_secs(10));
        // All have filled up and are forgotten; a new address gets a bucket of its own.
        assert!(check(12) && check(12) && !check(12));
        assert_eq!(limiter.limits.buckets.0.len(), 1);
    }

    proptest! {
        #[test]
        fn every_rate_keeps_its_promises(a_minute in 1..=u32::MAX, burst in 1..=u32::MAX, calls in 1..50_u32) {
            let clock = Clock::fixed(4_000_000_000);
            let limiter = Limiter::new(rate(a_minute, burst), clock.clone());
            for call in 1..=calls {
                let verdict = limiter.check();
                prop_assert_eq!(verdict.admitted, call <= burst);
                if !verdict.admitted {
                    prop_assert!(verdict.retry_after_s >= 1);
                    clock.advance(Duration::from_secs(verdict.retry_after_s));
                    prop_assert!(limiter.check().admitted);
                    break;
                }
                prop_assert!(verdict.quota.remaining < burst);
            }
        }
    }
}
