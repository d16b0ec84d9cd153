//! The connections to one server. Each has introduced a client, and is ready for the measurement.

use std::io::{self, Read, Write};
use std::time::Duration;

use herd_client::dial::Target;
use herd_mio::core::session::tls::is_tls;
use herd_testkit::failure::{Failure, system};
use mio::{Interest, Poll, Token};

use crate::answers::{Rules, Wrong, server_of};
use crate::clock::{Clock, SECOND_NS};
use crate::commands::Commands;
use crate::conversation::{Conversation, Heard, INTRODUCED};
use crate::dial::Dialler;
use crate::files;
use crate::line::Line;
use crate::progress::Progress;
use crate::socket::Socket;
use crate::stop::Stop;

/// The number of commands that an introduction sends at once. They fit in the buffers of both
/// sides.
pub(crate) const INTRODUCED_AT_ONCE: usize = 100;
/// The number of connections between two updates of the progress bar. Signals are checked then too.
const MADE_AT_ONCE: usize = 50;

/// The options of a crew.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) connections: usize,
    /// The number of client ids. Connection k of n has the ids whose number is k modulo n.
    pub(crate) clients: u32,
    /// The beginning of each id.
    pub(crate) prefix: String,
    pub(crate) radius: String,
    pub(crate) bound: u8,
    /// The greatest allowed difference of the server's clock.
    pub(crate) tolerance_ns: u64,
    /// The longest wait for an answer.
    pub(crate) timeout_ns: u64,
    /// Whether each client sends its position before the measurement, so that a `WHATSAT` can ask
    /// about it.
    pub(crate) introduce_all: bool,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is no usable connection.
    Lost,
    /// The connect or the handshake is in progress.
    Making,
    /// It introduces its clients again, from this one on. A restarted server may have forgotten
    /// them.
    Introducing(u32),
    /// It sends the commands that are due.
    Open,
}

/// One connection, and its next commands.
pub(crate) struct Connection {
    /// `None` while the connection is lost.
    pub(crate) socket: Option<Socket>,
    pub(crate) stage: Stage,
    pub(crate) conversation: Conversation,
    /// The next client.
    pub(crate) next_client: u32,
    /// It has more to read than one turn reads, so it is on the list of the next turn.
    pub(crate) queued: bool,
}

impl Connection {
    /// Writes unsent bytes, with one system call.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(socket) = &mut self.socket {
            let count = socket.write(self.conversation.unsent())?;
            self.conversation.sent(count);
        }
        Ok(())
    }
}

/// Connections to one server.
pub(crate) struct Crew {
    pub(crate) target: Target,
    pub(crate) clock: Clock,
    pub(crate) commands: Commands,
    pub(crate) rules: Rules,
    pub(crate) heard: Heard,
    pub(crate) poll: Poll,
    pub(crate) connections: Vec<Connection>,
    pub(crate) clients: u32,
    /// Whether each client sends its position on every new connection, so that a `WHATSAT` can ask
    /// about it.
    pub(crate) introduce_all: bool,
    pub(crate) dialler: Dialler,
    pub(crate) stop: Stop,
}

impl Crew {
    /// Finds the server and, if it is not known, its name. Makes no connection of the crew yet.
    pub(crate) fn new(mut target: Target, manner: &Manner, stop: &Stop) -> Result<Crew, Failure> {
        let clock = Clock::start();
        let mut commands = Commands::new(&manner.prefix, &manner.radius, manner.bound);
        let mut dialler = Dialler::new(&target, Duration::from_nanos(manner.timeout_ns), stop);
        let name = match &target.name {
            Some(name) => name.clone(),
            None => {
                let line = dialler.call(0)?;
                let name = name_of(line, &mut commands, &clock, stop);
                name.map_err(|trouble| trouble.in_words(&target, 0, &Conversation::default()))?
            }
        };
        let rules = Rules::new(name.as_bytes(), manner.tolerance_ns, manner.bound);
        target.name = Some(name);
        // The last answers are needed only for `WHATSAT`s.
        let remembered = if manner.introduce_all {
            manner.clients
        } else {
            0
        };
        Ok(Crew {
            target,
            clock,
            commands,
            rules,
            heard: Heard::of(remembered),
            poll: Poll::new().map_err(system("make an event loop"))?,
            connections: Vec::with_capacity(manner.connections),
            clients: manner.clients,
            introduce_all: manner.introduce_all,
            dialler,
            stop: stop.clone(),
        })
    }

    /// Makes the connections. Each introduces its first client, or all of its clients, and the
    /// answers are checked. So each connection works, and the server has accepted it before the
    /// next one connects.
    pub(crate) fn connect(
        &mut self,
        manner: &Manner,
        depth: usize,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        files::allow(manner.connections)?;
        let step = manner.connections;
        for number in 0..manner.connections {
            if number % MADE_AT_ONCE == 0 {
                progress.connecting(number, manner.connections);
                check_signals(&self.stop)?;
            }
            // Below the number of clients, which is at least that of connections and fits.
            let first = number as u32;
            let clients = (first..manner.clients).step_by(step);
            let count = if manner.introduce_all { usize::MAX } else { 1 };
            let mut line = self.call(number)?;
            self.introduce(&mut line, number, clients.take(count))?;

            let conversation =
                Conversation::with_capacity(depth.min(1024), self.commands.iamat_bytes());
            let mut socket = line.into_socket().map_err(system("use a socket"))?;
            self.watch(&mut socket, number)
                .map_err(system("watch a socket"))?;
            self.connections.push(Connection {
                socket: Some(socket),
                stage: Stage::Open,
                conversation,
                next_client: first,
                queued: false,
            });
        }
        Ok(())
    }

    /// Registers this socket with the poll.
    pub(crate) fn watch(&self, socket: &mut Socket, number: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(socket.source(), Token(number), interest)
    }

    /// Makes one connection.
    pub(crate) fn call(&mut self, number: usize) -> Result<Line, Failure> {
        self.dialler.call(number)
    }

    /// Sends an `IAMAT` of each of these clients, and checks the answers.
    pub(crate) fn introduce(
        &mut self,
        line: &mut Line,
        number: usize,
        mut clients: impl Iterator<Item = u32>,
    ) -> Result<(), Failure> {
        let mut conversation = Conversation::default();
        loop {
            let mut asked = false;
            for client in clients.by_ref().take(INTRODUCED_AT_ONCE) {
                let wall_ns = self.clock.wall_ns();
                conversation.iamat(&mut self.commands, client, INTRODUCED, wall_ns);
                asked = true;
            }
            if !asked {
                return Ok(());
            }
            self.converse(line, &mut conversation)
                .map_err(|trouble| trouble.in_words(&self.target, number, &conversation))?;
        }
    }

    /// Sends unsent bytes, and reads until every command is answered.
    fn converse(
        &mut self,
        line: &mut Line,
        conversation: &mut Conversation,
    ) -> Result<(), Trouble> {
        let unsent = conversation.unsent();
        line.write_all(unsent)?;
        let count = unsent.len();
        conversation.sent(count);
        let mut buffer = [0; 16 * 1024];
        while conversation.in_flight() > 0 {
            let count = read(line, &mut buffer, &self.stop)?;
            let wall_ns = self.clock.wall_ns();
            conversation
                .receive(
                    &buffer[..count],
                    wall_ns,
                    &self.rules,
                    &mut self.heard,
                    |_| {},
                )
                .map_err(Trouble::Wrong)?;
        }
        Ok(())
    }
}

/// The reason why a connection is no longer usable.
#[derive(Debug)]
pub(crate) enum Trouble {
    System(io::Error),
    Ended,
    /// No bytes came for this long.
    Silent(u64),
    /// The server uses TLS, and this side does not.
    Tls,
    /// A signal came.
    Stopped,
    Wrong(Box<Wrong>),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::System(error)
    }
}

impl Trouble {
    /// The kind of the trouble. Each kind is reported once.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Trouble::System(_) => "broken",
            Trouble::Ended => "closed",
            Trouble::Silent(_) => "silent",
            Trouble::Tls => "tls",
            Trouble::Stopped => "stopped",
            Trouble::Wrong(_) => "wrong",
        }
    }

    /// The trouble as text, with the connection and its state.
    pub(crate) fn in_words(
        self,
        target: &Target,
        number: usize,
        conversation: &Conversation,
    ) -> Failure {
        let number = number + 1;
        let due = match conversation.in_flight() {
            0 => "when no answer was due".to_owned(),
            1 => "when 1 answer was due".to_owned(),
            due => format!("when {due} answers were due"),
        };
        let given = conversation.answers;
        Failure::Failed(match self {
            Trouble::Ended => format!(
                "{target} closed connection {number} {due}, after {given}: it stopped, or it rejected the connection; its log says why"
            ),
            Trouble::System(error) if is_timeout(&error) => format!(
                "{target} did not answer in time on connection {number}, after {given}; see --timeout"
            ),
            Trouble::System(error) => format!(
                "connection {number} to {target} broke {due}, after {given}: {error}: the server stopped, or it rejected the connection; its log says why"
            ),
            Trouble::Silent(ns) => format!(
                "{target} sent nothing for {:.1} s on connection {number}, {due}, after {given}; see --timeout",
                ns as f64 / SECOND_NS as f64
            ),
            Trouble::Tls => format!(
                "{target} uses TLS with its clients; add --tls, and --ca FILE if browsers do not trust its authority"
            ),
            Trouble::Stopped => return crate::stop::before_measuring(),
            Trouble::Wrong(wrong) => format!(
                "wrong answer from {target} on connection {number}, after {given} correct answers there: {wrong}"
            ),
        })
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Fails if a signal came. There are no figures to print yet.
pub(crate) fn check_signals(stop: &Stop) -> Result<(), Failure> {
    if stop.is_wanted() {
        return Err(crate::stop::before_measuring());
    }
    Ok(())
}

/// Asks a server for its name if only its address is known. Every answer contains the name.
fn name_of(
    mut line: Line,
    commands: &mut Commands,
    clock: &Clock,
    stop: &Stop,
) -> Result<String, Trouble> {
    let mut command = Vec::new();
    commands.iamat(&mut command, 0, clock.wall_ns());
    line.write_all(&command)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let answer_line = loop {
        let count = read(&mut line, &mut buffer, stop)?;
        answer.extend_from_slice(&buffer[..count]);
        if let Some(end) = memchr::memchr(b'\n', &answer) {
            break &answer[..end];
        }
        if answer.len() > crate::answers::LINE_BYTES {
            break answer.as_slice();
        }
    };
    let name = server_of(answer_line).and_then(|name| std::str::from_utf8(name).ok());
    name.map(str::to_owned).ok_or_else(|| {
        Trouble::Wrong(Box::new(Wrong {
            what: "the answer is no AT line".into(),
            sent: command,
            expected: "AT <server> <skew> <client> <place> <time>".into(),
            got: answer_line.to_vec(),
        }))
    })
}

fn read(line: &mut Line, into: &mut [u8], stop: &Stop) -> Result<usize, Trouble> {
    loop {
        match line.read(into) {
            Ok(0) => return Err(Trouble::Ended),
            Ok(count) if line.is_plain() && is_tls(&into[..count]) => return Err(Trouble::Tls),
            Ok(count) => return Ok(count),
            Err(_) if stop.is_wanted() => return Err(Trouble::Stopped),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
