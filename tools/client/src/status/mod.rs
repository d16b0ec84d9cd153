//! `herd-client status`: asks every server of a herd for its status, and reports problems.

mod problems;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use herd_mio::config::Member;
use herd_testkit::failure::Failure;
use herd_testkit::output;

use crate::operator::{self, HerdOptions, seconds};
use crate::status::problems::Kind;
use crate::survey;

/// The exit status if the herd has a problem.
const UNHEALTHY: u8 = 1;

/// Ask every server of a herd for its status, and report problems
///
/// Servers that hold the same records have the same digest. The number after a neighbour's name
/// counts the changes that it has not confirmed yet. Below the table, each problem has one line: its
/// kind, the problem, and what to do. The command asks each server on its neighbours' port, and
/// proves that it has the herd's secret. If the herd has [peers.tls], it also needs a certificate
/// for the name operator.
#[derive(Parser)]
#[command(name = "herd-client status", bin_name = "herd-client status", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    herd: HerdOptions,

    /// Ask only this server, as a health check of one process
    #[arg(long, value_name = "NAME")]
    server: Option<String>,

    /// The time limit of the whole command
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,

    /// Kinds of problems that are reported but do not fail the check, joined by commas
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    ignore: Vec<Kind>,

    /// Print the report as JSON, on one line
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  herd-client status                          the herd of 2021 on this machine
  herd-client status --config herd.toml       your own herd
  until herd-client status; do sleep 1; done  wait until there is no problem
  herd-client status --server Alice --config herd.toml --timeout 1 --ignore link,version
                                              a health check of one server that ignores faults of others

Exit status: 0 if every server answered and there is no problem (ignored kinds do not count); 1 if
not; 2 for a mistake in usage or configuration.";

/// The command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the command. `arguments` are the program's, and the first of them is `status`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    operator::main("herd-client status", arguments, run)
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let server = cli.server.as_deref();
    let (herd, question) = cli.herd.read(server, cli.timeout)?;
    let is_wanted = |member: &&Member| server.is_none_or(|name| *name == member.name);
    let members: Vec<&Member> = herd.members.iter().filter(is_wanted).collect();
    let asked = survey::ask_all(&members, question);
    let names: Vec<String> = herd
        .members
        .iter()
        .map(|member| member.name.clone())
        .collect();
    let findings = problems::find(&asked, &names, herd.links());
    output::say(match cli.json {
        true => report::in_json(&asked, &findings, &cli.ignore),
        false => report::in_words(&asked, &findings, &cli.ignore),
    });
    Ok(output::status(
        match report::counted(&findings, &cli.ignore) {
            0 => 0,
            _ => UNHEALTHY,
        },
    ))
}
