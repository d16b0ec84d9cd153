//! Connections that say nothing, or half a word: what they cost in memory, and whether one client among them is served as if it were
//! alone.

use std::io::{self, Read, Write};

use herd_client::dial::Target;
use herd_testkit::failure::Failure;

use crate::answers::Wrong;
use crate::conversation::Conversation;
use crate::crew::{Crew, Manner, Trouble, check_signals};
use crate::line::Line;
use crate::load::{self, Outcome, Plan};
use crate::process::{Watched, rss_bytes};
use crate::progress::Progress;
use crate::report::IdleMemory;
use crate::stop::Stop;
use crate::{cli::Speak, files};

/// Connections made before the server is asked to show that it has accepted them: fewer than any server lets wait.
const MADE_AT_ONCE: usize = 50;

/// What is sent of a command that is never finished.
const HALF_BYTES: usize = 2_000;

/// What came of it.
pub(crate) struct Idle {
    pub(crate) alone: Outcome,
    /// `None` if a signal came before.
    pub(crate) among: Option<Outcome>,
    pub(crate) memory: Vec<IdleMemory>,
}

/// Measures one client alone, makes the others, and measures it again.
pub(crate) fn run(
    crew: &mut Crew,
    manner: &Manner,
    plan: &Plan,
    speak: Speak,
    watched: (&mut Watched, &[u32]),
    progress: &mut Progress,
    stop: &Stop,
) -> Result<Idle, Failure> {
    let (watched, pids) = watched;
    files::allow(manner.connections + 2)?;
    let one = Manner {
        connections: 1,
        ..manner.clone()
    };
    crew.connect(&one, 1, progress)?;
    let alone = load::run(crew, plan, watched, progress, stop)?;
    if alone.interrupted || alone.trouble.is_some() {
        return Ok(Idle {
            alone,
            among: None,
            memory: Vec::new(),
        });
    }

    // Accepts are in order and between answers; so when this one is answered, whoever called before is connected.
    let mut gate = crew.call(0)?;
    crew.introduce(&mut gate, 0, std::iter::once(0))?;
    let before = memory_of(pids)?;
    let mut others = Vec::with_capacity(manner.connections);
    for number in 0..manner.connections {
        let mut line = crew.call(number + 1)?;
        match speak {
            Speak::Once => crew.introduce(&mut line, number + 1, std::iter::once(0))?,
            Speak::Never => {}
            Speak::Half => half_a_command(&mut line).map_err(|trouble| {
                trouble.told(&crew.target, number + 1, &Conversation::default())
            })?,
        }
        others.push(line);
        let is_last = others.len() == manner.connections;
        if others.len().is_multiple_of(MADE_AT_ONCE) || is_last {
            crew.introduce(&mut gate, 0, std::iter::once(0))?;
            progress.connecting(others.len(), manner.connections);
            check_signals(stop)?;
        }
    }
    let after = memory_of(pids)?;
    let memory = pids.iter().zip(before.into_iter().zip(after));
    let each = |(&pid, (before, after)): (&u32, (u64, u64))| IdleMemory {
        pid,
        rss_before_bytes: before,
        rss_after_bytes: after,
        bytes_per_connection: (after as f64 - before as f64) / manner.connections as f64,
    };
    let memory = memory.map(each).collect();

    let among = load::run(crew, plan, watched, progress, stop)?;
    for (number, line) in others.iter_mut().enumerate() {
        still_there(line).map_err(|trouble| match speak {
            Speak::Half => cut_off(&crew.target, number + 1),
            Speak::Never | Speak::Once => {
                trouble.told(&crew.target, number + 1, &Conversation::default())
            }
        })?;
    }
    Ok(Idle {
        alone,
        among: Some(among),
        memory,
    })
}

fn half_a_command(line: &mut Line) -> Result<(), Trouble> {
    let mut half = b"IAMAT ".to_vec();
    half.resize(HALF_BYTES, b'x');
    Ok(line.write_all(&half)?)
}

/// A server need not wait for ever for the rest of a command.
fn cut_off(target: &Target, number: usize) -> Failure {
    Failure::Failed(format!(
        "{target} did not wait for the rest of the command on connection {}: give it limits.line_ms beyond the time that this takes",
        number + 1
    ))
}

fn memory_of(pids: &[u32]) -> Result<Vec<u64>, Failure> {
    let memory: Result<Vec<u64>, String> = pids.iter().map(|&pid| rss_bytes(pid)).collect();
    memory.map_err(Failure::Failed)
}

/// A connection that says nothing must not be told anything either, least of all that it is over.
fn still_there(line: &mut Line) -> Result<(), Trouble> {
    line.wait_no_more()?;
    let mut byte = [0];
    match line.read(&mut byte) {
        Ok(0) => Err(Trouble::Ended),
        Ok(_) => Err(Trouble::Wrong(Box::new(Wrong {
            what: "nothing was asked".into(),
            sent: Vec::new(),
            expected: "nothing".into(),
            got: byte.to_vec(),
        }))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}
