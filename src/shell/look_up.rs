//! Looking names up: `getaddrinfo`, which blocks, so it runs on an executor's thread.

use std::net::{IpAddr, ToSocketAddrs};

/// Threads at most: a name server that hangs holds up one of them, not the other names.
pub const MAX_THREADS: usize = 4;

/// A look-up that is finished: the name, and its addresses or why there are none.
pub type LookedUp = (String, Result<Vec<IpAddr>, String>);

/// Each address once, in the order that the system recommends.
pub fn look_up(host: String) -> LookedUp {
    let found = (host.as_str(), 0)
        .to_socket_addrs()
        .map_err(|error| error.to_string());
    let addresses = found.map(|found| {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        addresses
    });
    (host, addresses)
}
