//! Builds and runs the checks, within time limits.

use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::clock;
use herd_testkit::stop::Stop;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::copy::Copy;
use crate::mutants::{CaughtBy, Target};

/// The time limit of a build. The first one builds the dependencies too.
const BUILD: Duration = Duration::from_secs(900);
/// The time limit of a check.
const CHECK: Duration = Duration::from_secs(240);
/// After a kill, other processes of the group get so long to end. A zombie that no process reaps
/// stays for ever.
const LAST_ONES: Duration = Duration::from_secs(1);
/// The interval in which a running command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// At most so many characters of a reason are shown.
const REASON_CHARS: usize = 170;

/// How a command ended.
pub(crate) enum Ran {
    /// With status 0, after this time and with this output.
    Well(Duration, String),
    /// With another status, after this time and with this output.
    Badly(Duration, String),
    /// It was killed at its time limit.
    Killed(Duration),
}

/// Builds the check.
pub(crate) fn build(copy: &Copy, by: CaughtBy, stop: &Stop) -> Result<Ran, String> {
    let mut cargo = cargo(copy);
    match by {
        CaughtBy::Simulation { .. } => {
            cargo.args(["build", "-q", "--release", "-p", "herd-simulate"])
        }
        CaughtBy::Test {
            package, target, ..
        } => test(&mut cargo, package, target).arg("--no-run"),
    };
    run(cargo, BUILD, stop)
}

/// Runs the check.
pub(crate) fn check(copy: &Copy, by: CaughtBy, stop: &Stop) -> Result<Ran, String> {
    let mut cargo = cargo(copy);
    match by {
        CaughtBy::Simulation { seeds, herd } => {
            cargo
                .args(["run", "-q", "--release", "-p", "herd-simulate", "--"])
                .args(["--first", "0", "--seeds", &seeds.to_string()]);
            if let Some(herd) = herd {
                cargo.args(["--herd", herd]);
            }
        }
        CaughtBy::Test {
            package,
            target,
            name,
        } => {
            test(&mut cargo, package, target).arg(name);
        }
    }
    run(cargo, CHECK, stop)
}

fn cargo(copy: &Copy) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(copy.directory())
        .env("CARGO_TARGET_DIR", copy.target())
        // A killed test leaves files behind. They are removed with the copy.
        .env("TMPDIR", copy.temporary())
        // With warnings as errors, most mutants would not build.
        .env_remove("RUSTFLAGS");
    cargo
}

fn test<'a>(cargo: &'a mut Command, package: &str, target: Target) -> &'a mut Command {
    cargo.args(["test", "-q", "-p", package]);
    match target {
        Target::Library => cargo.arg("--lib"),
        Target::Integration(name) => cargo.args(["--test", name]),
    }
}

/// Runs a command to its end, its deadline, or a signal.
fn run(mut command: Command, deadline: Duration, stop: &Stop) -> Result<Ran, String> {
    let failed = |error: io::Error| format!("cannot run cargo: {error}");
    // The output goes to a file: a full pipe would block the command.
    let mut output = tempfile::tempfile().map_err(failed)?;
    let started = clock::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output.try_clone().map_err(failed)?)
        .process_group(0) // so that a kill reaches its children too
        .spawn()
        .map_err(failed)?;
    let status = wait(&mut child, started + deadline, stop).map_err(failed)?;
    if let Some(signal) = stop.signal() {
        return Err(format!("stopped by signal {signal}; the copy is removed"));
    }
    let took = started.elapsed();
    let mut text = Vec::new();
    output.rewind().map_err(failed)?;
    output.read_to_end(&mut text).map_err(failed)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(match status {
        Some(status) if status.success() => Ran::Well(took, text),
        Some(_) => Ran::Badly(took, text),
        None => Ran::Killed(took),
    })
}

/// Waits for the command's status. `None` means that it was killed.
fn wait(child: &mut Child, deadline: Instant, stop: &Stop) -> io::Result<Option<ExitStatus>> {
    while clock::now() < deadline && stop.signal().is_none() {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK_EVERY);
    }
    let group = Pid::from_child(child);
    kill_process_group(group, Signal::KILL)?;
    child.wait()?;
    // The rest of the group may still write into the copy until it has ended.
    let deadline = clock::now() + LAST_ONES;
    while clock::now() < deadline && test_kill_process_group(group).is_ok() {
        thread::sleep(LOOK_EVERY);
    }
    Ok(None)
}

/// The line of an output that best says why something failed.
pub(crate) fn reason(text: &str) -> String {
    // Signs of the simulator, a failed test, a panic and the compiler. Cargo adds an error line
    // after a failed test, so `error` comes last.
    let signs = ["FAILED:", " stdout ----", "panicked at ", "error"];
    let line = signs
        .iter()
        .find_map(|sign| text.lines().find(|line| line.contains(sign)));
    let line = line.or_else(|| text.lines().last()).unwrap_or_default();
    let line = line.split_once("FAILED:").map_or(line, |(_, why)| why);
    let line = line.trim_start_matches("---- ");
    let line = line.trim_end_matches(" stdout ----");
    line.trim().chars().take(REASON_CHARS).collect()
}

/// Whether a test run found no test of the given name.
pub(crate) fn ran_nothing(text: &str) -> bool {
    text.lines().any(|line| line == "running 0 tests")
}
