//! Makes connections, each from an address with free ports. Before the measurement it makes one
//! after the other ([`Dialler::call`]). It makes a lost connection again without blocking
//! ([`Dialler::begin`]).

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use herd_client::dial::{Session, Target};
use herd_testkit::failure::Failure;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::line::{Line, STEP};
use crate::socket::Socket;
use crate::stop::Stop;

/// The number of connections from one loopback address. An address has about 28,000 ports, but some
/// may be in TIME_WAIT.
const PER_SOURCE: usize = 4096;
/// The number of used loopback addresses: 127.0.0.1 to 127.0.0.250.
const SOURCES: usize = 250;
/// The greatest number of addresses that are tried for one connection.
const TRIES: usize = 16;

/// Connects to one server.
pub(crate) struct Dialler {
    target: Target,
    /// The address at which the server has answered.
    found: Option<SocketAddr>,
    /// The addresses of its name that were not tried yet.
    untried: VecDeque<SocketAddr>,
    /// The source addresses. If it is empty, see [`begin_from_anywhere`].
    sources: Vec<IpAddr>,
    patience: Duration,
    stop: Stop,
}

impl Dialler {
    pub(crate) fn new(target: &Target, patience: Duration, stop: &Stop) -> Dialler {
        Dialler {
            target: target.clone(),
            found: None,
            untried: VecDeque::new(),
            sources: Vec::new(),
            patience,
            stop: stop.clone(),
        }
    }

    /// Sets the source addresses, which are used in turn. An empty list changes nothing.
    pub(crate) fn from(self, sources: Vec<IpAddr>) -> Dialler {
        Dialler { sources, ..self }
    }

    /// Makes the connection of this number, with the TLS handshake. It blocks, and each wait is
    /// limited by the timeout.
    pub(crate) fn call(&mut self, number: usize) -> Result<Line, Failure> {
        let called = match self.found {
            Some(address) => self.connect(address, number),
            None => self.find(number),
        };
        let stream = called.map_err(|error| self.unreachable(number, &error))?;
        let trust = self.target.tls.as_ref();
        Line::new(stream, self.patience, &self.stop, trust)
            .map_err(|what| self.failed(number, &what))
    }

    /// Tries all addresses of the server's host.
    fn find(&mut self, number: usize) -> io::Result<TcpStream> {
        let mut failure = io::Error::other("its host has no address");
        for address in self.resolve()? {
            match self.connect(address, number) {
                Ok(stream) => {
                    self.found = Some(address);
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Connects, and waits for it in steps.
    fn connect(&self, address: SocketAddr, number: usize) -> io::Result<TcpStream> {
        let mut socket = Socket::connecting(self.begin_stream(address, number)?, None);
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1));
        poll.registry()
            .register(socket.source(), Token(number), Interest::WRITABLE)?;
        let mut waited = Duration::ZERO;
        loop {
            match poll.poll(&mut events, Some(STEP)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            events.iter().for_each(|event| socket.note(event));
            if socket.advance(&mut [])? {
                break;
            }
            if events.is_empty() {
                waited += STEP;
            }
            if waited >= self.patience || self.stop.is_wanted() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let stream = socket.into_stream();
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(stream)
    }

    fn resolve(&self) -> io::Result<impl Iterator<Item = SocketAddr> + use<>> {
        let place = &self.target.address;
        (place.host.as_str(), place.port).to_socket_addrs()
    }

    /// Starts the connection of this number without blocking. If the server has a host name and
    /// does not answer at its last address, the name is looked up again, which may block for a
    /// short time.
    pub(crate) fn begin(&mut self, number: usize) -> io::Result<Socket> {
        let address = match self.found {
            Some(address) => address,
            None => {
                if self.untried.is_empty() {
                    self.untried = self.resolve()?.collect();
                }
                let next = self.untried.pop_front();
                next.ok_or_else(|| io::Error::other("its host has no address"))?
            }
        };
        // If this attempt fails, the next one uses the next address.
        self.found = Some(address);
        let tls = self.target.tls.as_ref().map(Session::begin).transpose();
        let tls = tls.map_err(io::Error::other)?;
        let stream = self.begin_stream(address, number)?;
        stream.set_nodelay(true)?;
        Ok(Socket::connecting(stream, tls))
    }

    /// Starts to connect, from an address with free ports.
    fn begin_stream(&self, to: SocketAddr, number: usize) -> io::Result<mio::net::TcpStream> {
        if self.sources.is_empty() {
            return begin_from_anywhere(to, number);
        }
        let tries = self.sources.len().min(TRIES);
        let mut failure = io::ErrorKind::AddrNotAvailable.into();
        for source in self
            .sources
            .iter()
            .cycle()
            .skip(number % self.sources.len())
            .take(tries)
        {
            match begin_from(*source, to) {
                Err(error) if is_used_up(&error) => failure = error,
                begun => return begun,
            }
        }
        Err(failure)
    }

    /// The attempt failed. The server may have another address now.
    pub(crate) fn forget(&mut self) {
        self.found = None;
    }

    /// The failure of the connection of this number, with what to do.
    pub(crate) fn unreachable(&self, number: usize, error: &io::Error) -> Failure {
        let advice = match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "; no server listens there; start it with {}",
                self.target.start_command()
            ),
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no free ports; wait a minute, or use fewer connections"
                    .to_owned()
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                return self.failed(number, &format!("no answer to the connect{ADVICE_SILENT}"));
            }
            _ => String::new(),
        };
        self.failed(number, &format!("{error}{advice}"))
    }

    fn failed(&self, number: usize, what: &str) -> Failure {
        if self.stop.is_wanted() {
            return crate::stop::before_measuring();
        }
        Failure::Failed(format!(
            "cannot connect to {} (connection {}): {what}",
            self.target,
            number + 1
        ))
    }
}

const ADVICE_SILENT: &str = "; check the address and firewalls, and see --timeout";

/// Starts to connect: from a loopback address if the server has one, and else from an address that
/// the system chooses.
fn begin_from_anywhere(to: SocketAddr, number: usize) -> io::Result<mio::net::TcpStream> {
    let is_loopback = matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if is_loopback {
        for attempt in 0..TRIES {
            match begin_from(source(number, attempt).into(), to) {
                Err(error) if is_used_up(&error) => {}
                begun => return begun,
            }
        }
    }
    mio::net::TcpStream::connect(to)
}

fn is_used_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

/// The source address for the connection of this number. `attempt` counts the addresses without
/// free ports.
fn source(number: usize, attempt: usize) -> Ipv4Addr {
    let place = (number / PER_SOURCE + attempt) % SOURCES;
    // Below 250.
    Ipv4Addr::new(127, 0, 0, place as u8 + 1)
}

/// A socket that is bound to an address of this machine, and to a port that the system chooses.
///
/// # Errors
/// This machine does not have the address, or the address has no free port.
pub(crate) fn bound_to(source: IpAddr) -> io::Result<OwnedFd> {
    let family = match source {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    Ok(socket)
}

fn begin_from(source: IpAddr, to: SocketAddr) -> io::Result<mio::net::TcpStream> {
    let stream = TcpStream::from(bound_to(source)?);
    stream.set_nonblocking(true)?;
    match connect(&stream, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(mio::net::TcpStream::from_std(stream)),
        Err(error) => Err(error.into()),
    }
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
            &herd_client::dial::TlsOptions::default(),
        )
        .unwrap();
        let mut dialler = Dialler::new(&target, Duration::from_secs(10), &Stop::never());
        for (number, source) in [(0, "127.0.0.1"), (5000, "127.0.0.2"), (9000, "127.0.0.3")] {
            let _stream = dialler.call(number).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip().to_string(), source);
        }
    }

    #[test]
    fn a_refused_connection_is_reported_with_a_fix() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let target = Target {
            name: Some("Riley".into()),
            address: herd_mio::core::base::settings::HostPort {
                host: address.ip().to_string(),
                port: address.port(),
            },
            tls: None,
        };
        let mut dialler = Dialler::new(&target, Duration::from_secs(10), &Stop::never());
        let Err(Failure::Failed(what)) = dialler.call(0) else {
            panic!("a server listens there");
        };
        assert!(
            what.starts_with(&format!(
                "cannot connect to Riley at {address} (connection 1): Connection refused"
            )) && what.ends_with("; no server listens there; start it with herd-mio Riley"),
            "{what}"
        );
    }
}
