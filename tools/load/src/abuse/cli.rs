//! The command line of `herd-load abuse`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use herd_client::dial::TlsOptions;
use herd_mio::config::{self, Source};
use herd_mio::core::base::settings::HostPort;

use crate::abuse::sources::Sources;
use crate::values::prefix;

/// The longest run, in seconds: an attack that is left alone ends by itself.
const MAX_SECONDS: f64 = 300.0;

// At most 79 columns, so that no terminal has to break a line.
pub(crate) const AFTER_HELP: &str = "\
Examples:
  herd-load abuse faults Riley --log-file Riley.log
  herd-load abuse links Alice --config herd.toml --secret-file herd.secret
  herd-load abuse unread 127.0.0.1:10000 --pid $(pgrep -f 'herd-mio Riley')
  herd-load abuse lines 127.0.0.1:10000 --from 127.0.1.1-127.0.1.100 \\
                                        --polite-from 127.0.0.1

A few polite clients are measured alone for a second, then under attack: each
sends an IAMAT every 50 ms, whatever the server does, and a latency counts from
when its command was due. Every tenth is of a new client, which stays in the
table. With --polite-whatsat there are others that send WHATSATs. The attack
and the polite clients have a thread each.

The server counts by address. --from gives the attack addresses of its own,
which this machine must have (on Linux it has all of 127.0.0.0/8),
--polite-from one to the polite clients. Limits by address spare loopback
addresses, unless the server's config file sets them.

The links come from the server's STATUS, asked four times a second on its
neighbours' port. That needs the herd's secret, if it has one (--config,
--secret-file or HERD_SECRET), and --peers if SERVER is no name of a herd.

The attack leaves traces: names puts new clients into the table for ever, or
for limits.record_ttl_ms; lines, faults and unread write into the log; places
has the server ask Places, and Google charges for each question. Use a stand-in
(herd-places), and a server whose data may go.

Only loopback, link-local and private addresses are attacked. For any other the
server has to be yours, and you have to say so: --i-own-this-server.

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
notes, failures. What was not asked for is null.

Ctrl-C or SIGTERM ends the attack and prints what there is; a second one ends
at once.

Exit status: 0 if the p99 of polite IAMATs is below --polite-p99 and that of
polite WHATSATs below --whatsat-p99, nothing polite was lost or refused, and no
link was lost; 1 if not, or if it cannot be measured; 2 for a mistake in usage
or configuration; 130 or 143 if a second signal ended it.";

/// Attacks a server, and measures polite clients, its links, its memory and its disk meanwhile
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Abuse {
    /// What the attack does
    #[arg(value_name = "KIND")]
    pub(crate) kind: Kind,

    /// Which server: its name in the herd, or its address for clients as host:port
    pub(crate) server: String,

    /// The TOML file that describes the herd, as for herd-mio
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year [default: 2021, or the newest that has SERVER]
    #[arg(long, value_name = "YEAR")]
    herd: Option<String>,

    #[command(flatten)]
    pub(crate) tls: TlsOptions,

    /// The server's address for neighbours, as host:port [default: the one that the herd's
    /// description has]
    #[arg(long, value_name = "ADDR", value_parser = peers)]
    pub(crate) peers: Option<HostPort>,

    /// How long the attack lasts; at most 300
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = duration)]
    pub(crate) duration: Duration,

    /// How many connections the attack keeps [default: 2500 for lines, 1000 for unread, 64 for
    /// faults, 2 for names, 1200 for places, 1000 for links]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: Option<u32>,

    /// Addresses of this machine that the attack comes from, in turn: ADDR, ADDR-ADDR, or some of
    /// both joined by commas [default: the system chooses]
    #[arg(long, value_name = "ADDRS", value_parser = Sources::parse, default_value = "", hide_default_value = true)]
    pub(crate) from: Sources,

    /// The address of this machine that the polite clients come from [default: the system chooses]
    #[arg(long, value_name = "ADDR", value_parser = Sources::parse_one, default_value = "", hide_default_value = true)]
    pub(crate) polite_from: Sources,

    /// How many polite clients say where they are, each every 50 ms
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) polite: u32,

    /// Half as many more ask what is near them, each twice a second; an error of Places counts as
    /// refused
    #[arg(long)]
    pub(crate) polite_whatsat: bool,

    /// What the p99 of polite IAMATs has to be below, with its unit: us, ms or s
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    pub(crate) polite_p99: Duration,

    /// The same of polite WHATSATs, which take as long as Places
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) whatsat_p99: Duration,

    /// How client ids begin; two generators on one herd at the same time need different ones
    #[arg(long, value_name = "WORD", default_value = "abuse", value_parser = prefix)]
    pub(crate) prefix: String,

    /// Report the memory, descriptors and processor time of this process, which should be the
    /// server's
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Report how fast this file grows, which should be the server's log
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,

    /// Report how fast the files in this directory grow, which should be the server's data
    /// directory; a journal grows in steps of limits.journal_ahead_bytes
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// The file with the secret that the herd's servers share (or give it in HERD_SECRET)
    #[arg(long, value_name = "FILE", env = "HERD_SECRET_FILE")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Print the figures as one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// The server is mine: attack it, though its address is neither loopback nor private
    #[arg(long)]
    pub(crate) i_own_this_server: bool,
}

/// What an attack does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Lines of 4,096 bytes 0x01, on many connections: parsing, quoting, escaping in the log
    Lines,
    /// IAMATs whose answers are never read: memory
    Unread,
    /// Lines of one letter, as fast as possible: the log
    Faults,
    /// IAMATs of new clients, as fast as possible: the table and the journal
    Names,
    /// WHATSATs with different questions, on many connections: the waiting line for Places
    Places,
    /// Connections to the neighbours' port that say nothing, as fast as possible: the places for
    /// neighbours
    Links,
}

impl Kind {
    /// How it is called on the command line.
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

    /// How many connections it keeps, if nothing else is said.
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
    /// Which herd SERVER is a name in.
    pub(crate) fn source(&self) -> Source {
        match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        }
    }

    /// How many polite clients ask what is near them.
    pub(crate) fn askers(&self) -> usize {
        if self.polite_whatsat {
            self.polite.div_ceil(2) as usize
        } else {
            0
        }
    }

    /// How many connections the attack keeps.
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

/// Reads a time with its unit.
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
