//! The link: a connection between two neighbours, and its protocol. The servers that share one
//! table are a *herd*. Two servers of a herd are *neighbours* if the configuration links them.
//!
//! # The protocol
//!
//! The two servers send each other lines of bytes. Each line ends with LF, and one space separates
//! its fields. There is one connection for each pair of neighbours. The dialler is the server that
//! the configuration of the link names first. Before the other side has proven its name, a server
//! accepts only `HERD`, `PROOF` and `BYE`.
//!
//! Each server has a *feed*: its table as an ordered list of changes, see
//! [`crate::core::table::records`]. A *position* is the sequence number of a change in a feed. A
//! *life* is the history of one feed: see "Lives" below.
//!
//! ```text
//!   dialler                                              acceptor
//!   HERD 2 <from> <to> <nonce>                    ──►
//!                                                 ◄──    HERD 2 <from> <to> <nonce>
//!   PROOF <mac>                                   ──►
//!                                                 ◄──    PROOF <mac>
//!                                                 ◄──    LIFE <boot> <wall> <your boot> <position>
//!   LIFE <boot> <wall> <your boot> <position>     ──►
//!   AT …  SYNC <position>  KEPT <position>        ◄─►    AT …  SYNC <position>  KEPT <position>
//! ```
//!
//! - `HERD`: the version, the sender's name, the name of the intended receiver, and a nonce of 16
//!   random bytes as 32 hexadecimal digits. A server of another version gets a `BYE` that names
//!   both versions.
//! - `PROOF`: 64 hexadecimal digits, see [`crate::core::link::proof`]. The dialler sends its proof
//!   first, so an attacker that dials gets nothing that was made with the secret. In a herd without
//!   a secret, the key is empty. Then the proof only shows that names and versions agree. The lines
//!   after the proofs are not encrypted: run links over a network that you trust, or over TLS. A
//!   server can have two secrets: see "A secret that is being changed" below.
//! - `LIFE`: first the sender's boot id (16 hexadecimal digits, new with each life) and its wall
//!   clock in nanoseconds since 1970. The other two fields state what the sender has of the
//!   receiver's feed. They are the boot id of a life of the receiver, and a position in the feed of
//!   that life. They are `- 0` if the sender has nothing. The receiver sends its feed from that
//!   position, or from the start if it has no data about that life.
//! - `AT`: a record of epoch 0, in the format of an answer to a client, or a tombstone (see below).
//!   A record is not sent back to the neighbour that it came from.
//! - `EPOCH <n> AT …`: a record of epoch `n`, decimal, 1 to 4,294,967,295. See
//!   [`crate::core::table::records`] for what epochs are.
//! - `SYNC`: "you now have everything up to this position of my feed". It follows each batch of
//!   records. If nothing was sent for `heartbeat_ms`, a `SYNC` is sent as the heartbeat. If the
//!   sender has begun a new life, the receiver still stores the position that it reached in the
//!   feed of the previous life. The first `SYNC` of the new life replaces that position.
//! - `KEPT`: "I have kept everything up to this position of your feed, as safely as I promise it to
//!   my own clients". Each `KEPT` has a new position. A `KEPT` is sent together with other output,
//!   or alone 200 ms after the position is safe.
//! - `LACKS <n>`: "I refused `n` records because of a limit, so my table lacks records that the
//!   herd has". `LACKS 0` means that the table is complete again.
//! - `CLOCK <wall>`: the sender's wall clock, as in `LIFE`. It is sent at most once a minute, after
//!   other output.
//! - `BYE <reason>`: the reason why the sender closes the connection.
//!
//! If a neighbour that has proven its name breaks the protocol, the link is closed, and the next
//! link to this neighbour is delayed. The delay grows with each repetition: the dialler waits
//! longer before it dials, and the acceptor rejects the neighbour for longer.
//!
//! # A secret that is being changed
//!
//! A server can have two secrets ([`Secrets`](crate::core::base::settings::Secrets)). A dialler
//! makes its proof with its primary secret. An acceptor accepts a proof made with either of its
//! secrets, and makes its own proof with the secret that the dialler used. So two servers can link
//! if the acceptor has the dialler's primary secret.
//!
//! To change the secret, give every server `old`, then `old` and `new`, then `new` and `old`, then
//! `new`. Two servers that are at most one step apart can link, whichever of them dials.
//!
//! # TLS
//!
//! The lines can go over TLS 1.3, with a certificate on both sides. If TLS is offered but not
//! required, the acceptor detects TLS by the first byte: 0x16 begins a TLS handshake, and no line
//! begins with it. [`crate::core::session::herd::tls_offer`] describes what the dialler does.
//!
//! # Positions after a refused record
//!
//! A server can refuse a neighbour's record because of a limit. Then the server's position in the
//! neighbour's feed remains at the last `SYNC` before that record. This is the position in `LIFE`,
//! in `KEPT` and in the server's journal. The next link starts from that position, so the neighbour
//! sends the refused record again. If the limits are raised and the server is restarted, the server
//! receives the records that it lacks.
//!
//! # Lives
//!
//! A life is the history of one feed. A life ends when the process ends.
//!
//! A life also ends when a neighbour reports a position that this server cannot have sent. Such a
//! position is beyond every `SYNC` of this life, or beyond the end of an earlier life in the
//! journal. Then the server's history was rolled back: an older copy of the data directory, or an
//! older snapshot of the machine, was restored. The neighbours have positions of changes that this
//! server has lost. So this server begins a new life at once. It sends its whole feed to every
//! neighbour, and requests the whole feed of every neighbour.
//!
//! # The status of a server
//!
//! A tool that has the secret can dial as `operator`, a name that no server has. After its `PROOF`,
//! the acceptor sends the status of the server instead of `LIFE`. The operator may then send one
//! `FORGET`, one `FOLLOW` or one `DRAIN`, see below. The acceptor closes the connection if nothing
//! comes for `linger_ms`.
//!
//! ```text
//!   STATUS boot=<16 hex> wall=<ns> records=<n> digest=<16 hex> clients=<n> refused=<n>
//!   <counter>=<n> … version=<version> secret=<place>/<count> plain=<n> handshakes=<kind>:<n>,…
//!   disk=<…> table=<…> clocks=<…> max_clients=<n> places_day=<n>:<n> unlinked=<…> … lag=<…> …
//!   link=<…> …
//! ```
//!
//! A reader must ignore keys that it does not know. The keys that the table below does not explain:
//!
//! - `records`: the number of clients with a location. Tombstones do not count.
//! - `digest`: a hash of the table. Equal tables have the same digest, in whatever order their
//!   records arrived.
//! - `refused`: the number of records that were refused because of a limit.
//! - `<counter>`: one key for each counter in
//!   [`Counters`](crate::core::session::tally::Counters), which explains them.
//! - `secret`: which of the server's secrets the tool used (1 is the primary one), and the number
//!   of secrets. `none` if the server has no secret.
//! - `plain`: the number of links that are up without TLS.
//! - `handshakes`: the number of failed TLS handshakes with clients, for each
//!   [`FailureKind`](crate::core::session::handshakes::FailureKind) of failure. The key is missing
//!   if none failed.
//! - `link=<unconfirmed>:<offset>:<lacks>:<name>`: one key for each link that is up.
//!   `<unconfirmed>` is the number of changes that the neighbour has not confirmed by `KEPT`.
//!   `<offset>` is the number of milliseconds by which the neighbour's clock is ahead of this
//!   server's, or `?` if that is not known. `<lacks>` is the number in the neighbour's last
//!   `LACKS`.
//!
//! | key | value | means |
//! |---|---|---|
//! | `disk` | `none` | the server has no data directory, and stores nothing |
//! | | `ok` | all work of the disk is done |
//! | | `busy:<ms>` | a write, a sync or a reservation of disk space has taken `<ms>` milliseconds so far |
//! | | `refusing:<ms>:<bytes>` | the disk is full, and `IAMAT`s have been refused for `<ms>` milliseconds; they are accepted again when about `<bytes>` bytes are free |
//! | `table` | `ok`, `full` | `full`: records of new clients are refused (`max_records`, `max_record_bytes`) |
//! | `clocks` | `near`, `ahead`, `behind` | how most clients' clocks compared with this server's clock, in the last minute with at least ten `IAMAT`s |
//! | `max_clients` | number | the maximum number of clients: `max_clients`, or the number of clients over TLS for which `buffer_bytes` is enough |
//! | `places_day` | `<asked>:<maximum>` | Google Places was asked `<asked>` times in the last 24 hours, and may be asked `<maximum>` times; the key is missing if any number is allowed |
//! | `buffers` | `<bytes>:<maximum>` | the bytes that the buffers of all connections hold, and `buffer_bytes` |
//! | | `<bytes>:<maximum>:<ms>` | the last connection was closed `<ms>` milliseconds ago because the buffers held too much |
//! | `forgotten` | number | the number of tombstones in the table; a server that sends this key understands `FORGET` and tombstones |
//! | `followers` | number | the number of operators that follow the changes; a server that sends this key understands `FOLLOW` |
//! | `phase` | `running`, `draining` | `draining`: the server takes no new clients, closes its clients, and then stops; a server that sends this key understands `DRAIN` |
//! | `unlinked` | `<ms>:<name>` | a neighbour has had no link for `<ms>` milliseconds; one key for each such neighbour |
//! | `lag` | `<ms>:<name>` | for `<ms>` milliseconds, a linked neighbour has not confirmed a change that it gets; one key for each such neighbour |
//!
//! Older versions of the server do not send the keys from `disk` on.
//!
//! # A client is forgotten
//!
//! ```text
//!   operator                                             acceptor
//!   HERD …  PROOF …                               ◄─►    HERD …  PROOF …
//!                                                 ◄──    STATUS …
//!   FORGET <client>                               ──►
//!                                                 ◄──    FORGOTTEN known|unknown <ttl>
//! ```
//!
//! - `FORGET`: the name is the rest of the line: 1 to 4,083 bytes without white space. The server
//!   replaces the client's record by a *tombstone*: an `AT` line with `-` instead of the location,
//!   `AT <server> <skew> <client> - <time>`. The time is that of the forgotten location, and the
//!   skew is the time of the forgetting minus that time. [`crate::core::table::records`] says why
//!   the tombstone wins over that location, and loses against the client's next one.
//! - `FORGOTTEN`: the answer. It is sent when the tombstone is stored as durably as the record of
//!   an answered `IAMAT`. `unknown` means that the server had no location of the client. The server
//!   stores a tombstone nevertheless, because a neighbour can have a location. `<ttl>` is
//!   `record_ttl_ms`; 0 means that the tombstone stays until the client moves.
//! - `BYE` instead: the name cannot be a client's, the disk or the table is full, the disk did not
//!   store the tombstone in time, or the server stops.
//!
//! The server accepts `FORGET` only from an operator, and only once for each connection. Neighbours
//! get tombstones like all other records. A client cannot create a tombstone, because an `IAMAT`
//! with `-` as its location is invalid.
//!
//! A server of a version without tombstones breaks the link when a tombstone arrives ("not an AT
//! line"), and again on each new link. If such a version starts with a journal that contains
//! tombstones, it ignores them. So `herd-client forget` asks all servers for their status first,
//! and forgets nothing if one of them sends no `forgotten`.
//!
//! # The changes are followed
//!
//! ```text
//!   operator                                             acceptor
//!   HERD …  PROOF …                               ◄─►    HERD …  PROOF …
//!                                                 ◄──    STATUS …
//!   FOLLOW <position>|now|all                     ──►
//!                                                 ◄──    FOLLOWING <position> behind=<n> heartbeat=<ms> silence=<ms> ttl=<ms>
//!                                                 ◄──    RESTART <reason>
//!                                                 ◄──    CHANGE <position> AT …
//!                                                 ◄──    CHANGE <position> EPOCH <n> AT …
//!                                                 ◄──    SYNC <position>
//!   ALIVE                                         ──►
//! ```
//!
//! A position is `<life>-<number>`: the boot id of a life of the server, and the number of a change
//! in its feed. [`core::session::follower`](crate::core::session::follower) explains which
//! changes are sent, and where a follower resumes.
//!
//! - `FOLLOW`: the changes after a position, the changes from now on (`now`), or the records of all
//!   clients and the changes after them (`all`).
//! - `FOLLOWING`: the answer to `FOLLOW`. It is sent at once. The server sends the changes after
//!   this position, which is always in the present life. `behind` is the number of changes between
//!   this position and the latest change. The other values are `heartbeat_ms`, `link_silence_ms`
//!   and `record_ttl_ms` of the server. A reader must ignore keys that it does not know.
//! - `RESTART`: the server cannot resume at the position that the follower named. The records of
//!   all clients follow. They are complete at the first `SYNC` whose number is at least the number
//!   in `FOLLOWING` plus `behind`. A client that is not among these records has no record on this
//!   server.
//! - `CHANGE`: the newest record of a client, or a tombstone, with the position of the change. A
//!   follower that resumes after this position misses nothing.
//! - `SYNC`: all changes up to this position were sent. A `SYNC` is sent once when the follower has
//!   got all changes up to the latest one at the time of `FOLLOW`. It is also the server's
//!   heartbeat after `heartbeat_ms` without output, so a `SYNC` can also come before the follower
//!   has got these changes.
//! - `ALIVE`: the follower's heartbeat. If nothing comes from the follower for `link_silence_ms`,
//!   the server closes the connection. The server also closes it if the follower reads none of
//!   the waiting output for `output_stall_ms`.
//! - `BYE`: the server closes the connection, because the server stops or begins a new life. After
//!   silence or unread output, the server closes the connection without a `BYE`. `BYE` is also the
//!   answer to a `FOLLOW` with an invalid argument, or to any `FOLLOW` while `max_followers`
//!   operators follow already.
//!
//! # A server drains
//!
//! ```text
//!   operator                                             acceptor
//!   HERD …  PROOF …                               ◄─►    HERD …  PROOF …
//!                                                 ◄──    STATUS …
//!   DRAIN                                         ──►
//!                                                 ◄──    DRAINING <clients> <ms>
//! ```
//!
//! - `DRAIN`: the server accepts no new clients, closes its clients one after another over
//!   `drain_ms`, and then stops. SIGUSR2 has the same effect. See [`Node::handle_drain`].
//! - `DRAINING`: the answer, sent when the drain begins. `<clients>` is the number of clients, and
//!   `<ms>` the maximum time until the drain ends and the server begins to stop. If the server
//!   drains already, `<ms>` is the time that is left.
//!
//! Only an operator's session accepts `DRAIN`. The answer does not wait for the disk.
//!
//! [`Node::handle_drain`]: crate::core::node::Node::handle_drain

mod machine;
pub mod proof;

pub use self::machine::{Effect, Link, OPERATOR, VERSION};
