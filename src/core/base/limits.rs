//! Every limit of a server: its name, what it bounds, its default and its range.
//!
//! All limits are in one list, in the call of the macro `limits!` below. Three things are made from
//! this list: the `[limits]` table of a config file, the checks of this table, and the output of
//! `--check`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

/// The maximum number of bytes that a client's line can have before its LF. This is part of the
/// protocol, so it cannot be configured.
pub const LINE_BYTES: usize = 4096;
/// The maximum number of bytes that a neighbour's line can have before its LF. An `AT` line is
/// longer than an `IAMAT` line by a server's name and a skew.
pub const LINK_LINE_BYTES: usize = LINE_BYTES + 256;
/// The maximum number of bytes that are read from one connection in one turn of the event loop. A
/// link also appends records from the table to its output in pieces of about this many bytes.
pub const TURN_BYTES: usize = 64 * 1024;

/// The maximum number of header fields in a request to the HTTP port.
pub const HTTP_FIELDS: usize = 64;

/// The minimum of `limits.buffer_bytes`. The value 0 is allowed too: it stands for a quarter of the
/// memory that the process may have.
const MIN_BUFFER_BYTES: u64 = 1 << 20;

/// One limit, as `--check` prints it.
pub struct Limit {
    /// The key in the `[limits]` table.
    pub name: &'static str,
    /// The configured value.
    pub value: u64,
    /// The allowed values.
    pub range: RangeInclusive<u64>,
    /// What is limited, in words.
    pub about: &'static str,
}

macro_rules! limits {
    ($($(#[doc = $about:literal])+ $name:ident = $default:literal, $range:expr;)+) => {
        /// The limits of one server. Times end in `_ms`, sizes in `_bytes`; the rest are counts.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[doc = $about])+ pub $name: u64,)+
            /// The names of the limits that the config file sets. See [`Limits::holds_for`].
            #[serde(skip)]
            pub set: BTreeSet<String>,
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: $default,)+ set: BTreeSet::new() }
            }
        }

        impl Limits {
            /// Returns all limits in the order of the list.
            #[must_use]
            pub fn all(&self) -> Vec<Limit> {
                vec![$(Limit {
                    name: stringify!($name),
                    value: self.$name,
                    range: $range,
                    about: concat!($($about),+).trim_ascii(),
                },)+]
            }
        }
    };
}

limits! {
    /// Clients connected at the same time; one more client gets an error line and is closed.
    max_clients = 65_536, 1..=4_000_000;
    /// Clients connected from one address (IPv6: from one network with a 64-bit prefix); one more
    /// client gets an error line and is closed.
    max_clients_per_address = 512, 1..=4_000_000;
    /// Connections of proxies whose PROXY header has not arrived; one more connection is accepted,
    /// and the connection that has waited longest is closed.
    // The minimum is the number of connections that the event loop accepts in two turns. So the
    // loop reads a header that has arrived, before it could close the connection in favour of a
    // newer one.
    max_unidentified = 1_024, 128..=1_000_000;
    /// Time for the PROXY header of a new connection to arrive.
    proxy_header_ms = 4_000, 10..=3_600_000;
    /// Bytes of a PROXY header of version 2, its additional fields (TLVs) included.
    proxy_header_bytes = 4_096, 232..=65_551;
    /// Time after which TCP closes a client's connection if the client's machine answers no
    /// keepalive probe, or does not acknowledge sent data.
    keepalive_ms = 120_000, 4_000..=86_400_000;
    /// Clients that have a record; an IAMAT of one more is refused.
    max_records = 5_000_000, 1..=1_000_000_000;
    /// Bytes of all records; an IAMAT that needs more is refused.
    max_record_bytes = 2_147_483_648, 4_096..=1_099_511_627_776;
    /// Clients without a record that one address (of IPv6: one network of 64 bits) may introduce in
    /// new_names_ms; an IAMAT of one more is refused.
    new_names_per_address = 2_000, 1..=1_000_000_000;
    /// Time in which an address's share of new clients comes back once it is used up.
    new_names_ms = 3_600_000, 100..=31_536_000_000;
    /// Age at which a record expires on this server, counted from the record's effective time; 0:
    /// never.
    record_ttl_ms = 0, 0..=31_536_000_000_000;
    /// Records that are stored unpacked, for clients that move; an unpacked record is faster to
    /// update, but takes about 80 bytes more.
    unpacked_records = 16_384, 0..=1_000_000_000;
    /// Connections that wait in the system until the server accepts them; the system can have a
    /// lower limit.
    accept_backlog = 4_096, 1..=65_535;
    /// Time for a client to finish a line that it has begun; with TLS, also to finish a TLS record.
    line_ms = 10_000, 10..=3_600_000;
    /// Time for the TLS handshake with a client or a neighbour.
    tls_handshake_ms = 4_000, 10..=600_000;
    /// Bytes of TLS handshake messages that are stored for one client; padding and the headers of
    /// TLS records are not counted.
    tls_handshake_bytes = 8_192, 1_024..=65_536;
    /// TLS records without application data that one client may send in a row; a usual handshake
    /// has 3, and no handshake has more TLS records than bytes.
    tls_handshake_records = 4_096, 16..=1_000_000;
    /// Bytes of the buffers of all connections; above it, the connections are closed that hold most
    /// and get rid of least; 0: a quarter of the memory that the process may have.
    buffer_bytes = 0, 0..=1_099_511_627_776;
    /// Output waiting for a client above which its commands are left unread.
    output_high_bytes = 262_144, 1..=1_073_741_824;
    /// Output waiting for a client below which its commands are read again.
    output_low_bytes = 65_536, 0..=1_073_741_824;
    /// Time in which a client must receive some of the output that waits for it.
    output_stall_ms = 60_000, 10..=3_600_000;
    /// Time for which the server still reads from a connection after the server has sent its last
    /// output; without this, the client could lose that output.
    linger_ms = 2_000, 1..=60_000;
    /// Time that one turn of the loop may spend on reading, for all connections together; the next
    /// turn reads from the neighbours first, then from the clients that this turn did not read.
    turn_ms = 2, 1..=1_000;
    /// Time over which a draining server closes its clients, one after another; then it stops.
    drain_ms = 10_000, 0..=3_600_000;
    /// Time for a stopping server to send the answers that it has begun.
    stop_ms = 5_000, 1..=600_000;
    /// Time of one turn above which `/slow` shows the turn; the wait for events does not count.
    slow_turn_ms = 10, 1..=60_000;

    /// Connections to the HTTP port; one more takes the place of the connection that has been idle
    /// longest, or is closed if none is idle.
    max_http_connections = 64, 1..=100_000;
    /// Bytes of the request line and the header of an HTTP request.
    http_head_bytes = 8_192, 256..=1_048_576;
    /// Time for the head of an HTTP request to arrive once its first byte has arrived.
    http_head_ms = 5_000, 10..=600_000;
    /// Time that an HTTP connection is kept without a request.
    http_idle_ms = 120_000, 10..=3_600_000;
    /// Output waiting for an HTTP connection above which its next request, or the next step of an
    /// answer, waits.
    http_output_bytes = 65_536, 1..=1_073_741_824;
    /// Entries of one page of `/connections` or `/calls`.
    http_page_entries = 1_000, 1..=1_000_000;

    /// Time to establish a TCP connection to a neighbour.
    link_connect_ms = 3_000, 10..=600_000;
    /// Time for a connected neighbour to prove its identity.
    link_proof_ms = 5_000, 10..=600_000;
    /// Silence towards a neighbour after which it is sent a heartbeat.
    heartbeat_ms = 3_000, 10..=600_000;
    /// Silence of a neighbour after which it counts as lost.
    link_silence_ms = 10_000, 20..=3_600_000;
    /// Wait before a neighbour is dialled again after a first failure; also the time for which a
    /// neighbour that broke the protocol once is not accepted. Both double with each further
    /// failure.
    redial_first_ms = 100, 1..=600_000;
    /// Maximum to which the waits of redial_first_ms double.
    redial_cap_ms = 1_000, 1..=600_000;
    /// Connections to the neighbours' port whose peer has not proven its identity; one more is
    /// accepted, and one of the others is closed, if possible one from the same address.
    max_unproven = 128, 1..=1_000_000;
    /// The same from one address of a neighbour that dials. These connections are counted apart,
    /// and only they are closed for one another.
    max_unproven_per_neighbour = 4, 1..=10_000;
    /// Age up to which such a connection is not closed for a new one. If all that could be closed
    /// are younger, the new connection is closed.
    unproven_grace_ms = 500, 0..=600_000;
    /// New such connections from one network (IPv4: a 24-bit prefix, IPv6: a 48-bit prefix) within
    /// unproven_new_ms; one more is closed at once. Those that prove a name do not count.
    max_unproven_new = 20, 1..=1_000_000;
    /// Time after which a network that has made max_unproven_new connections can make as many
    /// again; a part of the time allows a part of them.
    unproven_new_ms = 10_000, 10..=3_600_000;

    /// Operators that follow the changes at the same time; one more is refused.
    max_followers = 64, 1..=10_000;

    /// Time for a client to be told what Places answers, waiting for a connection included.
    places_ms = 10_000, 10..=600_000;
    /// Time to look up the host name of a neighbour or of Places.
    lookup_ms = 3_000, 10..=600_000;
    /// Time for a connection to one of Places' addresses to be made; the next address is tried sooner.
    places_connect_ms = 3_000, 10..=600_000;
    /// Time after which the next of Places' addresses is tried, while those before it go on (RFC 8305).
    places_attempt_ms = 250, 10..=2_000;
    /// Time for the TLS handshake with Places.
    places_handshake_ms = 4_000, 10..=600_000;
    /// Time that a connection to Places is kept without a question.
    places_idle_ms = 60_000, 10..=3_600_000;
    /// Silence on a reused connection to Places after which the server sends the question again on
    /// a new connection; half of places_ms if that is shorter.
    places_silence_ms = 3_000, 10..=600_000;
    /// Connections to Places; parallel attempts to connect to several addresses count as one.
    max_places_connections = 16, 1..=10_000;
    /// Questions that wait for a connection to Places; one more displaces the newest question of the
    /// address that has the most, or gets an error at once.
    max_places_waiting = 1_024, 0..=1_000_000;
    /// Bytes of the status line and the headers of a response of Places.
    places_head_bytes = 16_384, 256..=1_048_576;
    /// Bytes in the body of an answer of Places.
    places_body_bytes = 2_097_152, 256..=1_073_741_824;

    /// With `fsync = "interval"`: time from a change of the table to the sync of the journal.
    fsync_ms = 1_000, 1..=3_600_000;
    /// Time for which answers wait while the disk refuses writes to the journal; then the clients
    /// that wait for these answers are closed without an answer.
    journal_wait_ms = 2_000, 10..=600_000;
    /// Bytes of disk space that the server reserves in one step for later writes to the journal.
    journal_ahead_bytes = 4_194_304, 16_384..=1_073_741_824;
    /// Length in bytes below which a journal is not compacted.
    compact_bytes = 67_108_864, 1..=1_099_511_627_776;

    /// Bytes of log lines that wait for the disk, all together; further lines are dropped and
    /// counted.
    log_buffer_bytes = 8_388_608, 4_096..=1_073_741_824;
    /// Bytes of disk space that the log leaves free if log and journal are on one file system, but
    /// at most a quarter of that file system; in addition, the log leaves as many bytes free as the
    /// journal has.
    log_reserve_bytes = 134_217_728, 0..=1_099_511_627_776;
    /// Bytes of log lines about the faults of all clients together: the size of a token bucket that
    /// refills in log_faults_ms. Failures of Places have their own bucket of this size. Lines that
    /// do not fit are not logged but counted.
    log_faults_bytes = 262_144, 4_096..=1_099_511_627_776;
    /// Bytes of log lines about the faults of one client: each client has a token bucket of this
    /// size, which refills in log_faults_ms.
    log_client_faults_bytes = 16_384, 4_096..=1_099_511_627_776;
    /// Time in which an empty token bucket for log lines is full again; also the interval at which
    /// the number of lines that did not fit is logged.
    log_faults_ms = 10_000, 100..=3_600_000;
    /// Bytes of an invalid or refused command that the log shows.
    log_quote_bytes = 256, 16..=4_096;
}

impl Limits {
    /// Whether the limit `name` applies to `address`. `name` is the key of a limit that bounds what
    /// the clients of one address may use. Such a limit applies to a loopback address only if the
    /// config file sets the limit. So benchmarks and graders on one machine are not limited by
    /// default.
    #[must_use]
    pub fn holds_for(&self, name: &str, address: IpAddr) -> bool {
        !address.to_canonical().is_loopback() || self.set.contains(name)
    }

    /// Checks that each limit is in its range, and that the limits fit together.
    ///
    /// # Errors
    /// The first mistake, as a message for the author of the config file. A limit is out of its
    /// range, or two limits contradict each other.
    pub fn check(&self) -> Result<(), String> {
        for limit in self.all() {
            if !limit.range.contains(&limit.value) {
                let (min, max) = limit.range.into_inner();
                return Err(format!(
                    "limits.{} is {}, must be {min} to {max}",
                    limit.name, limit.value
                ));
            }
        }
        let in_order = |less: (&str, u64), more: (&str, u64)| {
            if less.1 < more.1 {
                return Ok(());
            }
            Err(format!(
                "limits.{} ({}) must be less than limits.{} ({})",
                less.0, less.1, more.0, more.1
            ))
        };
        if (1..MIN_BUFFER_BYTES).contains(&self.buffer_bytes) {
            return Err(format!(
                "limits.buffer_bytes is {}, must be 0 or at least {MIN_BUFFER_BYTES}",
                self.buffer_bytes
            ));
        }
        in_order(
            ("output_low_bytes", self.output_low_bytes),
            ("output_high_bytes", self.output_high_bytes),
        )?;
        in_order(
            ("heartbeat_ms", self.heartbeat_ms),
            ("link_silence_ms", self.link_silence_ms),
        )?;
        in_order(
            ("redial_first_ms", self.redial_first_ms),
            ("redial_cap_ms", self.redial_cap_ms + 1),
        )
    }
}

/// Converts a limit to the type that the code needs.
pub trait LimitValue {
    /// Converts a limit in milliseconds to a length of time.
    #[must_use]
    fn to_duration(self) -> Duration;

    /// Converts a limit to a `usize`: a number of connections, records or other things, or of bytes
    /// in memory. A value that does not fit becomes `usize::MAX`.
    #[must_use]
    fn to_count(self) -> usize;
}

impl LimitValue for u64 {
    fn to_duration(self) -> Duration {
        Duration::from_millis(self)
    }

    fn to_count(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_are_valid() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_limit_per_address_covers_loopback_only_if_set() {
        let mut limits = Limits::default();
        let name = "max_clients_per_address";
        let free =
            |limits: &Limits, address: &str| !limits.holds_for(name, address.parse().unwrap());
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(free(&limits, loopback), "{loopback}");
        }
        for other in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(!free(&limits, other), "{other}");
        }
        limits.set.insert(name.to_owned());
        assert!(!free(&limits, "127.0.0.1"));
    }

    #[test]
    fn a_wrong_limit_is_named_with_its_range() {
        let limits = Limits {
            max_unproven: 0,
            ..Limits::default()
        };
        assert_eq!(
            limits.check(),
            Err("limits.max_unproven is 0, must be 1 to 1000000".into())
        );
        let limits = Limits {
            buffer_bytes: 1_048_575,
            ..Limits::default()
        };
        assert_eq!(
            limits.check(),
            Err("limits.buffer_bytes is 1048575, must be 0 or at least 1048576".into())
        );
        let limits = Limits {
            heartbeat_ms: 10_000,
            ..Limits::default()
        };
        assert_eq!(
            limits.check(),
            Err(
                "limits.heartbeat_ms (10000) must be less than limits.link_silence_ms (10000)"
                    .into()
            )
        );
    }
}
