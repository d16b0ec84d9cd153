//! Counts instructions: this program runs itself under valgrind's callgrind, which counts only
//! during a pass.
//!
//! Only user instructions of the measured thread count. The start, the preparation, the checks and
//! the kernel do not. The first passes do not count either: in them tables and buffers grow to
//! their final size.

use std::fs;
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use herd_testkit::say;

use crate::workload::{Entry, Failure, Rounds};

/// The option that makes the child process count.
pub(crate) const COUNT: &str = "--count";
/// Passes before those that are counted.
const WARM_UP: u64 = 3;
/// At least so many passes are counted, and at least so many operations.
const PASSES: u64 = 3;
const OPERATIONS: u64 = 200;
/// From some kilobytes on, glibc copies with `rep movsb` if the processor does that fast. Callgrind
/// counts that as one instruction for each byte. These settings forbid it (glibc's manual,
/// "Hardware Capability Tunables"). Other C libraries ignore them.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";
/// Callgrind counts while a function whose name matches this is running.
const COUNTED: &str = "*herd_bench*counted_pass*";

/// The version of the installed valgrind. `None` means that valgrind is not installed.
///
/// # Errors
/// Valgrind is installed but does not run.
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
/// The instructions could not be counted, or the workload gave a wrong result. The text says why.
pub(crate) fn count(entry: &Entry) -> Result<f64, Failure> {
    let failed = |error: std::io::Error| format!("{entry}: {error}");
    let own_program = std::env::current_exe().map_err(failed)?;
    // The directory is beside the program. If a signal ends this process, `cargo clean` removes it.
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
        .map_err(|_| {
            format!("{entry}: the child process did not print its number of operations")
        })?;
    let text = fs::read_to_string(&counts).map_err(failed)?;
    let total = total(&text).ok_or_else(|| {
        format!("{entry}: callgrind counted no instruction; check that the program has its symbols")
    })?;
    Ok(total as f64 / operations)
}

/// The sum in callgrind's file.
fn total(text: &str) -> Option<u64> {
    let totals = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    totals.trim().parse().ok().filter(|&total| total > 0)
}

/// What the child process does: it runs the passes, and prints how many operations were counted.
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

/// A function of its own, so that callgrind can find it by name. The call of `black_box` keeps the
/// compiler from turning the call of `pass` into a jump.
#[inline(never)]
fn counted_pass(rounds: &mut Rounds) {
    rounds.pass();
    black_box(rounds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callgrind_total_is_parsed_and_zero_rejected() {
        let file = "version: 1\nevents: Ir\n\nfn=(1) main\n3 4\n\ntotals: 123456\n";
        assert_eq!(total(file), Some(123_456));
        assert_eq!(total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
