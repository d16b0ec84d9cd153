//! What the operating system shows of a server's process: descriptors, CPU time, system calls. A
//! test is skipped, with a message, where the system lacks something.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use herd_testkit::herd::{Herd, Server};

/// Says that something is not tested. `eprintln` would not do: the test harness hides its output
/// when a test passes.
pub(crate) fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}

/// Runs a program to its end. The command is given as one would type it in a shell. An error holds
/// the command and its standard error.
pub(crate) fn run_to_end(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{line}`: {} {}", output.status, said.trim()))
}

/// The same command, with its environment, started by another program. The new command line is
/// `before`, `more`, then the original command line.
pub(crate) fn wrapped(before: &[&str], more: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(before[0]);
    wrapped.args(&before[1..]).args(more);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// The number of a server's open descriptors.
pub(crate) fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .count()
}

/// The CPU time of a server, user and system.
pub(crate) fn processor_time(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    // utime and stime (proc(5)), in ticks of 10 ms.
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<u64>());
    Duration::from_millis(10 * ticks.map(Result::unwrap).sum::<u64>())
}

/// A server's strace output.
pub(crate) struct Trace {
    file: PathBuf,
    options: Vec<String>,
}

impl Trace {
    /// The output goes to a file in the herd's directory. `options` select the system calls.
    pub(crate) fn new(herd: &Herd, options: &[&str]) -> Trace {
        Trace {
            file: herd.directory.path().join("trace"),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    /// The same command under strace. With `-D` the server is our child and strace is its child, so
    /// signals and the exit status are the server's own.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let file = self.file.to_str().unwrap();
        let mut before = vec!["strace", "-D", "-f", "-q", "-o", file, "-e", "signal=none"];
        before.extend(self.options.iter().map(String::as_str));
        wrapped(&before, &["--"], command)
    }

    /// The output so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.file).unwrap_or_default()).into_owned()
    }
}

/// Whether strace works here, which the first call finds out. If not, says that `what` is not
/// tested.
pub(crate) fn can_trace(what: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let probe = || run_to_end("strace -D -f -q -o /dev/null -e inject=sync:error=EINTR true").err();
    let missing = MISSING.get_or_init(probe);
    if let Some(why) = missing {
        skipped(what, why);
    }
    missing.is_none()
}

/// Whether this process is root, which may create namespaces. If not, says that `what` is not
/// tested.
pub(crate) fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped(what, "it takes root");
    }
    is_root
}

/// Whether this program exists. It is run once with `--help`. If it does not exist, says that
/// `what` is not tested.
pub(crate) fn has_program(name: impl AsRef<OsStr>, what: &str) -> bool {
    let name = name.as_ref();
    let asked = Command::new(name)
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = &asked {
        skipped(what, &format!("`{}`: {error}", name.display()));
    }
    asked.is_ok()
}
