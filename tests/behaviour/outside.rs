//! What the system says of a server's process: its descriptors, its processor time, its system calls. And how a test is skipped
//! where the system lacks what it takes: in words.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::common::Server;

/// The same command, environment and directory, started by another program: `before`, `more`, then the command's own words.
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

/// How many descriptors a server has open.
pub(crate) fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .count()
}

/// How much processor time a server has used, in the kernel and out of it.
pub(crate) fn processor_time(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    // utime and stime (proc(5)), in ticks of 10 ms.
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<u64>());
    Duration::from_millis(10 * ticks.map(Result::unwrap).sum::<u64>())
}
