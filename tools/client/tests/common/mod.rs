//! A server that a test scripts, and the real program as its client. Everything has a deadline,
//! nothing sleeps.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

pub(crate) use herd_testkit::streams::{DEADLINE, Ended, end};

/// The server's side of a connection.
pub(crate) struct Peer(pub(crate) BufReader<TcpStream>);

impl Peer {
    /// The next line with its LF, if it has one. Empty at the end of input.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        line
    }

    /// Reads a line, then sends these bytes.
    pub(crate) fn answer(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let line = self.line();
        assert!(!line.is_empty(), "the client has nothing more to say");
        self.send(bytes);
        line
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Reads until the client shuts down its writing side.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// A listening server: its address and the results of its script.
pub(crate) struct Server<T> {
    pub(crate) address: String,
    result: Receiver<T>,
}

impl<T: Send + 'static> Server<T> {
    /// Runs `script` over each of the first `connections` connections.
    pub(crate) fn start(
        connections: usize,
        script: impl Fn(Peer) -> T + Send + 'static,
    ) -> Server<T> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, result) = channel();
        thread::spawn(move || {
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_write_timeout(Some(DEADLINE)).unwrap();
                let result = script(Peer(BufReader::new(stream)));
                // Fails if the test is over.
                let _ = sender.send(result);
            }
        });
        Server { address, result }
    }

    /// The script's result for the next connection. A script that panicked fails the test.
    pub(crate) fn result(&self) -> T {
        self.result.recv_timeout(DEADLINE).unwrap()
    }
}

/// Assertions about the output of the program.
pub(crate) trait Told {
    /// Asserts that the standard error is this one line.
    fn told(&self, line: &str);
}

impl Told for Ended {
    fn told(&self, line: &str) {
        assert_eq!(self.stderr, format!("herd-client: {line}\n"), "{self:?}");
    }
}

/// The program with these arguments. Its standard streams are pipes.
pub(crate) fn client<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_herd-client"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the program with this input, which is written at once.
pub(crate) fn run<'a>(arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Ended {
    let mut child = client(arguments);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    thread::spawn(move || {
        // The client may close its input early. That is no failure here.
        let _ = stdin.write_all(&input);
    });
    end(child)
}
