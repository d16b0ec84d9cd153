//! One end of a conversation, which says what it sends and expects as a transcript.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};

use crate::scene::SOON;

/// A connection to a server.
pub(crate) struct Talk {
    pub(crate) stream: TcpStream,
    received: BufReader<TcpStream>,
}

impl Talk {
    pub(crate) fn connect(address: SocketAddr) -> Talk {
        Talk::over(TcpStream::connect_timeout(&address, SOON).unwrap())
    }

    /// Over a connection that was made otherwise.
    pub(crate) fn over(stream: TcpStream) -> Talk {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Talk {
            received: BufReader::with_capacity(65536, stream.try_clone().unwrap()),
            stream,
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Talk {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends while what comes is read: for more than the sockets in between would hold.
    pub(crate) fn send_meanwhile(&mut self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().unwrap();
        thread::spawn(move || stream.write_all(&bytes).unwrap())
    }

    /// Ends the writing side.
    pub(crate) fn finish(&mut self) -> &mut Talk {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// The next bytes up to and with `end`.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let (last, mut received) = (end[end.len() - 1], Vec::new());
        loop {
            let read = self.received.read_until(last, &mut received);
            if received.ends_with(end) {
                return received;
            }
            assert!(
                read.as_ref().is_ok_and(|count| *count > 0),
                "{read:?}; expected something that ends with {}; received {}",
                end.escape_ascii(),
                received.escape_ascii()
            );
        }
    }

    /// The next line, without its LF.
    pub(crate) fn line_of_bytes(&mut self) -> Vec<u8> {
        let mut line = self.until(b"\n");
        line.pop();
        line
    }

    /// The next line, without its LF, as text.
    pub(crate) fn line(&mut self) -> String {
        String::from_utf8(self.line_of_bytes()).unwrap()
    }

    /// The next line, or `None` if the connection ends before it is whole, in whatever way.
    pub(crate) fn line_or_end(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.received.read_until(b'\n', &mut line) {
            Ok(_) => {
                let line = line.strip_suffix(b"\n")?;
                Some(String::from_utf8_lossy(line).into_owned())
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}; received {}", line.escape_ascii()),
        }
    }

    /// Sends a command and returns its one line of answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n")).line()
    }

    /// An answer to `WHATSAT`: the line, and the JSON as it came.
    pub(crate) fn places(&mut self) -> (String, String) {
        let line = self.line();
        assert!(line.starts_with("AT "), "{line}");
        let mut json = String::from_utf8(self.until(b"\n\n")).unwrap();
        json.truncate(json.len() - 2);
        (line, json)
    }

    /// The next bytes must be these.
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Talk {
        let expected = bytes.as_ref();
        let mut received = Vec::new();
        while received != expected {
            let more = self.received.fill_buf();
            let more = more.unwrap_or_else(|error| {
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

    /// The next line must be this `AT` line, but for the skew, which the clock decides.
    pub(crate) fn expect_at(&mut self, without_skew: &str) -> String {
        let line = self.line();
        assert_eq!(self::without_skew(&line), without_skew);
        line
    }

    /// The line must be quoted back.
    pub(crate) fn refused(&mut self, line: impl AsRef<[u8]>) {
        let line = line.as_ref();
        self.send([line, b"\n"].concat());
        self.expect([b"? ", line, b"\n"].concat());
    }

    /// The server must close now, cleanly, with nothing more said.
    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let end = self.received.read_to_end(&mut rest);
        assert!(
            end.is_ok() && rest.is_empty(),
            "{end:?}, and more came: {}",
            rest.escape_ascii()
        );
    }
}

/// The `AT` line without its skew.
pub(crate) fn without_skew(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(' ').collect();
    assert!(
        fields.len() == 6 && fields[0] == "AT",
        "not an AT line: {line:?}"
    );
    fields.remove(2);
    fields.join(" ")
}
