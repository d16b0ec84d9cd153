//! One connection to a server, and the ways in which it can break.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::dial::Target;

use crate::answers::{Answers, Nonsense};
use crate::failure::{Failure, Status, commands};
use crate::wire::Wire;

/// The time limit of a connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The greatest number of bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// A connection, and the answers that came over it.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) answers: Answers,
    chunk: Box<[u8]>,
    timeout: Duration,
}

/// Why no more answers come.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The server closed the connection.
    Closed,
    /// The server sent nothing for so long.
    Silent(Duration),
    /// The server sent something that is no answer.
    Nonsense(Nonsense),
    Failed(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Closed => f.write_str("closed the connection"),
            Broken::Silent(timeout) => {
                write!(f, "sent nothing for {} s", timeout.as_secs_f64())
            }
            Broken::Nonsense(what) => write!(f, "sent {what}"),
            Broken::Failed(error) => write!(f, "is lost: {error}"),
        }
    }
}

impl From<Nonsense> for Broken {
    fn from(what: Nonsense) -> Broken {
        Broken::Nonsense(what)
    }
}

impl Broken {
    /// The failure as one line.
    pub(crate) fn failure(&self, target: &Target, unanswered: usize) -> Failure {
        let was = if unanswered == 1 { "was" } else { "were" };
        Failure {
            status: Status::Lost,
            message: format!(
                "{target} {self}; {} {was} not answered",
                commands(unanswered)
            ),
        }
    }
}

impl Connection {
    /// Connects. If the name has several addresses, they share the time.
    pub(crate) fn open(target: &Target, timeout: Duration) -> Result<Connection, Failure> {
        let failure = |what: String| Failure {
            status: Status::Lost,
            message: format!("cannot connect to {target}: {what}"),
        };
        let address = &target.address;
        let found = (address.host.as_str(), address.port).to_socket_addrs();
        let found: Vec<_> = found.map_err(|error| failure(error.to_string()))?.collect();
        let patience = CONNECT_TIMEOUT / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in found {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => return Connection::new(stream, target, timeout).map_err(failure),
                Err(error) => last = error,
            }
        }
        Err(failure(match last.kind() {
            ErrorKind::ConnectionRefused => format!(
                "no server listens there; start it with: {}",
                target.start_command()
            ),
            ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
            _ => last.to_string(),
        }))
    }

    fn new(stream: TcpStream, target: &Target, timeout: Duration) -> Result<Connection, String> {
        let told = |error: io::Error| error.to_string();
        stream.set_nodelay(true).map_err(told)?;
        let wire = match &target.tls {
            None => Wire::plain(stream),
            Some(trust) => {
                let patience = Some(timeout.min(CONNECT_TIMEOUT));
                stream.set_read_timeout(patience).map_err(told)?;
                Wire::secure(stream, trust)?
            }
        };
        // A read begins only when an answer is due, so its timeout is the time without an answer.
        wire.stream.set_read_timeout(Some(timeout)).map_err(told)?;
        Ok(Connection {
            wire,
            answers: Answers::default(),
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            timeout,
        })
    }

    /// Sends a command. If there is a write timeout, it limits the wait.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.wire.send(bytes).map_err(|error| self.broken(error))
    }

    /// Waits for bytes, and passes them to the answers.
    pub(crate) fn receive(&mut self) -> Result<(), Broken> {
        match self.wire.receive(&mut self.chunk, &mut self.answers) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Broken::Closed),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: io::Error) -> Broken {
        match error.kind() {
            // The kind of a timeout depends on the system (`TcpStream::set_read_timeout`).
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::Silent(self.timeout),
            // The server closed the connection with unread commands.
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Broken::Closed,
            _ => Broken::Failed(error),
        }
    }

    /// Why the connection cannot take another command, if it cannot. The server may have closed it
    /// since the last one.
    pub(crate) fn staleness(&mut self) -> Option<&'static str> {
        const UNASKED: Option<&str> = Some("sent data without a command");
        const CLOSED: Option<&str> = Some("has closed the connection");
        if !self.answers.is_empty() {
            return UNASKED;
        }
        if self.wire.stream.set_nonblocking(true).is_err() {
            return CLOSED;
        }
        // This is a real read and not a peek, because TLS may have sent records that are no answer.
        let received = self.wire.receive(&mut self.chunk, &mut self.answers);
        if self.wire.stream.set_nonblocking(false).is_err() {
            return CLOSED;
        }
        match received {
            Ok(true) => UNASKED,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Ok(false) | Err(_) => CLOSED,
        }
    }
}
