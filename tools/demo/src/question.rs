//! One command to one server, and everything that comes back.
//!
//! Each command has its own connection: the command is sent, the writing side is closed, and the
//! answer is read to the end of the stream. So an extra byte cannot stay unseen.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use herd_testkit::clock;

use crate::events::Events;
use crate::stop::Stop;

/// The time that an answer may take. The server's own limit for Places is shorter.
const PATIENCE: Duration = Duration::from_secs(20);
/// The interval in which a wait for an answer looks for a signal.
const GLANCE: Duration = Duration::from_millis(100);
/// Far more than any answer: 20 places are about 20 KiB.
const ANSWER_BYTES: usize = 1 << 20;

/// A connection to a server. It is made before the command is written, so that the time in an IAMAT
/// is the time of sending.
pub(crate) struct Question {
    stream: TcpStream,
}

/// The bytes that came back. If the end of the stream was not reached, `error` says why.
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) error: Option<io::Error>,
}

impl Question {
    pub(crate) fn connect(server: SocketAddr) -> io::Result<Question> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(GLANCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Question { stream })
    }

    /// Sends the command and reads the answer to its end.
    pub(crate) fn ask(mut self, command: &str, events: &mut Events) -> Result<Reply, Stop> {
        let mut bytes = Vec::new();
        let error = self.exchange(command, &mut bytes, events)?.err();
        Ok(Reply { bytes, error })
    }

    /// The outer error ends the demo. The inner one is part of the reply.
    fn exchange(
        &mut self,
        command: &str,
        bytes: &mut Vec<u8>,
        events: &mut Events,
    ) -> Result<io::Result<()>, Stop> {
        let sent = self
            .stream
            .write_all(format!("{command}\n").as_bytes())
            .and_then(|()| self.stream.shutdown(Shutdown::Write));
        if let Err(error) = sent {
            return Ok(Err(error));
        }
        let deadline = clock::now() + PATIENCE;
        let mut buffer = [0; 16 * 1024];
        while bytes.len() < ANSWER_BYTES {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    // Systems report a read timeout with different error kinds.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        events.pause(Duration::ZERO)?;
                        if clock::now() >= deadline {
                            let seconds = PATIENCE.as_secs();
                            return Ok(Err(io::Error::other(format!(
                                "no end of the answer within {seconds} s"
                            ))));
                        }
                    }
                    _ => return Ok(Err(error)),
                },
            }
        }
        Ok(Err(io::Error::other("the answer does not end")))
    }
}
