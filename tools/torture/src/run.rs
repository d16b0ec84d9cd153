//! One run: a stage is set, the server under test is started with its fault, the conversation is played, the server is stopped and
//! started again, and all of it is judged.
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

/// How long a server may take to be ready, whatever fails.
const READY: Duration = Duration::from_secs(6);
/// No conversation is longer.
const CONVERSATION: Duration = Duration::from_secs(20);
/// How long it may take to stop: its own limit is 1.5 s.
const STOP: Duration = Duration::from_secs(4);
/// And a second signal does not wait.
const SECOND_STOP: Duration = Duration::from_secs(2);
/// More failed calls than this in one run are made in a loop without a pause.
const SPINNING: usize = 2_000;
/// So many of the calls that were failed are shown.
const SHOWN_CALLS: usize = 3;
/// So many lines of the log.
const SHOWN_LINES: usize = 15;
/// A complaint about the log goes to the standard error too, and is not the reason of an end.
const ABOUT_THE_LOG: [&str; 2] = [
    "herd-mio: cannot write the log",
    "herd-mio: cannot open the log",
];

/// What all runs have in common.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) program: &'a Path,
    pub(crate) earlier: &'a Earlier,
    /// What a healthy server has open when it is linked and has no clients.
    pub(crate) baseline: Descriptors,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
    pub(crate) failures: Vec<Failure>,
    /// What was refused, in words.
    pub(crate) refusals: Vec<String>,
    /// How the server ended.
    pub(crate) end: String,
    /// The first calls that were failed, as strace has them, and how many there were.
    pub(crate) calls: Vec<String>,
    pub(crate) call_count: usize,
    /// The end of the server's log.
    pub(crate) log: Vec<String>,
}

/// The dry run: nothing is failed, every call is traced.
#[derive(Debug)]
pub(crate) struct Dry {
    pub(crate) trace: String,
    /// The run's directory, which is gone.
    pub(crate) directory: String,
    pub(crate) baseline: Descriptors,
}

/// Plays the conversation without a fault.
///
/// # Errors
/// It is not all right even so.
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
            "the conversation does not go well even when nothing is failed:\n  {}\nthe end of the server's log:\n  {}",
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

/// Plays it with one. `keep` is where to leave its logs and its trace.
///
/// # Errors
/// It is not the server that failed: no port, no directory, no strace.
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
        life.fail(Kind::Spun, format!("the call was failed {count} times"));
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
        stage
            .keep(&to)
            .map_err(|error| format!("cannot keep what a run left in {}: {error}", to.display()))?;
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
    /// With status 1 or 2, and its reason.
    has_ended: bool,
    /// How, in words.
    end: String,
    /// The end of its log.
    log: Vec<String>,
}

impl Life {
    fn fail(&mut self, kind: Kind, what: impl Into<String>) {
        self.told.failures.push(Failure::new(kind, what));
    }
}

/// From its start to its end.
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
        // It serves all the same, but nobody is told where.
        None if !victim.process.has_ended() && is_mute => {
            let what = "nobody is told where it listens".to_owned();
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

/// Whether it cannot write to its standard output or error.
fn is_mute(case: Option<&Case>) -> bool {
    case.is_some_and(|case| {
        let object = case.target.object.as_deref();
        case.target.call == "write" && matches!(object, None | Some("out") | Some(ERR))
    })
}

/// Has it stopped; returns its status, if it did not have to be killed.
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
            format!("{seconds} s after SIGTERM it was still there; a second one ended it"),
        );
        return Some(status);
    }
    life.fail(
        Kind::Stubborn,
        format!("it was still there {seconds} s after SIGTERM, and after a second one"),
    );
    // It may have ended just now.
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
    // strace has the same standard error.
    let is_own = |line: &&str| !line.starts_with("strace: ");
    let words = words.lines().filter(is_own).collect::<Vec<_>>().join("\n");
    if words.contains("panicked at") {
        let line = words.lines().find(|line| line.contains("panicked at"));
        life.fail(Kind::Panicked, line.unwrap_or_default());
    }
    // The last line says why; before it, there may be a complaint about the log.
    let lines: Vec<&str> = words.lines().collect();
    let is_complaint = |line: &str| ABOUT_THE_LOG.iter().any(|start| line.starts_with(start));
    let says_why = match lines.split_last() {
        Some((last, before)) => {
            // What went wrong, and where; not only what the system said.
            let reason = last.strip_prefix("herd-mio: ");
            reason.is_some_and(|reason| reason.contains(": "))
                && before.iter().all(|line| is_complaint(line))
        }
        None => false,
    };
    let Some(status) = status else {
        life.end = "it had to be killed".to_owned();
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

/// What was acknowledged is still there: the neighbour's in the neighbour, the server's in its journal.
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
