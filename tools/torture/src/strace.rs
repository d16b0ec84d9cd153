//! strace: whether it works here, and its command lines that trace a server or make one of its
//! calls fail.
//!
//! With `-D`, strace is a grandchild of this program, and the server is a child. So this program
//! gets the server's own process id, signals and exit status, as without strace.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use herd_testkit::clock;

use crate::case::Case;
use crate::trace;

/// The file in the run's directory to which strace writes.
pub(crate) const TRACE: &str = "trace";

const PROGRAM: &str = "strace";
/// The time limit for a traced program that does nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the process has ended, strace may write for so long.
const LAST_LINES: Duration = Duration::from_secs(5);

/// The calls to trace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch<'a> {
    /// Every call.
    All,
    /// The calls with the target of a case. Those that the case selects fail.
    Failing(&'a Case),
}

/// The beginning of a command line. The caller adds the program and its arguments. The directory is
/// the run's.
pub(crate) fn command(watch: Watch<'_>, directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    // `--seccomp-bpf`: only traced calls stop the process. `-y`: descriptors are shown with their
    // paths. `-q`: no messages of strace.
    command
        .args(["-D", "-f", "--seccomp-bpf", "-y", "-q"])
        .args(["-e", "signal=none"])
        .arg("-o")
        .arg(directory.join(TRACE));
    if let Watch::Failing(case) = watch {
        command
            .arg("-e")
            .arg(format!("trace={}", case.target.call))
            .arg("-e")
            .arg(case.injection());
        if let Some(path) = case.target.path(&directory.display().to_string()) {
            command.arg("-P").arg(path);
        }
    }
    command.arg("--");
    command
}

/// The trace of a process that has ended.
pub(crate) fn trace(directory: &Path, process: u32) -> String {
    let path = directory.join(TRACE);
    let read = || String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let complete = clock::wait_for(clock::now() + LAST_LINES, || {
        Some(read()).filter(|text| trace::is_complete(text, process))
    });
    complete.unwrap_or_else(read)
}

/// Checks that strace is installed, may trace, and knows all options that are used here.
///
/// # Errors
/// Why strace cannot be used.
pub(crate) fn probe() -> Result<(), String> {
    let directory = tempfile::tempdir()
        .map_err(|error| format!("cannot make a directory to try strace in: {error}"))?;
    let case = Case {
        target: crate::case::Target {
            call: "openat".to_owned(),
            object: Some("nothing".to_owned()),
        },
        error: "EMFILE".to_owned(),
        when: crate::case::When::Burst(1, 2),
    };
    let spawned = command(Watch::Failing(&case), directory.path())
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => "strace is not installed (apt install strace)".to_owned(),
        _ => format!("cannot run strace: {error}"),
    })?;
    let ended = clock::wait_for(clock::now() + PATIENCE, || child.try_wait().ok().flatten());
    if ended.is_none() {
        // Fails if the child has just ended.
        let _ = child.kill();
    }
    let process = child.id();
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let words = String::from_utf8_lossy(&output.stderr);
    if let Some(line) = words.lines().next() {
        return Err(format!("this strace lacks a needed option: {line}"));
    }
    // A strace that may not attach still runs the program, without a trace.
    let is_traced = trace::is_complete(&trace(directory.path(), process), process);
    if !(output.status.success() && is_traced) {
        return Err(format!(
            "strace is not permitted to trace: {}",
            output.status
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Only;

    fn arguments(watch: Watch<'_>) -> String {
        let command = command(watch, Path::new("/run/7"));
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        words.join(" ")
    }

    #[test]
    fn a_case_becomes_an_strace_command_line() {
        let case = |text: &str| text.parse::<Only>().unwrap().case().unwrap();
        let common = "-D -f --seccomp-bpf -y -q -e signal=none -o /run/7/trace";
        assert_eq!(arguments(Watch::All), format!("{common} --"));
        assert_eq!(
            arguments(Watch::Failing(&case("accept4:EMFILE:2"))),
            format!("{common} -e trace=accept4 -e inject=accept4:error=EMFILE:when=2 --")
        );
        assert_eq!(
            arguments(Watch::Failing(&case("write@riley.log:ENOSPC:3+"))),
            format!(
                "{common} -e trace=write -e inject=write:error=ENOSPC:when=3+ -P /run/7/riley.log --"
            )
        );
    }
}
