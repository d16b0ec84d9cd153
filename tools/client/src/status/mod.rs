//! `herd-client status`: asks every server of a herd for its status, and says whether all is well.

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

/// Ask every server of a herd how it stands, and say whether all is well
///
/// Servers that hold the same records have the same digest. Behind a neighbour's name stands how
/// many changes it has not confirmed to keep, if there are any. Below the table there is one line
/// for each problem: its kind, what it is, and what to do. Each server is asked on its neighbours'
/// port, with the herd's secret; where the herd has [peers.tls], also with a certificate for the
/// name operator.
#[derive(Parser)]
#[command(name = "herd-client status", bin_name = "herd-client status", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    herd: HerdOptions,

    /// Ask only this server: a health check of one process
    #[arg(long, value_name = "NAME")]
    server: Option<String>,

    /// How long all of it may take
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,

    /// Kinds of problems that are told, and do not count, joined by commas
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    ignore: Vec<Kind>,

    /// Say it in JSON, on one line
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  herd-client status                          the herd of 2021 on this machine
  herd-client status --config herd.toml       your own herd
  until herd-client status; do sleep 1; done  wait until all is well, and all agree
  herd-client status --server Alice --config herd.toml --timeout 1 --ignore link,version
                                              a health check of one server, which others' faults do not fail

Exit status: 0 if all is well: every server answered, and there is no problem that counts; 1 if not;
2 for a mistake in usage or configuration.";

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
