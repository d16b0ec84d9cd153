//! An application server herd without an async runtime.
//!
//! A herd is a handful of servers that talk to each other directly. Mobile clients connect over TCP
//! and say where they are (`IAMAT`); the server that hears it answers (`AT`) and floods the
//! position through the herd, so that any server can answer what is near any client (`WHATSAT`) by
//! asking Google Places over HTTPS. Each server is one thread around one
//! [`mio::Poll`](https://docs.rs/mio/1/mio/struct.Poll.html): no futures, no tasks, no callbacks.
//! What an async runtime keeps in the frames of suspended coroutines is written out here as values
//! that one can look at.
//!
//! # The map of the house
//!
//! ```text
//!   main.rs ──► cli, config, logging ──► shell ──► core          nothing points back
//! ```
//!
//! [`core`] is the server as a pure state machine (*sans-IO*): bytes and a time go in, bytes and a
//! few requests come out. It has no socket, clock, thread or file in it. [`shell`] has those, and
//! nothing else. Tests can therefore drive the very same core under a virtual clock and a faulty
//! network.
//!
//! | to understand | read |
//! |---|---|
//! | the loop | [`shell::event_loop`], [`shell::sockets`], [`shell::transport`]; the order of a turn: [`drive`](core::node::drive) |
//! | the whole server without a socket | [`core::node`] |
//! | a client | [`core::client`], [`core::wire::message`], [`core::wire::lines`] |
//! | a client behind a proxy | [`core::wire::proxy_header`] (the format), [`core::client::proxied`] (who is counted where), [`core::base::network`] |
//! | who wins when two servers know different positions | [`core::table::records`], [`core::wire::posix_time`] |
//! | what a position costs in memory, and in time | [`core::table::line_store`], [`core::table::packed_line`], [`core::wire::swar`] |
//! | the flood, and the neighbours' protocol | [`core::link`], [`core::link::herd`] |
//! | HTTPS without blocking | [`core::places`]: [`exchange`](core::places::exchange), [`response`](core::places::response), [`call`](core::places::call) |
//! | what outlasts a crash | [`core::journal::format`] (the format, [`Scan`](core::journal::format::Scan), [`Judge`](core::journal::format::Judge)), [`core::journal::durability`] (what waits for it), [`shell::disk`] |
//! | a journal that is looked at offline (`herd-journal`) | [`inspect`] |
//! | every limit | [`core::base::limits`] |
//! | what is configured, and how mistakes are told | [`config`], [`cli`], [`presets`] |
//!
//! # For a reader who knows asyncio
//!
//! The tour, `tools/compare/README.md` in the repository, shows the same server written for asyncio
//! beside this one: the walks at the end of this page with excerpts of both programs, and what each
//! concept costs in measured figures. What is called how:
//!
//! | asyncio | here | what is different |
//! |---|---|---|
//! | `run_forever`, `BaseEventLoop._run_once` | `Server::run`, `Server::turn` in [`shell::event_loop`]; [`drive`](core::node::drive) ends a turn | only what was ready when the turn began is run, as there; replies of a turn leave together at its end |
//! | `loop._ready`, `call_soon` | `Sockets::ready` in [`shell::sockets`]: the connections of the next turn, which then does not wait | names connections, not callbacks |
//! | `selectors.EpollSelector`, `add_reader`, `add_writer` | [`mio::Poll`](https://docs.rs/mio/1/mio/struct.Poll.html), registered once, edge-triggered | interest is never set by hand: [`Node::wants_read`](core::node::Node::wants_read) is asked |
//! | `start_server`, `Server._accept_connection` | `Listener` and `Server::accept` | |
//! | `_SelectorSocketTransport` | [`Transport`](shell::transport::Transport) | remembers readiness; owns no buffer |
//! | `Protocol` | a variant of `Session` in [`core::node`]: [`Client`](core::client::Client), [`Link`](core::link::Link), [`Exchange`](core::places::exchange::Exchange) | an `enum` and a `match` instead of an object and its methods' overrides |
//! | `connection_made` | accepted: [`Node::handle_client_connected`](core::node::Node::handle_client_connected), [`Node::handle_neighbour_connected`](core::node::Node::handle_neighbour_connected); dialled: [`Node::handle_connection_made`](core::node::Node::handle_connection_made) | clients and neighbours have ports of their own |
//! | `data_received`, `eof_received`, `connection_lost` | the same names behind `handle_`, methods of [`Node`](core::node::Node); without it, of the sessions | they take the time as an argument |
//! | `StreamReader.readline` and its `limit` | [`lines::split`](core::wire::lines::split) | a line is borrowed from the buffer that it came in |
//! | `transport.write` | appending to a session's output | nothing is written before the turn ends; then once |
//! | `pause_reading`, `resume_reading` | derived from state | never called |
//! | `pause_writing`, `await writer.drain()` | the high and low mark in [`Client`](core::client::Client) | a client above the mark is not read, so its next command is not begun |
//! | `await` | a state: `Awaiting` in [`Client`](core::client::Client), `Handshaking` in [`Exchange`](core::places::exchange::Exchange) | a client enters and leaves it in `suspend` and `resume`, an exchange in `enter` |
//! | `create_task`, a `Task` and its frame | `Node::admit`: the session's value in a slab, named by a [`ConnId`](core::node::ConnId) | the id of a closed connection names nothing, for ever |
//! | one `Future` awaited by several | [`Call::askers`](core::places::call::Call) | |
//! | `Task.cancel` | `asker_lost`: a call that no client waits for is given up | cancelling is an event, not an exception |
//! | `Semaphore`, `Queue` | `max_places_connections` and the waiting line of [`Calls`](core::places::call::Calls) | both have an end |
//! | `asyncio.wait_for`, `timeout` | a deadline of a state ([`core::base::deadlines`]) | one heap; an entry is a hint that is checked when it is due |
//! | `loop.call_later`, a task that loops over `sleep` | `Deadlines::call_at`: heartbeats, dialling again | names whom to look at; there is no callback |
//! | `loop.time()` | [`Now::time`](core::base::clock::Now), an argument | the core never asks what time it is |
//! | `create_connection`, trying each address | [`Request::Connect`](core::node::Request), `Dial::Trying` in [`core::link::herd`] | |
//! | `loop.getaddrinfo`, `run_in_executor` | [`Request::Resolve`](core::node::Request), [`shell::executor`] | |
//! | `call_soon_threadsafe` | [`mio::Waker`](https://docs.rs/mio/1/mio/struct.Waker.html) | |
//! | `sslproto.SSLProtocol` over `MemoryBIO` | [`Tls`](core::session::tls::Tls) over rustls | the same shape: bytes in, bytes out |
//! | `aiohttp.ClientSession` | [`core::places`]: calls, exchanges, a pool | identical questions in flight share one call |
//! | `loop.add_signal_handler` | [`shell::signals`] | |
//! | `server.close(); await server.wait_closed()` | [`Node::handle_stop`](core::node::Node::handle_stop), [`Node::is_stopped`](core::node::Node::is_stopped) | with a deadline |
//! | exceptions | `Result`, and words for the operator or client that has to act | |
//! | `logging.handlers.QueueHandler` | [`logging`] | bounded; what is dropped is counted and told |
//!
//! # One IAMAT, from `poll` to `write`
//!
//! 1. `Server::turn` ([`shell::event_loop`]) comes back from `poll`. `note` marks the client's
//!    [`Transport`](shell::transport::Transport) readable and puts it on the list of this turn.
//! 2. `receive` reads once, into the loop's one scratch buffer, and calls
//!    [`Node::handle_data_received`](core::node::Node::handle_data_received) with the bytes and the
//!    time.
//! 3. [`core::node`] finds the session: a client.
//!    [`Client::data_received`](core::client::Client::data_received) splits off the line
//!    ([`core::wire::lines`]); [`Command::parse`](core::wire::message::Command::parse) makes an
//!    [`Iamat`](core::wire::message::Iamat) of it, all of it borrowed from the scratch buffer.
//! 4. `Client::iamat` computes the skew ([`Skew::between`](core::wire::posix_time::Skew::between)),
//!    appends the `AT` line to the client's output, and offers it to the table
//!    ([`Records::merge`](core::table::records::Records::merge)). If it is the newest of its
//!    client, it goes to the tail of the feed.
//! 5. The turn's reading is over, and [`drive`](core::node::drive) ends it. With a data directory,
//!    `perform_disk_work` appends what was accepted in the turn, once; until then,
//!    [`Node::poll_output`](core::node::Node::poll_output) gives nothing that promises it.
//!    [`Node::poll_dirty`](core::node::Node::poll_dirty) names the connections to flush. The feed
//!    has moved, so the links come first: the output of a link pulls the records behind its cursor,
//!    and `flush` writes them.
//! 6. Then the client: the same `flush`, one `write`.
//!    [`Node::poll_disposition`](core::node::Node::poll_disposition) says `Open`, and the next turn
//!    polls.
//!
//! Three system calls for a server alone, `epoll_wait`, `read` and `write`, and one `write` more
//! for each neighbour. On the neighbour's side the same steps happen with a
//! [`Link`](core::link::Link) in place of the client; its cursor passes over the record when it
//! comes to the link that taught it.
//!
//! # One WHATSAT, and a Places that is slow
//!
//! 1. `Client::command` understands it, `Asked::new` copies the record's line and makes the
//!    [`Question`](core::places::request::Question); the client stops running commands and hands it
//!    out. `Node::client_goes_on` has it asked: [`Calls::ask`](core::places::call::Calls::ask)
//!    joins a call that is out, or puts a new one into the waiting line and its deadline into the
//!    heap. The client is [suspended](core::client::Client::suspend).
//! 2. Every event ends in `Node::handle`, with `work_off_questions`. It gives the waiting call an
//!    idle connection, or begins a [`Race`](core::places::call::Race) of connections to the
//!    addresses of Places, a quarter of a second one after the other
//!    ([`Request::Connect`](core::node::Request)); or, before that, has the name looked up; or it
//!    leaves the call waiting, if as many connections are out as may be.
//! 3. Each connection is an [`Exchange`](core::places::exchange::Exchange): `connection_made`
//!    begins TLS, `data_received` goes through `Handshaking`. The first whose handshake is done
//!    sends the request, the others are closed; it feeds the
//!    [`Response`](core::places::response::Response) until that is whole.
//! 4. `exchange_answered` judges it, `finish_call` puts the outcome with all who wait for it on the
//!    list of answers, and `work_off_questions` delivers it: `Client::resume` writes line and JSON,
//!    `Client::go_on` acts on what waited behind.
//! 5. If it takes too long, `Timer::Call` is due: `call_due` answers the clients that have waited
//!    long enough with an error in the shape of the API, and ends the call if no other joined it
//!    later. Meanwhile everybody else is served: nothing of this waits, it only remembers.
//!
//! # One neighbour that is lost
//!
//! 1. Its end is a read of zero bytes, an error, or silence:
//!    [`Link::deadline_reached`](core::link::Link::deadline_reached) after `link_silence_ms`
//!    without a heartbeat. The session says it is through
//!    ([`Disposition::Close`](core::session::disposition::Disposition)), the loop closes the
//!    socket, and [`Node::handle_connection_lost`](core::node::Node::handle_connection_lost) runs,
//!    once.
//! 2. `Link::connection_lost` gives its place in the feed back and tells the log. If it was we who
//!    dialled, `dial_later` asks to be told in a while ([`Backoff`](core::base::backoff::Backoff));
//!    if not, the other side dials.
//! 3. Nothing is kept for it. When it is back, its `LIFE` says how far it had got,
//!    [`Records::open_reader`](core::table::records::Records::open_reader) finds the place, and the
//!    records behind it are pulled as its socket takes them.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod core;
pub mod inspect;
pub mod logging;
pub mod presets;
pub mod shell;
