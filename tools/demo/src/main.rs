//! `cargo demo`: starts the herd of 2021 as five real processes, sends it commands, and checks
//! every answer. Then it leaves the herd running for the user.
//!
//! The files, from the outside in:
//!
//! | file | |
//! |---|---|
//! | `main.rs` | the order of steps: build, start, talk, stay, clean up |
//! | `cli.rs` | the command line |
//! | `server_binary.rs` | has cargo build the server, and finds the program |
//! | `herd.rs` | the five processes, and the guard that ends all of them with the demo |
//! | `plan.rs` | names, links, ports and the config file |
//! | `conversation.rs` | the commands that the servers get, and why |
//! | `question.rs` | one command over TCP, one answer |
//! | `answer.rs` | checks an answer |
//! | `stage.rs`, `picture.rs` | everything that is shown |
//! | `events.rs` | signals and the children's output: all that the demo waits for |
//! | `stop.rs` | why the demo ends early |
//!
//! The demo uses threads instead of an event loop: it is a client, and should share little code
//! with the server that it shows.

#![forbid(unsafe_code)]

mod answer;
mod cli;
mod conversation;
mod events;
mod herd;
mod picture;
mod plan;
mod question;
mod server_binary;
mod stage;
mod stop;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use herd_places::{Options, Places};
use herd_testkit::{output, signals};

use crate::cli::Cli;
use crate::events::Events;
use crate::herd::{Herd, Secrets};
use crate::plan::Who;
use crate::stage::Stage;
use crate::stop::{Stop, failure};

fn main() -> ExitCode {
    signals::unblock();
    let cli: Cli = match output::command_line() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let mut stage = Stage::new(!cli.once);
    match run(&cli, &mut stage) {
        Ok(()) => output::status(0),
        Err(Stop::Failure(what)) => {
            stage.failure(&what);
            ExitCode::FAILURE
        }
        // The exit status of a shell for a program that a signal ended. Signal numbers are small
        // enough for it.
        Err(Stop::Signal(number)) => ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX)),
    }
}

fn run(cli: &Cli, stage: &mut Stage) -> Result<(), Stop> {
    // First of all: from here on a signal ends the demo in order.
    let mut events = Events::start()?;
    stage.banner();
    let binary = match &cli.server_binary {
        Some(path) => fs::canonicalize(path)
            .or_else(|error| failure(format!("there is no server {}: {error}", path.display())))?,
        None => {
            stage.remark("Building the server (only the first time takes a while) …");
            server_binary::build(&mut events)?
        }
    };
    let mut directory = tempfile::Builder::new()
        .prefix("herd-demo-")
        .tempdir()
        .or_else(|error| failure(format!("cannot make a temporary directory: {error}")))?;

    let played = play(cli.once, &binary, directory.path(), &mut events, stage);
    if let Err(Stop::Failure(what)) = played {
        directory.disable_cleanup(true);
        let kept = directory.path().display();
        return failure(format!(
            "{what}\nThe logs and the config file are in {kept}"
        ));
    }
    played
}

/// The part of the demo that uses the temporary directory. No server is running when it returns.
fn play(
    once: bool,
    binary: &Path,
    directory: &Path,
    events: &mut Events,
    stage: &mut Stage,
) -> Result<(), Stop> {
    let secrets = Secrets {
        herd: random_word()?,
        places_key: random_word()?,
    };
    let options = Options {
        key: secrets.places_key.clone(),
        ..Options::default()
    };
    let places = Places::start(options).or_else(|error| {
        failure(format!(
            "cannot start the stand-in for Google Places: {error}"
        ))
    })?;
    fs::write(directory.join(plan::CA_FILE), places.ca_pem())?;

    // Declared after the stand-in, so dropped before it. So servers can ask the stand-in until they
    // end.
    let mut herd = Herd::new(binary, directory, secrets);
    let mut outcome = herd
        .start(&places.url(), events, stage)
        .and_then(|()| conversation::play(&mut herd, &places, events, stage));
    if let Err(Stop::Failure(what)) = &mut outcome {
        what.push_str(&herd.obituaries(events));
    }
    if outcome.is_ok() && !once {
        outcome = stay(&mut herd, directory, events, stage);
    }
    if !matches!(outcome, Err(Stop::Failure(_))) {
        stage.remark("Stopping the herd …");
    }
    let complaints = herd.stop();
    outcome?;
    if complaints.is_empty() {
        stage.remark("All servers have stopped, and all files are removed.");
        Ok(())
    } else {
        failure(complaints.join("\n"))
    }
}

/// Leaves the herd running until a signal comes or all servers have ended. A signal is the usual
/// end.
fn stay(
    herd: &mut Herd,
    directory: &Path,
    events: &mut Events,
    stage: &mut Stage,
) -> Result<(), Stop> {
    stage.what_next(herd.plan(), directory, |who| herd.process(who));
    if stage.is_deaf() {
        // The output is closed, so no user reads that the herd is running.
        return Ok(());
    }
    let mut failed = Vec::new();
    while Who::ALL.into_iter().any(|who| herd.process(who).is_some()) {
        match events.next(None) {
            Ok(None) => {}
            Ok(Some(event)) => {
                if let Some(who) = herd.ended(&event) {
                    stage.report(&herd.obituary(who));
                    if herd.failed(who) {
                        failed.push(who.name());
                    }
                }
            }
            Err(Stop::Signal(_)) => break,
            Err(failure) => return Err(failure),
        }
    }
    stage.remark("");
    if failed.is_empty() {
        Ok(())
    } else {
        failure(format!(
            "failed while the herd was running: {}",
            failed.join(", ")
        ))
    }
}

/// 32 random hexadecimal digits.
fn random_word() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}
