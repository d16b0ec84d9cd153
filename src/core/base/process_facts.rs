//! Facts about the process, for metrics. The shell measures these facts and passes them to the
//! core, because the core reads no files and no clock.

/// Facts about the process, measured when an answer of the HTTP port needs them. A fact is `None`
/// if the system does not provide it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// When the process started, in seconds since 1970.
    pub started_s: f64,
    /// The part of the process's memory that is in RAM (the resident set), in bytes.
    pub resident_bytes: Option<u64>,
    /// The CPU time that the process has used, in seconds.
    pub cpu_s: Option<f64>,
    /// The number of open descriptors.
    pub open_fds: Option<u64>,
    /// The maximum number of descriptors that may be open at once.
    pub max_fds: Option<u64>,
    /// The number of log lines that were handed to the thread that writes them.
    pub log_lines: u64,
    /// The number of log lines that were dropped.
    pub log_dropped: u64,
    /// The number of times that accept(2) failed, for example because the system lacked descriptors
    /// or memory. Each failed retry counts.
    pub accept_failures: u64,
}
