//! Free ports for herds that run side by side.
//!
//! Each herd has its own loopback address, and ports that the system chose there. So no outgoing
//! connection can take a port between its choice and its use.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback address that no other herd of this or another process has. A system with only
/// 127.0.0.1 gets that.
#[must_use]
pub fn own_address() -> Ipv4Addr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [.., last] = count.to_be_bytes();
    let own = Ipv4Addr::new(127, 1 + high % 250, low, last);
    // Only Linux has all of these addresses without a set-up.
    TcpListener::bind((own, 0)).map_or(Ipv4Addr::LOCALHOST, |_| own)
}

/// So many free addresses, all on a new loopback address.
///
/// # Errors
/// The system has no free port.
pub fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    free_at(own_address(), count)
}

/// So many free addresses with this IP address. All listeners stay open until the last one is
/// bound, so all addresses differ.
///
/// # Errors
/// The system has no free port.
pub fn free_at(ip: Ipv4Addr, count: usize) -> io::Result<Vec<SocketAddr>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpListener::bind((ip, 0))?);
    }
    held.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_distinct() {
        let addresses = free(10).unwrap();
        for (place, address) in addresses.iter().enumerate() {
            assert!(!addresses[..place].contains(address));
            TcpListener::bind(address).unwrap();
        }
        assert_ne!(free(1).unwrap()[0].ip(), addresses[0].ip());
    }
}
