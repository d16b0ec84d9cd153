//! Workload: a turn of the server's real loop, over real sockets on loopback.
//!
//! Clients and server share one thread. So it is certain which clients are ready when the turn
//! begins: the clients write, then the server has its turn, then the clients read. Only the turn is
//! measured. It has one `epoll_wait`, a `read` and a `write` for each ready client, and the
//! server's work between them. The server writes no log.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use herd_mio::core::base::settings::HostPort;
use herd_mio::shell::event_loop::Server;
use herd_mio::shell::ports::Ports;
use herd_mio::shell::reload::Reload;
use herd_mio::shell::service_manager::ServiceManager;
use herd_mio::shell::signals::SignalFlags;
use herd_testkit::clock;
use mio::Events;

use crate::crowd::{Crowd, Said};
use crate::stage::{SERVER, settings};
use crate::workload::{Failure, Workload};

/// The number of connected clients.
const CONNECTED: usize = 500;
/// More events than the sockets can have, so that one poll returns all.
const EVENTS: usize = 1_024;
/// The server's `limits.turn_ms`: the maximum, so that a turn under valgrind, which is about fifty
/// times slower, still handles all clients that are ready.
const TURN_MS: u64 = 1_000;
/// Of a thousand answers, so many may come a turn late: loopback may deliver a packet only after
/// `write` has returned.
const LATE_PER_MILLE: u64 = 10;
/// An answer has to come within so many turns. The first turns accept the connections, 64 in each.
const PATIENCE_TURNS: u32 = 100;
/// The first `IAMAT` of the run was stamped so long before the run. Each stamp is one `STEP_NS`
/// later than the one before. Real time advances faster than that, so no stamp is in the future.
const FIRST_AGE_NS: u64 = 250_000_000;
const STEP_NS: u64 = 1_000;

/// A server and its clients, of which so many are ready in each turn.
pub(crate) struct Turn {
    server: Server,
    events: Events,
    clients: Vec<TcpStream>,
    crowd: Crowd,
    stamp_ns: u64,
    ready: usize,
    /// The client that sends first in the next pass.
    next: usize,
    /// The clients that sent in this pass, and their lines.
    said: Vec<(usize, Said)>,
    answered: u64,
    late: u64,
    failure: Option<Failure>,
}

impl Turn {
    pub(crate) fn new(ready: usize) -> Result<Turn, Failure> {
        // A failure does not matter here: with too few descriptors the connects below fail.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let ports = Ports {
            clients: HostPort {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port: 0,
            },
            neighbours: None,
            http: None,
        };
        let mut settings = settings()?;
        settings.limits.turn_ms = TURN_MS;
        let requests = SignalFlags::register().map_err(|error| format!("signals: {error}"))?;
        let manager = ServiceManager::default();
        let server = Server::start(settings, &ports, None, Reload::default(), requests, manager)
            .map_err(|error| error.to_string())?;
        let addresses = server
            .clients_addresses()
            .map_err(|error| error.to_string())?;
        let connect = |_| {
            let stream = TcpStream::connect(&*addresses)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let clients = (0..CONNECTED)
            .map(connect)
            .collect::<std::io::Result<Vec<TcpStream>>>()
            .map_err(|error| format!("a client cannot connect: {error}"))?;
        let mut turn = Turn {
            server,
            events: Events::with_capacity(EVENTS),
            clients,
            crowd: Crowd::new(),
            stamp_ns: u64::try_from(clock::since_1970().as_nanos()).unwrap_or(u64::MAX)
                - FIRST_AGE_NS,
            ready: CONNECTED,
            next: 0,
            said: Vec::new(),
            answered: 0,
            late: 0,
            failure: None,
        };
        // All clients are accepted and known before the measurement begins. That takes several
        // turns.
        turn.prepare()?;
        turn.pass();
        turn.hear_all()?;
        (turn.answered, turn.late, turn.ready) = (0, 0, ready);
        Ok(turn)
    }

    /// Reads every answer. A client without an answer is asked again after another turn.
    fn hear_all(&mut self) -> Result<(), Failure> {
        let mut waiting = std::mem::take(&mut self.said);
        self.answered += waiting.len() as u64;
        for turns in 0..PATIENCE_TURNS {
            let mut late = Vec::new();
            for (client, said) in waiting {
                match hear(&mut self.clients[client])? {
                    Some(answer) => right(&answer, &said)?,
                    None => late.push((client, said)),
                }
            }
            let Some((client, _)) = late.first() else {
                return Ok(());
            };
            if turns == 0 {
                self.late += late.len() as u64;
            }
            // The blank line makes the next turn's poll return at once. The server does not answer
            // it.
            say(&mut self.clients[*client], "\n")?;
            self.pass();
            self.failure.take().map_or(Ok(()), Err)?;
            waiting = late;
        }
        Err("some clients get no answer".into())
    }
}

fn say(client: &mut TcpStream, line: &str) -> Result<(), Failure> {
    let said = client.write_all(line.as_bytes());
    said.map_err(|error| format!("a client cannot write: {error}"))
}

/// Reads what has arrived for a client. One answer is one packet, so one read takes all of it.
fn hear(client: &mut TcpStream) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = [0; 256];
    match client.read(&mut bytes) {
        Ok(0) => Err("the server has closed a connection".into()),
        Ok(count) => Ok(Some(bytes[..count].to_vec())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(format!("a client cannot read: {error}")),
    }
}

/// Checks the answer but not the skew in it: only the server knows when it received the line.
fn right(answer: &[u8], said: &Said) -> Result<(), Failure> {
    let answer = String::from_utf8_lossy(answer);
    let is_right = answer
        .strip_prefix(&format!("AT {SERVER} +"))
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(skew, fields)| {
            skew.parse::<f64>().is_ok() && fields.strip_suffix('\n') == Some(&*said.fields)
        });
    let wrong = || format!("wrong answer {answer:?} to {:?}", said.line);
    is_right.then_some(()).ok_or_else(wrong)
}

impl Workload for Turn {
    fn operations(&self) -> u64 {
        self.ready as u64
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        for _ in 0..self.ready {
            let client = self.next;
            self.next = (client + 1) % CONNECTED;
            self.stamp_ns += STEP_NS;
            let said = self.crowd.iamat_aged(client, self.stamp_ns, 0);
            say(&mut self.clients[client], &said.line)?;
            self.said.push((client, said));
        }
        Ok(())
    }

    fn pass(&mut self) {
        if let Err(error) = self.server.turn(&mut self.events) {
            self.failure = Some(error.to_string());
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)?;
        self.hear_all()?;
        let (answered, late) = (self.answered, self.late);
        if answered >= 1_000 && late * 1_000 > answered * LATE_PER_MILLE {
            return Err(format!(
                "{late} of {answered} answers came after the measured turn"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::WALL_NS;

    #[test]
    fn wrong_answers_are_rejected() {
        let mut crowd = Crowd::new();
        let said = crowd.iamat(7, WALL_NS);
        let answer = said.answer(SERVER);
        assert_eq!(right(answer.as_bytes(), &said), Ok(()));
        let other = crowd.iamat(7, WALL_NS);
        for wrong in [
            other.answer(SERVER),
            said.answer("Jaquez"),
            answer.replace(" +", " -"),
            answer.replace("AT ", "? "),
            answer.clone() + &answer,
            answer.trim_end().to_owned(),
        ] {
            assert!(right(wrong.as_bytes(), &said).is_err(), "{wrong}");
        }
    }
}
