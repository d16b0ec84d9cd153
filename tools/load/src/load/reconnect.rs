//! Makes lost connections again. Like a first connection, such a connection introduces its clients
//! before any command that counts.
//!
//! ```text
//!   Open ─► Lost ──(a wait with jitter)──► Making ──(connect, handshake)──► Introducing ─► Open
//!             ▲                               └──────────────┴────────── failed ───────┐
//!             └────────────────────────────────────────────────────────────────────────┘
//! ```

use std::io;

use herd_testkit::failure::Failure;

use super::Run;
use crate::conversation::INTRODUCED;
use crate::crew::{INTRODUCED_AT_ONCE, Stage, Trouble};
use crate::progress::Progress;

impl Run<'_> {
    /// The connection is no longer usable.
    #[cold]
    pub(super) fn lose(
        &mut self,
        index: usize,
        trouble: Trouble,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let now_ns = self.crew.clock.now_ns();
        let connection = &self.crew.connections[index];
        if connection.stage != Stage::Open {
            let kind = trouble.kind();
            let what = trouble.in_words(&self.crew.target, index, &connection.conversation);
            self.fail(index, kind, what.into_words(), progress);
            return Ok(());
        }
        let kind = trouble.kind();
        let missing = connection.conversation.missing(now_ns);
        let failure = self.trouble(index, trouble);
        if self.plan.stops_at_loss {
            return Err(failure);
        }
        self.reset(index);
        self.lost = self.lost.with(&missing);
        self.outages.lost(now_ns);
        self.redial.lost(index, now_ns);
        self.report(kind, &(failure.into_words() + "; reconnecting"), progress);
        Ok(())
    }

    /// An attempt to connect failed.
    fn fail(&mut self, index: usize, kind: &str, what: String, progress: &Progress) {
        self.reset(index);
        self.crew.dialler.forget();
        self.redial.failed(index, self.crew.clock.now_ns());
        let kind = format!("attempt: {kind}");
        self.report(&kind, &format!("{what}; trying again"), progress);
        self.away = Some(what);
    }

    /// Closes the connection, and drops its commands and answers.
    fn reset(&mut self, index: usize) {
        let connection = &mut self.crew.connections[index];
        self.in_flight -= connection.conversation.in_flight() as u64;
        connection.conversation.abandon();
        connection.socket = None;
        connection.stage = Stage::Lost;
    }

    /// Reports a kind of trouble, the first time.
    fn report(&mut self, kind: &str, what: &str, progress: &Progress) {
        if self.reported.insert(kind.to_owned()) {
            progress.print(what);
        }
    }

    /// Starts the attempts that are due, and ends those that take too long.
    pub(super) fn reconnect(&mut self, now_ns: u64, progress: &Progress) -> Result<(), Failure> {
        if self.redial.is_idle() || self.given_up {
            return Ok(());
        }
        let timeout_ns = self.plan.timeout_ns;
        while let Some(index) = self.redial.overdue(now_ns, timeout_ns) {
            let connection = &self.crew.connections[index];
            let why = match (&connection.socket, connection.stage) {
                (Some(socket), Stage::Making) => socket.silence(),
                (Some(_) | None, _) => "it did not answer in time; see --timeout".to_owned(),
            };
            self.fail_to_connect(index, &io::Error::other(why), progress);
        }
        while let Some(index) = self.redial.next(now_ns) {
            let begun = self.crew.dialler.begin(index).and_then(|mut socket| {
                self.crew.watch(&mut socket, index)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => {
                    let connection = &mut self.crew.connections[index];
                    connection.socket = Some(socket);
                    connection.stage = Stage::Making;
                }
                Err(error) => self.fail_to_connect(index, &error, progress),
            }
        }
        Ok(())
    }

    fn fail_to_connect(&mut self, index: usize, error: &io::Error, progress: &Progress) {
        let what = self.crew.dialler.unreachable(index, error);
        self.fail(index, &error.to_string(), what.into_words(), progress);
    }

    /// Continues the connect and the handshake.
    pub(super) fn advance(&mut self, index: usize, progress: &Progress) -> Result<(), Failure> {
        let connection = &mut self.crew.connections[index];
        let made = match &mut connection.socket {
            Some(socket) => socket.advance(&mut self.scratch),
            None => Ok(false),
        };
        match made {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                self.fail_to_connect(index, &error, progress);
                return Ok(());
            }
        }
        // Below the number of clients.
        connection.stage = Stage::Introducing(index as u32);
        let now_ns = self.crew.clock.now_ns();
        let wall_ns = self.crew.clock.wall_ns();
        self.introduce(index, now_ns, wall_ns, progress);
        self.flush(index, progress)
    }

    /// Introduces the connection's next clients. When all are answered, the connection is usable
    /// again.
    pub(super) fn introduce(
        &mut self,
        index: usize,
        now_ns: u64,
        wall_ns: u64,
        progress: &Progress,
    ) {
        let crew = &mut *self.crew;
        let step = crew.connections.len() as u32;
        let connection = &mut crew.connections[index];
        let Stage::Introducing(mut client) = connection.stage else {
            return;
        };
        let end = if crew.introduce_all {
            crew.clients
        } else {
            index as u32 + 1 // One of its clients is enough to show that the server answers.
        };
        let conversation = &mut connection.conversation;
        while client < end && conversation.in_flight() < INTRODUCED_AT_ONCE {
            if self.in_flight == 0 {
                self.progress_ns = now_ns;
            }
            conversation.iamat(&mut crew.commands, client, INTRODUCED, wall_ns);
            self.in_flight += 1;
            client = client.saturating_add(step);
        }
        connection.stage = Stage::Introducing(client);
        if conversation.in_flight() > 0 {
            return;
        }
        connection.stage = Stage::Open;
        self.away = None;
        self.redial.made(index);
        if let Some(outage_ns) = self.outages.remade(now_ns) {
            let seconds = outage_ns as f64 / 1e9;
            let target = &self.crew.target;
            let what = format!("reconnected to {target} after {seconds:.2} s");
            self.report("again", &what, progress);
        }
        self.ask_more_at(index, now_ns, wall_ns);
    }

    /// The message if connections are missing at the end.
    pub(super) fn absence(&self) -> Option<String> {
        let missing = self.outages.missing();
        let why = match &self.away {
            Some(why) => format!("; the last attempt: {why}"),
            None => String::new(),
        };
        (missing > 0).then(|| {
            format!(
                "{missing} of {} connections to {} were lost, and reconnecting failed{why}",
                self.crew.connections.len(),
                self.crew.target
            )
        })
    }
}
