//! Commands of a script, pipelined: they are sent without waiting for answers.
//!
//! ```text
//!   input ──► sender's thread ────────── commands ──────────► server
//!                    │                                           │
//!                    └── steps: what to expect (bounded) ──► this thread ◄── answers ──┘ ──► standard output
//! ```
//!
//! There are two threads, because a server stops reading commands while its answers are not read. A
//! client that only wrote would then wait for ever (`tests/pipe.rs`,
//! answers_are_read_while_commands_are_written). The channel between the threads bounds the memory:
//! the sender waits if it is too far ahead of the answers.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::dial::Target;

use crate::connection::{Broken, Connection};
use crate::failure::{self, Failure, Status, Stop};
use crate::input::{Input, Next, Step};
use crate::show::Show;
use crate::wire::Wire;

/// The sender may be so many batches ahead of the answers. A batch has at most about 200 KB of
/// commands.
const BATCHES_AHEAD: usize = 8;

/// Sends all input, and prints all answers.
pub(crate) fn run(
    target: &Target,
    timeout: Duration,
    mut input: Input,
    show: &Show,
    out: &mut impl Write,
) -> Result<Status, Stop> {
    let mut status = Status::Fine;
    loop {
        let connection = Connection::open(target, timeout)?;
        let (ended, rest) = exchange(connection, target, input, show, out)?;
        status.worsen(ended);
        input = rest;
        if !input.goes_on().map_err(|error| unreadable(&error))? {
            return Ok(status);
        }
        // The server closes the connection after a line that is too long. Later lines need a new
        // connection.
    }
}

/// Uses one connection until its end. Returns the rest of the input.
fn exchange(
    mut connection: Connection,
    target: &Target,
    input: Input,
    show: &Show,
    out: &mut impl Write,
) -> Result<(Status, Input), Stop> {
    let (sender, coming) = sync_channel(BATCHES_AHEAD);
    let wire = connection.wire.try_clone();
    let wire = wire.map_err(|error| Broken::Failed(error).failure(target, 0))?;
    // After a failure the thread is not joined: it may wait for input, and ends with the process.
    let sending = thread::spawn(move || send(input, &wire, &sender));

    let mut status = Status::Fine;
    let mut due = VecDeque::new();
    loop {
        let expected = match due.front() {
            Some(Step::Answer(expected)) => *expected,
            Some(Step::Mistake(what)) => {
                out.flush()?;
                failure::print(what);
                status.worsen(Status::Usage);
                due.pop_front();
                continue;
            }
            None => {
                // No answer is due. The wait for more input may be long, so the output is flushed
                // first.
                out.flush()?;
                match coming.recv() {
                    Ok(steps) => due.extend::<Vec<Step>>(steps),
                    Err(_) => break,
                }
                continue;
            }
        };
        let broken = match connection.answers.next(expected) {
            Ok(Some(answer)) => {
                status.worsen(show.answer(out, &answer)?);
                due.pop_front();
                continue;
            }
            Ok(None) => {
                out.flush()?;
                connection.receive().err()
            }
            Err(nonsense) => Some(nonsense.into()),
        };
        if let Some(broken) = broken {
            return Err(broken.failure(target, unanswered(&due, &coming)).into());
        }
    }
    let input = match sending.join() {
        Ok(input) => input.map_err(|error| unreadable(&error))?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    Ok((status, input))
}

/// The sender's thread. It returns errors of the input. The reading side sees errors of the
/// connection too.
fn send(mut input: Input, wire: &Wire, steps: &SyncSender<Vec<Step>>) -> io::Result<Input> {
    loop {
        let batch = input.next_batch()?;
        // The steps come before the bytes, so an answer never comes before its step.
        let sent = steps.send(batch.steps).is_ok() && wire.send(&batch.bytes).is_ok();
        if !sent || batch.next == Next::Nothing {
            wire.finish();
            return Ok(input);
        }
    }
}

/// The number of commands without an answer. Some of them may not have been sent.
fn unanswered(due: &VecDeque<Step>, coming: &Receiver<Vec<Step>>) -> usize {
    let is_answer = |step: &Step| matches!(step, Step::Answer(_));
    let not_begun = coming.try_iter().flatten();
    due.iter().filter(|step| is_answer(step)).count() + not_begun.filter(is_answer).count()
}

fn unreadable(error: &io::Error) -> Failure {
    Failure {
        status: Status::Usage,
        message: format!("cannot read the standard input: {error}"),
    }
}
