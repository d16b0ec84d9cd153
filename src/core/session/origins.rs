//! Origins: the addresses that share a limit, and a token bucket for each origin.
//!
//! A limit on each connection does not bound a peer that opens many connections. So some limits
//! hold for all connections of one origin together. An origin is an IPv4 address, or the first 64
//! bits of an IPv6 address. The limits group IPv6 addresses in this way, because usually one host
//! can use all addresses with the same first 64 bits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::core::base::bucket::{Bucket, Rate};
use crate::core::base::clock::Time;

/// The maximum number of origins that have a bucket of their own at the same time.
const MAX_ORIGINS: usize = 65_536;

/// The maximum number of sweeps in the time in which an empty bucket becomes full. A sweep removes
/// all full buckets. A sweep visits every bucket, so it must not run for every new origin.
const MAX_SWEEPS_PER_PERIOD: u32 = 16;

/// Returns the origin of an address. An IPv4-mapped IPv6 address has the origin of the IPv4
/// address.
#[must_use]
pub fn origin(address: IpAddr) -> IpAddr {
    masked(address, 32, 64)
}

/// Returns the network of an address: the first 24 bits of an IPv4 address, or the first 48 bits of
/// an IPv6 address. Providers usually give a customer at most such a network.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    masked(address, 24, 48)
}

/// Returns `address` with all bits after the prefix set to 0. Both prefixes must be at least 1,
/// because a shift by all bits overflows.
fn masked(address: IpAddr, v4_prefix: u32, v6_prefix: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - v4_prefix))).into(),
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - v6_prefix))).into()
        }
    }
}

/// A [`Bucket`] for each origin or network. The memory is bounded: at most 65,536 origins have a
/// bucket of their own, and all other origins together use one bucket. A bucket that is full again
/// can be removed, so that another origin gets a bucket of its own.
///
/// ```
/// use std::time::Duration;
/// use herd_mio::core::base::bucket::Rate;
/// use herd_mio::core::base::clock::Time;
/// use herd_mio::core::session::origins::OriginBuckets;
///
/// let size = Rate { capacity: 2, period: Duration::from_secs(10) };
/// let (one, other) = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
/// let mut buckets = OriginBuckets::default();
/// let now = Time::from_nanos(0);
/// assert!(buckets.take(one, 2, size, now));
/// assert!(!buckets.take(one, 1, size, now), "it has used its share");
/// assert!(buckets.take(other, 1, size, now), "another origin has its own");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Default)]
pub struct OriginBuckets {
    buckets: BTreeMap<IpAddr, Bucket>,
    /// The bucket of all origins that have no bucket of their own.
    overflow: Bucket,
    /// The earliest time of the next sweep: see [`MAX_SWEEPS_PER_PERIOD`].
    sweep_at: Time,
}

impl OriginBuckets {
    /// Takes `count` units out of the bucket of `origin`. Returns `false`, and takes nothing, if
    /// the bucket contains fewer units.
    pub fn take(&mut self, origin: IpAddr, count: u64, size: Rate, now: Time) -> bool {
        if let Some(bucket) = self.buckets.get_mut(&origin) {
            return bucket.take(count, size, now);
        }
        if self.buckets.len() >= MAX_ORIGINS && now >= self.sweep_at {
            self.sweep_at = now + size.period / MAX_SWEEPS_PER_PERIOD;
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.buckets.len() >= MAX_ORIGINS {
            return self.overflow.take(count, size, now);
        }
        let mut bucket = Bucket::default();
        let fits = bucket.take(count, size, now);
        if fits {
            self.buckets.insert(origin, bucket);
        }
        fits
    }

    /// Puts `count` units back into the bucket of `origin`, up to the capacity of the bucket.
    pub fn refund(&mut self, origin: IpAddr, count: u64, size: Rate) {
        let is_shared = self.buckets.len() >= MAX_ORIGINS;
        let shared = is_shared.then_some(&mut self.overflow);
        if let Some(bucket) = self.buckets.get_mut(&origin).or(shared) {
            bucket.refund(count, size);
        }
    }

    /// Returns the time until the bucket of `origin` contains `count` units. `None` if the bucket
    /// contains them now.
    #[must_use]
    pub fn wait(&self, origin: IpAddr, count: u64, size: Rate, now: Time) -> Option<Duration> {
        let shared = (self.buckets.len() >= MAX_ORIGINS).then_some(&self.overflow);
        let bucket = self.buckets.get(&origin).or(shared)?;
        let is_available = bucket.contains(count, size, now);
        (!is_available).then(|| bucket.available_at(count, size).since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Rate = Rate {
        capacity: 1,
        period: Duration::from_secs(16),
    };

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn an_origin_and_a_network_are_prefixes() {
        for (address, of_origin, of_network) in [
            ("192.0.2.77", "192.0.2.77", "192.0.2.0"),
            ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(origin(address), of_origin.parse::<IpAddr>().unwrap());
            assert_eq!(network(address), of_network.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let mut buckets = OriginBuckets::default();
        let address = |number: usize| Ipv4Addr::from_bits(number as u32).into();
        for number in 0..MAX_ORIGINS {
            assert!(buckets.take(address(number), 1, SIZE, at(0)));
        }
        assert!(buckets.take(address(MAX_ORIGINS), 1, SIZE, at(0)));
        let next = address(MAX_ORIGINS + 1);
        assert!(!buckets.take(next, 1, SIZE, at(0)), "it shares a bucket");
        let wait = buckets.wait(next, 1, SIZE, at(1));
        assert_eq!(wait, Some(Duration::from_secs(15)));
        assert!(!buckets.take(next, 1, SIZE, at(15)));
        // All buckets are full again, so the next sweep removes them.
        assert!(buckets.take(next, 1, SIZE, at(16)));
        assert_eq!(buckets.buckets.len(), 1);
    }
}
