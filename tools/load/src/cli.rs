//! The command line: what can be said there, what it means, and how a mistake is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use herd_client::dial::TlsOptions;
use herd_mio::config::Source;

use crate::abuse::Abuse;
use crate::commands::MAX_CLIENTS;
use crate::values::{in_a_directory, milliseconds, prefix, radius, rate, seconds, some_seconds};

/// Loads a server of a herd, checks every answer, and says how fast they came
///
/// One thread, so one core: give it one of its own (taskset) and it keeps a server on another core busy.
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

// At most 79 columns, so that no terminal has to break a line.
const AFTER_HELP: &str = "\
Examples:
  herd-load iamat Riley                                   one at a time
  herd-load iamat Riley --connections 50 --depth 16       as fast as it can
  herd-load iamat Riley --connections 50 --rate 20000     20,000 a second
  herd-load mix Riley --whatsat 5 --connections 50        5 % are WHATSAT
  herd-load flood Riley                                   until all know it
  herd-load abuse faults Riley                            see abuse --help
  herd-load idle Riley --connections 10000 --pid $(pgrep -f 'herd-mio Riley')
  herd-load iamat 127.0.0.1:10000 --json > iamat.json     for a program
  herd-load iamat Riley --svg latency.svg                 a picture as well
  herd-load echo --listen 127.0.0.1:10100                 against itself:
  herd-load iamat 127.0.0.1:10100 --connections 50 --depth 16

Closed loop (without --rate): each connection has --depth commands in flight and
sends one more for each answer; it says how much the server can take.
Open loop (--rate): commands are due at that rate whatever the server does, and
a latency counts from when its command was due; it says how long users wait.

Every answer is checked: server, skew, client, place, time and order; of a
WHATSAT also that the JSON can be read and has at most so many places. The first
wrong answer ends the run, and is shown beside what was expected.

A connection that is lost (the server restarts) is made again, after waits from
50 ms to 1 s with jitter, and the run goes on to its planned end. Commands that
were in flight on it are lost: counted, in no latency, and not sent again. In an
open loop commands become due meanwhile, are sent late, and count from when they
were due; a closed loop asks nothing meanwhile. flood and idle, and others with
--stop-on-loss, end at the first loss, and say only why. Silence for --timeout
ends every run; all but flood still print the figures.

JSON: program, version, mode, server, parameters, interrupted, duration_s,
answers, rate_per_s, errors (of Places), first_error, lost, oldest_lost_ms,
unanswered, oldest_unanswered_ms, unsent, oldest_unsent_ms, connections_lost,
connections_remade, disconnected_s, outages (from_s, duration_s, is_over,
connections, disconnected_s), trouble, latency_us (of answers alone: count, min,
mean, p50, p90, p99, p99_9, p99_99, max), series (the same in parts), over_time
(interval_s, until_s, points of at_s, answers, p50_us, p99_us, max_us),
processes (of --pid: pid, ended, user_ms, system_ms, cpu_us_per_answer,
rss_before_bytes, rss_after_bytes), generator (the same of herd-load itself); of
a flood also flood (polls, asked_places, since_sent_us, resolution_us), of idle
also idle (pid, rss_before_bytes, rss_after_bytes, bytes_per_connection).

Ctrl-C or SIGTERM ends the measuring, waits up to a second for what is in
flight, and prints what there is, with how many commands are unanswered and how
long the oldest has waited; a second one ends at once, without figures.

Exit status: 0 if all commands that were sent were answered, and rightly; 1 for
a wrong answer, commands lost or unanswered (the figures are printed all the
same), connections that cannot be made or are missing at the end, or an output
that cannot be written; 2 for a mistake in usage or configuration; 130 or 143 if
a second signal ended it.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Clients say where they are: IAMAT after IAMAT
    Iamat(Load),
    /// Somebody asks what is near them: WHATSAT after WHATSAT, about clients that said before where they are
    ///
    /// The server should ask a stand-in (herd-places), not Google: each question costs Google's price. Without a key the server
    /// answers with an error at once, which is right, but told apart.
    Whatsat {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        question: Question,
    },
    /// Both, evenly mixed
    Mix {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        question: Question,
        /// How many of a hundred commands are WHATSAT
        #[arg(long, value_name = "PERCENT", default_value = "10",
              value_parser = clap::value_parser!(u32).range(1..=99))]
        whatsat: u32,
    },
    /// How long it takes until every other server knows what one was told
    ///
    /// A client that nobody knows sends an IAMAT to SERVER, while every other server is asked WHATSAT about it, over and over,
    /// until the answer is no longer a refusal. The time is from SERVER's answer until the last of them knew (zero, if they all
    /// knew before). How finely that is seen is reported as the resolution. Servers that have a key for Places ask it before
    /// they answer; start them without one, or that time is in the figures.
    Flood(Flood),
    /// What connections cost that say nothing, or half a word: memory, and the latency of one client among them
    ///
    /// The latency of one client alone comes first, then as long again among the others. Give server and herd-load a core each
    /// (taskset), or it is the system's choice of cores that is compared. For the memory, take a server that was just started: one
    /// that had as many clients before uses that memory again.
    Idle(Idle),
    Abuse(Abuse),
    /// A server that only answers, without doing anything: against it, herd-load shows its own ceiling
    ///
    /// It answers an IAMAT as a server with no skew would, and refuses everything else. SIGTERM and SIGINT end it.
    Echo {
        /// Where to listen; port 0 takes any free one
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// What all that measure have in common.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Which server: its name in the herd, or its address as host:port
    pub(crate) server: String,

    /// The TOML file that describes the herd, as for herd-mio
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year [default: 2021, or the newest that has SERVER]
    #[arg(long, value_name = "YEAR")]
    herd: Option<String>,

    #[command(flatten)]
    pub(crate) tls: TlsOptions,

    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = some_seconds)]
    pub(crate) duration: Duration,

    /// How long to do the same before, without counting it
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    pub(crate) warm_up: Duration,

    /// How long a server may be silent while an answer is due
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = some_seconds)]
    pub(crate) timeout: Duration,

    /// How far the server's clock may be from this one's; on the same machine there is only one
    #[arg(long, value_name = "MS", default_value = "1", value_parser = milliseconds)]
    pub(crate) clock_tolerance: Duration,

    /// How client ids begin; two generators on one herd at the same time need different ones
    #[arg(long, value_name = "WORD", default_value = "load", value_parser = prefix)]
    pub(crate) prefix: String,

    /// Never sleep, so that no answer waits for the system to wake this process
    #[arg(long)]
    pub(crate) spin: bool,

    /// Report the processor time and memory of this process, which should be the server's (may be repeated)
    #[arg(long, value_name = "PID", action = clap::ArgAction::Append)]
    pub(crate) pid: Vec<u32>,

    /// Print the figures as one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw the latencies into this file too, by percentile and over time
    #[arg(long, value_name = "FILE", value_parser = in_a_directory)]
    pub(crate) svg: Option<PathBuf>,
}

/// How much is asked.
#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many connections
    #[arg(long, short, value_name = "N", default_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// The most commands in flight on each connection [default: 1; with --rate 256]
    #[arg(long, short, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    depth: Option<u32>,

    /// Open loop: so many commands a second on all connections together, each counted from when it was due; what is late at
    /// the end is still sent, for as long as --timeout
    #[arg(long, short, value_name = "PER SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    /// Stop after so many commands, if that comes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End the run at the first connection that is lost, with nothing but the reason [default: connect again, and go on]
    #[arg(long)]
    pub(crate) stop_on_loss: bool,

    /// How many different clients there are; each keeps to one connection, so at least as many as those
    #[arg(long, value_name = "N", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CLIENTS)))]
    clients: u32,
}

/// What is asked about each client.
#[derive(Args, Debug)]
pub(crate) struct Question {
    /// How far around
    #[arg(long, value_name = "KM", default_value = "10", value_parser = radius)]
    pub(crate) radius: String,

    /// At most so many places
    #[arg(long, value_name = "N", default_value = "5",
          value_parser = clap::value_parser!(u8).range(1..=20))]
    pub(crate) bound: u8,
}

/// How a flood is watched.
#[derive(Args, Debug)]
pub(crate) struct Flood {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Stop after so many rounds, if that comes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// How often each server is asked, in microseconds; 0 is again as soon as it has answered, which resolves best
    #[arg(long, value_name = "US", default_value = "0",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) poll_interval: u64,
}

/// Who is idle.
#[derive(Args, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many connections that say nothing
    #[arg(long, short, value_name = "N", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// What each of them says before it falls silent
    #[arg(long, value_name = "WHEN", default_value = "once")]
    pub(crate) speak: Speak,
}

/// How often an idle client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speak {
    /// Never a word
    Never,
    /// One IAMAT, all of the same client, so that the server has one record and not thousands
    Once,
    /// The first 2,000 bytes of a command, and never the rest; the server has to have limits.line_ms beyond the time of the run
    Half,
}

impl Common {
    /// Which herd SERVER is a name in.
    pub(crate) fn source(&self) -> Source {
        match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        }
    }
}

impl Load {
    /// The most commands in flight on each connection.
    pub(crate) fn depth(&self) -> u32 {
        let usual = if self.rate.is_some() { 256 } else { 1 };
        self.depth.unwrap_or(usual)
    }

    /// Enough that every connection has one of its own.
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
