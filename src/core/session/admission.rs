//! Admission of clients. There are limits on all clients, on the clients of one [`origin`], and on
//! the rejected clients that get an answer. An origin is an IPv4 address, or the first 64 bits of
//! an IPv6 address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::session::origins::origin;

/// The maximum number of rejected clients that are sent an answer at the same time. Further
/// rejected clients are closed without an answer.
const MAX_REJECTED: usize = 64;

/// Whether a new client is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The client is served.
    Admit,
    /// The client is rejected for this reason, and is sent an answer.
    Reject(String),
    /// The client is closed without an answer, because too many rejected clients are being
    /// answered. The reason is for the log.
    Drop(String),
}

/// Counts of the admitted and the rejected clients of one server.
#[derive(Debug, Default)]
pub struct Admissions {
    clients: usize,
    /// The maximum number of clients for which there is memory, if that is known.
    max_in_memory: Option<u64>,
    /// The number of admitted clients of each [`origin`]. A client is counted here only if
    /// `max_clients_per_address` limits it.
    origins: BTreeMap<IpAddr, u64>,
    rejected: usize,
    /// The number of clients that were not admitted since the server started.
    refused: u64,
    /// The number of clients that were not admitted because their address had too many clients.
    refused_by_address: u64,
}

impl Admissions {
    /// The number of admitted clients that are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// The number of clients that were not admitted since the server started. The caller warns only
    /// when this number is a power of two. Otherwise a burst of rejected clients would fill the
    /// log.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The number of clients that were not admitted since the server started, because too many were
    /// connected from their address.
    #[must_use]
    pub fn refused_by_address(&self) -> u64 {
        self.refused_by_address
    }

    /// Sets the maximum number of clients for which there is memory.
    pub fn set_max_in_memory(&mut self, clients: Option<u64>) {
        self.max_in_memory = clients;
    }

    /// Returns the maximum number of clients: `limits.max_clients`, or fewer if there is not enough
    /// memory.
    #[must_use]
    pub fn max_clients(&self, limits: &Limits) -> u64 {
        let max_clients = limits.max_clients;
        self.max_in_memory
            .map_or(max_clients, |max_in_memory| max_clients.min(max_in_memory))
    }

    /// Decides whether a new client from `address` is admitted, and updates the counts.
    ///
    /// ```
    /// use herd_mio::core::session::admission::{Admissions, Admission};
    /// use herd_mio::core::base::limits::Limits;
    ///
    /// let limits = Limits { max_clients_per_address: 1, ..Limits::default() };
    /// let mut admission = Admissions::default();
    /// let (one, other) = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
    /// assert_eq!(admission.enter(one, &limits), Admission::Admit);
    /// assert!(matches!(admission.enter(one, &limits), Admission::Reject(_)));
    /// assert_eq!(admission.enter(other, &limits), Admission::Admit);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn enter(&mut self, address: IpAddr, limits: &Limits) -> Admission {
        let reason = if self.clients >= limits.max_clients.to_count() {
            format!(
                "there are {} clients, which is limits.max_clients",
                self.clients
            )
        } else if self.clients >= self.max_clients(limits).to_count() {
            format!(
                "there are {} clients, and limits.buffer_bytes has room for no more over TLS",
                self.clients
            )
        } else if is_limited(limits, address)
            && self.clients_of_origin(address) >= limits.max_clients_per_address
        {
            self.refused_by_address += 1;
            format!(
                "there are {} clients from its address, which is limits.max_clients_per_address",
                self.clients_of_origin(address)
            )
        } else {
            self.clients += 1;
            if is_limited(limits, address) {
                *self.origins.entry(origin(address)).or_default() += 1;
            }
            return Admission::Admit;
        };
        self.refused += 1;
        if self.try_reject() {
            Admission::Reject(reason)
        } else {
            Admission::Drop(reason)
        }
    }

    /// Returns whether one more rejected client can be sent an answer. If so, adds the client to
    /// the number of rejected clients, until [`Admissions::leave_rejected`].
    pub fn try_reject(&mut self) -> bool {
        let fits = self.rejected < MAX_REJECTED;
        if fits {
            self.rejected += 1;
        }
        fits
    }

    /// Removes an admitted client of `address` from the counts, because its connection is closed.
    pub fn leave(&mut self, address: IpAddr) {
        debug_assert!(self.clients > 0, "a client that leaves was counted");
        self.clients -= 1;
        let origin = origin(address);
        if let Some(clients) = self.origins.get_mut(&origin) {
            *clients -= 1;
            if *clients == 0 {
                self.origins.remove(&origin);
            }
        }
    }

    /// Removes a rejected client from the count, because its connection is closed.
    pub fn leave_rejected(&mut self) {
        debug_assert!(self.rejected > 0, "one that leaves was counted");
        self.rejected -= 1;
    }

    /// Checks that the counts are equal to these numbers of admitted and rejected clients. For
    /// tests.
    pub(crate) fn check_invariants(&self, clients: usize, rejected: usize) -> Result<(), String> {
        ensure!(
            self.clients == clients,
            "{clients} clients, and {} are counted",
            self.clients
        );
        ensure!(
            self.rejected == rejected,
            "{rejected} rejected clients, and {} are counted",
            self.rejected
        );
        let from_anywhere: u64 = self.origins.values().sum();
        ensure!(
            from_anywhere <= clients as u64,
            "{from_anywhere} of {clients} clients are counted by address"
        );
        Ok(())
    }

    fn clients_of_origin(&self, address: IpAddr) -> u64 {
        self.origins
            .get(&origin(address))
            .copied()
            .unwrap_or_default()
    }
}

/// Whether `max_clients_per_address` limits the clients of `address`. This limit has no effect if
/// `max_clients` is equal or smaller, because then `max_clients` is always reached first. For
/// loopback addresses, see [`Limits::holds_for`].
fn is_limited(limits: &Limits, address: IpAddr) -> bool {
    limits.max_clients_per_address < limits.max_clients
        && limits.holds_for("max_clients_per_address", address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_limits_leave_room_beside_a_hundred_addresses() {
        let limits = Limits::default();
        let mut admission = Admissions::default();
        for number in 0..100 * 600 {
            let attacker = std::net::Ipv4Addr::from_bits(0xcb00_7100 + number % 100);
            admission.enter(attacker.into(), &limits);
        }
        assert_eq!(admission.clients(), 51_200);
        // Clients behind one NAT, and others on this machine.
        for address in ["192.0.2.1", "127.0.0.1"] {
            let address = address.parse().unwrap();
            for _ in 0..500 {
                assert_eq!(admission.enter(address, &limits), Admission::Admit);
            }
        }
        let loopback = "127.0.0.1".parse().unwrap();
        assert!((0..10_000).all(|_| admission.enter(loopback, &limits) == Admission::Admit));
    }

    #[test]
    fn a_closed_client_frees_its_admission_slot() {
        let limits = Limits {
            max_clients: 10,
            max_clients_per_address: 2,
            ..Limits::default()
        };
        let mut admission = Admissions::default();
        // The two addresses of each pair have the same origin.
        for (one, other) in [
            ("2001:db8::1", "2001:db8::2"),
            ("192.0.2.1", "::ffff:192.0.2.1"),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(admission.enter(one, &limits), Admission::Admit);
            assert_eq!(admission.enter(other, &limits), Admission::Admit);
            assert!(matches!(
                admission.enter(one, &limits),
                Admission::Reject(_)
            ));
            admission.leave_rejected();
            admission.leave(other);
            assert_eq!(admission.enter(one, &limits), Admission::Admit);
            admission.leave(one);
            admission.leave(one);
        }
        assert!(admission.origins.is_empty() && admission.clients() == 0);
    }

    #[test]
    fn rejections_with_a_reason_are_limited() {
        let limits = Limits {
            max_clients: 1,
            ..Limits::default()
        };
        let mut admission = Admissions::default();
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(admission.enter(address, &limits), Admission::Admit);
        for _ in 0..MAX_REJECTED {
            assert!(matches!(
                admission.enter(address, &limits),
                Admission::Reject(_)
            ));
        }
        assert!(matches!(
            admission.enter(address, &limits),
            Admission::Drop(_)
        ));
        admission.leave_rejected();
        assert!(matches!(
            admission.enter(address, &limits),
            Admission::Reject(_)
        ));
    }
}
