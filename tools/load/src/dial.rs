//! Making connections: one after the other, each from an address that still has ports left.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::failure::Failure;
use crate::target::Target;

/// Connections from one loopback address; each has some 28,000 ports, some of which may be waiting out their last connection.
const PER_SOURCE: usize = 4096;
/// Loopback addresses in use: 127.0.0.1 to 127.0.0.250.
const SOURCES: usize = 250;
/// How many addresses are tried for one connection.
const TRIES: usize = 16;

/// Calls one server.
pub(crate) struct Dialler {
    target: Target,
    /// Where the server was found, once it answered there.
    found: Option<SocketAddr>,
    patience: Duration,
}

impl Dialler {
    pub(crate) fn new(target: &Target, patience: Duration) -> Dialler {
        Dialler {
            target: target.clone(),
            found: None,
            patience,
        }
    }

    /// Makes the connection of this number. It blocks, and waits for nothing longer than the server may be silent.
    pub(crate) fn call(&mut self, number: usize) -> Result<TcpStream, Failure> {
        let patience = Some(self.patience);
        let prepared = |stream: TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(patience)?;
            stream.set_write_timeout(patience)?;
            Ok(stream)
        };
        let called = match self.found {
            Some(address) => call_from_anywhere(address, number, self.patience),
            None => self.find(number),
        };
        called
            .and_then(prepared)
            .map_err(|error| self.unreachable(number, &error))
    }

    /// Tries all addresses that the server's host has.
    fn find(&mut self, number: usize) -> io::Result<TcpStream> {
        let place = &self.target.address;
        let mut failure = io::Error::other("its host has no address");
        for address in (place.host.as_str(), place.port).to_socket_addrs()? {
            match call_from_anywhere(address, number, self.patience) {
                Ok(stream) => {
                    self.found = Some(address);
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn unreachable(&self, number: usize, error: &io::Error) -> Failure {
        let target = &self.target;
        let number = number + 1;
        let advice = match (error.kind(), &target.name) {
            (io::ErrorKind::ConnectionRefused, Some(name)) => {
                format!("; nobody listens there: start it with herd-mio {name}")
            }
            (io::ErrorKind::ConnectionRefused, None) => "; nobody listens there".to_owned(),
            (io::ErrorKind::AddrNotAvailable, _) => {
                "; this machine has no ports left: wait a minute, or use fewer connections"
                    .to_owned()
            }
            _ => String::new(),
        };
        Failure::Failed(format!(
            "cannot connect to {target} (connection {number}): {error}{advice}"
        ))
    }
}

/// Calls from a loopback address if that is where the server is, from wherever the system likes if not.
fn call_from_anywhere(to: SocketAddr, number: usize, patience: Duration) -> io::Result<TcpStream> {
    let is_loopback = matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if is_loopback {
        for attempt in 0..TRIES {
            let source = source(number, attempt);
            match call_from(source, to, patience) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                    ) => {}
                called => return called,
            }
        }
    }
    TcpStream::connect_timeout(&to, patience)
}

/// Whence the connection of this number is made, the first time and when there were no ports left.
fn source(number: usize, attempt: usize) -> Ipv4Addr {
    let place = (number / PER_SOURCE + attempt) % SOURCES;
    // Below 250.
    Ipv4Addr::new(127, 0, 0, place as u8 + 1)
}

fn call_from(source: Ipv4Addr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // It bounds connect too, see socket(7).
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connections_are_spread_over_loopback_addresses() {
        assert_eq!(source(0, 0), Ipv4Addr::new(127, 0, 0, 1));
        assert_eq!(source(4095, 0), Ipv4Addr::new(127, 0, 0, 1));
        assert_eq!(source(4096, 0), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(4096, 3), Ipv4Addr::new(127, 0, 0, 5));
        assert_eq!(source(usize::MAX - 4096, 0), source(usize::MAX - 4096, 250));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::resolve(
            &listener.local_addr().unwrap().to_string(),
            &herd_mio::config::Source::Name,
        )
        .unwrap();
        let mut dialler = Dialler::new(&target, Duration::from_secs(10));
        for (number, source) in [(0, "127.0.0.1"), (5000, "127.0.0.2"), (9000, "127.0.0.3")] {
            let _stream = dialler.call(number).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip().to_string(), source);
        }
    }

    #[test]
    fn nobody_there_is_said_with_what_to_do() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let target = Target {
            name: Some("Riley".into()),
            address: herd_mio::core::settings::HostPort {
                host: address.ip().to_string(),
                port: address.port(),
            },
        };
        let mut dialler = Dialler::new(&target, Duration::from_secs(10));
        let Err(Failure::Failed(what)) = dialler.call(0) else {
            panic!("somebody is there");
        };
        assert!(
            what.starts_with(&format!(
                "cannot connect to Riley at {address} (connection 1): Connection refused"
            )) && what.ends_with("; nobody listens there: start it with herd-mio Riley"),
            "{what}"
        );
    }
}
