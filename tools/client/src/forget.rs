//! `herd-client forget`: has a herd forget a client.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use crate::standing::{Done, Forgotten, Wish};
use clap::Parser;
use herd_mio::config::Member;
use herd_mio::core::wire::escape::Escaped;
use herd_mio::core::wire::message::{MAX_CLIENT_BYTES, is_client_name};
use herd_testkit::failure::Failure;
use herd_testkit::output;

use crate::operator::{self, HerdOptions, seconds};
use crate::survey::{self, Answer, Question};

/// Make a herd forget a client
///
/// The command asks one server. That server replaces the client's position by a tombstone, writes
/// it to its journal, and sends it to its neighbours. They do the same. Then no server reports the
/// client's position, until the client sends a new one. A server that is down gets the tombstone
/// when it is linked again.
///
/// Logs, older copies of data directories, and answers that were already sent do not change. A
/// server's journal drops the old position at its next compaction.
#[derive(Parser)]
#[command(name = "herd-client forget", bin_name = "herd-client forget", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    /// The client's name, as in its IAMAT
    client: OsString,

    #[command(flatten)]
    herd: HerdOptions,

    /// The server to ask [default: the first of the herd that answers]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,

    /// The time limit of each of the two steps: to ask all servers for their status, and to forget
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
}

const AFTER_HELP: &str = "\
Examples:
  herd-client forget kiwi                                          in the herd of 2021 on this machine
  herd-client forget kiwi --config herd.toml --server Alice        in your own herd
  herd-client forget --config herd.toml -- -x                      a client whose name begins with -

Exit status: 0 if the client is forgotten, even if the server did not know it; 1 if it is not, or if
the result is unknown; 2 for a mistake in usage or configuration.";

/// The command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The command; `arguments` are those of the program, the first of them `forget`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    operator::main("herd-client forget", arguments, |cli| {
        run(cli).map(|()| output::status(0))
    })
}

fn run(cli: Cli) -> Result<(), Failure> {
    let client = cli.client.into_vec();
    let shown = Escaped(&client).to_string();
    if !is_client_name(&client) {
        return Err(Failure::Usage(format!(
            "{shown:?} cannot be the name of a client: it is empty, contains white space, or is longer than {MAX_CLIENT_BYTES} bytes"
        )));
    }
    let server = cli.server.as_deref();
    let (herd, question) = cli.herd.read(server, cli.timeout)?;
    let members: Vec<&Member> = herd.members.iter().collect();
    let again = Question {
        secrets: question.secrets.clone(),
        tls: question.tls.clone(),
        timeout: question.timeout,
        wish: Some(Wish::Forget(client)),
    };
    // A server of an older version refuses a tombstone, and the link that it comes by.
    let asked = survey::ask_all(&members, question);
    let mut silent = Vec::new();
    for one in &asked {
        match &one.answer {
            Ok(answer) if answer.standing.forgotten.is_some() => {}
            Ok(answer) => {
                let version = answer
                    .standing
                    .version
                    .as_deref()
                    .unwrap_or("an old version");
                return Err(Failure::Failed(format!(
                    "nothing is forgotten: {} runs {version}, which cannot forget a client; upgrade it first",
                    one.name
                )));
            }
            Err(reason) => silent.push(format!("{} does not answer ({reason})", one.name)),
        }
    }
    let is_meant = |name: &str| server.is_none_or(|server| server == name);
    let answering = asked
        .iter()
        .find(|one| one.answer.is_ok() && is_meant(&one.name));
    let target = answering.and_then(|one| members.iter().find(|member| member.name == one.name));
    let Some(target) = target else {
        return Err(Failure::Failed(format!(
            "nothing is forgotten: {}",
            silent.join("; ")
        )));
    };
    let answer = survey::ask_all(&[*target], again)
        .pop()
        .map(|one| one.answer);
    let name = &target.name;
    match answer {
        Some(Ok(Answer {
            done: Some(Done::Forgotten(forgotten)),
            ..
        })) => {
            output::say(in_words(&shown, name, forgotten));
        }
        Some(Ok(_)) | None => {
            return Err(Failure::Failed(format!("{name} was not asked")));
        }
        Some(Err(reason)) => {
            return Err(Failure::Failed(format!(
                "{name} did not confirm that {shown} is forgotten ({reason}); run the command again, which is safe"
            )));
        }
    }
    for one in silent {
        output::say(format_args!(
            "{one}: it will forget {shown} when it is linked again, if it runs this version\n"
        ));
    }
    Ok(())
}

/// The result as text.
fn in_words(client: &str, server: &str, forgotten: Forgotten) -> String {
    let Forgotten { was_known, ttl_ms } = forgotten;
    let first = match was_known {
        true => {
            format!(
                "{client} is forgotten: {server} has stored a tombstone, and sends it to its neighbours"
            )
        }
        false => format!(
            "{server} did not know {client}; it has stored a tombstone for {client}, and sends it to its neighbours, which may know it"
        ),
    };
    let kept = match ttl_ms {
        0 => "it never removes the tombstone, because limits.record_ttl_ms is 0".to_owned(),
        ms => format!("it keeps the tombstone for {} s", ms.div_ceil(1_000)),
    };
    format!("{first}\n{kept}; the next IAMAT of {client} ends that, and sets a new position\n")
}
