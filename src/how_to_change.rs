//! How to change the server: recipes for the most frequent changes.
//!
//! Each recipe was tried: the change was made, built and run, and the changed files were counted.
//! The compiler finds most of the code to change, because a `match` over a type of this crate names
//! every case. The column "files" counts only files of `src`, without tests and tools. `cargo test`
//! fails if a file on this page does not exist any more.
//!
//! | change | files |
//! |---|---|
//! | [a client command](#a-client-command) | 2 |
//! | [a limit](#a-limit) | 2 |
//! | [a counter for operators](#a-counter-for-operators) | 2 |
//! | [a kind of connection](#a-kind-of-connection) | 10, and 3 for an option with its port |
//!
//! # A client command
//!
//! The example is `PING`, which is answered with `PONG`.
//!
//! 1. `src/core/wire/message.rs`: add a variant to
//!    [`Command`](crate::core::wire::message::Command), and parse it in `Command::parse`. Parse the
//!    arguments of the command there too. If an argument is wrong, return `Command::Invalid`. The
//!    server then answers with `? ` and the client's line.
//! 2. `src/core/client/machine.rs`: run it in `Client::command`.
//!
//! ```text
//!   // Client::command
//!   Command::Ping => self.output.extend(b"PONG\n"),
//! ```
//!
//! The output is sent at the end of the turn, in the order of the commands. An answer that promises
//! that a record is stored has to wait until the record is in the journal. A command with such an
//! answer raises `required_seq`, as `Client::iamat` does. A command that cannot be answered at once
//! needs a state of the client: see `Awaiting` and `TRANSITIONS` in the same file.
//!
//! Outside `src`, errors of the compiler lead to two more files to change. One contains the answers
//! that tests expect for lines that are nearly commands
//! (`tools/testkit/src/transcripts/near_misses.rs`). The other contains the texts with which
//! herd-client shows answers (`tools/client/src/show.rs`). The fuzz target for lines
//! (`tools/fuzz/src/client_line.rs`) compares the parser with a second parser
//! (`tools/fuzz/src/reference.rs`). Add a transcript of the command to
//! `tools/testkit/src/transcripts.rs`.
//!
//! # A limit
//!
//! The example is `max_quotes`, the number of lines that the server quotes to one client before it
//! closes the connection.
//!
//! 1. `src/core/base/limits.rs`: add the limit to the list, with its default, its range, and a
//!    sentence for operators. The key in the config file, the check of its range and the line in
//!    the output of `--check` are made from the list.
//! 2. The file that enforces the limit, here `src/core/client/machine.rs`. Every session gets the
//!    settings in its [`Context`](crate::core::session::context::Context):
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
//! A limit that ends a connection needs a new `Cause`, with lines in `TRANSITIONS` and in the
//! diagram at the top of `src/core/client/machine.rs`. A test compares the diagram with
//! `TRANSITIONS`. Another test fails until `tests/behaviour/limits.rs` names a test that reaches
//! the limit.
//!
//! # A counter for operators
//!
//! The example is `pings`, the number of `PING`s that were answered.
//!
//! 1. `src/core/session/tally.rs`: add the counter to the list
//!    [`Counters`](crate::core::session::tally::Counters).
//! 2. The file that counts, here `src/core/client/machine.rs`.
//!
//! ```text
//!   // counters!, in the first list
//!   /// `PING`s that were answered.
//!   pings => "herd_pings_total";
//!
//!   // Client::command
//!   context.tally.counters.pings += 1;
//! ```
//!
//! The text in quotes is the name of the metric, and the comment is its help. A label and its value
//! follow the name: `"herd_pings_total kind old"`. A counter in the second list is only a metric. A
//! test fails until the README explains the metric. A metric that is not a counter is a line in
//! `src/core/node/metrics.rs`.
//!
//! The `STATUS` line and `herd-client status --json` (under `counters`) are made from the first
//! list. A server of an older version does not send the key of a new counter. Then herd-client
//! shows 0 for this counter. A value that is not a counter needs its own key in
//! `src/core/link/machine/status.rs`, its own field in `tools/client/src/standing.rs`, and a line
//! in `tools/client/src/status/report.rs`.
//!
//! # A kind of connection
//!
//! The example is a port that echoes what it receives.
//!
//! 1. A new file for the session, here `src/core/echo.rs`. It implements
//!    [`Protocol`](crate::core::session::protocol::Protocol). If the session requests nothing from
//!    the node, its `Effect` is [`Infallible`](std::convert::Infallible).
//! 2. `src/core/mod.rs`: declare the file as a module.
//! 3. `src/core/node/session.rs`: add a variant to `Session`, and a line to `on_each`. If the
//!    session has effects, also add a variant to `Effect`, and handle this variant in `Node::apply`
//!    (`src/core/node/connection.rs`).
//! 4. `src/core/node/mod.rs`: add a function for the event that begins the session. Give the
//!    function the prefix `handle_`, and call `Node::admit` in it.
//! 5. `src/shell/ports.rs`: add the token of the port, the address of the port in
//!    [`Ports`](crate::shell::ports::Ports), and a line in `bind_all`.
//! 6. `src/shell/event_loop.rs`: handle the token in `record_readiness`, and call the new function
//!    in `admit`.
//! 7. Four more `match` expressions need the new kind. The compiler reports each of them:
//!    `src/core/node/buffers.rs` (whether the connection can be evicted),
//!    `src/core/node/journaling.rs` (whether its output reports records as stored),
//!    `src/core/node/connection.rs` (whether it leaves bytes for another session), and
//!    `src/core/node/report.rs` (the address and the wait that `/connections` shows).
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
//! The loop reads, writes and closes this connection like every other connection: only the session
//! decides when. The session's `wants_read` must return `false` while too much output waits.
//! Otherwise a peer that does not read could fill the memory. Before the port is open to a network,
//! add a limit on the number of its connections.
//!
//! An option for the address takes three more files: `src/cli.rs` (the flag and its variable),
//! `src/config/mod.rs` (`Overrides`), and `src/config/server.rs` (`listen_addresses`). A connection
//! that this server dials needs no port. Such a connection begins with a
//! [`Request::Connect`](crate::core::node::Request), as in `src/core/node/neighbours.rs`. The
//! function `tls_of_dialled` chooses the TLS configuration of such a connection
//! (`src/core/node/connection.rs`).
