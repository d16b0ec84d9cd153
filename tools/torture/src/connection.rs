//! A client's connection with deadlines. Errors are described as the client sees them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use herd_testkit::clock;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The connection was refused, closed or reset. The text says how.
    Gone(String),
    /// The deadline passed.
    Late,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr, deadline: Instant) -> Result<Connection, Cut> {
        let stream = TcpStream::connect_timeout(&server, left(deadline)).map_err(cut)?;
        stream.set_nodelay(true).map_err(cut)?;
        Ok(Connection {
            stream,
            received: Vec::new(),
        })
    }

    pub(crate) fn send(&mut self, text: &str, deadline: Instant) -> Result<(), Cut> {
        self.stream
            .set_write_timeout(Some(left(deadline)))
            .map_err(cut)?;
        self.stream.write_all(text.as_bytes()).map_err(cut)
    }

    /// Shuts down the writing side.
    pub(crate) fn finish(&mut self) -> Result<(), Cut> {
        self.stream.shutdown(Shutdown::Write).map_err(cut)
    }

    /// Reads the next bytes up to `end`, and returns them without it.
    pub(crate) fn until(&mut self, end: &[u8], deadline: Instant) -> Result<Vec<u8>, Cut> {
        loop {
            let found = self
                .received
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                let rest = self.received.split_off(at + end.len());
                let mut answer = std::mem::replace(&mut self.received, rest);
                answer.truncate(at);
                return Ok(answer);
            }
            if self.read(deadline)? == 0 {
                let bytes = self.received.len();
                return Err(Cut::Gone(format!(
                    "closed after {bytes} bytes of an answer"
                )));
            }
        }
    }

    /// Reads until the server closes.
    pub(crate) fn rest(&mut self, deadline: Instant) -> Result<Vec<u8>, Cut> {
        while self.read(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.received))
    }

    fn read(&mut self, deadline: Instant) -> Result<usize, Cut> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if clock::now() >= deadline {
                return Err(Cut::Late);
            }
            self.stream
                .set_read_timeout(Some(left(deadline)))
                .map_err(cut)?;
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(error)),
            }
        }
    }
}

/// The time until the deadline. It is never zero, because a socket refuses a zero timeout.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(clock::now())
        .max(Duration::from_millis(1))
}

/// Turns an error of a socket into a reason.
pub(crate) fn cut(error: std::io::Error) -> Cut {
    match error.kind() {
        // The kind of a timeout differs between calls and systems.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Cut::Late,
        _ => Cut::Gone(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_incomplete_answer_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let soon = clock::now() + Duration::from_secs(20);
        let mut client = Connection::open(listener.local_addr().unwrap(), soon).unwrap();
        let (mut server, _) = listener.accept().unwrap();

        client.send("question\n", soon).unwrap();
        server.write_all(b"one\ntwo\n\nthr").unwrap();
        assert_eq!(client.until(b"\n", soon), Ok(b"one".to_vec()));
        assert_eq!(client.until(b"\n\n", soon), Ok(b"two".to_vec()));
        assert_eq!(client.until(b"\n", clock::now()), Err(Cut::Late));
        drop(server); // An unread question makes this a reset.
        assert!(matches!(client.until(b"\n", soon), Err(Cut::Gone(_))));
    }

    #[test]
    fn rest_reads_up_to_the_end_of_the_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let soon = clock::now() + Duration::from_secs(20);
        let mut client = Connection::open(listener.local_addr().unwrap(), soon).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.finish().unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        server.write_all(b"rest").unwrap();
        drop(server);
        assert_eq!(client.rest(soon), Ok(b"rest".to_vec()));
    }
}
