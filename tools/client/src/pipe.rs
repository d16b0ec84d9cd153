//! A script's commands, pipelined: sent without waiting for answers.
//!
//! ```text
//!   input ──► sender's thread ────────── commands ──────────► server
//!                    │                                           │
//!                    └── steps: what to expect (bounded) ──► this thread ◄── answers ──┘ ──► standard output
//! ```
//!
//! Two threads, because a server stops reading commands while its answers are not read, and a client that only wrote would then
//! wait for ever (`tests/pipe.rs`, a_server_that_is_slow_and_buffers_nothing). The channel between them is what bounds the memory:
//! the sender waits when it is too far ahead of the answers.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use herd_client::dial::Target;

use crate::connection::{Broken, Connection};
use crate::failure::{self, Failure, Status, Stop};
use crate::input::{Input, Next, Step};
use crate::show::Show;
use crate::wire::Wire;

/// Batches that the sender may be ahead of the answers; a batch has at most some 200 KB of commands.
const BATCHES_AHEAD: usize = 8;

/// Sends all of the input; prints all answers.
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
        // A line was too long, so the server has closed the connection: what follows that line needs a new one.
    }
}

/// Uses one connection up; gives back what is left of the input.
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
    // Not joined if something goes wrong: it may be waiting for input, and ends with the process.
    let sending = thread::spawn(move || send(input, &wire, &sender));

    let mut status = Status::Fine;
    let mut due = VecDeque::new();
    loop {
        let expected = match due.front() {
            Some(Step::Answer(expected)) => *expected,
            Some(Step::Mistake(what)) => {
                out.flush()?;
                failure::tell(what);
                status.worsen(Status::Usage);
                due.pop_front();
                continue;
            }
            None => {
                // Nothing is due, so this may take as long as whoever writes the input.
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

/// The sender's thread. Errors are those of the input; those of the connection show on its reading side, too.
fn send(mut input: Input, wire: &Wire, steps: &SyncSender<Vec<Step>>) -> io::Result<Input> {
    loop {
        let batch = input.next_batch()?;
        // First what to expect, then what brings it about: an answer never comes unexpected.
        let sent = steps.send(batch.steps).is_ok() && wire.send(&batch.bytes).is_ok();
        if !sent || batch.next == Next::Nothing {
            wire.finish();
            return Ok(input);
        }
    }
}

/// Commands that were sent, or were about to be, and have no answer.
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
