//! The list of a run without a fault: the server's system calls in the conversation, their files,
//! and their numbers.
//!
//! A life of the server has three parts, and each call belongs to one of them:
//!
//! ```text
//!   execve ─── loading ──► poll ─── starting ──► write(stdout, "herd-mio …") ─── serving, stopping ──► exit
//! ```
//!
//! In the first part, the loader maps the libraries, and no line of the program runs. Rust's
//! runtime then checks the three standard descriptors with the first `poll`.

use std::collections::{BTreeMap, HashMap};

use crate::case::Target;
use crate::trace::Call;

/// The beginning of the line that a ready server prints.
const READY: &str = "\"herd-mio ";

/// The number of calls with one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) target: Target,
    /// The calls of all threads together, before and after the server was ready. The loader's calls
    /// do not count.
    pub(crate) starting: u32,
    pub(crate) serving: u32,
    /// strace counts each thread separately. These are the greatest counts of a single thread.
    pub(crate) reach: Reach,
}

/// The counts after loading, at readiness and at the end. They are the numbers that `when` uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) loaded: u32,
    pub(crate) ready: u32,
    pub(crate) end: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Loading,
    Starting,
    Serving,
}

/// Counts the calls of a run in this directory.
pub(crate) fn census(calls: &[Call<'_>], directory: &str) -> Vec<Row> {
    let Some(main) = calls.first().map(|call| call.thread) else {
        return Vec::new();
    };
    let mut part = Part::Loading;
    // For each target and thread, the counts at the end of each part.
    let mut counts: BTreeMap<Target, HashMap<u32, Reach>> = BTreeMap::new();
    for call in calls {
        if part == Part::Loading && matches!(call.name, "poll" | "ppoll") {
            part = Part::Starting;
        }
        let target = Target {
            call: call.name.to_owned(),
            object: call
                .path()
                .map(own_proc)
                .and_then(|path| Target::object(path, directory)),
        };
        let reach = counts
            .entry(target)
            .or_default()
            .entry(call.thread)
            .or_default();
        reach.end += 1;
        if part != Part::Serving {
            reach.ready += 1;
        }
        if part == Part::Loading {
            reach.loaded += 1;
        }
        if call.thread == main && call.name == "write" && call.text.contains(READY) {
            part = Part::Serving;
        }
    }
    let row = |(target, threads): (Target, HashMap<u32, Reach>)| {
        let sum = |count: fn(&Reach) -> u32| threads.values().map(count).sum();
        let most = |count: fn(&Reach) -> u32| threads.values().map(count).max().unwrap_or(0);
        Row {
            target,
            starting: sum(|reach| reach.ready - reach.loaded),
            serving: sum(|reach| reach.end - reach.ready),
            reach: Reach {
                loaded: most(|reach| reach.loaded),
                ready: most(|reach| reach.ready),
                end: most(|reach| reach.end),
            },
        }
    };
    let rows = counts.into_iter().map(row);
    rows.filter(|row| row.starting + row.serving > 0).collect()
}

/// strace resolves `/proc/self` to `/proc/PID`, which differs from run to run.
fn own_proc(path: &str) -> &str {
    let is_own = path
        .strip_prefix("/proc/")
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    if is_own { "/proc/self" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::calls;

    const TRACE: &str = r#"100 execve("/bin/herd-mio", ["herd-mio"], 0x7ffd /* 9 vars */) = 0
100 openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY) = 3
100 getrandom("x", 8, GRND_NONBLOCK) = 8
100 poll([{fd=0, events=0}], 3, 0) = 0 (Timeout)
100 getrandom("x", 16, 0) = 16
100 read(3</proc/100/maps>, "x", 1024) = 1024
100 openat(AT_FDCWD, "/run/7/riley.log", O_WRONLY) = 3
101 write(3</run/7/riley.log>, "a", 1) = 1
100 write(1</run/7/out>, "herd-mio Riley: clients on 127.0"..., 88) = 88
101 write(3</run/7/riley.log>, "b", 1) = 1
102 write(3</run/7/riley.log>, "c", 1) = 1
100 getrandom("x", 32, 0) = 32
"#;

    #[test]
    fn calls_are_counted_by_their_object() {
        let rows = census(&calls(TRACE), "/run/7");
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                let Reach { loaded, ready, end } = row.reach;
                (
                    row.target.to_string(),
                    row.starting,
                    row.serving,
                    [loaded, ready, end],
                )
            })
            .collect();
        let expected = [
            ("getrandom", 1, 1, [1, 2, 3]),
            ("openat@riley.log", 1, 0, [0, 1, 1]),
            ("poll", 1, 0, [0, 1, 1]),
            ("read@/proc/self", 1, 0, [0, 1, 1]),
            ("write@out", 1, 0, [0, 1, 1]),
            // One thread calls once before and once after, another thread once after.
            ("write@riley.log", 1, 2, [0, 1, 2]),
        ];
        assert_eq!(
            told,
            expected.map(|(target, starting, serving, reach)| (
                target.to_owned(),
                starting,
                serving,
                reach
            ))
        );
    }

    #[test]
    fn an_empty_trace_has_no_rows() {
        assert_eq!(census(&[], "/run/7"), []);
    }
}
