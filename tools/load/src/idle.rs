//! Measures idle connections, which send nothing or an incomplete command. It measures their
//! memory, and the latency of one active client among them.

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

/// The number of connections before the next check that the server has accepted them. It is below
/// the backlog of any server.
const MADE_AT_ONCE: usize = 50;

/// The length of an incomplete command.
const HALF_BYTES: usize = 2_000;

/// The result.
pub(crate) struct Idle {
    pub(crate) alone: Outcome,
    /// `None` if a signal came before that part.
    pub(crate) among: Option<Outcome>,
    pub(crate) memory: Vec<IdleMemory>,
}

/// Measures one client alone, opens the other connections, and measures it again.
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

    // A server accepts in order and between answers. So when this one is answered, all earlier ones
    // are accepted.
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
                trouble.in_words(&crew.target, number + 1, &Conversation::default())
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
                trouble.in_words(&crew.target, number + 1, &Conversation::default())
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

/// The error if the server closes a connection with an incomplete command, which it may do.
fn cut_off(target: &Target, number: usize) -> Failure {
    Failure::Failed(format!(
        "{target} closed connection {} because of its incomplete command; set the server's limits.line_ms to more than the time of this run",
        number + 1
    ))
}

fn memory_of(pids: &[u32]) -> Result<Vec<u64>, Failure> {
    let memory: Result<Vec<u64>, String> = pids.iter().map(|&pid| rss_bytes(pid)).collect();
    memory.map_err(Failure::Failed)
}

/// Checks that an idle connection is still open, and that the server has sent nothing.
fn still_there(line: &mut Line) -> Result<(), Trouble> {
    line.wait_no_more()?;
    let mut byte = [0];
    match line.read(&mut byte) {
        Ok(0) => Err(Trouble::Ended),
        Ok(_) => Err(Trouble::Wrong(Box::new(Wrong {
            what: "an answer without a command".into(),
            sent: Vec::new(),
            expected: "nothing".into(),
            got: byte.to_vec(),
        }))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}
