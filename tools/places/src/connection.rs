//! One connection from its handshake to its end, on its own thread.
//!
//! ```text
//!     handshake ──► idle ──► request ──► behaviour ──► answer ──┐
//!                    ▲                                          │
//!                    └──────────────── kept alive ◄─────────────┤
//!                                                               └──► closed, as the behaviour demands
//! ```

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::behaviour::{Behaviour, End};
use crate::event::Event;
use crate::http::{self, Answer, Delivery, HEAD_MAX, Head, Refusal, Request};
use crate::ledger::{Until, Visit, Waited};
use crate::shared::Shared;
use crate::wire::{self, Wire};
use crate::{legacy, new_api};

/// The time limit from the TCP connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit from a request's first byte to its last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval in which a waiting request checks whether its client has closed.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After a refusal the connection stays open for so long, so that the client can read it.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one client until either side closes. The socket is closed when this returns.
pub(crate) fn serve(shared: &Shared, visit: &Visit<'_>, socket: Arc<TcpStream>) {
    if shared.silent_accept {
        // Ends when the client closes, or when the server stops and shuts the socket down.
        wire::discard(&socket, usize::MAX);
        return;
    }
    let greeted = Wire::new(socket, Arc::clone(&shared.tls)).and_then(|mut wire| {
        wire.handshake(after(HANDSHAKE_TIMEOUT))?;
        Ok(wire)
    });
    match greeted {
        Ok(wire) => {
            shared.ledger.handshake(true);
            Conversation {
                shared,
                visit,
                wire,
            }
            .run();
        }
        // The server itself closed the connection, so the client has not failed.
        Err(_) if shared.ledger.is_stopping() => {}
        Err(error) => {
            shared.ledger.handshake(false);
            let reason = match error.kind() {
                ErrorKind::TimedOut => "it took too long".to_owned(),
                _ => error.to_string(),
            };
            shared.report(&Event::HandshakeFailed {
                connection: visit.id(),
                reason,
            });
        }
    }
}

/// A connection after its handshake.
struct Conversation<'a> {
    shared: &'a Shared,
    visit: &'a Visit<'a>,
    wire: Wire,
}

/// The result of waiting for a request.
enum Heard {
    /// The request, and whether the connection may stay open.
    Request(Request, bool),
    Refused(Refusal),
    /// No request: the client closed, the connection was idle for too long, or
    /// [`Ledger::close_idle`](crate::ledger::Ledger::close_idle) closed it.
    Nothing,
}

impl Conversation<'_> {
    fn run(mut self) {
        loop {
            match self.hear() {
                Ok(Heard::Request(request, keep_alive)) => match self.respond(&request, keep_alive)
                {
                    End::KeepAlive => {}
                    End::CloseNotify => return self.wire.close(),
                    End::Abrupt => return self.wire.close_abruptly(),
                },
                Ok(Heard::Refused(refusal)) => return self.refuse(refusal),
                Ok(Heard::Nothing) => return self.wire.close(),
                Err(_) => return self.wire.close_abruptly(),
            }
        }
    }

    /// Waits for a request, then reads it.
    fn hear(&mut self) -> io::Result<Heard> {
        // A pipelined request is already in the buffer.
        if self.wire.received.is_empty() {
            self.visit.idle();
            match self.wire.fill(after(self.shared.keep_alive)) {
                Ok(0) => return Ok(Heard::Nothing),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(Heard::Nothing),
                Err(error) => return Err(error),
            }
        }
        if !self.visit.busy() {
            return Ok(Heard::Nothing);
        }
        match self.read_request(after(REQUEST_TIMEOUT)) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                Ok(Heard::Refused(Refusal::TimedOut))
            }
            other => other,
        }
    }

    fn read_request(&mut self, deadline: Instant) -> io::Result<Heard> {
        let head = loop {
            match http::head(&self.wire.received, self.visit.id()) {
                Ok(Some(head)) => break head,
                Ok(None) => debug_assert!(
                    self.wire.received.len() < HEAD_MAX,
                    "a longer head is refused"
                ),
                Err(refusal) => return Ok(Heard::Refused(refusal)),
            }
            if self.wire.fill(deadline)? == 0 {
                return Ok(Heard::Nothing);
            }
        };
        let Head {
            mut request,
            length,
            body,
            keep_alive,
            expects_continue,
        } = head;
        let end = length + body;
        if expects_continue && self.wire.received.len() < end {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while self.wire.received.len() < end {
            if self.wire.fill(deadline)? == 0 {
                return Ok(Heard::Nothing);
            }
        }
        request.body = self.wire.received[length..end].to_vec();
        self.wire.received.drain(..end);
        Ok(Heard::Request(request, keep_alive))
    }

    fn refuse(mut self, refusal: Refusal) {
        let delivery = http::deliver(&refusal.answer(), &Behaviour::Answer, false);
        for piece in &delivery.pieces {
            if self.wire.send(piece).is_err() {
                break;
            }
        }
        self.shared.report(&Event::Refused {
            connection: self.visit.id(),
            reason: refusal.reason(),
        });
        self.wire.close_on_a_talker(LINGER);
    }

    /// Answers a request with the behaviour that is set for it.
    fn respond(&mut self, request: &Request, keep_alive: bool) -> End {
        let begun = Instant::now();
        let (behaviour, releases) = self.shared.ledger.heard(request);
        let until = match &behaviour {
            _ if self.visit.is_forgotten() => Some(Until::Released(u64::MAX)),
            Behaviour::Slow { delay } => Some(Until::Time(after(*delay))),
            Behaviour::Hold => Some(Until::Released(releases)),
            Behaviour::Answer
            | Behaviour::Chunked { .. }
            | Behaviour::CloseDelimited
            | Behaviour::Truncated
            | Behaviour::Drip { .. }
            | Behaviour::Drop
            | Behaviour::Status(_)
            | Behaviour::Raw { .. } => None,
        };
        let delivery = until.is_none_or(|until| self.outlast(&until)).then(|| {
            let answer = if let Behaviour::Status(code) = behaviour {
                new_api::failure(code)
            } else {
                route(&self.shared.key, request)
            };
            http::deliver(&answer, &behaviour, keep_alive)
        });
        let delivered = delivery
            .as_ref()
            .is_some_and(|delivery| self.send(delivery).is_ok());
        self.shared.report(&Event::Answered {
            connection: self.visit.id(),
            method: request.method.clone(),
            target: request.target_without_key(),
            behaviour: behaviour.word(),
            status: delivery.as_ref().and_then(|delivery| delivery.status),
            bytes: delivery
                .as_ref()
                .map_or(0, |delivery| delivery.pieces.iter().map(Vec::len).sum()),
            took: begun.elapsed(),
            delivered,
        });
        // After a partial answer, a `close_notify` would be a lie.
        delivery
            .filter(|_| delivered)
            .map_or(End::Abrupt, |delivery| delivery.end)
    }

    /// Waits. Returns false if the client or the server closes before the wait is over.
    fn outlast(&mut self, until: &Until) -> bool {
        loop {
            match self.shared.ledger.wait(until, LOOK_EVERY) {
                Waited::Done => return true,
                Waited::Stopping => return false,
                Waited::NotYet if self.wire.client_is_gone() => return false,
                Waited::NotYet => {}
            }
        }
    }

    fn send(&mut self, delivery: &Delivery) -> io::Result<()> {
        let Delivery {
            pieces, pause, end, ..
        } = delivery;
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 && !pause.is_zero() {
                let over = Until::Time(after(*pause));
                if self.shared.ledger.wait(&over, *pause) == Waited::Stopping {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
            }
            if index + 1 == pieces.len() && *end == End::KeepAlive {
                // This comes before the write. A client that has read the whole answer may expect
                // that `close_idle` finds the connection idle (test: close_idle_closes_at_once).
                self.visit.idle();
            }
            self.wire.send(piece)?;
        }
        Ok(())
    }
}

/// The time after `duration`. If the clock cannot express it (`Duration::MAX` for example), a time
/// a century away.
fn after(duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + CENTURY)
}

/// Chooses the API that answers a request.
fn route(key: &str, request: &Request) -> Answer {
    match (request.method.as_str(), request.path()) {
        ("GET", legacy::PATH) => legacy::answer(key, &request.target),
        ("POST", new_api::PATH) => new_api::answer(key, request),
        ("HEAD", _) => Answer::page(405, "").without_body(),
        (_, path) => Answer::page(
            404,
            &format!("The requested URL {path} was not found on this server."),
        ),
    }
}
