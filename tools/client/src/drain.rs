//! `herd-client drain`: has a server drain and stop.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::standing::{Done, Draining, Wish};
use clap::Parser;
use herd_mio::config::Member;
use herd_mio::core::base::counted::Counted;
use herd_testkit::failure::Failure;
use herd_testkit::output;

use crate::operator::{self, HerdOptions, seconds};
use crate::survey::{self, Answer, Question};

/// Have a server drain, and then stop
///
/// From now on the server takes no new clients: connections to its port for clients are refused. It
/// closes its clients one after another over limits.drain_ms, so that they do not all connect to
/// another server at once: first those that are silent, and none in the middle of an answer. Its
/// links stay until it stops. SIGUSR2 does the same.
///
/// The command ends when the server has begun. A second drain changes nothing. SIGTERM stops a
/// server that drains at once.
#[derive(Parser)]
#[command(name = "herd-client drain", bin_name = "herd-client drain", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    /// The server's name in its herd
    name: String,

    #[command(flatten)]
    herd: HerdOptions,

    /// How long all of it may take; the drain itself takes longer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
}

const AFTER_HELP: &str = "\
Examples:
  herd-client drain Riley                          in the herd of 2021 on this machine
  herd-client drain Alice --config herd.toml       in your own herd
  herd-client drain Alice --config herd.toml && while kill -0 PID; do sleep 1; done
                                                   and wait until it has stopped

Exit status: 0 if the server drains; 1 if not, or if that is not known; 2 for a mistake in usage or
configuration.";

/// The command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The command; `arguments` are those of the program, the first of them `drain`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    operator::main("herd-client drain", arguments, |cli| {
        run(&cli).map(|()| output::status(0))
    })
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let name = &*cli.name;
    let (herd, question) = cli.herd.read(Some(name), cli.timeout)?;
    let members: Vec<&Member> = herd.members.iter().filter(|it| it.name == name).collect();
    let wish = Question {
        wish: Some(Wish::Drain),
        ..question
    };
    let asked = survey::ask_all(&members, wish).pop();
    match asked.map(|one| one.answer) {
        Some(Ok(Answer {
            done: Some(Done::Draining(draining)),
            standing,
            ..
        })) => {
            output::say(told(name, draining, standing.is_draining == Some(true)));
            Ok(())
        }
        Some(Ok(_)) | None => Err(Failure::Failed(format!("{name} was not asked"))),
        Some(Err(reason)) => Err(Failure::Failed(format!(
            "{name} did not say that it drains ({reason}); ask again, which does no harm"
        ))),
    }
}

/// What the server does, in words.
fn told(name: &str, draining: Draining, did_before: bool) -> String {
    let Draining { clients, ms } = draining;
    let already = if did_before { " already" } else { "" };
    let stops = match clients {
        0 => "it has no clients, and stops now".to_owned(),
        clients => format!(
            "it closes {}, and stops within {:.1} s",
            Counted(clients, "client"),
            ms as f64 / 1_000.0
        ),
    };
    format!("{name} drains{already}: {stops}\n")
}
