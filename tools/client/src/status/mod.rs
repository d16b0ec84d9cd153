//! `herd-client status`: asks every server of a herd for its status, and says whether all is well.

mod problems;
mod report;
mod survey;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use herd_mio::cli::parse;
use herd_mio::config::{ConfigError, HerdConfig, Member, Overrides, Source};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::link::OPERATOR;
use herd_testkit::failure::{Failure, one_line};
use herd_testkit::output;

use crate::status::problems::Kind;
use crate::status::survey::Question;

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
    /// The TOML file that describes the herd [default: the course's herd of 2021]
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year
    #[arg(long, value_name = "PRESET")]
    herd: Option<String>,

    /// The file with the secret that the herd's servers share (or give it in HERD_SECRET)
    #[arg(long, value_name = "FILE", env = "HERD_SECRET_FILE")]
    secret_file: Option<PathBuf>,

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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.01..=3_600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not from 0.01 to 3600".to_owned()),
    }
}

/// Runs the command. `arguments` are the program's, and the first of them is `status`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let cli: Cli = match parse(arguments) {
        Ok((cli, _)) => cli,
        Err(error) if error.exit_code() == 0 => return output::show(&error),
        Err(error) => {
            return Failure::Usage(one_line(&error, "herd-client status")).tell();
        }
    };
    run(&cli).unwrap_or_else(|failure| failure.tell())
}

fn prepare(cli: &Cli) -> Result<(HerdConfig, Question), ConfigError> {
    let source = match (&cli.config, &cli.herd) {
        (Some(path), _) => Source::File(path.clone()),
        (None, Some(year)) => Source::Preset(year.clone()),
        (None, None) => Source::Name,
    };
    let herd = HerdConfig::load(&source, cli.server.as_deref())?;
    let secret = std::env::var("HERD_SECRET")
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    let overrides = Overrides {
        secret_file: cli.secret_file.clone(),
        secret: secret.map(|text| Secret::new(text.into_bytes())),
        ..Overrides::default()
    };
    let (secrets, _) = herd.secrets(&overrides)?;
    let tls = herd.tls_files(OPERATOR).read_for_neighbours()?;
    let question = Question {
        secrets,
        tls,
        timeout: cli.timeout,
    };
    Ok((herd, question))
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let (herd, question) = prepare(cli)?;
    let is_wanted = |member: &&Member| cli.server.as_ref().is_none_or(|name| *name == member.name);
    let members: Vec<&Member> = herd.members.iter().filter(is_wanted).collect();
    if members.is_empty() {
        let names: Vec<_> = herd.members.iter().map(|member| &*member.name).collect();
        return Err(Failure::Usage(format!(
            "{} has no server {:?}; its servers are {}",
            herd.title,
            cli.server.as_deref().unwrap_or_default(),
            names.join(", ")
        )));
    }
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
