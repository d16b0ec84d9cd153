//! `cargo demo`: starts the herd of 2021 as five real processes, talks with it, checks every answer, and leaves it up to be played with.
//!
//! A map of the house, from the outside in:
//!
//! | file | |
//! |---|---|
//! | `main.rs` | the order of things: build, start, talk, stay, clean up |
//! | `cli.rs` | the command line |
//! | `server_binary.rs` | has cargo build the server, and finds where it put it |
//! | `herd.rs` | the five processes, and the guard that none outlives the demo |
//! | `plan.rs` | the herd on paper: names, links, ports, the config file |
//! | `conversation.rs` | what is said to the herd, and why |
//! | `question.rs` | one command over TCP, one answer |
//! | `answer.rs` | what a right answer is |
//! | `stage.rs`, `picture.rs` | everything that is shown |
//! | `events.rs` | signals and the children's output: all that is waited for |
//! | `stop.rs`, `clock.rs` | what their names say |
//!
//! Threads, not an event loop: this is the other side of the wire, and it should share as little as can be with what it shows.

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
        // As a shell reports a program that a signal ended; the numbers are small.
        Err(Stop::Signal(number)) => ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX)),
    }
}

fn run(cli: &Cli, stage: &mut Stage) -> Result<(), Stop> {
    // First of all: from here on a signal is an orderly end.
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
        return failure(format!("{what}\nLogs and config are kept in {kept}"));
    }
    played
}

/// All that happens while there is a temporary directory. When this returns, however it does, no server is running.
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

    // Declared after the stand-in, so dropped before it: nobody is asked who is gone already.
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
        stage.remark("All servers have stopped; nothing is left behind.");
        Ok(())
    } else {
        failure(complaints.join("\n"))
    }
}

/// Leaves the herd up until a signal comes, which is the good end, or nobody is left.
fn stay(
    herd: &mut Herd,
    directory: &Path,
    events: &mut Events,
    stage: &mut Stage,
) -> Result<(), Stop> {
    stage.what_next(herd.plan(), directory, |who| herd.process(who));
    if stage.is_deaf() {
        // Whoever was to read this is gone: nobody knows that there is a herd to talk to.
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
            "failed while the herd was up: {}",
            failed.join(", ")
        ))
    }
}

/// 32 hexadecimal digits that nobody can guess.
fn random_word() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}
