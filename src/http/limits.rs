//! Rate limits: so many requests a minute from one peer, and so many for one project.
//!
//! A limit is a bucket that holds a minute's worth and fills steadily (GCRA), so a burst may spend all of it at once.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};

use super::serve::Peer;

/// Both limits.
#[derive(Debug)]
pub struct RateLimits {
    project: Option<Limit<Arc<str>>>,
    peer: Option<Limit<Origin>>,
}

/// Where a peer's requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// An address; of IPv6 the network, which one host has for itself.
    Address(IpAddr),
    User(u32),
}

/// A limit in force, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute.
    pub per_minute: u32,
    /// How many may be made at once now.
    pub remaining: u32,
}

/// Too many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// When the next one will be admitted.
    pub wait: Duration,
}

impl RateLimits {
    /// Limits of so many requests a minute. 0 is no limit.
    #[must_use]
    pub fn new(per_project: u32, per_peer: u32) -> Self {
        Self { project: Limit::new(per_project), peer: Limit::new(per_peer) }
    }

    /// Counts a request of a peer. None is left out: there is no limit then.
    ///
    /// # Errors
    /// It has made too many.
    pub fn admit_peer(&self, peer: &Peer) -> Result<Option<Allowance>, OverLimit> {
        self.peer.as_ref().map(|limit| limit.admit(&Origin::of(peer))).transpose()
    }

    /// Counts a request for a project. None is left out: there is no limit then.
    ///
    /// # Errors
    /// There were too many.
    pub fn admit_project(&self, project: &Arc<str>) -> Result<Option<Allowance>, OverLimit> {
        self.project.as_ref().map(|limit| limit.admit(project)).transpose()
    }
}

impl Origin {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Unix(credentials) => Self::User(credentials.uid),
            Peer::Tcp { address, .. } => match address.ip().to_canonical() {
                IpAddr::V6(ip) => Self::Address(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()),
                v4 @ IpAddr::V4(_) => Self::Address(v4),
            },
        }
    }
}

type Buckets<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

#[derive(Debug)]
struct Limit<K: Clone + Eq + Hash> {
    buckets: Buckets<K>,
    clock: DefaultClock,
    per_minute: NonZeroU32,
    admitted: AtomicU32,
}

/// After so many requests the buckets that are full again are forgotten.
const REQUESTS_BETWEEN_SWEEPS: u32 = 4096;

impl<K: Clone + Eq + Hash> Limit<K> {
    fn new(per_minute: u32) -> Option<Self> {
        let per_minute = NonZeroU32::new(per_minute)?;
        let buckets = RateLimiter::keyed(Quota::per_minute(per_minute)).with_middleware();
        Some(Self { buckets, clock: DefaultClock::default(), per_minute, admitted: AtomicU32::new(0) })
    }

    fn admit(&self, key: &K) -> Result<Allowance, OverLimit> {
        if self.admitted.fetch_add(1, Ordering::Relaxed).is_multiple_of(REQUESTS_BETWEEN_SWEEPS) {
            self.buckets.retain_recent();
        }
        match self.buckets.check_key(key) {
            Ok(left) => Ok(Allowance { per_minute: self.per_minute.get(), remaining: left.remaining_burst_capacity() }),
            Err(until) => Err(OverLimit { wait: until.wait_time_from(self.clock.now()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp { address: address.parse().unwrap(), tls: false, proxy: None }
    }

    #[test]
    fn a_burst_may_spend_a_minutes_worth_and_then_waits() {
        let limits = RateLimits::new(3, 0);
        let project = Arc::from("p1");
        for remaining in [2, 1, 0] {
            assert_eq!(limits.admit_project(&project), Ok(Some(Allowance { per_minute: 3, remaining })));
        }
        let wait = limits.admit_project(&project).unwrap_err().wait;
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        assert!(limits.admit_project(&Arc::from("p2")).is_ok());
    }

    #[test]
    fn an_ipv6_host_is_its_network_and_an_ipv4_host_its_address() {
        let limits = RateLimits::new(0, 1);
        for (admitted, other) in [
            ("192.0.2.1:1", "192.0.2.1:2"),
            ("[2001:db8::1]:1", "[2001:db8::2:1]:1"),
            ("192.0.2.2:1", "[::ffff:192.0.2.2]:1"),
        ] {
            assert!(limits.admit_peer(&peer(admitted)).is_ok(), "{admitted}");
            assert!(limits.admit_peer(&peer(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn nought_is_no_limit() {
        let limits = RateLimits::new(0, 0);
        for _ in 0..1000 {
            assert_eq!(limits.admit_project(&Arc::from("p1")), Ok(None));
            assert_eq!(limits.admit_peer(&peer("192.0.2.1:1")), Ok(None));
        }
    }
}
