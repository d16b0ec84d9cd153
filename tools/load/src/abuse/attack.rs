//! The attack. Its connections send data as fast as the server takes it. A connection that the
//! server closes is made again.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use herd_mio::core::wire::escape::Escaped;
use herd_testkit::failure::{Failure, system};
use memchr::memchr;
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};

use crate::abuse::cli::Kind;
use crate::abuse::payload::Payload;
use crate::clock::{Clock, MILLISECOND_NS};
use crate::dial::Dialler;
use crate::socket::{Received, Socket};

/// The longest wait of the poll, so that the end is noticed.
const POLL: Duration = Duration::from_millis(20);
/// The number of connections that one turn starts, and the number that it serves.
const DIALS: usize = 256;
const SERVED: usize = 256;
/// The wait before a failed or closed connection is made again.
const REDIAL_NS: u64 = 50 * MILLISECOND_NS;
/// The number of bytes that one turn reads from one connection.
const READ_BYTES: usize = 64 * 1024;
/// The length of the kept beginning of a line. It shows the kind of answer, and the reason of a
/// rejection.
const LINE_BYTES: usize = 160;
/// The receive buffer of a connection that never reads. The server has to hold everything beyond
/// that.
const UNREAD_BYTES: usize = 4096;
const EVENTS: usize = 1024;

/// The actions of the attack, and the answers of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attack {
    /// Connections that were made, including those that were made again.
    pub(crate) connected: u64,
    /// Connections that failed.
    pub(crate) failed_connects: u64,
    /// Connections that were not started, because the source addresses had no free port.
    pub(crate) no_port: u64,
    /// Connections that the server closed.
    pub(crate) closed_by_server: u64,
    /// The greatest number of open connections.
    pub(crate) most_open: usize,
    /// Commands and bytes that the system has taken. It may not have sent all of them.
    pub(crate) sent_commands: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// `AT` lines.
    pub(crate) answered: u64,
    /// Lines that begin with `? `.
    pub(crate) refused: u64,
    /// Answers with an error of Places.
    pub(crate) places_errors: u64,
    /// The server's reason for a rejected connection.
    pub(crate) rejection: Option<String>,
    /// The reason why the first failed connection failed.
    pub(crate) first_failure: Option<String>,
}

/// Attacks until `ends` is set.
pub(crate) fn run(
    kind: Kind,
    connections: usize,
    dialler: Dialler,
    payload: Payload,
    ends: &AtomicBool,
) -> Result<Attack, Failure> {
    let slots = (0..connections).map(|_| Slot::default()).collect();
    let attacker = Attacker {
        kind,
        poll: Poll::new().map_err(system("create a poll"))?,
        slots,
        dialler,
        payload,
        clock: Clock::start(),
        now_due: (0..connections).collect(),
        later_due: VecDeque::new(),
        queue: VecDeque::new(),
        open: 0,
        attack: Attack::default(),
    };
    attacker.through(ends)
}

/// A connection, or a free place for one.
#[derive(Default)]
struct Slot {
    socket: Option<Socket>,
    /// The connection is made, including its TLS handshake.
    is_open: bool,
    /// The bytes that were made for it, and how many of them or of the chunk the socket has taken.
    out: Vec<u8>,
    taken: usize,
    /// The beginning of an incomplete line of an answer.
    line: Vec<u8>,
    /// Whether it is in the queue.
    is_queued: bool,
}

struct Attacker {
    kind: Kind,
    poll: Poll,
    slots: Vec<Slot>,
    dialler: Dialler,
    payload: Payload,
    clock: Clock,
    /// Slots to connect now.
    now_due: VecDeque<usize>,
    /// Slots to connect at a time, the earliest first.
    later_due: VecDeque<(u64, usize)>,
    /// Slots with work to do, in the order of their turns.
    queue: VecDeque<usize>,
    open: usize,
    attack: Attack,
}

impl Attacker {
    fn through(mut self, ends: &AtomicBool) -> Result<Attack, Failure> {
        let mut events = Events::with_capacity(EVENTS);
        let mut scratch = vec![0; READ_BYTES];
        while !ends.load(Ordering::Relaxed) {
            self.dial();
            let is_idle = self.queue.is_empty() && self.now_due.is_empty();
            let patience = if is_idle { POLL } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(patience)) {
                Ok(()) => {}
                // A signal. The other thread handles it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system("wait for the server")(error)),
            }
            for event in &events {
                let index = event.token().0;
                if let Some(socket) = &mut self.slots[index].socket {
                    socket.note(event);
                    self.queue(index);
                }
            }
            for _ in 0..SERVED.min(self.queue.len()) {
                let Some(index) = self.queue.pop_front() else {
                    break;
                };
                self.slots[index].is_queued = false;
                self.serve(index, &mut scratch);
            }
        }
        Ok(self.attack)
    }

    fn queue(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if !slot.is_queued {
            slot.is_queued = true;
            self.queue.push_back(index);
        }
    }

    /// Starts the connections that are due.
    fn dial(&mut self) {
        let now_ns = self.clock.now_ns();
        while let Some(&(due_ns, index)) = self.later_due.front() {
            if due_ns > now_ns {
                break;
            }
            self.later_due.pop_front();
            self.now_due.push_back(index);
        }
        for _ in 0..DIALS.min(self.now_due.len()) {
            let Some(index) = self.now_due.pop_front() else {
                return;
            };
            match self.begin(index) {
                Ok(socket) => self.slots[index].socket = Some(socket),
                Err(error) => {
                    let has_no_port = matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                    );
                    if has_no_port {
                        self.attack.no_port += 1;
                    }
                    self.failed(index, &error);
                }
            }
        }
    }

    fn begin(&mut self, index: usize) -> io::Result<Socket> {
        let mut socket = self.dialler.begin(index)?;
        let stream = socket.source();
        // The port must be free as soon as the connection is closed.
        set_socket_linger(&*stream, Some(Duration::ZERO))?;
        if self.kind == Kind::Unread {
            set_socket_recv_buffer_size(&*stream, UNREAD_BYTES)?;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(socket.source(), Token(index), interest)?;
        Ok(socket)
    }

    /// Serves a connection: writes once, and reads once.
    fn serve(&mut self, index: usize, scratch: &mut [u8]) {
        let Some(mut socket) = self.slots[index].socket.take() else {
            return;
        };
        if !self.slots[index].is_open {
            match socket.advance(scratch) {
                Ok(true) => self.opened(index),
                Ok(false) => {
                    self.slots[index].socket = Some(socket);
                    return;
                }
                Err(error) => return self.failed(index, &error),
            }
        }
        let gone_on = match self.write(index, &mut socket) {
            Ok(has_room) => self
                .read(index, &mut socket, scratch)
                .map(|has_more| has_room || has_more),
            Err(error) => {
                // The server may have sent a reason before it closed the connection, so read it.
                let _ = self.read(index, &mut socket, scratch);
                Err(error)
            }
        };
        match gone_on {
            Ok(has_more) => {
                self.slots[index].socket = Some(socket);
                if has_more {
                    self.queue(index);
                }
            }
            Err(_) => self.closed(index),
        }
    }

    fn opened(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.is_open = true;
        self.payload.begin(&mut slot.out, self.clock.wall_ns());
        self.open += 1;
        self.attack.connected += 1;
        self.attack.most_open = self.attack.most_open.max(self.open);
    }

    /// Writes once. Returns whether the socket may take more.
    fn write(&mut self, index: usize, socket: &mut Socket) -> io::Result<bool> {
        if self.kind == Kind::Links {
            return Ok(false);
        }
        let slot = &mut self.slots[index];
        if let Some((chunk, command_bytes)) = self.payload.repeated() {
            let rest = &chunk[slot.taken..];
            let count = socket.write(rest)?;
            let has_room = count == rest.len();
            let before = slot.taken / command_bytes;
            let after = (slot.taken + count) / command_bytes;
            self.attack.sent_commands += (after - before) as u64;
            self.attack.sent_bytes += count as u64;
            slot.taken = (slot.taken + count) % chunk.len();
            return Ok(has_room);
        }
        if slot.taken == slot.out.len() {
            if slot.taken > 0 {
                slot.out.clear();
                slot.taken = 0;
            }
            self.payload.make(&mut slot.out, self.clock.wall_ns());
        }
        let rest = &slot.out[slot.taken..];
        let count = socket.write(rest)?;
        let has_room = count == rest.len();
        let commands = rest[..count].iter().filter(|&&byte| byte == b'\n').count();
        self.attack.sent_commands += commands as u64;
        self.attack.sent_bytes += count as u64;
        slot.taken += count;
        Ok(has_room)
    }

    /// Reads once. Returns whether there may be more.
    fn read(&mut self, index: usize, socket: &mut Socket, scratch: &mut [u8]) -> io::Result<bool> {
        if self.kind == Kind::Unread {
            return Ok(false);
        }
        match socket.read(scratch)? {
            Received::Bytes(bytes) => {
                self.attack.received_bytes += bytes.len() as u64;
                let line = &mut self.slots[index].line;
                self.attack.count_lines(bytes, line, &self.payload);
                Ok(socket.is_readable())
            }
            Received::Nothing => Ok(false),
            Received::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The server closed a connection.
    fn closed(&mut self, index: usize) {
        self.attack.closed_by_server += 1;
        self.open -= 1;
        if self.kind == Kind::Links {
            self.now_due.push_back(index);
        } else {
            self.later(index);
        }
        self.reset(index);
    }

    /// A connection failed.
    fn failed(&mut self, index: usize, error: &io::Error) {
        self.attack.failed_connects += 1;
        let first = &mut self.attack.first_failure;
        first.get_or_insert_with(|| error.to_string());
        self.later(index);
        self.reset(index);
    }

    fn later(&mut self, index: usize) {
        let due_ns = self.clock.now_ns() + REDIAL_NS;
        self.later_due.push_back((due_ns, index));
    }

    fn reset(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let is_queued = slot.is_queued;
        *slot = Slot {
            is_queued,
            ..Slot::default()
        };
    }
}

impl Attack {
    /// Counts the lines that end in `bytes`. `line` has the beginning of the first one.
    fn count_lines(&mut self, bytes: &[u8], line: &mut Vec<u8>, payload: &Payload) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            let room = LINE_BYTES - line.len();
            line.extend_from_slice(&part[..part.len().min(room)]);
            let Some(end) = end else { return };
            self.count_line(line, payload);
            line.clear();
            rest = &rest[end + 1..];
        }
    }

    fn count_line(&mut self, line: &[u8], payload: &Payload) {
        if let Some(refused) = line.strip_prefix(b"? ") {
            self.refused += 1;
            if self.rejection.is_none() && !payload.is_repeated_in(refused) {
                self.rejection = Some(Escaped(refused).to_string());
            }
        } else if line.starts_with(b"AT ") {
            self.answered += 1;
        } else if is_error_of_places(line) {
            self.places_errors += 1;
        }
    }
}

/// Whether this is the beginning of the JSON of a server that cannot ask Places.
fn is_error_of_places(line: &[u8]) -> bool {
    let unknown = b"\"status\" : \"UNKNOWN_ERROR\"";
    line.starts_with(b"{\"error\"") || memchr::memmem::find(line, unknown).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_any_pieces_are_counted_by_kind() {
        let payload = Payload::new(Kind::Places, "abuse", "1f", 0);
        let text = "AT Riley +0.1 abuse-asked +1+2 3\n{\"html_attributions\" : [], \"results\" : [], \"status\" : \"UNKNOWN_ERROR\", \"error_message\" : \"busy\"}\n\nAT Riley +0.1 abuse-asked +1+2 3\n{\n   \"status\" : \"OK\"\n}\n\n? WHATSAT abuse-asked 0.001 5\n? there are 3 clients\n? too late\n";
        for size in [1, 7, 1000] {
            let (mut attack, mut line) = (Attack::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                attack.count_lines(piece, &mut line, &payload);
            }
            let expected = Attack {
                answered: 2,
                refused: 3,
                places_errors: 1,
                rejection: Some("there are 3 clients".into()),
                ..Attack::default()
            };
            assert_eq!(attack, expected, "{size}");
            assert!(line.is_empty());
        }
    }
}
