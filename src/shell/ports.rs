//! The ports of a server. All ports are bound before the first one listens, so an address in use is
//! found early. `--check` binds the ports, and does not listen on them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::Token;
use mio::net::TcpListener;
use rustix::net::sockopt;

use crate::core::base::limits::LimitValue;
use crate::core::base::settings::{HostPort, Settings};
use crate::shell::listen::{self, BoundSockets};
use crate::shell::start::StartError;

/// The addresses on which a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The address for clients.
    pub clients: HostPort,
    /// The address for neighbours. `None` if the server has no port for them.
    pub neighbours: Option<HostPort>,
    /// The address for HTTP requests of operators. `None` if the server has no HTTP port.
    pub http: Option<HostPort>,
}

/// The token of every listener for clients.
pub(super) const CLIENTS: Token = Token(usize::MAX);
/// The token of every listener for neighbours.
pub(super) const NEIGHBOURS: Token = Token(usize::MAX - 1);

/// The token of every listener for HTTP.
pub(super) const HTTP: Token = Token(usize::MAX - 4);

/// A listening socket, and the token of the port that it belongs to.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) token: Token,
    /// Whether a connection may be waiting to be accepted.
    pub(super) ready: bool,
}

/// A port that is bound and does not listen yet.
pub(super) struct Port {
    token: Token,
    address: HostPort,
    pub(super) bound: BoundSockets,
}

impl Port {
    fn bind(token: Token, address: &HostPort) -> Result<Port, StartError> {
        match listen::bind(address) {
            Ok(bound) => Ok(Port {
                token,
                address: address.clone(),
                bound,
            }),
            Err(error) => Err(StartError::Listen {
                address: address.clone(),
                error,
            }),
        }
    }

    pub(super) fn bind_all(ports: &Ports) -> Result<Vec<Port>, StartError> {
        let mut bound = vec![Port::bind(CLIENTS, &ports.clients)?];
        if let Some(neighbours) = &ports.neighbours {
            bound.push(Port::bind(NEIGHBOURS, neighbours)?);
        }
        if let Some(http) = &ports.http {
            bound.push(Port::bind(HTTP, http)?);
        }
        Ok(bound)
    }

    pub(super) fn listen(self, settings: &Settings) -> Result<Vec<Listener>, StartError> {
        let Port {
            token,
            address,
            bound,
        } = self;
        let sockets = bound.sockets.into_iter();
        let listeners: io::Result<_> = sockets
            .map(|socket| Listener::open(socket, token, settings))
            .collect();
        listeners.map_err(|error| StartError::Listen { address, error })
    }
}

impl Listener {
    fn open(socket: OwnedFd, token: Token, settings: &Settings) -> io::Result<Listener> {
        // Neighbours need no TCP keepalive: their protocol has heartbeats.
        if token == CLIENTS || token == HTTP {
            probe(&socket, settings.limits.keepalive_ms.to_duration())?;
        }
        let backlog = i32::try_from(settings.limits.accept_backlog).unwrap_or(i32::MAX);
        rustix::net::listen(&socket, backlog)?;
        Ok(Listener {
            socket: TcpListener::from_std(socket.into()),
            token,
            ready: false,
        })
    }
}

/// Switches TCP keepalive on (tcp(7)). TCP sends the first probe to a client that was silent for
/// half of `silence`. If the client does not answer during the other half, TCP closes the
/// connection. An accepted socket inherits these options from the listener.
fn probe(listener: &OwnedFd, silence: Duration) -> rustix::io::Result<()> {
    const PROBES: u32 = 4;
    let half = silence / 2;
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, half.max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(listener, (half / PROBES).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(listener, PROBES)?;
    // TCP sends no probes while sent data is not acknowledged. Without this limit it would
    // retransmit that data for about fifteen minutes.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    sockopt::set_tcp_user_timeout(
        listener,
        u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
    )?;
    Ok(())
}
