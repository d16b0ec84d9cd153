//! Counting instructions: this program runs itself under valgrind's callgrind, which counts only while a pass is under way.
//!
//! What is counted is user instructions of the measured thread: no start-up, no preparing and checking, nothing of the kernel. The first
//! passes are not counted, so that tables and buffers have grown to what they will be.

use std::fs;
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use herd_testkit::say;

use crate::workload::{Entry, Failure, Rounds};

/// What the child is told to count with.
pub(crate) const COUNT: &str = "--count";
/// Passes before those that are counted.
const WARM_UP: u64 = 3;
/// Passes that are counted, at least; and operations.
const PASSES: u64 = 3;
const OPERATIONS: u64 = 200;
/// Beyond some kilobytes the C library copies with `rep movsb` where the processor is good at it. That is fast, and counts as an instruction
/// for each byte; it is told not to (glibc's manual, "Hardware Capability Tunables"; other libraries take no notice).
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";
/// Callgrind counts while a function of such a name is running.
const COUNTED: &str = "*herd_bench*counted_pass*";

/// Which valgrind there is; `None` if there is none.
///
/// # Errors
/// There is one, and it does not run.
pub(crate) fn version() -> Result<Option<String>, Failure> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(Some(
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )),
        Ok(output) => Err(format!(
            "valgrind does not run: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot run valgrind: {error}")),
    }
}

/// Instructions per operation.
///
/// # Errors
/// They could not be counted, or the workload did something wrong; in words.
pub(crate) fn count(entry: &Entry) -> Result<f64, Failure> {
    let failed = |error: std::io::Error| format!("{entry}: {error}");
    let own_program = std::env::current_exe().map_err(failed)?;
    // Beside itself: what is left of it when somebody ends this goes with cargo's other files.
    let place = own_program.parent().unwrap_or(Path::new("."));
    let directory = tempfile::tempdir_in(place).map_err(failed)?;
    let counts = directory.path().join("callgrind.out");
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(&counts);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(out_file)
        .arg(own_program)
        .args([COUNT, entry.name])
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{entry}: {}: {}", output.status, said.trim()));
    }
    let operations: f64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .map_err(|_| format!("{entry}: it was not said how many operations were counted"))?;
    let text = fs::read_to_string(&counts).map_err(failed)?;
    let total = total(&text).ok_or_else(|| {
        format!("{entry}: callgrind counted nothing: does the program lack its symbols?")
    })?;
    Ok(total as f64 / operations)
}

/// The sum in callgrind's file.
fn total(text: &str) -> Option<u64> {
    let totals = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    totals.trim().parse().ok().filter(|&total| total > 0)
}

/// The child's part: some passes are counted, and how many operations that were goes to the standard output.
pub(crate) fn be_counted(entry: &Entry) -> Result<(), Failure> {
    let mut rounds = entry.rounds()?;
    for _ in 0..WARM_UP {
        rounds.prepare()?;
        rounds.pass();
    }
    let passes = OPERATIONS.div_ceil(rounds.operations()).max(PASSES);
    for _ in 0..passes {
        rounds.prepare()?;
        counted_pass(&mut rounds);
    }
    rounds.check()?;
    say!("{}", passes * rounds.operations());
    Ok(())
}

/// A function of its own, which callgrind knows by name. Something is left to do behind the pass, so that it is called, not jumped to.
#[inline(never)]
fn counted_pass(rounds: &mut Rounds) {
    rounds.pass();
    black_box(rounds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_and_nothing_counted_is_no_sum() {
        let file = "version: 1\nevents: Ir\n\nfn=(1) main\n3 4\n\ntotals: 123456\n";
        assert_eq!(total(file), Some(123_456));
        assert_eq!(total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
