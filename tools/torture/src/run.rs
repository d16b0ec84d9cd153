//! One run. The server under test is started with its fault, the conversation is played, and the
//! server is stopped and started again. All of that is judged.
//!
//! ```text
//!   start ──► ready? ──► link, conversation, agreement, descriptors ──► SIGTERM ──► status, last words
//!                └────────────────── ended by itself ──────────────────────┘          │
//!                                                    what the neighbour holds ◄───────┤
//!                            started again, alone: what the journal holds ◄───────────┘
//! ```

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use herd_testkit::clock;
use rustix::process::Signal;

use crate::case::Case;
use crate::descriptors::Descriptors;
use crate::ledger::{Client, EARLIER, KIWI, Ledger, MANGO, PLUM};
use crate::server::{ERR, Server};
use crate::stage::{Earlier, NEIGHBOUR, Stage, VICTIM};
use crate::strace::{self, Watch};
use crate::talk::{self, Told};
use crate::trace;
use crate::verdict::{Failure, Kind, Outcome, Reply};

/// The time until the server has to be ready, with any fault.
const READY: Duration = Duration::from_secs(6);
/// The time limit of a conversation.
const CONVERSATION: Duration = Duration::from_secs(20);
/// The time limit of a stop. The server's own limit is 1.5 s.
const STOP: Duration = Duration::from_secs(4);
/// The time limit after a second signal, which ends the server at once.
const SECOND_STOP: Duration = Duration::from_secs(2);
/// With more failed calls than this, the server repeats the call without a pause.
const SPINNING: usize = 2_000;
/// At most so many failed calls are shown.
const SHOWN_CALLS: usize = 3;
/// At most so many lines of the log are shown.
const SHOWN_LINES: usize = 15;
/// The server complains about its log on the standard error too. Such a line is not the reason of
/// its end.
const ABOUT_THE_LOG: [&str; 2] = [
    "herd-mio: cannot write the log",
    "herd-mio: cannot open the log",
];

/// The parts that all runs share.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) program: &'a Path,
    pub(crate) earlier: &'a Earlier,
    /// The open descriptors of a healthy server that is linked and has no clients.
    pub(crate) baseline: Descriptors,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
    pub(crate) failures: Vec<Failure>,
    /// The refusals that clients got.
    pub(crate) refusals: Vec<String>,
    /// The server's end.
    pub(crate) end: String,
    /// The first failed calls as strace shows them, and the number of all.
    pub(crate) calls: Vec<String>,
    pub(crate) call_count: usize,
    /// The end of the server's log.
    pub(crate) log: Vec<String>,
}

/// The result of the run without a fault, in which strace traces every call.
#[derive(Debug)]
pub(crate) struct Dry {
    pub(crate) trace: String,
    /// The run's directory, which is removed by now.
    pub(crate) directory: String,
    pub(crate) baseline: Descriptors,
}

/// Plays the conversation without a fault.
///
/// # Errors
/// The conversation fails even so.
pub(crate) fn dry(program: &Path, earlier: &Earlier) -> Result<Dry, String> {
    let mut stage = Stage::set(program, earlier)?;
    let mut ledger = earlier.ledger();
    let mut life = live(&mut stage, Watch::All, None, None, &mut ledger)?;
    judge_memory(&mut life, &mut stage, &ledger);
    let mut complaints: Vec<String> = life.told.failures.iter().map(Failure::to_string).collect();
    complaints.extend(life.told.refusals.iter().cloned());
    if !life.end.starts_with("status 0") {
        complaints.push(life.end.clone());
    }
    if !complaints.is_empty() {
        return Err(format!(
            "the conversation fails even without a fault:\n  {}\nthe end of the server's log:\n  {}",
            complaints.join("\n  "),
            life.log.join("\n  ")
        ));
    }
    Ok(Dry {
        trace: strace::trace(stage.path(), life.process),
        directory: stage.path().display().to_string(),
        baseline: life.told.before,
    })
}

/// Plays the conversation with a fault. Logs and trace are copied to `keep`.
///
/// # Errors
/// The run itself cannot be made: no port, no directory, no strace.
pub(crate) fn run(common: &Common<'_>, case: &Case, keep: Option<&Path>) -> Result<Report, String> {
    let mut stage = Stage::set(common.program, common.earlier)?;
    let mut ledger = common.earlier.ledger();
    let watch = Watch::Failing(case);
    let baseline = Some(&common.baseline);
    let mut life = live(&mut stage, watch, Some(case), baseline, &mut ledger)?;
    judge_memory(&mut life, &mut stage, &ledger);

    let trace = strace::trace(stage.path(), life.process);
    let failed: Vec<String> = trace::calls(&trace)
        .iter()
        .filter(|call| call.is_injected)
        .map(|call| format!("{}({}", call.name, call.text))
        .collect();
    if failed.len() > SPINNING {
        let count = failed.len();
        life.fail(Kind::Spun, format!("the call failed {count} times"));
    }
    let Told {
        failures, refusals, ..
    } = life.told;
    let outcome = if !failures.is_empty() {
        Outcome::Failed
    } else if failed.is_empty() {
        Outcome::NotReached
    } else if life.has_ended {
        Outcome::Ended
    } else if refusals.is_empty() {
        Outcome::Unnoticed
    } else {
        Outcome::Refused
    };
    if let Some(keep) = keep {
        let to = keep.join(case.to_string().replace('/', "_"));
        stage.keep(&to).map_err(|error| {
            format!(
                "cannot copy the files of a run to {}: {error}",
                to.display()
            )
        })?;
    }
    Ok(Report {
        case: case.clone(),
        outcome,
        failures,
        refusals,
        end: life.end,
        call_count: failed.len(),
        calls: failed.into_iter().take(SHOWN_CALLS).collect(),
        log: life.log,
    })
}

/// A life of the server under test.
struct Life {
    process: u32,
    told: Told,
    /// Whether it ended by itself, with status 1 or 2 and a reason.
    has_ended: bool,
    /// How it ended, as text.
    end: String,
    /// The end of its log.
    log: Vec<String>,
}

impl Life {
    fn fail(&mut self, kind: Kind, what: impl Into<String>) {
        self.told.failures.push(Failure::new(kind, what));
    }
}

/// Plays a life of the server from its start to its end.
fn live(
    stage: &mut Stage,
    watch: Watch<'_>,
    case: Option<&Case>,
    baseline: Option<&Descriptors>,
    ledger: &mut Ledger,
) -> Result<Life, String> {
    let deadline = clock::now() + READY + CONVERSATION;
    let mut victim = stage.start_victim(watch)?;
    let mut life = Life {
        process: victim.process.id(),
        told: Told::default(),
        has_ended: false,
        end: String::new(),
        log: Vec::new(),
    };
    let is_mute = is_mute(case);
    match victim.ready(clock::now() + READY) {
        Some(listening) => {
            life.told = talk::play(
                stage,
                &mut victim,
                listening,
                ledger,
                case,
                baseline,
                deadline,
            );
        }
        // The server runs, but the fault keeps it from printing its address.
        None if !victim.process.has_ended() && is_mute => {
            let what = "the server did not print its addresses".to_owned();
            life.told.refusals.push(what);
        }
        None if !victim.process.has_ended() => {
            let seconds = READY.as_secs();
            life.fail(Kind::Hung, format!("it is not ready after {seconds} s"));
        }
        None => {}
    }
    let was_stopped = !victim.process.has_ended();
    let status = stop(&mut victim, &mut life);
    judge_end(&mut life, &victim, status, was_stopped, is_mute);
    life.log = last_lines(&stage.log());
    Ok(life)
}

/// Whether the fault keeps the server from writing to its standard output or error.
fn is_mute(case: Option<&Case>) -> bool {
    case.is_some_and(|case| {
        let object = case.target.object.as_deref();
        case.target.call == "write" && matches!(object, None | Some("out") | Some(ERR))
    })
}

/// Stops the server. Returns its status, unless it had to be killed.
fn stop(victim: &mut Server, life: &mut Life) -> Option<ExitStatus> {
    let left = |patience| -> Instant { clock::now() + patience };
    victim.process.signal(Signal::TERM);
    if let Some(status) = victim.process.wait(left(STOP)) {
        return Some(status);
    }
    victim.process.signal(Signal::TERM);
    let seconds = STOP.as_secs();
    if let Some(status) = victim.process.wait(left(SECOND_STOP)) {
        life.fail(
            Kind::Stubborn,
            format!("the server still ran {seconds} s after SIGTERM; a second SIGTERM ended it"),
        );
        return Some(status);
    }
    life.fail(
        Kind::Stubborn,
        format!("the server still ran {seconds} s after SIGTERM, and after a second SIGTERM"),
    );
    // Fails if the server has just ended.
    let _ = victim.process.kill();
    None
}

fn judge_end(
    life: &mut Life,
    victim: &Server,
    status: Option<ExitStatus>,
    was_stopped: bool,
    is_mute: bool,
) {
    let words = victim.words();
    // strace writes to the same standard error.
    let is_own = |line: &&str| !line.starts_with("strace: ");
    let words = words.lines().filter(is_own).collect::<Vec<_>>().join("\n");
    if words.contains("panicked at") {
        let line = words.lines().find(|line| line.contains("panicked at"));
        life.fail(Kind::Panicked, line.unwrap_or_default());
    }
    // The last line says why the server ended. Before it, there may be complaints about the log.
    let lines: Vec<&str> = words.lines().collect();
    let is_complaint = |line: &str| ABOUT_THE_LOG.iter().any(|start| line.starts_with(start));
    let says_why = match lines.split_last() {
        Some((last, before)) => {
            // A good reason has two parts: what the server tried, and the error of the system.
            let reason = last.strip_prefix("herd-mio: ");
            reason.is_some_and(|reason| reason.contains(": "))
                && before.iter().all(|line| is_complaint(line))
        }
        None => false,
    };
    let Some(status) = status else {
        life.end = "killed by the test".to_owned();
        return;
    };
    life.end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    if !words.trim_end().is_empty() {
        life.end.push_str(&format!(", {:?}", words.trim_end()));
    }
    match status.code() {
        Some(0) if was_stopped => {}
        Some(1 | 2) if says_why || is_mute => life.has_ended = true,
        Some(_) | None => {
            let what = life.end.clone();
            life.fail(Kind::BadEnd, what);
        }
    }
}

/// Checks that acknowledged positions survive: those of the neighbour in its table, those of the
/// server in its journal.
fn judge_memory(life: &mut Life, stage: &mut Stage, ledger: &Ledger) {
    let lost = |who: &str, client: Client, reply: Reply| match reply {
        Reply::Right => None,
        Reply::Bad(Failure { kind, what }) => Some(Failure::new(kind, format!("{who}: {what}"))),
        Reply::Refused(why) | Reply::NotYet(why) => Some(Failure::new(
            Kind::Lost,
            format!("{who}: {}: {why}", client.name),
        )),
        Reply::Silence => Some(Failure::new(Kind::Hung, format!("{who}: no answer"))),
    };
    let mut failures = Vec::new();
    if ledger.has_acknowledged(NEIGHBOUR, PLUM) {
        let reply = talk::recall(ledger, stage.neighbour_listening, PLUM);
        failures.extend(lost("the neighbour", PLUM, reply));
    }
    stage.neighbour.process.signal(Signal::TERM);
    match stage.neighbour.process.wait(clock::now() + STOP) {
        Some(status) if status.success() && stage.neighbour.words().is_empty() => {}
        status => failures.push(Failure::new(
            Kind::Neighbour,
            format!("it ended with {status:?}: {}", stage.neighbour.words()),
        )),
    }
    match stage.start_again() {
        Ok((mut server, listening)) => {
            for client in EARLIER.into_iter().chain([KIWI, MANGO]) {
                if ledger.has_acknowledged(VICTIM, client) {
                    let reply = talk::recall(ledger, listening, client);
                    failures.extend(lost("after its next start", client, reply));
                }
            }
            server.process.signal(Signal::TERM);
            let status = server.process.wait(clock::now() + STOP);
            if !status.is_some_and(|status| status.success()) {
                failures.push(Failure::new(
                    Kind::NoRestart,
                    format!("its next life ended with {status:?}: {}", server.words()),
                ));
            }
        }
        Err(words) => failures.push(Failure::new(Kind::NoRestart, words)),
    }
    life.told.failures.extend(failures);
}

fn last_lines(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    lines[from..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
