//! Host names and their addresses. An answer of the name server is used for a minute. If the next
//! look-up fails, the last good answer is used again. The resolver also remembers which address
//! worked last, and chooses the order in which addresses are tried (RFC 8305).
//!
//! A look-up blocks its thread. So the core only requests look-ups. The shell, which is the part of
//! the server outside the core, runs them on a few threads of its own and reports the answers to
//! [`Resolver::resolved`].
//!
//! ```text
//!   unknown ──ask──► asking ──answer──► fresh ──60 s──► stale ──ask──► asking …
//!                      └─────failure──► failed ──1 s, then ask───────► asking …
//! ```
//!
//! A look-up that takes too long counts as failed until its result arrives. Meanwhile no second
//! look-up of the name is begun, because it would occupy another thread.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::base::clock::Time;
use crate::core::base::settings::HostPort;

/// How long an answer is used without a new look-up.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// How long a failure is remembered. Without this time, many callers would query a broken name
/// server in a loop.
const FAILURE_FOR: Duration = Duration::from_secs(1);
/// How long an address that worked is tried before all others: about ten minutes (RFC 6555, section
/// 4.2). After that, the usual order is used again.
const WORKING_FOR: Duration = Duration::from_secs(600);

/// The answer of [`Resolver::resolve`] about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The addresses of the name, in the order to try; never empty.
    Known(Vec<SocketAddr>),
    /// A look-up is running. Ask again when it has ended, or at [`Resolver::deadline`].
    Pending,
    /// The look-up failed, and there was never a good answer. The field is the reason.
    Failed(String),
}

#[derive(Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    fresh_until: Time,
    /// The time at which the running look-up began; `None` if no look-up is running.
    look_up_since: Option<Time>,
    /// The last failure: the time until which it is remembered, and its reason.
    failed: Option<(Time, String)>,
    /// The address that worked last, and the time until which it is tried first.
    last_good: Option<(IpAddr, Time)>,
}

/// The host names to which one server connects.
pub struct Resolver {
    entries: HashMap<String, Entry>,
    timeout: Duration,
}

impl Resolver {
    /// Creates an empty resolver. A look-up counts as failed if there is no answer within
    /// `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Resolver {
        Resolver {
            entries: HashMap::new(),
            timeout,
        }
    }

    /// Returns the addresses of `target`. If the host name has to be looked up, calls `look_up`
    /// with the host name. While a look-up of a name is running, no second look-up of this name
    /// begins.
    pub fn resolve(
        &mut self,
        target: &HostPort,
        now: Time,
        look_up: impl FnOnce(&str),
    ) -> Resolution {
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            return Resolution::Known(vec![SocketAddr::new(ip, target.port)]);
        }
        let timeout = self.timeout;
        let entry = self.entries.entry(target.host.clone()).or_default();
        if !entry.addresses.is_empty() && now < entry.fresh_until {
            return entry.resolution(target.port, now);
        }
        let failure = match (&entry.failed, entry.look_up_since) {
            (Some((until, reason)), None) if now < *until => reason.clone(),
            (_, Some(since)) if now.since(since) >= timeout => {
                format!(
                    "no answer from the name server within {} s",
                    timeout.as_secs_f32()
                )
            }
            (_, Some(_)) => return Resolution::Pending,
            (_, None) => {
                entry.look_up_since = Some(now);
                look_up(&target.host);
                return Resolution::Pending;
            }
        };
        if entry.addresses.is_empty() {
            Resolution::Failed(failure)
        } else {
            entry.resolution(target.port, now)
        }
    }

    /// Returns the last good answer for `host`, however old it is. If `host` is an IP address,
    /// returns this address. Starts no look-up.
    #[must_use]
    pub fn last_known(&self, host: &str) -> Vec<IpAddr> {
        match host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self
                .entries
                .get(host)
                .map(|entry| entry.addresses.clone())
                .unwrap_or_default(),
        }
    }

    /// Whether a look-up of `host` is running, even if it has taken too long.
    #[must_use]
    pub fn is_looking_up(&self, host: &str) -> bool {
        self.entries
            .get(host)
            .is_some_and(|entry| entry.look_up_since.is_some())
    }

    /// Returns the time from which a look-up that begins at `now` counts as failed.
    #[must_use]
    pub fn deadline(&self, now: Time) -> Time {
        now + self.timeout
    }

    /// Stores the result of the look-up of `host`: the addresses, or the reason of the failure.
    pub fn resolved(&mut self, host: &str, found: Result<Vec<IpAddr>, String>, now: Time) {
        let Some(entry) = self.entries.get_mut(host) else {
            return;
        };
        entry.look_up_since = None;
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                entry.addresses = addresses;
                entry.fresh_until = now + FRESH_FOR;
                entry.failed = None;
            }
            Ok(_) => entry.failed = Some((now + FAILURE_FOR, "the name has no address".to_owned())),
            Err(reason) => entry.failed = Some((now + FAILURE_FOR, reason)),
        }
    }

    /// Stores that a connection to this address of `host` was made. For ten minutes, this address
    /// is tried first.
    pub fn mark_working(&mut self, host: &str, address: IpAddr, now: Time) {
        if let Some(entry) = self.entries.get_mut(host) {
            entry.last_good = Some((address, now + WORKING_FOR));
        }
    }

    /// Stores that no address of `host` can be reached. The addresses may have changed, so after a
    /// second the name can be looked up again.
    pub fn mark_unreachable(&mut self, host: &str, now: Time) {
        if let Some(entry) = self.entries.get_mut(host) {
            entry.last_good = None;
            entry.fresh_until = entry.fresh_until.min(now + FAILURE_FOR);
        }
    }
}

/// Orders the addresses to try. The address that worked is first. Then the families (IPv4 and IPv6)
/// alternate, each in the order of the system (RFC 8305, section 4). If one family does not work,
/// only every second attempt fails.
fn interleave_families(addresses: &[IpAddr], worked: Option<IpAddr>) -> Vec<IpAddr> {
    let first = worked.filter(|address| addresses.contains(address));
    let rest = addresses.iter().copied().filter(|&one| Some(one) != first);
    // Whether the next address is an IPv6 address. After an address that worked, the other family
    // is next. Otherwise the system's first address is next.
    let next_is_ipv6 = match (first, addresses.first()) {
        (Some(first), _) => !first.is_ipv6(),
        (None, Some(address)) => address.is_ipv6(),
        (None, None) => return Vec::new(),
    };
    let (mut next, mut other): (VecDeque<IpAddr>, VecDeque<IpAddr>) =
        rest.partition(|one| one.is_ipv6() == next_is_ipv6);
    let mut ordered = Vec::from_iter(first);
    while let Some(address) = next.pop_front() {
        ordered.push(address);
        if !other.is_empty() {
            std::mem::swap(&mut next, &mut other);
        }
    }
    ordered.extend(other);
    ordered
}

impl Entry {
    fn resolution(&self, port: u16, now: Time) -> Resolution {
        let last_good = self.last_good.filter(|(_, until)| now < *until);
        let addresses = interleave_families(&self.addresses, last_good.map(|(address, _)| address));
        let with_port = |ip| SocketAddr::new(ip, port);
        Resolution::Known(addresses.into_iter().map(with_port).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * SECOND)
    }

    struct Asked(Resolver, Vec<String>);

    impl Asked {
        fn resolve(&mut self, now: Time) -> Resolution {
            let target = HostPort {
                host: "places.test".into(),
                port: 443,
            };
            let asked = &mut self.1;
            self.0
                .resolve(&target, now, |host| asked.push(host.to_owned()))
        }
    }

    fn known(ip: &str) -> Resolution {
        Resolution::Known(vec![SocketAddr::new(ip.parse().unwrap(), 443)])
    }

    #[test]
    fn a_resolved_name_is_cached_and_kept_when_dns_fails() {
        let mut names = Asked(Resolver::new(Duration::from_secs(3)), vec![]);
        assert_eq!(names.resolve(at(0)), Resolution::Pending);
        assert_eq!(names.resolve(at(1)), Resolution::Pending);
        assert_eq!(names.1.len(), 1, "two that wait share one look-up");
        names
            .0
            .resolved("places.test", Ok(vec!["192.0.2.1".parse().unwrap()]), at(1));
        assert_eq!(names.resolve(at(60)), known("192.0.2.1"));
        assert_eq!(names.resolve(at(61)), Resolution::Pending);
        names
            .0
            .resolved("places.test", Err("refused".into()), at(62));
        assert_eq!(names.resolve(at(62)), known("192.0.2.1"), "stale on error");
        assert_eq!(names.1.len(), 2);
        assert_eq!(
            names.resolve(at(64)),
            Resolution::Pending,
            "and asked again after a second"
        );
        assert_eq!(
            names.resolve(at(67)),
            known("192.0.2.1"),
            "stale when it takes too long"
        );
        assert_eq!(
            names.1.len(),
            3,
            "one that hangs is not asked again meanwhile"
        );
    }

    #[test]
    fn an_unresolved_name_fails_after_its_deadline() {
        let mut names = Asked(Resolver::new(Duration::from_secs(3)), vec![]);
        names.resolve(at(0));
        assert_eq!(
            names.resolve(at(3)),
            Resolution::Failed("no answer from the name server within 3 s".into())
        );
        names.0.resolved("places.test", Ok(vec![]), at(4));
        assert_eq!(
            names.resolve(at(4)),
            Resolution::Failed("the name has no address".into())
        );
    }

    #[test]
    fn address_families_alternate_and_the_last_good_is_first() {
        let order = |addresses: &str, worked: Option<&str>| {
            let addresses: Vec<IpAddr> = addresses
                .split(' ')
                .map(|one| one.parse().unwrap())
                .collect();
            let ordered = interleave_families(&addresses, worked.map(|one| one.parse().unwrap()));
            let words: Vec<String> = ordered.iter().map(IpAddr::to_string).collect();
            words.join(" ")
        };
        for (addresses, worked, ordered) in [
            ("::1 ::2 ::3 ::4 1.1.1.1", None, "::1 1.1.1.1 ::2 ::3 ::4"),
            ("::1 1.1.1.1 1.1.1.2 ::2", None, "::1 1.1.1.1 ::2 1.1.1.2"),
            ("1.1.1.1 1.1.1.2 ::1", None, "1.1.1.1 ::1 1.1.1.2"),
            ("1.1.1.1 1.1.1.2", None, "1.1.1.1 1.1.1.2"),
            (
                "::1 ::2 ::3 1.1.1.1",
                Some("1.1.1.1"),
                "1.1.1.1 ::1 ::2 ::3",
            ),
            (
                "::1 ::2 1.1.1.1 1.1.1.2",
                Some("::2"),
                "::2 1.1.1.1 ::1 1.1.1.2",
            ),
            ("::1 1.1.1.1", Some("9.9.9.9"), "::1 1.1.1.1"),
            ("::1", Some("::1"), "::1"),
        ] {
            assert_eq!(order(addresses, worked), ordered, "{addresses} {worked:?}");
        }
    }

    #[test]
    fn a_working_address_is_remembered_for_a_while() {
        let mut names = Asked(Resolver::new(Duration::from_secs(3)), vec![]);
        let both = || ["::1", "192.0.2.1"].map(|ip| ip.parse().unwrap()).to_vec();
        let first = |names: &mut Asked, now: u64| match names.resolve(at(now)) {
            Resolution::Known(addresses) => addresses[0].ip().to_string(),
            other => panic!("{other:?}"),
        };
        names.resolve(at(0));
        names.0.resolved("places.test", Ok(both()), at(0));
        assert_eq!(first(&mut names, 1), "::1");
        names.0.mark_working("places.test", both()[1], at(1));
        assert_eq!(first(&mut names, 2), "192.0.2.1");
        names.resolve(at(600));
        names.0.resolved("places.test", Ok(both()), at(600));
        assert_eq!(first(&mut names, 600), "192.0.2.1");
        assert_eq!(first(&mut names, 601), "::1");
        names.0.mark_working("places.test", both()[1], at(601));
        names.0.mark_unreachable("places.test", at(602));
        assert_eq!(
            first(&mut names, 602),
            "::1",
            "a crowd does not look it up in a loop"
        );
        assert_eq!(names.resolve(at(603)), Resolution::Pending);
    }

    #[test]
    fn a_numeric_address_is_not_resolved() {
        let mut names = Resolver::new(Duration::from_secs(3));
        let target = HostPort {
            host: "::1".into(),
            port: 1,
        };
        let found = names.resolve(&target, at(0), |_| panic!("looked up"));
        assert_eq!(found, Resolution::Known(vec!["[::1]:1".parse().unwrap()]));
    }
}
