//! The log. The crates `log` and `simplelog` write lines into memory, and a thread writes them to
//! the file.
//!
//! ```text
//!   loop: log lines ──► the turn's buffer ──flush, at least once a turn──► shared buffer ──► writer thread ──► file
//! ```
//!
//! The loop never waits for the disk. When the buffers are full, whole lines are dropped and
//! counted. Later, a line in the log gives the number of dropped lines.
//!
//! After each write, the writer waits a moment (`GATHER`) to gather lines. The loop wakes the
//! writer only if the writer sleeps, or if many lines wait. So the loop makes few system calls for
//! a busy log.

mod output;
mod stamp;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use output::{Output, Sink};
use stamp::Stamp;

pub use output::{Reserve, Rotation};

/// The number of lines since the start that were put into the shared buffer, for the writer. The
/// variable is static, because a process has only one logger.
static LINES: AtomicU64 = AtomicU64::new(0);
/// The number of lines since the start that were dropped: because the buffers were full, or because
/// the writer could not write them.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns two numbers, counted since the start: the lines that the writer got, and the lines that
/// were dropped. A line that the writer dropped is in both numbers.
#[must_use]
pub fn counts() -> (u64, u64) {
    (
        LINES.load(Ordering::Relaxed),
        DROPPED.load(Ordering::Relaxed),
    )
}

/// How long the writer gathers lines before the next write.
const GATHER: Duration = Duration::from_millis(50);
/// A divisor of the buffer's size. When the lines fill one eighth of the buffer, the writer stops
/// gathering and writes the lines.
const FLUSH_DIVISOR: usize = 8;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// A signal handler sets this flag, so that the writer opens the log file again.
    reopen: Arc<AtomicBool>,
}

/// The interval at which the writer tries again to open a file that could not be opened.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum time for which the ending program waits until the last lines are written. The wait
/// is limited because a disk or a pipe may hang.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    /// Complete lines that the writer has not taken yet.
    lines: Vec<u8>,
    /// The number of lines that were dropped because memory or the disk had no space. The writer
    /// logs this number and resets it.
    dropped_lines: u64,
    /// Whether the writer is not asleep, so that it takes new lines without being woken.
    awake: bool,
    closing: bool,
    /// Whether the writer has written all lines after `closing` was set. Then its thread ends.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// The level of the line that this thread is writing.
    static LEVEL: Cell<Level> = const { Cell::new(Level::Info) };
}

/// Passes each log line to simplelog, and stores the line's level in `LEVEL`. simplelog formats the
/// line without time and level. [`TurnBuffer`] puts the time and the level in front of the line.
struct StampingLogger(Box<WriteLogger<TurnBuffer>>);

impl Log for StampingLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        LEVEL.set(record.level());
        self.0.log(record);
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The buffer that simplelog writes to. It contains the lines of the present turn (iteration of the
/// event loop).
struct TurnBuffer {
    shared: Arc<Shared>,
    stamp: Stamp,
    lines: Vec<u8>,
    /// A line is dropped if at least this many bytes already wait, in this buffer and in the shared
    /// buffer together.
    limit: usize,
    /// The number of bytes in the shared buffer at the last flush.
    shared_bytes: usize,
    at_line_start: bool,
    dropping: bool,
    dropped: u64,
    /// The number of lines since the last flush that were not dropped.
    kept: u64,
}

impl Write for TurnBuffer {
    /// simplelog writes a line in several pieces. Either all pieces of a line are stored, or none.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.at_line_start {
            // One turn may write more bytes than `limit`. The writer may have taken lines since the
            // last flush, so a flush in the middle of the turn avoids dropped lines.
            if self.lines.len() >= self.limit / FLUSH_DIVISOR {
                self.flush()?;
            }
            self.dropping = self.lines.len() + self.shared_bytes >= self.limit;
            self.dropped += u64::from(self.dropping);
            self.kept += u64::from(!self.dropping);
            if !self.dropping {
                self.stamp.write(now(), LEVEL.get(), &mut self.lines);
            }
        }
        if !self.dropping {
            self.lines.extend_from_slice(piece);
        }
        self.at_line_start = piece.ends_with(b"\n");
        Ok(piece.len())
    }

    /// Moves the turn's lines to the shared buffer, and wakes the writer if necessary.
    fn flush(&mut self) -> io::Result<()> {
        let reopen = self.shared.reopen.load(Ordering::Relaxed);
        if self.lines.is_empty() && self.dropped == 0 && self.shared_bytes == 0 && !reopen {
            return Ok(());
        }
        LINES.fetch_add(std::mem::take(&mut self.kept), Ordering::Relaxed);
        DROPPED.fetch_add(self.dropped, Ordering::Relaxed);
        let mut state = self.shared.lock();
        state.dropped_lines += std::mem::take(&mut self.dropped);
        let waiting_before = state.lines.len();
        if state.lines.is_empty() {
            std::mem::swap(&mut state.lines, &mut self.lines);
        } else {
            state.lines.append(&mut self.lines);
        }
        let reached_threshold = waiting_before >= self.limit / FLUSH_DIVISOR;
        self.shared_bytes = state.lines.len();
        let reaches_threshold = self.shared_bytes >= self.limit / FLUSH_DIVISOR;
        if !state.awake && (self.shared_bytes > 0 || reopen)
            || reaches_threshold && !reached_threshold
        {
            state.awake = true;
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

/// A running log. When this value is dropped, the dropping thread waits until the writer has
/// written all lines, but at most one second.
pub struct Logging {
    shared: Arc<Shared>,
}

/// Why the log cannot be started.
#[derive(Debug)]
pub enum LogError {
    /// The file cannot be opened.
    File(io::Error),
    /// The system cannot start the writer thread, or another logger is set.
    System(io::Error),
}

/// The file to log to, the level, and the rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The file to log to; `-` is the standard error.
    pub file: PathBuf,
    /// The least severe level that is logged.
    pub level: LevelFilter,
    /// When the server rotates the file. `None` if the server does not rotate it.
    pub rotation: Option<Rotation>,
}

/// Starts to log: lines are appended to the file of `config`. At most `limit` bytes wait for the
/// disk. With a `reserve`, the log leaves space on the disk for the journal.
///
/// When `reopen` is set (by SIGHUP or SIGUSR1), the file is opened again at the next flush, even if
/// there is no line to write. So the file can be renamed and rotated. If the file cannot be opened
/// again, the writer tries every second, and lines go to the old file until then.
///
/// # Errors
/// The file cannot be opened, the thread cannot be started, or another logger is already set.
pub fn start(
    config: &LogConfig,
    limit: usize,
    reserve: Option<Reserve>,
    reopen: Arc<AtomicBool>,
) -> Result<Logging, LogError> {
    let LogConfig {
        file: path,
        level,
        rotation,
    } = config;
    let sink = Sink::open(path).map_err(LogError::File)?;
    let output = Output::new(sink, path.clone(), rotation.clone(), reserve);
    let shared = Arc::new(Shared {
        reopen,
        ..Shared::default()
    });
    let writer = thread::Builder::new().name("log".into()).spawn({
        let shared = shared.clone();
        move || {
            run_writer(&shared, output, (GATHER, limit / FLUSH_DIVISOR));
            shared.lock().closed = true;
            shared.wake.notify_all();
        }
    });
    writer.map_err(LogError::System)?;
    let format = ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // Log only the lines of this crate. Other crates log too: the lines of rustls have details
        // that an operator does not need.
        .add_filter_allow_str("herd_mio")
        .build();
    let turn = TurnBuffer {
        shared: shared.clone(),
        stamp: Stamp::default(),
        lines: Vec::new(),
        limit,
        shared_bytes: 0,
        at_line_start: true,
        dropping: false,
        dropped: 0,
        kept: 0,
    };
    let logger = StampingLogger(WriteLogger::new(*level, format, turn));
    log::set_boxed_logger(Box::new(logger))
        .map_err(|error| LogError::System(io::Error::other(error)))?;
    log::set_max_level(*level);
    Ok(Logging { shared })
}

/// Checks whether the server could write its log to `path`. If the file does not exist, a file of
/// another name is created and removed instead: removing `path` itself could remove the log of a
/// server that has just started.
///
/// # Errors
/// The file cannot be opened or created.
pub fn check(path: &Path) -> io::Result<()> {
    if path.to_str() == Some("-") || path.exists() {
        return Sink::open(path).map(drop);
    }
    let probe = path.with_file_name(format!(".check.{}", std::process::id()));
    File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

impl Drop for Logging {
    fn drop(&mut self) {
        log::logger().flush();
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.wake.notify_all();
        let written = self
            .shared
            .wake
            .wait_timeout_while(state, CLOSE_TIMEOUT, |state| !state.closed);
        drop(written); // written or not, the program ends now
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the log is read beside clocks on walls"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Runs the writer: takes lines from the shared buffer and writes them until the log is closed.
fn run_writer(shared: &Shared, mut output: Output, (gather, threshold): (Duration, usize)) {
    let mut lines = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.lines.is_empty()
            && !state.closing
            && !shared.reopen.load(Ordering::Relaxed)
            && !output.is_stale
        {
            state.awake = false;
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.lines.is_empty() && state.closing {
            return; // everything is written
        }
        std::mem::swap(&mut state.lines, &mut lines);
        let mut dropped_lines = std::mem::take(&mut state.dropped_lines);
        drop(state);

        if shared.reopen.swap(false, Ordering::Relaxed) || output.is_stale {
            output.reopen();
        }
        let unwritten = output.write(&lines);
        DROPPED.fetch_add(unwritten, Ordering::Relaxed);
        lines.clear();
        dropped_lines += unwritten;
        if dropped_lines > 0
            && unwritten == 0
            && output.write_notice(&format!(
                "{dropped_lines} lines were dropped, the disk did not keep up or had no room"
            ))
        {
            dropped_lines = 0;
        }

        let mut state = shared.lock();
        state.dropped_lines += dropped_lines;
        if !state.closing {
            // While the output is still the old file, the writer wakes after a pause to try again
            // to open the log's path. The writer cannot wait for another log line, because there
            // may be none.
            let pause = if output.is_stale {
                REOPEN_INTERVAL
            } else {
                gather
            };
            let gathered = shared.wake.wait_timeout_while(state, pause, |state| {
                !state.closing
                    && state.lines.len() < threshold
                    && !shared.reopen.load(Ordering::Relaxed)
            });
            drop(gathered);
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "deadlines of tests are real time"
)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    /// Returns a `TurnBuffer` with a limit of 8,000 bytes, and starts its writer. The writer waits
    /// for a minute to gather lines, unless an eighth of the limit is reached.
    fn with_writer(path: &Path) -> TurnBuffer {
        let shared = Arc::new(Shared::default());
        let sink = Sink::open(path).unwrap();
        let output = Output::new(sink, path.to_owned(), None, None);
        let of_writer = shared.clone();
        let gather = (Duration::from_secs(60), 8_000 / FLUSH_DIVISOR);
        thread::spawn(move || {
            run_writer(&of_writer, output, gather);
        });
        TurnBuffer {
            shared,
            stamp: Stamp::default(),
            lines: Vec::new(),
            limit: 8_000,
            shared_bytes: 0,
            at_line_start: true,
            dropping: false,
            dropped: 0,
            kept: 0,
        }
    }

    fn wait_for_lines(path: &Path, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(path).unwrap().lines().count() < count {
            assert!(Instant::now() < deadline, "{count} lines are not written");
            thread::yield_now();
        }
    }

    #[test]
    fn the_log_writer_writes_each_full_buffer_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut turn = with_writer(&path);
        for count in 1..=20 {
            turn.write_all(&[b'x'; 2_000]).unwrap();
            turn.write_all(b"\n").unwrap();
            turn.flush().unwrap();
            wait_for_lines(&path, count);
        }
    }

    #[test]
    fn a_turn_may_log_more_than_the_buffer_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut turn = with_writer(&path);
        for count in 1..=20 {
            turn.write_all(&[b'x'; 2_000]).unwrap();
            turn.write_all(b"\n").unwrap();
            // The last line stays in the turn's buffer until the next line begins.
            wait_for_lines(&path, count - 1);
        }
        assert_eq!(turn.dropped, 0);
    }
}
