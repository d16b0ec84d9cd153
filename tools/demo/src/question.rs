//! One command to one server, and everything that comes back.
//!
//! The connection is the client's own: the command goes out, the writing side is closed, and the answer is read to its end. So not a
//! byte that should not be there can go unseen.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use herd_testkit::clock;

use crate::events::Events;
use crate::stop::Stop;

/// How long an answer may take; the server's own patience with Places is less.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a signal is looked for while an answer is awaited.
const GLANCE: Duration = Duration::from_millis(100);
/// No answer is nearly as long: 20 places are about 20 KiB.
const ANSWER_BYTES: usize = 1 << 20;

/// A connection to a server; made before the command is written, so that the time in an IAMAT is the time when it is sent.
pub(crate) struct Question {
    stream: TcpStream,
}

/// What came back: bytes, and what was wrong, if the end of the answer was not reached.
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

    /// The outer error ends the demo, the inner one is part of what came.
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
                    // What a read timeout is called differs between systems.
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
