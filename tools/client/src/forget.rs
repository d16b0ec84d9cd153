//! `herd-client forget`: has a herd forget a client.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use herd_client::standing::Forgotten;
use herd_mio::config::Member;
use herd_mio::core::wire::escape::Escaped;
use herd_mio::core::wire::message::{MAX_CLIENT_BYTES, is_client_name};
use herd_testkit::failure::Failure;
use herd_testkit::output;

use crate::operator::{self, HerdOptions, seconds};
use crate::survey::{self, Question};

/// Have a herd forget a client
///
/// One server is asked. It replaces the client's position by a tombstone, which it writes down and
/// sends to its neighbours, and they to theirs. From then on no server answers where the client is,
/// until the client says so anew. A server that is down forgets it when it is linked again.
///
/// Logs, older copies of data directories, and what others were told are not touched. The old
/// position leaves a server's journal with its next compaction.
#[derive(Parser)]
#[command(name = "herd-client forget", bin_name = "herd-client forget", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    /// The client's name, as in its IAMAT
    client: OsString,

    #[command(flatten)]
    herd: HerdOptions,

    /// Which server is asked [default: the first of the herd that answers]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,

    /// How long each of the two steps may take: to ask how the servers are, and to forget
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
}

const AFTER_HELP: &str = "\
Examples:
  herd-client forget kiwi                                          in the herd of 2021 on this machine
  herd-client forget kiwi --config herd.toml --server Alice        in your own herd
  herd-client forget --config herd.toml -- -x                      a client whose name begins with -

Exit status: 0 if it is forgotten, also if the server did not know it; 1 if not, or if that is not
known; 2 for a mistake in usage or configuration.";

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
            "{shown:?} cannot be the name of a client: it has white space, no byte, or more than {MAX_CLIENT_BYTES}"
        )));
    }
    let server = cli.server.as_deref();
    let (herd, question) = cli.herd.read(server, cli.timeout)?;
    let members: Vec<&Member> = herd.members.iter().collect();
    let again = Question {
        secrets: question.secrets.clone(),
        tls: question.tls.clone(),
        timeout: question.timeout,
        forget: Some(client),
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
                    "nothing is forgotten: {} runs {version}, which does not understand that a client is forgotten; upgrade it first",
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
        Some(Ok(answer)) if answer.forgotten.is_some() => {
            let text = answer.forgotten.map(|it| told(&shown, name, it));
            output::say(text.unwrap_or_default());
        }
        Some(Ok(_)) | None => {
            return Err(Failure::Failed(format!("{name} was not asked")));
        }
        Some(Err(reason)) => {
            return Err(Failure::Failed(format!(
                "{name} did not say that {shown} is forgotten ({reason}); ask again, which does no harm"
            )));
        }
    }
    for one in silent {
        output::say(format_args!(
            "{one}: it forgets {shown} when it is linked again; it has to run this version\n"
        ));
    }
    Ok(())
}

/// What came of it, in words.
fn told(client: &str, server: &str, forgotten: Forgotten) -> String {
    let Forgotten { was_known, ttl_ms } = forgotten;
    let first = match was_known {
        true => {
            format!("{client} is forgotten: {server} has written it down, and tells its neighbours")
        }
        false => format!(
            "{server} did not know {client}; it has written down that {client} is forgotten, and tells its neighbours, which may know it"
        ),
    };
    let kept = match ttl_ms {
        0 => "it keeps the tombstone for ever, because limits.record_ttl_ms is 0".to_owned(),
        ms => format!("it keeps the tombstone for {} s", ms.div_ceil(1_000)),
    };
    format!("{first}\n{kept}; the next IAMAT of {client} makes it known again\n")
}
