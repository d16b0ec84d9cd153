//! An application server herd without an async runtime.
//!
//! A herd is a small number of servers that talk to each other directly. Two servers that are
//! connected are *neighbours*, and their connection is a *link*. Mobile clients connect over TCP
//! and send their position (`IAMAT`). The server that receives a position answers (`AT`) and floods
//! the position through the herd. So a client can ask any server which places are near any other
//! client (`WHATSAT`). The server then queries Google Places over HTTPS.
//!
//! Each server is one thread around one [`mio::Poll`](https://docs.rs/mio/1/mio/struct.Poll.html):
//! no futures, no tasks, no callbacks. An async runtime keeps the state of a connection in the
//! frame of a suspended coroutine. In this crate, the state of a connection is in an ordinary
//! value, which can be inspected.
//!
//! # The modules
//!
//! ```text
//!   main.rs ──► cli, config, logging ──► shell ──► core          no dependency points back
//! ```
//!
//! [`core`] is the server as a pure state machine (*sans-IO*). Its input is bytes and the time; its
//! output is bytes and a few requests. The core has no socket, clock, thread or file. [`shell`] has
//! the sockets, the clock, the threads and the files, but no protocol. So tests can run the same
//! core with a virtual clock and a faulty network.
//!
//! | to understand | read |
//! |---|---|
//! | the loop | [`shell::event_loop`], [`shell::sockets`], [`shell::transport`]; the order of a turn: [`drive`](core::node::drive) |
//! | the whole server without a socket | [`core::node`] |
//! | a client | [`core::client`], [`core::wire::message`], [`core::wire::lines`] |
//! | a client behind a proxy | [`core::wire::proxy_header`] (the format), [`core::client::proxied`] (for which address the server counts a connection), [`core::base::network`] |
//! | which position wins if two servers know different ones | [`core::table::records`], [`core::wire::posix_time`] |
//! | the cost of a position in memory and time | [`core::table::line_store`], [`core::table::packed_store`], [`core::table::packed_line`], [`core::wire::swar`] |
//! | the flood, and the neighbours' protocol | [`core::link`], [`core::session::herd`] |
//! | the HTTP port: health, metrics, states | [`core::http`]: [`machine`](core::http::machine), [`head`](core::http::head), [`exposition`](core::http::exposition) |
//! | HTTPS without blocking | [`core::places`]: [`exchange`](core::places::exchange), [`response`](core::places::response), [`call`](core::places::call) |
//! | the journal, which survives a crash | [`core::journal::format`] (the format, [`Scan`](core::journal::format::Scan), [`DamageDetector`](core::journal::format::DamageDetector)), [`core::journal::durability`] (which output waits for the disk), [`shell::disk`] |
//! | inspecting a journal offline (`herd-journal`) | [`inspect`] |
//! | every limit | [`core::base::limits`] |
//! | how a command, a limit, a counter or a kind of connection is added | [`how_to_change`] |
//! | the configuration, and the errors in it | [`config`], [`cli`], [`presets`] |
//!
//! # For a reader who knows asyncio
//!
//! The tour, `tools/compare/README.md` in the repository, shows the same server written for asyncio
//! beside this one. It follows the three examples at the end of this page through excerpts of both
//! programs, and measures what each concept costs. This table gives the counterpart of each asyncio
//! name:
//!
//! | asyncio | here | what is different |
//! |---|---|---|
//! | `run_forever`, `BaseEventLoop._run_once` | `Server::run`, `Server::turn` in [`shell::event_loop`]; [`drive`](core::node::drive) ends a turn | as in asyncio, a turn runs only what was ready when it began; all replies of a turn are written at its end |
//! | `loop._ready`, `call_soon` | `Sockets::ready` in [`shell::sockets`]: the connections of the next turn. If there are any, the next `poll` does not wait | contains ids of connections, not callbacks |
//! | `selectors.EpollSelector`, `add_reader`, `add_writer` | [`mio::Poll`](https://docs.rs/mio/1/mio/struct.Poll.html), registered once, edge-triggered | interest is never changed: the loop calls [`Node::wants_read`](core::node::Node::wants_read) before it reads |
//! | `start_server`, `Server._accept_connection` | `Listener` and `Server::accept` | |
//! | `_SelectorSocketTransport` | [`Transport`](shell::transport::Transport) | remembers readiness; owns no buffer |
//! | `Protocol` | [`Protocol`](core::session::protocol::Protocol), implemented by [`Client`](core::client::Client), [`Link`](core::link::Link), [`Exchange`](core::places::exchange::Exchange), [`HttpConnection`](core::http::HttpConnection) | an `enum` and a `match` instead of an object with overridden methods; an event returns its effect |
//! | `connection_made` | accepted: [`Node::handle_client_connected`](core::node::Node::handle_client_connected), [`Node::handle_neighbour_connected`](core::node::Node::handle_neighbour_connected); dialled: [`Node::handle_connection_made`](core::node::Node::handle_connection_made) | clients and neighbours connect to different ports |
//! | `data_received`, `eof_received`, `connection_lost` | methods of the sessions with the same names; methods of [`Node`](core::node::Node) with the prefix `handle_` | these methods take the time as an argument |
//! | `StreamReader.readline` and its `limit` | [`lines::split`](core::wire::lines::split) | a line is borrowed from the buffer into which it was read |
//! | `transport.write` | appending to a session's output | each turn writes the output once, at its end |
//! | `pause_reading`, `resume_reading` | derived from state | never called |
//! | `pause_writing`, `await writer.drain()` | the high and low mark in [`Client`](core::client::Client) | a client above the mark is not read, so its next command does not start |
//! | `await` | a state: `Awaiting` in [`Client`](core::client::Client), `Handshaking` in [`Exchange`](core::places::exchange::Exchange) | a client enters and leaves its state in `suspend` and `resume`, an exchange in `enter` |
//! | `create_task`, a `Task` and its frame | `Node::admit`: the session's value in a slab, identified by a [`ConnId`](core::node::ConnId) | the id of a closed connection is never used again |
//! | one `Future` awaited by several | [`Call::waiters`](core::places::call::Call) | |
//! | `Task.cancel` | `asker_lost`: a call is ended if no client waits for it | cancelling is an event, not an exception |
//! | `Semaphore`, `Queue` | `max_places_connections` and the queue of waiting calls in [`Calls`](core::places::call::Calls) | both are limited |
//! | `asyncio.wait_for`, `timeout` | a deadline of a state ([`core::base::deadlines`]) | one heap for all; an entry may be outdated, so it is checked when it is due |
//! | `loop.call_later`, a task that loops over `sleep` | `Deadlines::call_at`: heartbeats, dialling again | an entry contains the id of what is due, not a callback |
//! | `loop.time()` | [`Now::time`](core::base::clock::Now), an argument | the core never reads a clock |
//! | `create_connection`, trying each address | [`Request::Connect`](core::node::Request), `Dial::Trying` in [`core::session::herd`] | |
//! | `loop.getaddrinfo`, `run_in_executor` | [`Request::Resolve`](core::node::Request), [`shell::executor`] | |
//! | `call_soon_threadsafe` | [`mio::Waker`](https://docs.rs/mio/1/mio/struct.Waker.html) | |
//! | `sslproto.SSLProtocol` over `MemoryBIO` | [`Tls`](core::session::tls::Tls) over rustls | the same shape: bytes in, bytes out |
//! | `aiohttp.ClientSession` | [`core::places`]: calls, exchanges, a pool | identical questions in flight share one call |
//! | `loop.add_signal_handler` | [`shell::signals`] | |
//! | `server.close(); await server.wait_closed()` | [`Node::handle_stop`](core::node::Node::handle_stop), [`Node::is_stopped`](core::node::Node::is_stopped) | with a deadline |
//! | exceptions | `Result`, and error texts for the operator or the client | |
//! | `logging.handlers.QueueHandler` | [`logging`] | bounded; dropped lines are counted, and the number is logged |
//!
//! # One IAMAT, from `poll` to `write`
//!
//! 1. In `Server::turn` ([`shell::event_loop`]), `poll` returns. `record_readiness` marks the
//!    client's [`Transport`](shell::transport::Transport) readable. It also adds the connection to
//!    the list of connections that this turn (one iteration of the loop) serves.
//! 2. `receive` reads once, into the one scratch buffer of the loop. It passes the bytes and the
//!    time to [`Node::handle_data_received`](core::node::Node::handle_data_received).
//! 3. [`core::node`] finds the session of the connection, here a client. The session's
//!    [`data_received`](core::session::protocol::Protocol::data_received) splits off the line
//!    ([`core::wire::lines`]). [`Command::parse`](core::wire::message::Command::parse) makes an
//!    [`Iamat`](core::wire::message::Iamat) from the line. The `Iamat` borrows from the scratch
//!    buffer.
//! 4. `Client::iamat` computes the skew ([`Skew::between`](core::wire::posix_time::Skew::between)),
//!    appends the `AT` line to the client's output, and merges the record into the table
//!    ([`Records::merge_own`](core::table::records::Records::merge_own)). If the record is the
//!    newest of its client, it is appended to the *feed*, the list of changes that links send from.
//! 5. When the turn has read everything, [`drive`](core::node::drive) ends the turn. With a data
//!    directory, `perform_disk_work` appends the records of the turn to the journal, in one step.
//!    Until the disk has appended the records, [`Node::poll_output`](core::node::Node::poll_output)
//!    holds back output that promises a record. [`Node::poll_dirty`](core::node::Node::poll_dirty)
//!    returns the connections to flush. Links come first, because the feed has new records for the
//!    neighbours: each link appends the records after its cursor (its position in the feed) to its
//!    output, and `flush` writes the output.
//! 6. Then the client's output is flushed in the same way, with one `write`.
//!    [`Node::poll_disposition`](core::node::Node::poll_disposition) returns `Open`, and the next
//!    turn polls.
//!
//! A server without neighbours and without a data directory needs three system calls for one
//! `IAMAT`: `epoll_wait`, `read` and `write`. Each neighbour adds one `write`. On the neighbour's
//! side the same steps happen, with a [`Link`](core::link::Link) in place of the client. The
//! neighbour does not send the record back to the first server. Reason: the cursor of a link skips
//! all records that arrived over the same link.
//!
//! # One WHATSAT, and a slow Google Places
//!
//! 1. `Client::command` handles the command. `PendingWhatsat::new` copies the line of the record
//!    and makes the [`Question`](core::places::request::Question). The client runs no further
//!    commands and returns [`Effect::AskPlaces`](core::client::Effect::AskPlaces).
//!    `Node::ask_places` passes the question to [`Calls::ask`](core::places::call::Calls::ask).
//!    This function joins a call with the same question, or adds a new call to the queue and its
//!    deadline to the heap. The client is [suspended](core::client::Client::suspend).
//! 2. Every event ends in `Node::handle`, which calls `advance_calls`. This function gives the
//!    waiting call an idle connection if there is one. Otherwise it starts a race of connections to
//!    the addresses of Places (`Race` in [`core::places::call`],
//!    [`Request::Connect`](core::node::Request)), a quarter of a second apart. If the addresses are
//!    not known yet, the function first requests a look-up of the name. If the maximum of
//!    connections is reached, the call waits.
//! 3. Each connection is an [`Exchange`](core::places::exchange::Exchange). When the socket of the
//!    exchange is connected, the node starts TLS. When the TLS handshake is done, the node calls
//!    `connection_made`. The first connection whose handshake is done sends the request, and the
//!    others are closed. That exchange parses the answer with a
//!    [`Response`](core::places::response::Response) until it is complete.
//! 4. Then the exchange returns [`Effect::Answered`](core::places::exchange::Effect::Answered).
//!    `exchange_answered` checks the response. `finish_call` puts the outcome into the list of
//!    answers, together with all clients that wait for it. `advance_calls` delivers the
//!    answers: `Client::resume` appends the line and the JSON to the output, and
//!    `Client::resume_input` runs the commands that waited.
//! 5. If Places takes too long, `Timer::Call` is due. `call_due` answers the clients that have
//!    waited too long, with an error in the format of the API. If no other client waits for the
//!    same call, the call ends. While a call waits for Places, all other clients are served,
//!    because nothing here blocks.
//!
//! # One lost neighbour
//!
//! 1. A connection ends with a read of zero bytes, an error, or silence. Silence means that nothing
//!    arrived for `link_silence_ms` (`Link::deadline_reached`). Then the session's
//!    [`Disposition`](core::session::disposition::Disposition) is `Close`, and the loop closes the
//!    socket. [`Node::handle_connection_lost`](core::node::Node::handle_connection_lost) runs
//!    exactly once.
//! 2. `Link::connection_lost` closes the link's reader of the feed, and logs that the neighbour is
//!    lost. If this server dialled the connection, `Link::connection_lost` returns
//!    [`Effect::Lost`](core::link::Effect::Lost), and `schedule_dial` sets a timer to dial again
//!    ([`Backoff`](core::base::backoff::Backoff)). Otherwise the other server dials.
//! 3. No output is stored for the lost neighbour. When the two servers are connected again, the
//!    neighbour sends a `LIFE` line. This line contains the position in this server's feed up to
//!    which the neighbour has received all records.
//!    [`Records::open_reader`](core::table::records::Records::open_reader) finds that position, and
//!    the link sends the records after that position as fast as the socket accepts them.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod core;
pub mod how_to_change;
pub mod inspect;
pub mod logging;
pub mod presets;
pub mod shell;
