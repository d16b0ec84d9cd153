//! The crew: connections to one server that have spoken with it once, and what is needed to go on.

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

/// Commands that an introduction sends at once: few enough for the buffers of both sides.
pub(crate) const INTRODUCED_AT_ONCE: usize = 100;
/// Connections made between two looks at the progress and at signals.
const MADE_AT_ONCE: usize = 50;

/// How a crew is to be.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) connections: usize,
    /// Different client ids; connection k of n has those whose number leaves k when divided by n.
    pub(crate) clients: u32,
    /// How each id begins.
    pub(crate) prefix: String,
    pub(crate) radius: String,
    pub(crate) bound: u8,
    /// How far the server's clock may be off.
    pub(crate) tolerance_ns: u64,
    /// How long the server may be silent while an answer is due.
    pub(crate) timeout_ns: u64,
    /// Each client says where it is before anything is measured, so that it can be asked about.
    pub(crate) introduce_all: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has none that could be used.
    Lost,
    /// Connect and handshake are on their way.
    Making,
    /// It introduces its clients again, the next one first: what restarted may have forgotten them.
    Introducing(u32),
    /// It says what is due.
    Open,
}

/// One connection, and what it is to say next.
pub(crate) struct Connection {
    /// `None` while it is lost.
    pub(crate) socket: Option<Socket>,
    pub(crate) stage: Stage,
    pub(crate) conversation: Conversation,
    /// Whose turn it is.
    pub(crate) next_client: u32,
    /// It has more to read than one turn takes, and is on the list of the next one.
    pub(crate) queued: bool,
}

impl Connection {
    /// Writes once what is to be written.
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
    /// Each client says where it is on every connection that is made, so that it can be asked about.
    pub(crate) introduce_all: bool,
    pub(crate) dialler: Dialler,
    pub(crate) stop: Stop,
}

impl Crew {
    /// Finds the server and, if that is not known, its name. Nobody is connected yet.
    pub(crate) fn new(mut target: Target, manner: &Manner, stop: &Stop) -> Result<Crew, Failure> {
        let clock = Clock::start();
        let mut commands = Commands::new(&manner.prefix, &manner.radius, manner.bound);
        let mut dialler = Dialler::new(&target, Duration::from_nanos(manner.timeout_ns), stop);
        let name = match &target.name {
            Some(name) => name.clone(),
            None => {
                let line = dialler.call(0)?;
                let name = name_of(line, &mut commands, &clock, stop);
                name.map_err(|trouble| trouble.told(&target, 0, &Conversation::default()))?
            }
        };
        let rules = Rules::new(name.as_bytes(), manner.tolerance_ns, manner.bound);
        target.name = Some(name);
        // Only who asks about clients has to remember what was said of them.
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

    /// Makes the connections. Each introduces its first client, or all of its clients, and the answers are checked; so whoever
    /// is there is known to work, and was accepted by the server before the next one calls.
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

    /// The poll tells of this socket from now on.
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
                .map_err(|trouble| trouble.told(&self.target, number, &conversation))?;
        }
    }

    /// Sends what is unsent, and reads until everything is answered.
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

/// Why a connection cannot be gone on with.
#[derive(Debug)]
pub(crate) enum Trouble {
    System(io::Error),
    Ended,
    /// Nothing came for so long.
    Silent(u64),
    /// It speaks TLS, and is spoken to in plain TCP.
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
    /// What kind of trouble it is: each is told once.
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

    /// In words, with where and when it was.
    pub(crate) fn told(
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
                "{target} closed connection {number} {due}, after {given}: it stopped, or it cut us off; its log says why"
            ),
            Trouble::System(error) if is_timeout(&error) => format!(
                "{target} gave no answer in time on connection {number}, after {given}; see --timeout"
            ),
            Trouble::System(error) => format!(
                "connection {number} to {target} broke {due}, after {given}: {error}: it stopped, or it cut us off; its log says why"
            ),
            Trouble::Silent(ns) => format!(
                "{target} gave no answer for {:.1} s on connection {number}, {due}, after {given}; see --timeout",
                ns as f64 / SECOND_NS as f64
            ),
            Trouble::Tls => format!(
                "{target} speaks TLS with its clients; add --tls, and --ca with the file of its authority if browsers do not trust it"
            ),
            Trouble::Stopped => return crate::stop::before_measuring(),
            Trouble::Wrong(wrong) => format!(
                "wrong answer from {target} on connection {number}, after {given} right ones there: {wrong}"
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

/// Fails if a signal came: there is nothing to print yet.
pub(crate) fn check_signals(stop: &Stop) -> Result<(), Failure> {
    if stop.is_wanted() {
        return Err(crate::stop::before_measuring());
    }
    Ok(())
}

/// Asks a server that is known by its address only for its name: every answer begins with it.
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
