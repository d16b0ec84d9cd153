//! Where a server listens: an address, or a name, which may stand for several.
//!
//! All addresses of a name are bound, on one port: `localhost` is 127.0.0.1 and ::1, and a host may
//! have an address in each network. An address that this machine does not have is passed over with
//! a warning, unless none is left. One that another program has is an error: clients that choose
//! that address would talk to that program.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::core::base::settings::HostPort;

/// How often another port is tried where the system chooses one, and it is taken on another address
/// of the name.
const PORTS: usize = 16;

/// Sockets that are bound, and do not listen yet.
pub struct Bound {
    /// At least one.
    pub sockets: Vec<OwnedFd>,
    /// Addresses of the name that are not served, and why.
    pub warnings: Vec<String>,
}

/// Binds every address of `place`.
///
/// # Errors
/// The name has no address, none of them can be bound, or one belongs to another program.
pub fn bind(place: &HostPort) -> io::Result<Bound> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (place.host.as_str(), place.port).to_socket_addrs()? {
        // A name may stand twice in /etc/hosts.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut tries = if place.port == 0 { PORTS } else { 1 };
    loop {
        tries -= 1;
        match bind_all(place, &addresses) {
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
}

fn bind_all(place: &HostPort, addresses: &[SocketAddr]) -> io::Result<Bound> {
    let mut port = place.port;
    let mut sockets = Vec::new();
    let mut passed_over = Vec::new();
    for &address in addresses {
        let address = SocketAddr::new(address.ip(), port);
        match bind_one(address, addresses.len() > 1) {
            Ok(socket) => {
                port = port_of(&socket)?;
                sockets.push(socket);
            }
            Err(error) if is_absent(&error) => passed_over.push((address.ip(), error)),
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(passed_over
            .into_iter()
            .next()
            .map_or_else(none, |(_, error)| error));
    }
    let warnings = passed_over.iter().map(|(ip, error)| {
        format!("not listening on {ip}, which is an address of {place}: {error}")
    });
    Ok(Bound {
        warnings: warnings.collect(),
        sockets,
    })
}

/// With others of its name, a socket of IPv6 is for IPv6 alone: on Linux `::` would take the port
/// of 0.0.0.0 too.
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
    // The port can be used again as soon as the server has stopped.
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

/// This machine does not have the address, or not its family.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT)
    )
}
