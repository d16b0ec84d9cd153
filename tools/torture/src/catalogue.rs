//! The errors with which each system call may end, after its manual page, with the likeliest first.
//! It also lists the calls that are not failed, and why.
//!
//! A call that waits for a slow disk is also made late. An error that a call never returns would
//! prove nothing, because a program need not handle it.

use crate::case::{DELAY, Target};

/// What is tried with a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It fails with each of these errors.
    Fail(&'static [&'static str]),
    /// It is never failed, for this reason.
    Leave(&'static str),
    /// The catalogue has no entry for it.
    Unknown,
}

use Entry::{Fail, Leave, Unknown};

const MEMORY: &str = "a Rust program aborts if it gets no memory, by design";
const CLOSES: &str = "a close that fails still closes the descriptor, but not if strace makes it fail, so strace would cause a leak";
const NEVER: &str = "it cannot fail with these arguments";
const STACK: &str =
    "the C library reads the limits of a stack with it, before the program or a thread begins";
const WAKES: &str = "a wait may be interrupted, but a wake-up that strace makes fail wakes no thread, which no system does";
const ENDS: &str = "it ends a thread or the process";
const STARTS: &str = "the C library starts a thread with it, and ends the program if it fails";
const RUNS: &str = "it starts the program, or belongs to the loader";

/// The number of repeats of an error that cannot last for ever. An interrupted call is rare, and an
/// error of a connection ends with the connection. `None` if the error may last.
pub(crate) fn burst(error: &str) -> Option<u32> {
    match error {
        "EINTR" => Some(5),
        "ECONNABORTED" | "ECONNRESET" | "EPIPE" | "ETIMEDOUT" => Some(20),
        _ => None,
    }
}

/// Looks up the entry of a target.
pub(crate) fn entry(target: &Target) -> Entry {
    match (target.call.as_str(), target.object.as_deref()) {
        (_, Some("/proc/self")) => Leave(STACK),
        // The eventfd does not block, and its counter is far from full. Otherwise eventfd(2) has no
        // error here.
        ("write" | "read", Some("[eventfd]")) => Leave(NEVER),
        // A disk may fill up or break. A pipe or a terminal cannot fill up.
        ("write", Some("out" | "err")) => Fail(&["EPIPE", "EIO", "EINTR"]),
        // Names are resolved with this file, and the system's resolver may be slow.
        ("read", Some("/etc/hosts")) => Fail(&["EIO", "EINTR", DELAY]),
        ("write", Some("riley.log")) => Fail(&["ENOSPC", "EIO", "EINTR", DELAY]),
        (call, _) => by_name(call),
    }
}

fn by_name(call: &str) -> Entry {
    match call {
        "accept4" | "accept" => Fail(&[
            "EMFILE",
            "ENFILE",
            "ECONNABORTED",
            "ENOBUFS",
            "ENOMEM",
            "EPROTO",
            "EINTR",
            "EPERM",
        ]),
        "bind" => Fail(&["EADDRINUSE", "EACCES", "EADDRNOTAVAIL"]),
        "listen" => Fail(&["EADDRINUSE"]),
        "socket" => Fail(&["EMFILE", "ENFILE", "ENOBUFS", "EAFNOSUPPORT"]),
        "socketpair" => Fail(&["EMFILE", "ENFILE"]),
        "connect" => Fail(&[
            "ECONNREFUSED",
            "ETIMEDOUT",
            "EADDRNOTAVAIL",
            "ENETUNREACH",
            "EAGAIN",
        ]),
        "shutdown" => Fail(&["ENOTCONN"]),
        "setsockopt" => Fail(&["ENOBUFS", "EINVAL"]),
        "getsockopt" | "getsockname" => Fail(&["ENOBUFS"]),
        "getpeername" => Fail(&["ENOTCONN", "ENOBUFS"]),
        "recvfrom" | "recvmsg" => Fail(&["ECONNRESET", "ETIMEDOUT", "EINTR", "ENOMEM"]),
        // The likeliest errors of every kind of socket come first, because signals use a socket
        // pair too.
        "sendto" | "sendmsg" | "sendmmsg" | "writev" => {
            Fail(&["ENOBUFS", "ECONNRESET", "EPIPE", "EINTR", "ETIMEDOUT"])
        }
        "epoll_create1" => Fail(&["EMFILE", "ENFILE", "ENOMEM"]),
        "epoll_ctl" => Fail(&["ENOMEM", "ENOSPC"]),
        "epoll_wait" | "epoll_pwait" => Fail(&["EINTR"]),
        "poll" | "ppoll" => Fail(&["EINTR", "ENOMEM"]),
        "eventfd2" => Fail(&["EMFILE", "ENFILE", "ENOMEM"]),
        "fcntl" => Fail(&["EMFILE"]),
        "ioctl" => Fail(&["ENOMEM"]),

        "open" | "openat" => Fail(&["EMFILE", "EACCES", "ENOSPC", "ENFILE", "EINTR"]),
        "read" => Fail(&["EIO", "EINTR"]),
        "pread64" => Fail(&["EIO", "EINTR"]),
        "write" => Fail(&["ENOSPC", "EIO", "EINTR"]),
        "pwrite64" => Fail(&["ENOSPC", "EIO", "EDQUOT", "EINTR", DELAY]),
        "fallocate" => Fail(&["ENOSPC", "EIO", "EOPNOTSUPP", "EINTR", DELAY]),
        "fdatasync" | "fsync" => Fail(&["EIO", "ENOSPC", "EINTR", DELAY]),
        "ftruncate" => Fail(&["EIO", "EFBIG", "EINTR"]),
        "rename" | "renameat" | "renameat2" => Fail(&["ENOSPC", "EIO", "EACCES", DELAY]),
        "unlink" | "unlinkat" => Fail(&["EACCES", "EIO"]),
        "mkdir" | "mkdirat" => Fail(&["ENOSPC", "EACCES"]),
        "flock" => Fail(&["EAGAIN", "ENOLCK"]),
        "lseek" => Fail(&["ESPIPE"]),
        "stat" | "fstat" | "lstat" | "newfstatat" | "statx" => Fail(&["EACCES", "ENOMEM"]),

        "clone3" | "clone" => Fail(&["EAGAIN", "ENOMEM"]),
        "prlimit64" | "setrlimit" | "getrlimit" => Fail(&["EPERM"]),
        "getrandom" => Fail(&["ENOSYS", "EINTR"]),

        "mmap" | "munmap" | "mremap" | "mprotect" | "brk" | "madvise" => Leave(MEMORY),
        "close" | "dup" | "dup3" => Leave(CLOSES),
        "sched_getaffinity" | "sigaltstack" => Leave(STACK),
        "rt_sigaction" | "rt_sigprocmask" | "rt_sigreturn" | "prctl" | "getpid" | "gettid"
        | "uname" => Leave(NEVER),
        "futex" | "restart_syscall" => Leave(WAKES),
        "exit" | "exit_group" => Leave(ENDS),
        "set_robust_list" | "rseq" => Leave(STARTS),
        "execve" | "access" | "arch_prctl" | "set_tid_address" => Leave(RUNS),
        _ => Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(call: &str, object: Option<&str>) -> Entry {
        entry(&Target {
            call: call.to_owned(),
            object: object.map(str::to_owned),
        })
    }

    #[test]
    fn the_faults_of_a_call_depend_on_its_object() {
        assert_eq!(
            at("write", Some("riley.log")),
            Fail(&["ENOSPC", "EIO", "EINTR", DELAY])
        );
        assert_eq!(at("write", Some("out")), Fail(&["EPIPE", "EIO", "EINTR"]));
        assert_eq!(at("write", Some("[eventfd]")), Leave(NEVER));
        assert_eq!(at("read", Some("/proc/self")), Leave(STACK));
        assert_eq!(at("read", None), Fail(&["EIO", "EINTR"]));
    }

    #[test]
    fn an_unlisted_call_is_unknown() {
        assert_eq!(at("quotactl", None), Unknown);
        assert_eq!(at("mmap", None), Leave(MEMORY));
    }
}
