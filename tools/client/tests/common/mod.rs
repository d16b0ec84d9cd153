//! A server that does what a test tells it, and the real program to talk to it. Everything has a deadline, nothing sleeps.

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
    /// The next line with its LF, if it has one; empty at the end of input.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        line
    }

    /// Reads a line and sends this.
    pub(crate) fn answer(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let line = self.line();
        assert!(!line.is_empty(), "the client has nothing more to say");
        self.send(bytes);
        line
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// All that comes until the client shuts its writing side down.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// A listening server: its address, and what its script returns.
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
                // The test may be over.
                let _ = sender.send(result);
            }
        });
        Server { address, result }
    }

    /// What the script returned for the next connection; fails the test if it panicked.
    pub(crate) fn result(&self) -> T {
        self.result.recv_timeout(DEADLINE).unwrap()
    }
}

/// What the program has to tell.
pub(crate) trait Told {
    /// Its standard error is this one line.
    fn told(&self, line: &str);
}

impl Told for Ended {
    fn told(&self, line: &str) {
        assert_eq!(self.stderr, format!("herd-client: {line}\n"), "{self:?}");
    }
}

/// The program with these arguments, its standard streams piped.
pub(crate) fn client<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_herd-client"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the program over an input, all of it given at once.
pub(crate) fn run<'a>(arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Ended {
    let mut child = client(arguments);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    thread::spawn(move || {
        // A client that does not want all of it is none of this thread's business.
        let _ = stdin.write_all(&input);
    });
    end(child)
}
