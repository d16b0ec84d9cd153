//! Looks host names up with `getaddrinfo`. That call blocks, so it runs on an executor's thread.

use std::net::{IpAddr, ToSocketAddrs};

/// The largest number of threads that look names up. A look-up that hangs blocks only its own
/// thread, and the other threads go on with other names.
pub const MAX_THREADS: usize = 4;

/// The result of a finished look-up: the name, and its addresses or the reason why there are none.
pub type LookedUp = (String, Result<Vec<IpAddr>, String>);

/// Looks up the addresses of `host`. They are in the order that the system recommends, without
/// duplicates.
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
