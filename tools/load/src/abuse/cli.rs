//! The command line of `herd-load abuse`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use herd_client::dial::TlsOptions;
use herd_mio::config::{self, Source};
use herd_mio::core::base::settings::HostPort;

use crate::abuse::sources::Sources;
use crate::values::prefix;

/// The longest run, in seconds. So a forgotten attack ends by itself.
const MAX_SECONDS: f64 = 300.0;

// At most 79 columns, so that the lines fit every terminal.
pub(crate) const AFTER_HELP: &str = "\
Examples:
  herd-load abuse faults Riley --log-file Riley.log
  herd-load abuse links Alice --config herd.toml --secret-file herd.secret
  herd-load abuse unread 127.0.0.1:10000 --pid $(pgrep -f 'herd-mio Riley')
  herd-load abuse lines 127.0.0.1:10000 --from 127.0.1.1-127.0.1.100 \\
                                        --polite-from 127.0.0.1

The command measures a few polite clients: first alone for a second, then under
attack. Each sends an IAMAT every 50 ms, whatever the server does. A latency
starts when its command is due. Every tenth IAMAT is of a new client, which
stays in the table. With --polite-whatsat, more clients send WHATSATs. The
attack has its own thread.

The server has limits by address. --from sets the addresses of the attack, and
--polite-from the address of the polite clients. This machine must have them
(on Linux it has all of 127.0.0.0/8). Limits by address do not apply to
loopback addresses, unless the server's config file sets them.

The state of the links comes from the server's STATUS. The command asks for it
four times a second, on the neighbours' port. It needs the herd's secret, if
the herd has one (--config, --secret-file or HERD_SECRET), and --peers if
SERVER is not a name of a herd.

The attack leaves data behind. names adds clients to the table, and they stay
for limits.record_ttl_ms, or for ever. lines, faults and unread write to the
log. places makes the server ask Places, and Google charges for each question.
So use a stand-in (herd-places), and a server whose data you can delete.

The command attacks loopback, link-local and private addresses. To attack your
own server at another address, add --i-own-this-server.

JSON: program, version, mode, kind, server, parameters, interrupted,
duration_s, attack (connected, failed_connects, no_port, closed_by_server,
most_open, sent_commands, sent_bytes, received_bytes, answered, refused,
places_errors, connects_per_s, replies_per_s, rejection), polite (asked,
answered, refused, refused_new, lost, unanswered, oldest_unanswered_ms,
connections_lost, connections_rejected, first_refusal, alone, under_attack,
whatsat_alone, whatsat_under_attack, late_us), links (before, after, lost,
asked, answered, slowest_ms, max_lag_ms, max_unconfirmed, restarted, counted,
first_failure), memory, descriptors (before, most, after), log, data
(before_bytes, after_bytes, written_bytes, bytes_per_s), processes, generator,
notes, failures. A part that was not measured is null.

Ctrl-C or SIGTERM ends the attack and prints the figures so far; a second one
ends the program at once.

Exit status: 0 if the p99 of polite IAMATs is below --polite-p99 and that of
polite WHATSATs below --whatsat-p99, no polite command was lost or refused, and
no link was lost; 1 if not, or if the measurement failed; 2 for a mistake in
usage or configuration; 130 or 143 if a second signal ended it.";

/// Attacks a server, and measures polite clients and the server's links, memory and disk
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Abuse {
    /// The kind of attack
    #[arg(value_name = "KIND")]
    pub(crate) kind: Kind,

    /// The server: its name in the herd, or its address for clients as host:port
    pub(crate) server: String,

    /// The TOML file that describes the herd, as for herd-mio
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year [default: 2021, or the newest that has SERVER]
    #[arg(long, value_name = "YEAR")]
    herd: Option<String>,

    #[command(flatten)]
    pub(crate) tls: TlsOptions,

    /// The server's address for neighbours, as host:port [default: the one in the herd's config]
    #[arg(long, value_name = "ADDR", value_parser = peers)]
    pub(crate) peers: Option<HostPort>,

    /// The length of the attack; at most 300
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = duration)]
    pub(crate) duration: Duration,

    /// The number of connections of the attack [default: 2500 for lines, 1000 for unread, 64 for
    /// faults, 2 for names, 1200 for places, 1000 for links]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: Option<u32>,

    /// The source addresses of the attack, used in turn: ADDR, ADDR-ADDR, or several of both,
    /// joined by commas [default: the system chooses]
    #[arg(long, value_name = "ADDRS", value_parser = Sources::parse, default_value = "", hide_default_value = true)]
    pub(crate) from: Sources,

    /// The source address of the polite clients [default: the system chooses]
    #[arg(long, value_name = "ADDR", value_parser = Sources::parse_one, default_value = "", hide_default_value = true)]
    pub(crate) polite_from: Sources,

    /// The number of polite clients that send an IAMAT every 50 ms
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) polite: u32,

    /// Add half as many polite clients that send a WHATSAT twice a second; an error of Places
    /// counts as refused
    #[arg(long)]
    pub(crate) polite_whatsat: bool,

    /// The limit for the p99 of polite IAMATs, with its unit: us, ms or s
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    pub(crate) polite_p99: Duration,

    /// The limit for the p99 of polite WHATSATs, which take as long as Places
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) whatsat_p99: Duration,

    /// The beginning of client ids; two generators on one herd at the same time need different ones
    #[arg(long, value_name = "WORD", default_value = "abuse", value_parser = prefix)]
    pub(crate) prefix: String,

    /// Report the memory, descriptors and processor time of this process; give the server's
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Report the growth of this file; give the server's log
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,

    /// Report the growth of the files in this directory; give the server's data directory; a
    /// journal grows in steps of limits.journal_ahead_bytes
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// The file with the secret that the herd's servers share (or give it in HERD_SECRET)
    #[arg(long, value_name = "FILE", env = "HERD_SECRET_FILE")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Print the figures as one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Confirm that the server is yours, to attack an address that is neither loopback nor private
    #[arg(long)]
    pub(crate) i_own_this_server: bool,
}

/// The kinds of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Many connections send lines of 4,096 bytes 0x01: tests parsing, quoting, escaping in the log
    Lines,
    /// IAMATs whose answers are never read: tests memory
    Unread,
    /// Lines of one letter, as fast as possible: tests the log
    Faults,
    /// IAMATs of new clients, as fast as possible: tests the table and the journal
    Names,
    /// Different WHATSATs on many connections: tests the queue for Places
    Places,
    /// Silent connections to the neighbours' port, as fast as possible: tests the places for
    /// neighbours
    Links,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Lines => "lines",
            Kind::Unread => "unread",
            Kind::Faults => "faults",
            Kind::Names => "names",
            Kind::Places => "places",
            Kind::Links => "links",
        }
    }

    /// The default number of connections.
    fn connections(self) -> u32 {
        match self {
            Kind::Lines => 2_500,
            Kind::Unread | Kind::Links => 1_000,
            Kind::Faults => 64,
            Kind::Names => 2,
            Kind::Places => 1_200,
        }
    }
}

impl Abuse {
    /// The herd of SERVER.
    pub(crate) fn source(&self) -> Source {
        match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        }
    }

    /// The number of polite clients that send WHATSATs.
    pub(crate) fn askers(&self) -> usize {
        if self.polite_whatsat {
            self.polite.div_ceil(2) as usize
        } else {
            0
        }
    }

    /// The number of connections of the attack.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or(self.kind.connections()) as usize
    }
}

fn peers(text: &str) -> Result<HostPort, String> {
    config::address(text, "--peers").map_err(|error| error.0)
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.1..=MAX_SECONDS).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("it must be a number of seconds from 0.1 to {MAX_SECONDS}"))
}

/// Parses a time with its unit.
fn time(text: &str) -> Result<Duration, &'static str> {
    const MISTAKE: &str =
        "it must be a time from 1us to 60s with its unit, such as 500us, 100ms or 2s";
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic());
    let seconds = match &text[digits.len()..] {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(MISTAKE),
    };
    let number: f64 = digits.parse().map_err(|_| MISTAKE)?;
    let time = number * seconds;
    match (1e-6..=60.0).contains(&time) {
        true => Ok(Duration::from_secs_f64(time)),
        false => Err(MISTAKE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_unit() {
        for (text, us) in [
            ("100ms", 100_000),
            ("2s", 2_000_000),
            ("1.5ms", 1_500),
            ("7us", 7),
        ] {
            assert_eq!(time(text), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "100", "ms", "-1ms", "0ms", "nanms", "61s", "1 m", "1h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_duration_of_a_run_is_limited() {
        assert_eq!(duration("300"), Ok(Duration::from_secs(300)));
        for text in ["300.1", "0", "inf", "nan", "long"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn help_fits_a_terminal_of_eighty_columns() {
        for line in AFTER_HELP.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
    }
}
