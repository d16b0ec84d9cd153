//! An application server herd without an async runtime.
//!
//! A herd is a handful of servers that talk to each other directly. Mobile clients connect over TCP and say where they are
//! (`IAMAT`); the server that hears it answers (`AT`) and floods the position through the herd, so that any server can answer
//! what is near any client (`WHATSAT`) by asking Google Places over HTTPS. Each server is one thread around one
//! [`mio::Poll`]: no futures, no tasks, no callbacks. What an async runtime keeps in the frames of suspended coroutines is
//! written out here as values that one can look at.
//!
//! # The map of the house
//!
//! ```text
//!   main.rs ──► cli, config, logging ──► shell ──► core          nothing points back
//! ```
//!
//! [`core`] is the server as a pure state machine (*sans-IO*): bytes and a time go in, bytes and a few requests come out. It has
//! no socket, clock, thread or file in it. [`shell`] has those, and nothing else. Tests can therefore drive the very same core
//! under a virtual clock and a faulty network.
//!
//! | to understand | read |
//! |---|---|
//! | the loop | [`shell::event_loop`], [`shell::transport`] |
//! | the whole server without a socket | [`core::node`] |
//! | a client | [`core::client`], [`core::message`], [`core::lines`] |
//! | who wins when two servers know different positions | [`core::records`], [`core::posix_time`] |
//! | the flood, and the neighbours' protocol | [`core::link`], [`core::herd`] |
//! | HTTPS without blocking | [`core::places`]: [`exchange`](core::places::exchange), [`response`](core::places::response), [`call`](core::places::call) |
//! | what outlasts a crash | [`core::journal`] (the format), [`core::durability`] (what waits for it), [`shell::disk`] |
//! | every limit | [`core::limits`] |
//! | what is configured, and how mistakes are told | [`config`], [`cli`], [`presets`] |
//!
//! # For a reader who knows asyncio
//!
//! | asyncio | here | what is different |
//! |---|---|---|
//! | `BaseEventLoop._run_once` | `Server::turn` in [`shell::event_loop`] | only what was ready when the turn began is run, as there; replies of a turn leave together at its end |
//! | `selectors.EpollSelector`, `add_reader`, `add_writer` | [`mio::Poll`], registered once, edge-triggered | interest is never set by hand: [`Node::wants_read`](core::node::Node::wants_read) is asked |
//! | `_SelectorSocketTransport` | [`Transport`](shell::transport::Transport) | remembers readiness; owns no buffer |
//! | `Protocol` | a variant of `Session` in [`core::node`]: [`Client`](core::client::Client), [`Link`](core::link::Link), [`Exchange`](core::places::exchange::Exchange) | an `enum` and a `match` instead of an object and its methods' overrides |
//! | `connection_made`, `data_received`, `eof_received`, `connection_lost` | the same names, methods of [`Node`](core::node::Node) | they take the time as an argument |
//! | `transport.write` | appending to a session's output | nothing is written before the turn ends; then once |
//! | `pause_reading`, `resume_reading` | derived from state | never called |
//! | `pause_writing`, `await writer.drain()` | the high and low mark in [`Client`](core::client::Client) | a client above the mark is not read, so its next command is not begun |
//! | `await` | a state: `Awaiting` in [`Client`](core::client::Client), `Handshaking` in [`Exchange`](core::places::exchange::Exchange) | entered by `suspend`, left by `resume` |
//! | a `Task` and its frame | the session's value in a slab, named by a [`ConnId`](core::node::ConnId) | an id of somebody gone names nothing, for ever |
//! | `Task.cancel` | `asker_lost`: a call that nobody waits for is hung up | cancelling is an event, not an exception |
//! | `asyncio.wait_for`, `timeout` | a deadline of a state ([`core::deadlines`]) | one heap; an entry is a hint that is checked when it is due |
//! | `loop.call_later` | `Deadlines::call_at` | names whom to look at; there is no callback |
//! | `loop.time()` | [`Now::time`](core::clock::Now), an argument | the core never asks what time it is |
//! | `loop.getaddrinfo`, `run_in_executor` | [`Request::LookUp`](core::node::Request), [`shell::executor`] | |
//! | `call_soon_threadsafe` | [`mio::Waker`] | |
//! | `sslproto.SSLProtocol` over `MemoryBIO` | [`Tls`](core::places::tls::Tls) over rustls | the same shape: bytes in, bytes out |
//! | `aiohttp.ClientSession` | [`core::places`]: calls, exchanges, a pool | identical questions in flight share one call |
//! | `loop.add_signal_handler` | [`shell::signals`] | |
//! | `server.close(); await server.wait_closed()` | [`Node::stop`](core::node::Node::stop), [`Node::is_stopped`](core::node::Node::is_stopped) | with a deadline |
//! | exceptions | `Result`, and words for whoever has to act on them | |
//! | `logging.handlers.QueueHandler` | [`logging`] | bounded; what is dropped is counted and told |
//!
//! # One IAMAT, from `poll` to `write`
//!
//! 1. `Server::turn` ([`shell::event_loop`]) comes back from `poll`. `note` marks the client's [`Transport`](shell::transport::Transport)
//!    readable and puts it on the list of this turn.
//! 2. `receive` reads once, into the loop's one scratch buffer, and calls [`Node::data_received`](core::node::Node::data_received) with the
//!    bytes and the time.
//! 3. [`core::node`] finds the session: a client. [`Client::data_received`](core::client::Client::data_received) splits off the line
//!    ([`core::lines`]); [`Command::parse`](core::message::Command::parse) makes an [`Iamat`](core::message::Iamat) of it, all of it borrowed from the scratch buffer.
//! 4. `Client::iamat` computes the skew ([`Skew::between`](core::posix_time::Skew::between)), appends the `AT` line to the client's output, and offers it to
//!    the table ([`Records::offer`](core::records::Records::offer)). If it is the newest of its client, it goes to the tail of the feed.
//! 5. The turn's reading is over. With a data directory, `write_journal` appends what was accepted in it, once; until then,
//!    [`Node::output`](core::node::Node::output) has nothing to give that promises it. `settle` asks [`Node::take_touched`](core::node::Node::take_touched) who has something to write. The feed has moved, so the
//!    links come first: [`Node::output`](core::node::Node::output) of a link pulls the records behind its cursor, `settle_one` writes them.
//! 6. Then the client: the same `settle_one`, one `write`. [`Node::fate`](core::node::Node::fate) says `Open`, and the next turn polls.
//!
//! Three system calls: `epoll_wait`, `read`, `write`. On the neighbour's side the same six steps happen with a [`Link`](core::link::Link)
//! in place of the client; its cursor passes over the record when it comes to the link that taught it.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod core;
pub mod logging;
pub mod presets;
pub mod shell;
