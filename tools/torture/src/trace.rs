//! Reads the output of `strace -f -y -o FILE`: one line for a call, or two if a call of another
//! thread came between.
//!
//! ```text
//!   100   accept4(5<socket:[7]>, NULL, NULL, SOCK_CLOEXEC) = -1 EMFILE (Too many open files) (INJECTED)
//!   100   fdatasync(13</data/journal> <unfinished ...>
//!   101   write(3</riley.log>, "2026-11-21T03:46:01.436710Z [INF"..., 484) = 484
//!   100   <... fdatasync resumed>)          = 0
//!   100   +++ exited with 0 +++
//! ```

use std::collections::HashMap;

/// The end of a line if strace made the call fail, or delayed it.
const INJECTED: [&str; 2] = ["(INJECTED)", "(DELAYED)"];
const UNFINISHED: &str = " <unfinished ...>";

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    /// The thread that made the call.
    pub(crate) thread: u32,
    pub(crate) name: &'a str,
    /// The text after the opening parenthesis: the arguments, and the result if it is on the same
    /// line.
    pub(crate) text: &'a str,
    /// Whether strace made the call fail, or delayed it.
    pub(crate) is_injected: bool,
}

/// All calls, in the order in which they began. Other lines are skipped.
pub(crate) fn calls(trace: &str) -> Vec<Call<'_>> {
    let mut calls: Vec<Call<'_>> = Vec::new();
    // For each thread, the index of its unfinished call.
    let mut unfinished: HashMap<u32, usize> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = thread_of(line) else {
            continue;
        };
        let is_injected = INJECTED.iter().any(|mark| rest.ends_with(mark));
        if rest.starts_with("<... ") {
            if let Some(begun) = unfinished.remove(&thread).and_then(|at| calls.get_mut(at)) {
                begun.is_injected = is_injected;
            }
            continue;
        }
        let Some((name, text)) = rest.split_once('(') else {
            continue; // +++ exited with 0 +++
        };
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            continue; // --- SIGTERM {…} ---
        }
        if text.ends_with(UNFINISHED) {
            unfinished.insert(thread, calls.len());
        }
        calls.push(Call {
            thread,
            name,
            text: text.strip_suffix(UNFINISHED).unwrap_or(text),
            is_injected,
        });
    }
    calls
}

/// Whether the trace is complete: it contains the end of this process.
pub(crate) fn is_complete(trace: &str, process: u32) -> bool {
    trace.lines().rev().any(|line| {
        thread_of(line).is_some_and(|(thread, rest)| thread == process && rest.starts_with("+++ "))
    })
}

fn thread_of(line: &str) -> Option<(u32, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    Some((thread.parse().ok()?, rest.trim_start()))
}

impl<'a> Call<'a> {
    /// The path of its file: the path among the arguments, or the descriptor's path.
    pub(crate) fn path(&self) -> Option<&'a str> {
        let mut text = self.text;
        if text.starts_with("AT_FDCWD") {
            text = text.split_once(", ")?.1;
        }
        if let Some(quoted) = text.strip_prefix('"') {
            return quoted
                .split_once('"')
                .map(|(path, _)| path)
                .filter(|path| !path.is_empty());
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (_, rest) = text.split_at_checked(digits).filter(|_| digits > 0)?;
        Some(rest.strip_prefix('<')?.split_once('>')?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"100 execve("/bin/herd-mio", ["herd-mio", "Riley"], 0x7ffd /* 9 vars */) = 0
100 accept4(5<socket:[7]>, NULL, NULL, SOCK_CLOEXEC) = -1 EMFILE (Too many open files) (INJECTED)
100 fdatasync(13</run/7/data/journal> <unfinished ...>
101   write(3</run/7/riley.log>, "2026-11-21T03:46:01.436710Z [INF"..., 484) = 484
100 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=21949, si_uid=0} ---
100 <... fdatasync resumed>)          = -1 EIO (Input/output error) (INJECTED)
100 <... epoll_wait resumed>[], 1024, 0) = 0
100 exit_group(0)                     = ?
102 rename("/a", "/b") = 0 (DELAYED)
100 +++ exited with 0 +++
"#;

    #[test]
    fn calls_are_read_in_order() {
        let calls = calls(TRACE);
        let told: Vec<_> = calls
            .iter()
            .map(|call| (call.thread, call.name, call.is_injected))
            .collect();
        assert_eq!(
            told,
            [
                (100, "execve", false),
                (100, "accept4", true),
                (100, "fdatasync", true),
                (101, "write", false),
                (100, "exit_group", false),
                (102, "rename", true),
            ]
        );
        assert_eq!(calls[2].text, "13</run/7/data/journal>");
    }

    #[test]
    fn a_trace_is_complete_when_its_process_ended() {
        assert!(is_complete(TRACE, 100));
        assert!(!is_complete(TRACE, 101));
        assert!(!is_complete("", 100));
        assert!(is_complete("100 +++ killed by SIGKILL +++\n", 100));
    }

    #[test]
    fn the_object_of_a_call_is_parsed() {
        let path = |text| {
            Call {
                thread: 1,
                name: "x",
                text,
                is_injected: false,
            }
            .path()
        };
        for (text, expected) in [
            (
                r#"AT_FDCWD</home/x>, "/run/7/data/journal", O_RDWR) = 13</run/7/data/journal>"#,
                Some("/run/7/data/journal"),
            ),
            (
                r#"AT_FDCWD, "/etc/hosts", {st_mode=S_IFREG|0644}, 0) = 0"#,
                Some("/etc/hosts"),
            ),
            (
                r#"3</etc/hosts>, "", {stx_mask=STATX_ALL}) = 0"#,
                Some("/etc/hosts"),
            ),
            (
                r#""/run/7/data/journal.new") = -1 ENOENT"#,
                Some("/run/7/data/journal.new"),
            ),
            ("13</run/7/data/journal>", Some("/run/7/data/journal")),
            ("5<socket:[7]>, NULL", Some("socket:[7]")),
            (
                r#"11<anon_inode:[eventfd]>, "\1\0", 8) = 8"#,
                Some("anon_inode:[eventfd]"),
            ),
            (
                r#"14<socket:[8]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 110"#,
                Some("socket:[8]"),
            ),
            ("NULL, 8192, PROT_READ) = 0x7f", None),
            ("AF_INET, SOCK_STREAM) = 5", None),
            (r#""", 0, 0) = 0"#, None),
            ("5, NULL", None),
            ("", None),
        ] {
            assert_eq!(path(text), expected, "{text}");
        }
    }
}
