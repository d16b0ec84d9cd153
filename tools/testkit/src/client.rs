//! A client of a server, for tests that are transcripts: bytes sent, bytes expected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at what it did not expect"
)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock;

/// The time that an event may take on a slow, busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    received: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Client {
        Client::of(TcpStream::connect_timeout(&address, SOON).unwrap())
    }

    /// A client with a socket that the test has connected.
    #[must_use]
    pub fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            // Small: some tests have ten thousand clients.
            received: BufReader::with_capacity(1024, stream),
        }
    }

    /// The socket. Bytes that are already in the client's buffer cannot be read from it.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.received.get_ref()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.stream().write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends on a thread of its own. That is for more bytes than the kernel's socket buffers hold.
    pub fn send_meanwhile(&mut self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut stream = self.stream().try_clone().unwrap();
        thread::spawn(move || stream.write_all(&bytes).unwrap())
    }

    /// Shuts down the writing side.
    pub fn finish(&mut self) -> &mut Client {
        self.stream().shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Reads the next bytes, up to and including `end`.
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let (last, mut received) = (end[end.len() - 1], Vec::new());
        loop {
            let read = self.received.read_until(last, &mut received);
            if received.ends_with(end) {
                return received;
            }
            assert!(
                read.as_ref().is_ok_and(|count| *count > 0),
                "{read:?}; expected bytes that end with {}; received {}",
                end.escape_ascii(),
                received.escape_ascii()
            );
        }
    }

    /// Reads exactly so many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut received = vec![0; count];
        self.received.read_exact(&mut received).unwrap();
        received
    }

    /// Reads the next line, without its LF.
    pub fn line_of_bytes(&mut self) -> Vec<u8> {
        let mut line = self.until(b"\n");
        line.pop();
        line
    }

    /// Reads the next line as text, without its LF.
    pub fn line(&mut self) -> String {
        String::from_utf8(self.line_of_bytes()).unwrap()
    }

    /// Reads the next line, or `None` if the connection ends before the LF. A timeout fails the
    /// test.
    fn try_line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        match self.received.read_until(b'\n', &mut line) {
            Ok(_) => line.strip_suffix(b"\n").map(<[u8]>::to_vec),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("no line within {SOON:?}; received {}", line.escape_ascii())
            }
            Err(_) => None,
        }
    }

    /// Reads the next line, or `None` if the connection ends or is reset before the LF.
    pub fn line_or_end(&mut self) -> Option<String> {
        let line = self.try_line()?;
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads an answer to `WHATSAT`: the line, and the JSON as it came.
    pub fn places(&mut self) -> (String, String) {
        let line = self.line();
        assert!(line.starts_with("AT "), "{line}");
        let mut json = String::from_utf8(self.until(b"\n\n")).unwrap();
        json.truncate(json.len() - 2);
        (line, json)
    }

    /// Asserts that the next bytes are these.
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let expected = bytes.as_ref();
        let mut received = Vec::new();
        while received != expected {
            let more = self.received.fill_buf().unwrap_or_else(|error| {
                panic!(
                    "{error}\nexpected {}\nreceived {}",
                    expected.escape_ascii(),
                    received.escape_ascii()
                )
            });
            let count = more.len().min(expected.len() - received.len());
            let has_ended = more.is_empty();
            received.extend_from_slice(&more[..count]);
            self.received.consume(count);
            assert!(
                expected.starts_with(&received) && !has_ended,
                "expected {}\nreceived {}{}",
                expected.escape_ascii(),
                received.escape_ascii(),
                if has_ended { ", and the end" } else { "" }
            );
        }
        self
    }

    /// Asserts that the next line is this `AT` line without its skew, which depends on the clocks.
    pub fn expect_at(&mut self, expected: &str) -> String {
        let line = self.line();
        assert_eq!(without_skew(&line), expected);
        line
    }

    /// Sends the line, and asserts that the server quotes it after `? `.
    pub fn refused(&mut self, line: impl AsRef<[u8]>) {
        let line = line.as_ref();
        self.send([line, b"\n"].concat());
        self.expect([b"? ", line, b"\n"].concat());
    }

    /// Reads until the server closes. A reset fails the test.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        self.received
            .read_to_end(&mut received)
            .unwrap_or_else(|error| panic!("{error} after {}", received.escape_ascii()));
        received
    }

    /// Asserts that the server closes without a reset and without more bytes.
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came: {}", rest.escape_ascii());
    }

    /// Sends commands, and returns the answers that came before the connection ended. Each is one
    /// line without its LF.
    pub fn try_ask_all(&mut self, commands: &[Vec<u8>]) -> Vec<Vec<u8>> {
        if self.stream().write_all(&commands.concat()).is_err() {
            return Vec::new();
        }
        let answers = std::iter::from_fn(|| self.try_line());
        answers.take(commands.len()).collect()
    }

    /// Sends a command, and returns its answer of one line. `None` if the connection ends before
    /// the LF.
    pub fn try_ask(&mut self, command: &str) -> Option<String> {
        let answer = self.try_ask_all(&[command.into()]).pop()?;
        String::from_utf8(answer).ok()
    }

    /// Sends a command, and returns its answer of one line.
    pub fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n")).line()
    }

    /// The first line of the answer to a `WHATSAT` about this client.
    pub fn record(&mut self, id: &str) -> String {
        self.send(format!("WHATSAT {id} 1 1\n")).places().0
    }

    /// Sends `WHATSAT` until the AT line of the answer satisfies `wanted`. This needs no key for
    /// Places: without one, the answer still begins with the record.
    pub fn wait_for_record(&mut self, client: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = clock::wait_for(clock::now() + SOON, || {
            last = self.ask(&format!("WHATSAT {client} 1 1"));
            if last.starts_with("AT ") {
                self.until(b"\n\n");
            }
            wanted(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("the record of {client} is still {last:?}"))
    }
}

/// The `AT` line without its skew, which depends on the clocks.
#[must_use]
pub fn without_skew(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(' ').collect();
    assert!(
        fields.len() == 6 && fields[0] == "AT",
        "not an AT line: {line:?}"
    );
    fields.remove(2);
    fields.join(" ")
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = clock::wait_for(clock::now() + SOON, || condition().then_some(()));
    assert!(holds.is_some(), "did not happen: {what}");
}
