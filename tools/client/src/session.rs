//! A user's commands, one at a time. A lost connection is made again.

use std::io::Write;
use std::time::Duration;

use crate::dial::Target;

use crate::connection::{Broken, Connection};
use crate::failure::{self, Failure, Stop};
use crate::helpers::Outgoing;
use crate::show::Show;

/// One server, and the connection to it if there is one.
pub(crate) struct Session {
    target: Target,
    timeout: Duration,
    connection: Option<Connection>,
}

impl Session {
    /// A session without a connection.
    pub(crate) fn new(target: Target, timeout: Duration) -> Session {
        Session {
            target,
            timeout,
            connection: None,
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether there is a connection. It may be lost without the client's knowledge until the next
    /// command.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects.
    pub(crate) fn connect(&mut self) -> Result<(), Failure> {
        self.connected().map(|_| ())
    }

    /// The connection. It is made if there is none.
    fn connected(&mut self) -> Result<&mut Connection, Failure> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(&self.target, self.timeout)?;
                // A write may block if the server does not read. It gets the same time limit as an
                // answer.
                let limited = connection.wire.stream.set_write_timeout(Some(self.timeout));
                limited.map_err(|error| Broken::Failed(error).failure(&self.target, 0))?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Sends one command, and prints its answer. After a failure of the connection, the next
    /// command connects again.
    pub(crate) fn command(
        &mut self,
        command: &Outgoing,
        show: &Show,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        if let Some(what) = self.connection.as_mut().and_then(Connection::staleness) {
            self.connection = None;
            failure::print(&format!("{} {what}; connecting again", self.target));
        }
        let connection = self.connected()?;
        match answered(connection, command, show, out)? {
            Ok(()) => Ok(()),
            Err(broken) => {
                self.connection = None;
                let unanswered = usize::from(command.expected.is_some());
                Err(broken.failure(&self.target, unanswered).into())
            }
        }
    }
}

/// The outer error is an error of the output, the inner one an error of the connection.
fn answered(
    connection: &mut Connection,
    command: &Outgoing,
    show: &Show,
    out: &mut impl Write,
) -> Result<Result<(), Broken>, Stop> {
    let bytes = [&command.line[..], b"\n"].concat();
    if let Err(broken) = connection.send(&bytes) {
        return Ok(Err(broken));
    }
    let Some(expected) = command.expected else {
        return Ok(Ok(()));
    };
    loop {
        match connection.answers.next(expected) {
            Ok(Some(answer)) => {
                show.answer(out, &answer)?;
                out.flush()?;
                return Ok(Ok(()));
            }
            Ok(None) => {}
            Err(nonsense) => return Ok(Err(nonsense.into())),
        }
        if let Err(broken) = connection.receive() {
            return Ok(Err(broken));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Status;
    use crate::helpers::outgoing;
    use crate::show::Style;
    use herd_mio::core::base::settings::HostPort;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    /// A server that takes one connection after another, with a word for each. The letter `a`
    /// answers a command, `.` reads one without an answer. At the end of the word the server closes
    /// the connection.
    fn session(connections: &'static [&str]) -> (Session, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            for word in connections {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                for letter in word.chars() {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    if letter == 'a' {
                        let answer = format!("? {line}");
                        stream.get_mut().write_all(answer.as_bytes()).unwrap();
                    }
                }
            }
        });
        let address = HostPort {
            host: "127.0.0.1".into(),
            port,
        };
        let session = Session::new(
            Target {
                name: None,
                address,
                tls: None,
            },
            Duration::from_secs(20),
        );
        (session, server)
    }

    fn say(session: &mut Session, line: &str) -> Result<String, Failure> {
        let show = Show::new(Some(Style::Raw), false);
        let command = outgoing(line.as_bytes(), || Duration::ZERO).unwrap();
        let mut out = Vec::new();
        match session.command(&command, &show, &mut out) {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::OutputClosed) => panic!("a Vec is never closed"),
        }
    }

    #[test]
    fn a_lost_connection_is_reported_and_reconnected() {
        let (mut session, server) = session(&["a", "a.", "a"]);
        assert_eq!(say(&mut session, "a").unwrap(), "? a\n");
        // Waits for the server's FIN, so that the next command is not sent over the old connection.
        let stream = &session.connection.as_ref().unwrap().wire.stream;
        assert_eq!(stream.peek(&mut [0]).unwrap(), 0);
        assert_eq!(say(&mut session, "b").unwrap(), "? b\n");

        let failure = say(&mut session, "c").unwrap_err();
        assert_eq!(failure.status, Status::Lost);
        let told = "closed the connection; 1 command was not answered";
        assert!(failure.message.ends_with(told), "{failure:?}");
        assert!(!session.is_connected());

        assert_eq!(say(&mut session, "d").unwrap(), "? d\n");
        server.join().unwrap();
        let stream = &session.connection.as_ref().unwrap().wire.stream;
        assert_eq!(stream.peek(&mut [0]).unwrap(), 0);
        let failure = say(&mut session, "e").unwrap_err();
        assert!(
            failure.message.contains("no server listens there"),
            "{failure:?}"
        );
    }
}
