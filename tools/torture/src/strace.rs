//! strace: whether it can be used here, and how it is told to watch a server or to fail one of its calls.
//!
//! It is not the server's parent but its grandchild (`-D`): so the server's process is a child of this program, with its own
//! number, signals and exit status, as if strace were not there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use herd_testkit::clock;

use crate::case::Case;
use crate::trace;

/// The file in the run's directory that it writes to.
pub(crate) const TRACE: &str = "trace";

const PROGRAM: &str = "strace";
/// How long a program that does nothing may take with it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may write on when the process has ended.
const LAST_LINES: Duration = Duration::from_secs(5);

/// What of a server is traced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch<'a> {
    /// Every call.
    All,
    /// The calls that a case may fail, and those that it does.
    Failing(&'a Case),
}

/// A command line to which the program and its arguments are added. The directory is the run's.
pub(crate) fn command(watch: Watch<'_>, directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    // Only what is traced stops the process (seccomp); descriptors with their paths (-y); no word of its own (-q).
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

/// All that was traced of this process, which has ended.
pub(crate) fn trace(directory: &Path, process: u32) -> String {
    let path = directory.join(TRACE);
    let read = || String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let complete = clock::wait_for(clock::now() + LAST_LINES, || {
        Some(read()).filter(|text| trace::is_complete(text, process))
    });
    complete.unwrap_or_else(read)
}

/// Whether it is there, may trace, and knows all that it is told here.
///
/// # Errors
/// Why it cannot be used, in words.
pub(crate) fn probe() -> Result<(), String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("no directory to try strace in: {error}"))?;
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
        ErrorKind::NotFound => "there is no strace here (apt install strace)".to_owned(),
        _ => format!("strace cannot be run: {error}"),
    })?;
    let ended = clock::wait_for(clock::now() + PATIENCE, || child.try_wait().ok().flatten());
    if ended.is_none() {
        // It may have ended just now.
        let _ = child.kill();
    }
    let process = child.id();
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let words = String::from_utf8_lossy(&output.stderr);
    if let Some(line) = words.lines().next() {
        return Err(format!("strace does not do what it has to: {line}"));
    }
    // If it may not attach, it lets the program run by itself.
    let is_traced = trace::is_complete(&trace(directory.path(), process), process);
    if !(output.status.success() && is_traced) {
        return Err(format!("strace may not trace here: {}", output.status));
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
    fn a_case_becomes_a_command_line() {
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
