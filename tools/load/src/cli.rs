//! The command line, and the report of a mistake in it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use herd_client::dial::TlsOptions;
use herd_mio::config::Source;

use crate::abuse::Abuse;
use crate::commands::MAX_CLIENTS;
use crate::values::{in_a_directory, milliseconds, prefix, radius, rate, seconds, some_seconds};

/// Puts load on a server of a herd, checks every answer, and reports the latencies
///
/// The program has one thread. On its own core (taskset), it can fully load a server on another
/// core.
#[derive(Debug, Parser)]
#[command(
    name = "herd-load",
    version,
    args_override_self = true,
    arg_required_else_help = false,
    disable_help_subcommand = true,
    after_help = AFTER_HELP,
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

// At most 79 columns, so that the lines fit every terminal.
const AFTER_HELP: &str = "\
Examples:
  herd-load iamat Riley                                   one at a time
  herd-load iamat Riley --connections 50 --depth 16       full speed
  herd-load iamat Riley --connections 50 --rate 20000     20,000 a second
  herd-load mix Riley --whatsat 5 --connections 50        5 % are WHATSAT
  herd-load flood Riley                                   the herd's latency
  herd-load abuse faults Riley                            see abuse --help
  herd-load idle Riley --connections 10000 --pid $(pgrep -f 'herd-mio Riley')
  herd-load iamat 127.0.0.1:10000 --json > iamat.json     for a program
  herd-load iamat Riley --svg latency.svg                 a picture as well
  herd-load echo --listen 127.0.0.1:10100                 its own limit:
  herd-load iamat 127.0.0.1:10100 --connections 50 --depth 16

Closed loop (without --rate): each connection keeps --depth commands in flight,
and sends one more for each answer. This measures the server's throughput.
Open loop (--rate): commands are due at that rate, whatever the server does,
and a latency starts when its command is due. This measures the wait of users.

Every answer is checked: its server, skew, client, place, time and order. After
a WHATSAT, the JSON must be valid and must not have too many places. The first
wrong answer ends the run, and is printed with the expected one.

If a connection is lost (the server restarts), herd-load reconnects, after
waits from 50 ms to 1 s with jitter. The run continues to its planned end.
Commands in flight on a lost connection are lost: they are counted, not sent
again, and not in the latencies. In an open loop, commands that become due in
that time are sent late, and their latency starts when they were due. A closed
loop sends nothing in that time. flood and idle, and other modes with
--stop-on-loss, end at the first loss, and print only the reason. If the server
sends nothing for --timeout, every run ends; all modes but flood still print
the figures.

JSON: program, version, mode, server, parameters, interrupted, duration_s,
answers, rate_per_s, errors (of Places), first_error, lost, oldest_lost_ms,
unanswered, oldest_unanswered_ms, unsent, oldest_unsent_ms, connections_lost,
connections_remade, disconnected_s, outages (from_s, duration_s, is_over,
connections, disconnected_s), trouble, latency_us (of answers only: count, min,
mean, p50, p90, p99, p99_9, p99_99, max), series (the same in parts), over_time
(interval_s, until_s, points of at_s, answers, p50_us, p99_us, max_us),
processes (of --pid: pid, ended, user_ms, system_ms, cpu_us_per_answer,
rss_before_bytes, rss_after_bytes), generator (the same for herd-load itself);
for a flood also flood (polls, asked_places, since_sent_us, resolution_us), for
idle also idle (pid, rss_before_bytes, rss_after_bytes, bytes_per_connection).

Ctrl-C or SIGTERM ends the measurement. herd-load then waits up to a second for
answers, and prints the figures, with the number of commands without an answer
and the longest wait of one. A second signal ends the program at once, without
figures.

Exit status: 0 if all commands that were sent got a correct answer; 1 for a
wrong answer, lost or unanswered commands (the figures are still printed),
connections that fail or are missing at the end, or an output that cannot be
written; 2 for a mistake in usage or configuration; 130 or 143 if a second
signal ended it.";

/// The mode.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Clients send their positions: only IAMATs
    Iamat(Load),
    /// Clients ask for places near them: only WHATSATs, about clients that have sent their
    /// positions
    ///
    /// The server should ask a stand-in (herd-places), not Google, because Google charges for each
    /// question. Without a key, the server answers with an error at once. That is a correct answer,
    /// but it is counted as an error.
    Whatsat {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        question: Question,
    },
    /// IAMATs and WHATSATs, evenly mixed
    Mix {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        question: Question,
        /// The percentage of WHATSATs
        #[arg(long, value_name = "PERCENT", default_value = "10",
              value_parser = clap::value_parser!(u32).range(1..=99))]
        whatsat: u32,
    },
    /// The time until an update of one server has reached all others
    ///
    /// A new client sends an IAMAT to SERVER. Meanwhile every other server gets WHATSATs about that
    /// client, until it no longer refuses them. The time is from SERVER's answer until the last
    /// server knows the client (zero, if all know it before the answer). Its precision is reported
    /// as the resolution. Start the servers without a key for Places: with a key they ask Places
    /// before they answer, and that time is in the figures.
    Flood(Flood),
    /// The cost of idle connections: memory, and the latency of one active client among them
    ///
    /// First it measures the latency of one client alone, then of the same client among the idle
    /// connections. Give the server and herd-load a core each (taskset), because else the figures
    /// depend on the system's choice of cores. Measure the memory on a server that was just
    /// started, because an older one may reuse memory of earlier clients.
    Idle(Idle),
    Abuse(Abuse),
    /// A server that only answers; against it, herd-load measures its own limit
    ///
    /// It answers an IAMAT with a skew of zero, and refuses all other lines. SIGTERM and SIGINT end
    /// it.
    Echo {
        /// The address to listen on; port 0 takes any free port
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// The common options of all measuring modes.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// The server: its name in the herd, or its address as host:port
    pub(crate) server: String,

    /// The TOML file that describes the herd, as for herd-mio
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year [default: 2021, or the newest that has SERVER]
    #[arg(long, value_name = "YEAR")]
    herd: Option<String>,

    #[command(flatten)]
    pub(crate) tls: TlsOptions,

    /// The length of the measurement
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = some_seconds)]
    pub(crate) duration: Duration,

    /// The length of the warm-up, which does not count
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    pub(crate) warm_up: Duration,

    /// The longest wait for an answer
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = some_seconds)]
    pub(crate) timeout: Duration,

    /// The greatest allowed difference between the server's clock and this machine's
    #[arg(long, value_name = "MS", default_value = "1", value_parser = milliseconds)]
    pub(crate) clock_tolerance: Duration,

    /// The beginning of client ids; two generators on one herd at the same time need different ones
    #[arg(long, value_name = "WORD", default_value = "load", value_parser = prefix)]
    pub(crate) prefix: String,

    /// Never sleep, so that no answer waits until the system wakes this process
    #[arg(long)]
    pub(crate) spin: bool,

    /// Report the processor time and memory of this process; give the server's (may be repeated)
    #[arg(long, value_name = "PID", action = clap::ArgAction::Append)]
    pub(crate) pid: Vec<u32>,

    /// Print the figures as one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Also draw the latencies as a picture in this file, by percentile and over time
    #[arg(long, value_name = "FILE", value_parser = in_a_directory)]
    pub(crate) svg: Option<PathBuf>,
}

/// The options of the load.
#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) common: Common,

    /// The number of connections
    #[arg(long, short, value_name = "N", default_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// The greatest number of commands in flight on each connection [default: 1; with --rate 256]
    #[arg(long, short, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    depth: Option<u32>,

    /// Open loop: the number of commands per second on all connections together; a latency starts
    /// when its command is due; late commands are still sent after the end, for at most --timeout
    #[arg(long, short, value_name = "PER SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    /// Stop after this many commands, if that comes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End the run at the first lost connection, and print only the reason [default: reconnect, and
    /// continue]
    #[arg(long)]
    pub(crate) stop_on_loss: bool,

    /// The number of clients; each uses one connection, so there are at least as many clients as
    /// connections
    #[arg(long, value_name = "N", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CLIENTS)))]
    clients: u32,
}

/// The options of a WHATSAT.
#[derive(Args, Debug)]
pub(crate) struct Question {
    /// The radius
    #[arg(long, value_name = "KM", default_value = "10", value_parser = radius)]
    pub(crate) radius: String,

    /// The greatest number of places
    #[arg(long, value_name = "N", default_value = "5",
          value_parser = clap::value_parser!(u8).range(1..=20))]
    pub(crate) bound: u8,
}

/// The options of a flood.
#[derive(Args, Debug)]
pub(crate) struct Flood {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Stop after this many rounds, if that comes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// The interval between questions to one server, in microseconds; 0 asks again right after each
    /// answer, which is most precise
    #[arg(long, value_name = "US", default_value = "0",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) poll_interval: u64,
}

/// The options of idle connections.
#[derive(Args, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) common: Common,

    /// The number of idle connections
    #[arg(long, short, value_name = "N", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// What each of them sends before it is silent
    #[arg(long, value_name = "WHEN", default_value = "once")]
    pub(crate) speak: Speak,
}

/// The data that an idle connection sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speak {
    /// Nothing
    Never,
    /// One IAMAT, all of the same client, so that the server has only one record
    Once,
    /// The first 2,000 bytes of a command, and never the rest; the server's limits.line_ms has to
    /// exceed the time of the run
    Half,
}

impl Common {
    /// The herd of SERVER.
    pub(crate) fn source(&self) -> Source {
        match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        }
    }
}

impl Load {
    /// The greatest number of commands in flight on each connection.
    pub(crate) fn depth(&self) -> u32 {
        let usual = if self.rate.is_some() { 256 } else { 1 };
        self.depth.unwrap_or(usual)
    }

    /// The number of clients, so that every connection has at least one.
    pub(crate) fn clients(&self) -> u32 {
        self.clients.max(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use herd_testkit::failure::one_line;

    fn parse(arguments: &str) -> Result<Cli, String> {
        let words = std::iter::once("herd-load").chain(arguments.split_whitespace());
        Cli::try_parse_from(words).map_err(|error| one_line(&error, "herd-load"))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let mistake = |arguments: &str| parse(arguments).unwrap_err();
        for (arguments, part) in [
            ("", "requires a subcommand"),
            ("iamat", "<SERVER>"),
            ("load Riley", "unrecognized subcommand 'load'"),
            ("iamat Riley --connections 0", "1..=1000000"),
            ("iamat Riley --depth 0", "1..=1000000"),
            ("iamat Riley --rate 0", "commands a second from 0.001"),
            ("iamat Riley --rate fast", "commands a second from 0.001"),
            ("iamat Riley --duration 0", "seconds from 0.001"),
            ("iamat Riley --duration nan", "seconds from 0.001"),
            ("iamat Riley --warm-up=-1", "seconds from 0 to"),
            ("iamat Riley --count 0", "1.."),
            ("iamat Riley --prefix=a\u{e9}b", "printable ASCII"),
            ("iamat Riley --herd 2021 --config x", "cannot be used with"),
            ("iamat Riley --bound 5", "unexpected argument '--bound'"),
            ("whatsat Riley --bound 21", "1..=20"),
            ("whatsat Riley --radius 51", "at most 50"),
            ("mix Riley --whatsat 100", "1..=99"),
            ("idle Riley --speak twice", "never, once, half"),
            ("echo --listen here", "invalid"),
        ] {
            let what = mistake(arguments);
            assert!(
                what.contains(part)
                    && what.ends_with("; see herd-load --help")
                    && !what.contains('\n'),
                "{arguments}: {what}"
            );
        }
    }

    #[test]
    fn defaults_depend_on_other_options() {
        let load = |arguments: &str| match parse(arguments).unwrap().mode {
            Mode::Iamat(load) => load,
            other => panic!("{other:?}"),
        };
        assert_eq!(load("iamat Riley").depth(), 1);
        assert_eq!(load("iamat Riley --rate 100").depth(), 256);
        assert_eq!(load("iamat Riley --rate 100 --depth 2").depth(), 2);
        assert_eq!(load("iamat Riley").clients(), 10_000);
        assert_eq!(load("iamat Riley -c 20000").clients(), 20_000);
        assert_eq!(load("iamat Riley --clients 5 -c 2").clients(), 5);
        assert_eq!(load("iamat Riley --pid 1 --pid 2").common.pid, [1, 2]);
    }

    #[test]
    fn help_fits_a_terminal_of_eighty_columns() {
        for line in AFTER_HELP.lines() {
            assert!(line.chars().count() < 81, "{line}");
        }
    }
}
