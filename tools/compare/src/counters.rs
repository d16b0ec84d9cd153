//! Counts the system calls and instructions of a loaded server. `perf stat` counts both, `strace`
//! counts system calls.
//!
//! Each is counted in a short and in a longer run, and the difference is divided by the difference
//! in answers. So the cost of connecting and the server's background work cancel out.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::children::{self, Running};

/// The kernel's count of all system calls.
const SYSCALLS: &str = "raw_syscalls:sys_enter";
/// Instructions in user mode.
const INSTRUCTIONS: &str = "instructions:u";

/// The counts of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// System calls.
    pub syscalls: Option<f64>,
    /// Instructions in user mode.
    pub instructions: Option<f64>,
}

/// The counters that work on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// The tool that counts system calls, or why there is none.
    pub syscalls: Result<Tracer, String>,
    /// An error says why instructions cannot be counted.
    pub instructions: Result<(), String>,
}

/// The tool that counts system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracer {
    /// `perf stat`, which hardly slows the server.
    Perf,
    /// `strace -c -f`, which slows it a lot.
    Strace,
}

impl Counters {
    /// Tries the counters on a process that does almost nothing.
    #[must_use]
    pub fn find(directory: &Path) -> Counters {
        let tried = |event: &str| {
            let file = directory.join("perf-trial");
            let mut perf = Command::new("perf");
            perf.args(["stat", "-x,", "-e", event, "-o"])
                .arg(&file)
                .args(["--", "true"]);
            let output = children::output(&mut perf);
            let output =
                output.map_err(|error| format!("perf: {error}; apt install linux-perf"))?;
            let said = fs::read_to_string(&file).unwrap_or_default();
            match perf_count(&said, event) {
                Some(_) => Ok(()),
                None => {
                    let errors = String::from_utf8_lossy(&output.stderr);
                    let line = errors.lines().find(|line| !line.trim().is_empty());
                    let line = line.unwrap_or("is not supported on this machine");
                    Err(format!("perf does not count {event}: {line}"))
                }
            }
        };
        let strace = children::output(Command::new("strace").arg("--version"));
        let syscalls = match (tried(SYSCALLS), strace) {
            (Ok(()), _) => Ok(Tracer::Perf),
            (Err(_), Ok(output)) if output.status.success() => Ok(Tracer::Strace),
            (Err(reason), _) => Err(format!("{reason}; and strace is not installed")),
        };
        Counters {
            syscalls,
            instructions: tried(INSTRUCTIONS),
        }
    }

    /// Counts what the process does while `load` runs. `load` gets a [`Wrapper`] for its command.
    ///
    /// # Errors
    /// The counters failed.
    pub fn around<T>(
        &self,
        pid: u32,
        directory: &Path,
        load: impl FnOnce(Wrapper<'_>) -> Result<T, String>,
    ) -> Result<(T, Counts), String> {
        let perf_events: Vec<&str> = [
            matches!(self.syscalls, Ok(Tracer::Perf)).then_some(SYSCALLS),
            self.instructions.is_ok().then_some(INSTRUCTIONS),
        ]
        .into_iter()
        .flatten()
        .collect();
        let strace = match self.syscalls {
            Ok(Tracer::Strace) => Some(Strace::attach(pid, directory)?),
            Ok(Tracer::Perf) | Err(_) => None,
        };
        let file = directory.join("perf");
        let wrapper = Wrapper {
            pid,
            events: &perf_events,
            file: &file,
        };
        let result = load(wrapper);
        let traced = strace.map(Strace::detach).transpose()?;
        let result = result?;
        let said = match perf_events.is_empty() {
            true => String::new(),
            false => {
                fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?
            }
        };
        let counts = Counts {
            syscalls: traced.or_else(|| perf_count(&said, SYSCALLS)),
            instructions: perf_count(&said, INSTRUCTIONS),
        };
        Ok((result, counts))
    }
}

/// Puts `perf stat` before a command. perf then counts another process until the command ends.
#[derive(Clone, Copy, Debug)]
pub struct Wrapper<'a> {
    pid: u32,
    events: &'a [&'a str],
    file: &'a Path,
}

impl Wrapper<'_> {
    /// The command with perf before it. If perf has nothing to count, the command itself.
    #[must_use]
    pub fn wrap(self, command: Command) -> Command {
        if self.events.is_empty() {
            return command;
        }
        let mut perf = Command::new("perf");
        perf.args([
            "stat",
            "-x,",
            "-e",
            &self.events.join(","),
            "-p",
            &self.pid.to_string(),
            "-o",
        ]);
        perf.arg(self.file)
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        perf
    }
}

/// The count of an event in the output of `perf stat -x,`. `None` for `<not counted>` and `<not
/// supported>`.
#[must_use]
pub fn perf_count(said: &str, event: &str) -> Option<f64> {
    said.lines().find_map(|line| {
        let mut fields = line.split(',');
        let (count, _unit, name) = (fields.next()?, fields.next()?, fields.next()?);
        if name == event {
            count.parse().ok()
        } else {
            None
        }
    })
}

/// The number of calls in the last line of `strace -c`'s table.
#[must_use]
pub fn strace_total(table: &str) -> Option<f64> {
    let line = table
        .lines()
        .rev()
        .find(|line| line.split_whitespace().last() == Some("total"))?;
    // The columns: % time, seconds, usecs/call, calls, and errors if there were any.
    line.split_whitespace().nth(3)?.parse().ok()
}

/// A running strace.
struct Strace {
    process: Running,
    table: PathBuf,
}

impl Strace {
    fn attach(pid: u32, directory: &Path) -> Result<Strace, String> {
        let table = directory.join("strace");
        let mut command = Command::new("strace");
        command
            .args(["-c", "-f", "-p", &pid.to_string(), "-o"])
            .arg(&table);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process =
            Running::spawn(&mut command).map_err(|error| format!("cannot run strace: {error}"))?;
        let errors = process
            .child
            .stderr
            .take()
            .ok_or("strace has no standard error")?;
        // strace prints a line when it is attached to all threads. From then on it counts.
        let mut errors = BufReader::new(errors);
        let mut line = String::new();
        let _ = errors.read_line(&mut line);
        // strace prints a line for each new thread too. A closed pipe would end it, so this thread
        // reads.
        thread::spawn(move || io::copy(&mut errors, &mut io::sink()));
        if line.contains("attached") {
            Ok(Strace { process, table })
        } else {
            Err(format!("strace does not attach: {}", line.trim()))
        }
    }

    fn detach(mut self) -> Result<f64, String> {
        let told = |error: io::Error| format!("strace: {error}");
        let _ = kill_process(Pid::from_child(&self.process.child), Signal::INT);
        self.process.wait().map_err(told)?;
        let table = fs::read_to_string(&self.table).map_err(told)?;
        strace_total(&table).ok_or_else(|| "strace's table has no total".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn perf_output_is_parsed() {
        let said = "# started on Sat\n\n113296,,instructions:u,16403774,100.00,,\n2041,,raw_syscalls:sys_enter,16403774,100.00,,\n";
        assert_eq!(perf_count(said, INSTRUCTIONS), Some(113_296.0));
        assert_eq!(perf_count(said, SYSCALLS), Some(2041.0));
        let none = "<not counted>,,instructions:u,0,100.00,,\n<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n";
        assert_eq!(perf_count(none, INSTRUCTIONS), None);
        assert_eq!(perf_count(none, SYSCALLS), None);
    }

    #[test]
    fn strace_output_is_parsed() {
        let with_errors = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 55.10    0.004321           2      2000        12 recvfrom
 44.90    0.003521           1      2000           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.007842           1      4000        12 total
";
        assert_eq!(strace_total(with_errors), Some(4000.0));
        let without = "100.00    0.007842           1        17           total\n";
        assert_eq!(strace_total(without), Some(17.0));
        assert_eq!(strace_total("strace: Process 1 detached\n"), None);
    }

    /// A process that gets a line answers with at least a read and a write. The first read may
    /// begin before strace attaches, and the last write may end after it detaches.
    #[test]
    fn strace_counts_system_calls_of_a_process() {
        let counters = Counters {
            syscalls: Ok(Tracer::Strace),
            instructions: Err("not asked for".to_owned()),
        };
        let mut command = Command::new("cat");
        let mut cat = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut to, from) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let mut from = BufReader::new(from);
        let counted = counters.around(cat.id(), directory.path(), |_| {
            for _ in 0..20 {
                to.write_all(b"hello\n").unwrap();
                from.read_line(&mut String::new()).unwrap();
            }
            Ok(())
        });
        drop(to);
        cat.wait().unwrap();
        match counted {
            Ok(((), counts)) => assert!(counts.syscalls.unwrap() >= 38.0, "{counts:?}"),
            // The machine may have no strace, or forbid it.
            Err(reason) => assert!(reason.contains("strace"), "{reason}"),
        }
    }

    #[test]
    fn perf_wraps_the_command() {
        let mut load = Command::new("herd-load");
        load.arg("iamat");
        let wrapper = Wrapper {
            pid: 7,
            events: &["instructions:u"],
            file: Path::new("out"),
        };
        let wrapped = wrapper.wrap(load);
        let words: Vec<_> = wrapped
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            words.join(" "),
            "stat -x, -e instructions:u -p 7 -o out -- herd-load iamat"
        );
    }
}
