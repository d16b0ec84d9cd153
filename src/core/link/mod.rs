//! A connection between two servers of the herd: the neighbours' protocol.
//!
//! # The protocol
//!
//! Lines of bytes, each ended by LF, fields separated by one space. There is one connection for
//! each edge of the herd; the server that the configuration names first dials it. Nothing that
//! comes over it is believed before it has proven who is there.
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
//! - `HERD`: version, own name, the name that is meant, and 16 random bytes as 32 hexadecimal
//!   digits. A server that speaks another version is told so in words.
//! - `PROOF`: 64 hexadecimal digits, see [`crate::core::link::proof`]. The dialler proves itself
//!   first: a peer that dials learns nothing made with the secret. On a herd without a secret the
//!   key is empty, and the proof only shows that names and versions agree. What follows the proofs
//!   is not encrypted; run links over a network that you trust, or over TLS. A server may have two
//!   secrets: see below.
//! - `LIFE`: the speaker's boot id (16 hexadecimal digits, new with each life: see below); its wall
//!   clock in nanoseconds since the epoch; then which boot id of the hearer it knows and how far it
//!   has got in that life's feed, `- 0` if it knows none. The hearer's feed is sent from there, or
//!   from the start if the life is not known.
//! - `AT`: a record of epoch 0, as clients are answered with it. One that the hearer taught us is
//!   not sent back.
//! - `EPOCH <n> AT …`: a record of epoch `n`, decimal, 1 to 4,294,967,295. See
//!   [`crate::core::table::records`] for what epochs are.
//! - `SYNC`: "with this, you have everything up to that position of my feed". It follows each batch
//!   of records, and, when there was nothing to say for a while, is the heartbeat. Until the first
//!   one of a new life, what was heard of the life before still counts.
//! - `KEPT`: "of your feed I have kept everything up to that position, as safely as I promise it to
//!   my own clients". It is only said if it changed, with other output or 200 ms after it could be
//!   said first.
//! - `LACKS <n>`: "I had to refuse `n` records, because of a limit; my table is not all that the
//!   herd knows". 0: it is again.
//! - `CLOCK <wall>`: the speaker's wall clock, as in `LIFE`; at most once a minute, with other
//!   output.
//! - `BYE <reason>`: why the connection is being closed.
//!
//! A peer that has proven itself and then says anything else is cut off, and backed off from: the
//! server that dials dials ever later, the one that is dialled lets it in ever later.
//!
//! # A secret that is being changed
//!
//! A server may have two secrets ([`Secrets`](crate::core::base::settings::Secrets)). As the
//! dialler it proves itself with its primary one. As the acceptor it takes a proof with either, and
//! answers with the one that the dialler used, so that the dialler need have no other. The dialler
//! takes either of its own in return. So two servers link if the acceptor has the dialler's primary
//! secret. Let every server have `old`; then `old` and `new`; then `new` and `old`; then `new`: two
//! servers that are at most one step apart link, whichever of them dials.
//!
//! # TLS
//!
//! The lines may go over TLS 1.3, with a certificate on both sides. Where that is offered and not
//! required, the acceptor knows it by the first byte: 0x16 begins a handshake, and no line. What
//! the dialler does then is in [`crate::core::session::herd::tls_offer`].
//!
//! # What is confirmed
//!
//! A server that refuses a record of a neighbour does not move the position that it says it has
//! heard, in `LIFE`, in `KEPT` and in its journal, beyond the last `SYNC` before that, until the
//! neighbour has sent everything from there again without a refusal. That happens at the next link:
//! so after limits are raised and the server is started again, it is sent what it lacks.
//!
//! # Lives
//!
//! A life is the history of one feed. It ends with the process; and when a neighbour says that it
//! knows more of it than any `SYNC` of it ever told. Then the history was rolled back: an older
//! copy of the data directory was put back, or a snapshot of the machine. The positions that
//! neighbours know are about changes that have not happened any more. So a new life begins at once:
//! everything is sent to every neighbour, and asked of it.
//!
//! # A server's standing
//!
//! A tool that knows the secret may dial as `operator`, a name that no server has. Instead of
//! `LIFE` it is told, after the acceptor's `PROOF`, how the server stands, and the connection is
//! closed:
//!
//! ```text
//!   STATUS boot=<16 hex> wall=<ns> records=<n> digest=<16 hex> clients=<n> stale=<n> refused=<n> ahead=<n> behind=<n> version=<version> secret=<place>/<count> plain=<n> handshakes=<kind>:<n>,… disk=<…> table=<…> clocks=<…> max_clients=<n> unlinked=<…> … lag=<…> … link=<…> …
//! ```
//!
//! A reader passes over keys that it does not know. `digest` is the same for the same table
//! whatever the order in which it came about. `stale`: `IAMAT`s that were answered and changed
//! nothing. `refused`: records that were refused because of a limit. `ahead`, `behind`: `IAMAT`s
//! that were stamped more than 60 s ahead of this server's clock, or behind it. `secret`: which of
//! the server's secrets the tool proved, 1 for the primary one, and how many there are; `none` if
//! the server has none. `plain`: links that are up and do not speak TLS. `handshakes`: how often
//! TLS with clients failed, for each kind that came
//! ([`Kind`](crate::core::session::handshakes::Kind)); the key is not there if none did. For each
//! link that is up, there is one `link=<unconfirmed>:<apart>:<lacks>:<name>`: changes that the
//! neighbour has not confirmed by `KEPT`; milliseconds by which its clock is ahead of ours, `?` if
//! that is not known; and what it said in `LACKS`.
//!
//! | key | value | means |
//! |---|---|---|
//! | `disk` | `none` | the server has no data directory: it keeps nothing |
//! | | `ok` | the disk has done what it was asked |
//! | | `busy:<ms>` | a write, a sync, or room that was asked for has been under way for so long |
//! | | `refusing:<ms>:<bytes>` | `IAMAT`s are refused for want of room, for so long; until about so many bytes are free |
//! | `table` | `ok`, `full` | `full`: clients that are not known are refused (`max_records`, `max_record_bytes`) |
//! | `clocks` | `near`, `ahead`, `behind` | where most clients' clocks were, beside this server's, in the last minute with ten `IAMAT`s |
//! | `max_clients` | number | so many clients are let in |
//! | `unlinked` | `<ms>:<name>` | a neighbour that is not linked, and since when; one key for each |
//! | `lag` | `<ms>:<name>` | a linked neighbour has not confirmed a change for so long; one key for each |
//!
//! The keys from `disk` on came later than the others: a server of an older version says none.

mod machine;
pub mod proof;

pub use self::machine::{Effect, Link, OPERATOR, VERSION};
