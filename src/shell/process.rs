//! Measures facts about the process, for the metrics. Reading a file in `/proc` does not wait for a
//! disk: the kernel makes the content at each read (proc(5)).

use std::fs;

use crate::core::base::process_facts::ProcessFacts;
use crate::logging;

/// The process of this server.
pub(super) struct Process {
    /// When the process started, in nanoseconds since 1970.
    started: u64,
    /// The number of failures of accept(2).
    pub(super) accept_failures: u64,
}

impl Process {
    /// Creates the value for a process that started at `started`, in nanoseconds since 1970.
    pub(super) fn new(started: u64) -> Process {
        Process {
            started,
            accept_failures: 0,
        }
    }

    /// Measures the process.
    pub(super) fn facts(&self) -> ProcessFacts {
        let (log_lines, log_dropped) = logging::counts();
        let stat = Stat::read();
        let (soft, _) = rlimit::Resource::NOFILE.get().unwrap_or_default();
        ProcessFacts {
            started_s: self.started as f64 / 1e9,
            resident_bytes: stat.as_ref().map(|stat| stat.resident_pages * page_bytes()),
            cpu_s: stat.as_ref().map(Stat::cpu_s),
            open_fds: open_fds(),
            max_fds: (soft > 0).then_some(soft),
            log_lines,
            log_dropped,
            accept_failures: self.accept_failures,
        }
    }
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Returns the number of open descriptors. Since Linux 6.2, this is the size of the directory
/// `/proc/self/fd`. On older systems the size is 0, and this returns `None`: counting the
/// descriptors one by one takes milliseconds if there are many clients.
fn open_fds() -> Option<u64> {
    let count = fs::metadata("/proc/self/fd").ok()?.len();
    (count > 0).then_some(count)
}

/// The fields of `/proc/self/stat` that are needed (proc_pid_stat(5)).
struct Stat {
    cpu_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Stat> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        Stat::parse(&text)
    }

    fn parse(text: &str) -> Option<Stat> {
        // The name of the program is in parentheses, and may contain any byte.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // `fields[0]` is field 3 of the file.
        let number = |field: usize| fields.get(field - 3)?.trim().parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: number(14)? + number(15)?,
            resident_pages: number(24)?,
        })
    }

    fn cpu_s(&self) -> f64 {
        self.cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_s_own_numbers_are_found_behind_any_name() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 12 5 0 0 20 0 3 0 4321 9999 77 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu_ticks, stat.resident_pages), (17, 77));
        assert!(Stat::parse("").is_none());
    }
}
