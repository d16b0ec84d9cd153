//! What only the process knows about itself, for metrics: the core has no files and reads no clock.

/// Facts about the process. The shell measures them when an answer of the HTTP port needs them. A
/// fact that the system does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// When the process started, in seconds since 1970.
    pub started_s: f64,
    /// The memory of the process that is in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// The time that the process has used of all processors, in seconds.
    pub cpu_s: Option<f64>,
    /// The number of open descriptors.
    pub open_fds: Option<u64>,
    /// The number of descriptors that may be open.
    pub max_fds: Option<u64>,
    /// The number of log lines that were handed to the thread that writes them.
    pub log_lines: u64,
    /// The number of log lines that were dropped.
    pub log_dropped: u64,
    /// The number of connections that the system could not give to the server, because it lacked
    /// descriptors or memory.
    pub accept_failures: u64,
}
