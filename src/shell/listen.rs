//! Binds the address on which a server listens. A host name may have several addresses.
//!
//! All addresses of a name are bound, with the same port. For example, `localhost` is 127.0.0.1 and
//! ::1, and a host may have an address in each of its networks.
//!
//! - An address that this machine does not have gives a warning. If no other address can be bound,
//!   the missing address is an error.
//! - An address and port that another program uses are an error. Otherwise some clients would
//!   choose that address and reach the other program.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::core::base::settings::HostPort;

/// The number of ports that are tried when the system chooses the port. A chosen port may be in use
/// on another address of the name.
const MAX_TRIES: usize = 16;

/// Sockets that are bound and do not listen yet.
pub struct BoundSockets {
    /// The bound sockets, at least one.
    pub sockets: Vec<OwnedFd>,
    /// One warning for each address that could not be bound, with the reason.
    pub warnings: Vec<String>,
}

/// Binds every address of `target`.
///
/// # Errors
/// The name has no address, no address can be bound, or another program uses one of the addresses.
pub fn bind(target: &HostPort) -> io::Result<BoundSockets> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (target.host.as_str(), target.port).to_socket_addrs()? {
        // A name may be listed twice in /etc/hosts.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut tries_left = if target.port == 0 { MAX_TRIES } else { 1 };
    loop {
        tries_left -= 1;
        match bind_all(target, &addresses) {
            Err(error) if tries_left > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
}

fn bind_all(target: &HostPort, addresses: &[SocketAddr]) -> io::Result<BoundSockets> {
    let mut port = target.port;
    let mut sockets = Vec::new();
    let mut absent = Vec::new();
    for &address in addresses {
        let address = SocketAddr::new(address.ip(), port);
        match bind_one(address, addresses.len() > 1) {
            Ok(socket) => {
                port = port_of(&socket)?;
                sockets.push(socket);
            }
            Err(error) if is_absent(&error) => absent.push((address.ip(), error)),
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(absent
            .into_iter()
            .next()
            .map_or_else(none, |(_, error)| error));
    }
    let warnings = absent.iter().map(|(ip, error)| {
        format!("not listening on {ip}, which is an address of {target}: {error}")
    });
    Ok(BoundSockets {
        warnings: warnings.collect(),
        sockets,
    })
}

/// Binds one address. `has_others` is whether the name has other addresses. If so, an IPv6 socket
/// accepts IPv6 connections only. On Linux, a socket bound to `::` would otherwise also occupy the
/// same port of 0.0.0.0.
fn bind_one(address: SocketAddr, has_others: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let flags = SocketFlags::empty();
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
    }
    // Without this option the port could not be bound for a while after the server has stopped.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() && has_others {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    Ok(socket)
}

fn port_of(socket: &OwnedFd) -> io::Result<u16> {
    let address = net::getsockname(socket)?;
    let address = SocketAddr::try_from(address)?;
    Ok(address.port())
}

/// Whether the error means that this machine does not have the address or its address family.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT)
    )
}
