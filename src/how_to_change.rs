//! How to change the server: recipes for the most frequent changes.
//!
//! Each recipe was tried: the change was made, built and run, and the files were counted. The
//! compiler finds most of the places, because a `match` over a type of this crate names every case.
//! "Files" counts only files of `src`, without tests and tools. `cargo test` fails if a file on
//! this page does not exist any more.
//!
//! | change | files |
//! |---|---|
//! | [a client command](#a-client-command) | 2 |
//! | [a limit](#a-limit) | 2 |
//! | [a counter for operators](#a-counter-for-operators) | 2 |
//! | [a kind of connection](#a-kind-of-connection) | 6, and 3 for an option with its port |
//!
//! # A client command
//!
//! The example is `PING`, which is answered with `PONG`.
//!
//! 1. `src/core/wire/message.rs`: add a variant to
//!    [`Command`](crate::core::wire::message::Command), and parse it in `Command::parse`. Arguments
//!    are parsed into types here, so a command with a wrong argument is `Command::Invalid`, and the
//!    line is quoted with `? `.
//! 2. `src/core/client/machine.rs`: run it in `Client::command`.
//!
//! ```text
//!   // Client::command
//!   Command::Ping => self.output.extend(b"PONG\n"),
//! ```
//!
//! The output is sent at the end of the turn, in the order of the commands. An answer that promises
//! a record has to raise `held_until`, as `Client::iamat` does. Then it waits for the journal. A
//! command that cannot be answered at once is a state: see `Awaiting` and `TRANSITIONS` in the same
//! file.
//!
//! Outside `src`, the compiler shows two places: what tests expect of mixed-up lines
//! (`tools/testkit/src/transcripts/near_misses.rs`), and how herd-client shows the answer
//! (`tools/client/src/show.rs`). The fuzz target for lines has a second parser to compare with
//! (`tools/fuzz/src/client_line.rs`, `tools/fuzz/src/reference.rs`).
//! Add a transcript to the others of the commands in `tools/testkit/src/transcripts.rs`.
//!
//! # A limit
//!
//! The example is `max_quotes`, the number of lines that the server quotes to one client before it
//! closes the connection.
//!
//! 1. `src/core/base/limits.rs`: add it to the list, with its default, its range, and a sentence
//!    for operators. The key in the config file, its check and the line of `--check` follow from
//!    the list.
//! 2. The file that reaches it, here `src/core/client/machine.rs`. The settings are in every
//!    [`Context`](crate::core::session::context::Context):
//!
//! ```text
//!   // limits!
//!   /// Lines of a client that are answered with `? `; one more closes its connection.
//!   max_quotes = 1_000_000, 1..=1_000_000_000;
//!
//!   // Client::command
//!   if self.quotes > context.settings.limits.max_quotes {
//!       self.close(Cause::TooManyQuotes, Linger::Long);
//!   }
//! ```
//!
//! If a limit ends a connection, its reason is a new `Cause`, with lines in `TRANSITIONS` and in
//! the drawing at the top of `src/core/client/machine.rs`. A test compares the two. Another test
//! fails until `tests/behaviour/limits.rs` names a test that reaches the limit.
//!
//! # A counter for operators
//!
//! The example is `pings`, the number of `PING`s that were answered.
//!
//! 1. `src/core/session/tally.rs`: add it to the list
//!    [`Counters`](crate::core::session::tally::Counters).
//! 2. The file that counts, here `src/core/client/machine.rs`.
//!
//! ```text
//!   // counters!
//!   /// `PING`s that were answered.
//!   pings;
//!
//!   // Client::command
//!   context.tally.counters.pings += 1;
//! ```
//!
//! The `STATUS` line and `herd-client status --json` (under `counters`) are made from the list. A
//! server of an older version does not send the key, and the tool shows 0 for it. A value that is
//! not a counter needs its own key in `src/core/link/machine/status.rs`, its own field in
//! `tools/client/src/standing.rs`, and a line in `tools/client/src/status/report.rs`.
//!
//! # A kind of connection
//!
//! The example is a port that echoes what it receives.
//!
//! 1. A new file for the session, here `src/core/echo.rs`. It implements
//!    [`Protocol`](crate::core::session::protocol::Protocol). If it needs nothing outside itself,
//!    its `Effect` is [`Infallible`](std::convert::Infallible).
//! 2. `src/core/mod.rs`: name the file.
//! 3. `src/core/node/session.rs`: add a variant to `Session`, and a line to `on_each`. With an
//!    effect, also add a variant to `Effect`, and handle it in `Node::apply`
//!    (`src/core/node/connection.rs`).
//! 4. `src/core/node/mod.rs`: add the event by which it begins. Give it the prefix `handle_`, and
//!    call `Node::admit`.
//! 5. `src/shell/ports.rs`: add its token, its address in [`Ports`](crate::shell::ports::Ports),
//!    and a line in `bind_all`.
//! 6. `src/shell/event_loop.rs`: name the token in `note`, and call the event in `admit`.
//!
//! ```text
//!   // core/node/mod.rs
//!   pub fn handle_echo_connected(&mut self, now: Now) -> ConnId {
//!       self.handle(now, |node| node.admit(None, |_| Session::Echo(Echo::default())))
//!   }
//!
//!   // shell/event_loop.rs, Server::admit
//!   ECHO => Some(self.node.handle_echo_connected(now)),
//! ```
//!
//! The loop reads, writes, and closes this connection like every other one, because it asks only
//! the session. `wants_read` has to limit the output that waits: a session that always reads can be
//! made to fill the memory. Before the port is open to a network, add a limit on the number of its
//! connections.
//!
//! An option for the address takes three more files: `src/cli.rs` (the flag and its variable),
//! `src/config/mod.rs` (`Overrides`), and `src/config/server.rs` (`listens_at`). A connection that
//! this server dials needs no port. It begins with a
//! [`Request::Connect`](crate::core::node::Request), as in `src/core/node/neighbours.rs`. Its TLS
//! is chosen in `tls_of_dialled` (`src/core/node/connection.rs`).
