//! The ports of a server: bound first, all of them, and listened to when it starts.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::Token;
use mio::net::TcpListener;
use rustix::net::sockopt;

use crate::core::base::limits::ms;
use crate::core::base::settings::{HostPort, Settings};
use crate::shell::listen::{self, Bound};
use crate::shell::start::StartError;

/// The clients' port.
pub(super) const CLIENTS: Token = Token(usize::MAX);
/// The neighbours' port.
pub(super) const NEIGHBOURS: Token = Token(usize::MAX - 1);

/// A socket that listens, and for which port.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) token: Token,
    /// A connection may be waiting.
    pub(super) ready: bool,
}

/// A port of a server that is bound, and not listened to yet.
pub(super) struct Port {
    token: Token,
    address: HostPort,
    pub(super) bound: Bound,
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

    pub(super) fn bind_all(
        clients: &HostPort,
        neighbours: Option<&HostPort>,
    ) -> Result<Vec<Port>, StartError> {
        let mut ports = vec![Port::bind(CLIENTS, clients)?];
        if let Some(neighbours) = neighbours {
            ports.push(Port::bind(NEIGHBOURS, neighbours)?);
        }
        Ok(ports)
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
        // Neighbours have heartbeats of their own.
        if token == CLIENTS {
            probe(&socket, ms(settings.limits.keepalive_ms))?;
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

/// Has TCP ask the machines of clients that are silent for half of that time whether they are still
/// there, and give up after the other half (tcp(7)). What is accepted takes that over from the
/// socket that listens.
fn probe(listener: &OwnedFd, silence: Duration) -> rustix::io::Result<()> {
    const PROBES: u32 = 4;
    let half = silence / 2;
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, half.max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(listener, (half / PROBES).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(listener, PROBES)?;
    // While something is not acknowledged, nothing is asked, and TCP would send it again for a
    // quarter of an hour.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    sockopt::set_tcp_user_timeout(
        listener,
        u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
    )?;
    Ok(())
}
