//! The processor time and memory of a process, from `/proc`.

use std::fs;

use serde::Serialize;

use herd_testkit::failure::Failure;

/// The processor time of a process since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) user_ms: u64,
    pub(crate) system_ms: u64,
}

/// The watched processes, and their usage.
#[derive(Debug)]
pub(crate) struct Watched {
    processes: Vec<Process>,
    /// This process. If it uses nearly one core, it limits the rate itself.
    own: Process,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    rss_before_bytes: u64,
    before: Cpu,
    after: Cpu,
    /// Whether it ended before the measurement did.
    has_ended: bool,
}

/// The usage of a process during the measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    pub(crate) pid: u32,
    /// Whether it ended during the measurement. Then its usage is unknown.
    pub(crate) ended: bool,
    pub(crate) user_ms: u64,
    pub(crate) system_ms: u64,
    /// The resident memory before the first connection.
    pub(crate) rss_before_bytes: u64,
    /// The resident memory after the last answer.
    pub(crate) rss_after_bytes: u64,
}

impl Watched {
    /// Starts to watch, before the first connection.
    pub(crate) fn new(pids: &[u32]) -> Result<Watched, Failure> {
        let watch = |pid: u32| {
            let rss_before_bytes = rss_bytes(pid)?;
            let now = cpu(pid)?;
            Ok(Process {
                pid,
                rss_before_bytes,
                before: now,
                after: now,
                has_ended: false,
            })
        };
        let usage = |what: String| {
            Failure::Usage(what + "; give --pid the id of a process on this machine")
        };
        let processes: Result<Vec<Process>, String> = pids.iter().copied().map(watch).collect();
        Ok(Watched {
            processes: processes.map_err(usage)?,
            own: watch(std::process::id()).map_err(Failure::Failed)?,
        })
    }

    /// The measurement starts.
    pub(crate) fn begin(&mut self) -> Result<(), Failure> {
        self.each(|process, now| process.before = now)
    }

    /// The measurement ends.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.each(|process, now| process.after = now)
    }

    fn each(&mut self, note: impl Fn(&mut Process, Cpu)) -> Result<(), Failure> {
        for process in self.processes.iter_mut().chain([&mut self.own]) {
            if is_gone(process.pid) {
                process.has_ended = true;
                process.after = process.before;
                continue;
            }
            let now = cpu(process.pid).map_err(Failure::Failed)?;
            note(process, now);
        }
        Ok(())
    }

    /// The usage of each of them, and of this process.
    pub(crate) fn usage(&self) -> Result<(Vec<Usage>, Usage), Failure> {
        let usage = |process: &Process| {
            let Process { before, after, .. } = process;
            let ended = process.has_ended || is_gone(process.pid);
            Ok(Usage {
                pid: process.pid,
                ended,
                user_ms: after.user_ms.saturating_sub(before.user_ms),
                system_ms: after.system_ms.saturating_sub(before.system_ms),
                rss_before_bytes: process.rss_before_bytes,
                rss_after_bytes: if ended { 0 } else { rss_bytes(process.pid)? },
            })
        };
        let all: Result<Vec<Usage>, String> = self.processes.iter().map(usage).collect();
        let all = all.map_err(Failure::Failed)?;
        Ok((all, usage(&self.own).map_err(Failure::Failed)?))
    }
}

/// Whether the process has ended. It may be a zombie.
fn is_gone(pid: u32) -> bool {
    match read(pid, "stat") {
        Ok(stat) => stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => !std::path::Path::new(&format!("/proc/{pid}")).exists(),
    }
}

/// The processor time of a process and all of its threads.
fn cpu(pid: u32) -> Result<Cpu, String> {
    let text = read(pid, "stat")?;
    cpu_in(&text).ok_or_else(|| unexpected(pid, "stat"))
}

/// `utime` and `stime` of proc_pid_stat(5), in ticks.
fn cpu_in(stat: &str) -> Option<Cpu> {
    // The second field is the program's name in parentheses, and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ms = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(ticks * 1000 / rustix::param::clock_ticks_per_second())
    };
    Some(Cpu {
        user_ms: ms()?,
        system_ms: ms()?,
    })
}

/// The resident memory of a process.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64, String> {
    // This file is exact. `VmRSS` of `status` may be off by some pages per processor. It is used if
    // this file does not exist (kernels before 4.14).
    if let Some(bytes) = read(pid, "smaps_rollup")
        .ok()
        .and_then(|text| kilobytes(&text, "Rss:"))
    {
        return Ok(bytes);
    }
    resident_bytes(pid)
}

/// The resident memory of a process, from `status`. It may be off by some pages, but reading it
/// does not slow the process down.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, String> {
    let text = read(pid, "status")?;
    kilobytes(&text, "VmRSS:").ok_or_else(|| unexpected(pid, "status"))
}

/// The number of open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/fd");
    let open = fs::read_dir(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no process {pid}"),
        _ => format!("cannot read {path}: {error}"),
    })?;
    Ok(open.count() as u64)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            format!("there is no process {pid}")
        } else {
            format!("cannot read {path}: {error}")
        }
    })
}

fn unexpected(pid: u32, file: &str) -> String {
    format!("/proc/{pid}/{file} does not have Linux's format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_parentheses_is_parsed() {
        let stat = "42 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 100 0 0";
        let ticks = rustix::param::clock_ticks_per_second();
        let expected = Cpu {
            user_ms: 250 * 1000 / ticks,
            system_ms: 50 * 1000 / ticks,
        };
        assert_eq!(cpu_in(stat), Some(expected));
        assert_eq!(cpu_in("42 (a) S 1 2"), None);
        assert_eq!(cpu_in(""), None);
    }

    #[test]
    fn memory_in_kilobytes_is_parsed() {
        assert_eq!(
            kilobytes("Rss:                 123 kB\nPss: 1 kB\n", "Rss:"),
            Some(125_952)
        );
        assert_eq!(kilobytes("VmRSS:\t  4 kB\n", "VmRSS:"), Some(4096));
        assert_eq!(kilobytes("VmRSS: many\n", "VmRSS:"), None);
    }

    #[test]
    fn a_watched_process_that_ends_is_reported() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut watched = Watched::new(&[child.id()]).unwrap();
        watched.begin().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        watched.end().unwrap();
        let (usage, own) = watched.usage().unwrap();
        assert!(usage[0].ended && usage[0].rss_after_bytes == 0, "{usage:?}");
        assert!(!own.ended);
    }

    #[test]
    fn a_missing_watched_process_is_a_usage_error() {
        let mut watched = Watched::new(&[std::process::id()]).unwrap();
        watched.begin().unwrap();
        watched.end().unwrap();
        let (usage, own) = watched.usage().unwrap();
        assert_eq!(usage.len(), 1);
        assert!(usage[0].rss_after_bytes > 100_000, "{usage:?} {own:?}");
        // Above every limit that a kernel has for process ids.
        let nobody = u32::MAX;
        assert_eq!(
            Watched::new(&[nobody]).err(),
            Some(Failure::Usage(format!(
                "there is no process {nobody}; give --pid the id of a process on this machine"
            )))
        );
    }
}
