//! The log: `log` and `simplelog` write into memory, a thread of its own writes to the disk.
//!
//! ```text
//!   loop: log lines ──► the turn's buffer ──flush, at least once a turn──► shared buffer ──► writer thread ──► file
//! ```
//!
//! The loop never waits for the disk. When the shared buffer is full, whole lines are dropped,
//! counted, and told once there is room. The writer is woken only when it sleeps, and gathers for a
//! moment after each write, so that a busy log costs the loop no system calls to speak of.

mod stamp;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use stamp::Stamp;

/// How long the writer gathers lines before the next write,
const GATHER: Duration = Duration::from_millis(50);
/// unless so much of the room for them is taken: an eighth.
const ENOUGH: usize = 8;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// A signal asked to open the file anew.
    reopen: Arc<AtomicBool>,
}

/// How often a file that could not be opened anew is tried again.
const REOPEN: Duration = Duration::from_secs(1);

/// How long the end of the program waits for the last lines to be written: a disk or a pipe that
/// hangs does not keep it.
const LAST_LINES: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    /// Whole lines that the writer has not taken yet.
    lines: Vec<u8>,
    /// Lines for which there was no room, in memory or on the disk. The writer tells how many, and
    /// forgets them once that is written.
    lost: u64,
    /// The writer will come for the lines by itself.
    awake: bool,
    closing: bool,
    /// The writer has written everything and is gone.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// How grave the line is that this thread writes.
    static LEVEL: Cell<Level> = const { Cell::new(Level::Info) };
}

/// Lets simplelog write the lines, but for their stamps: these are put before them where they
/// arrive.
struct Stamped(Box<WriteLogger<TurnBuffer>>);

impl Log for Stamped {
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

/// The end that simplelog writes to: the turn's buffer.
struct TurnBuffer {
    shared: Arc<Shared>,
    stamp: Stamp,
    lines: Vec<u8>,
    /// Lines may wait for the disk in this many bytes, the turn's own included.
    limit: usize,
    /// What waited in the shared buffer when last seen.
    handed_over: usize,
    at_line_start: bool,
    dropping: bool,
    dropped: u64,
}

impl Write for TurnBuffer {
    /// simplelog writes a line in pieces; all of a line is kept, or none of it.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.at_line_start {
            // A turn may say more than there is room for, and the writer may have made room since
            // it began.
            if self.lines.len() >= self.limit / ENOUGH {
                self.flush()?;
            }
            self.dropping = self.lines.len() + self.handed_over >= self.limit;
            self.dropped += u64::from(self.dropping);
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

    /// Hands the turn's lines over.
    fn flush(&mut self) -> io::Result<()> {
        let reopen = self.shared.reopen.load(Ordering::Relaxed);
        if self.lines.is_empty() && self.dropped == 0 && self.handed_over == 0 && !reopen {
            return Ok(());
        }
        let mut state = self.shared.lock();
        state.lost += std::mem::take(&mut self.dropped);
        let waited = state.lines.len();
        if state.lines.is_empty() {
            std::mem::swap(&mut state.lines, &mut self.lines);
        } else {
            state.lines.append(&mut self.lines);
        }
        let had_enough = waited >= self.limit / ENOUGH;
        self.handed_over = state.lines.len();
        let has_enough = self.handed_over >= self.limit / ENOUGH;
        if !state.awake && (self.handed_over > 0 || reopen) || has_enough && !had_enough {
            state.awake = true;
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

/// The writer thread; when this is dropped, everything logged so far is written, if the disk takes
/// it within a second.
pub struct Logging {
    shared: Arc<Shared>,
}

/// Why nothing can be logged.
#[derive(Debug)]
pub enum LogError {
    /// The file cannot be opened.
    File(io::Error),
    /// The system has no thread to write it.
    System(io::Error),
}

/// Begins to log into `path` (`-`: the standard error), appending, at most `limit` bytes waiting
/// for the disk. Once `reopen` is set (by SIGHUP or SIGUSR1), the file is opened anew, so that it
/// can be moved away and be rotated: at the next flush, also if there is no line to write. A file
/// that cannot be opened is tried again every second; until then lines go on into the old one.
///
/// # Errors
/// The file cannot be opened, the thread not be started, or another logger is set already.
pub fn start(
    path: &Path,
    level: LevelFilter,
    limit: usize,
    reopen: Arc<AtomicBool>,
) -> Result<Logging, LogError> {
    let sink = Sink::open(path).map_err(LogError::File)?;
    let shared = Arc::new(Shared {
        reopen,
        ..Shared::default()
    });
    let writer = thread::Builder::new().name("log".into()).spawn({
        let (shared, path) = (shared.clone(), path.to_owned());
        move || {
            write_out(&shared, sink, &path, (GATHER, limit / ENOUGH));
            shared.lock().closed = true;
            shared.wake.notify_all();
        }
    });
    writer.map_err(LogError::System)?;
    let config = ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // What rustls has to say is about bytes; what it means for us is in our own lines.
        .add_filter_allow_str("herd_mio")
        .build();
    let turn = TurnBuffer {
        shared: shared.clone(),
        stamp: Stamp::default(),
        lines: Vec::new(),
        limit,
        handed_over: 0,
        at_line_start: true,
        dropping: false,
        dropped: 0,
    };
    let logger = Stamped(WriteLogger::new(level, config, turn));
    log::set_boxed_logger(Box::new(logger))
        .map_err(|error| LogError::System(io::Error::other(error)))?;
    log::set_max_level(level);
    Ok(Logging { shared })
}

/// Whether `path` can be logged to; leaves nothing behind. A file that is not there is not made:
/// removing it again could take it from a server that has just opened it.
///
/// # Errors
/// It cannot be opened or made.
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
            .wait_timeout_while(state, LAST_LINES, |state| !state.closed);
        drop(written); // in time or not, the program ends
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the log is read beside clocks on walls"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

enum Sink {
    File(File),
    StandardError,
}

impl Sink {
    fn open(path: &Path) -> io::Result<Sink> {
        match path.to_str() {
            Some("-") => Ok(Sink::StandardError),
            _ => {
                // Opened for both, a pipe that nobody reads yet keeps nobody waiting (fifo(7)).
                let is_pipe = path.metadata().is_ok_and(|file| file.file_type().is_fifo());
                let mut options = OpenOptions::new();
                options.create(true).append(true).read(is_pipe);
                Ok(Sink::File(options.open(path)?))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::File(file) => file.write_all(bytes),
            Sink::StandardError => io::stderr().write_all(bytes),
        }
    }
}

/// The writer thread.
fn write_out(shared: &Shared, sink: Sink, path: &Path, (gather, enough): (Duration, usize)) {
    let mut output = Output {
        sink,
        path,
        is_failing: false,
        is_old: false,
    };
    let mut lines = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.lines.is_empty()
            && !state.closing
            && !shared.reopen.load(Ordering::Relaxed)
            && !output.is_old
        {
            state.awake = false;
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.lines.is_empty() && state.closing {
            return; // nothing left
        }
        std::mem::swap(&mut state.lines, &mut lines);
        let mut lost = std::mem::take(&mut state.lost);
        drop(state);

        if shared.reopen.swap(false, Ordering::Relaxed) || output.is_old {
            output.reopen();
        }
        let unwritten = output.write(&lines);
        lines.clear();
        lost += unwritten;
        if lost > 0
            && unwritten == 0
            && output.say(&format!(
                "{lost} lines were dropped, the disk did not keep up"
            ))
        {
            lost = 0;
        }

        let mut state = shared.lock();
        state.lost += lost;
        if !state.closing {
            // A file that could not be opened anew is tried again by this thread itself: there may
            // be no more lines.
            let pause = if output.is_old { REOPEN } else { gather };
            let gathered = shared.wake.wait_timeout_while(state, pause, |state| {
                !state.closing
                    && state.lines.len() < enough
                    && !shared.reopen.load(Ordering::Relaxed)
            });
            drop(gathered);
        }
    }
}

/// Where the writer thread writes.
struct Output<'a> {
    sink: Sink,
    path: &'a Path,
    /// The last write failed.
    is_failing: bool,
    /// The file could not be opened anew: this is still the old one.
    is_old: bool,
}

impl Output<'_> {
    fn reopen(&mut self) {
        let name = self.path.display();
        match Sink::open(self.path) {
            Ok(opened) => {
                self.sink = opened;
                if std::mem::take(&mut self.is_old) {
                    self.tell("the log is opened anew at last");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_old, true) {
                    self.tell(&format!(
                        "cannot open the log {name} anew: {error}; lines go on into the old file, and it is tried again every second"
                    ));
                }
            }
        }
    }

    /// Tells the operator what became of the log itself: in the log, and on the standard error,
    /// which may be closed.
    fn tell(&mut self, what: &str) {
        let _ = writeln!(io::stderr(), "herd-mio: {what}");
        if let Sink::File(_) = self.sink {
            self.say(what);
        }
    }

    /// Writes a line of the log's own; returns whether it is written.
    fn say(&mut self, what: &str) -> bool {
        let mut line = Vec::new();
        Stamp::default().write(now(), Level::Warn, &mut line);
        line.extend_from_slice(format!("log: {what}\n").as_bytes());
        self.write(&line) == 0
    }

    /// Writes lines; returns how many of them are lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        // A line that was torn by a full disk ends here, so that the next one begins a line.
        let torn = if self.is_failing {
            self.sink.write_all(b"\n")
        } else {
            Ok(())
        };
        let written = torn.and_then(|()| self.sink.write_all(lines));
        if let (Err(error), false) = (&written, self.is_failing) {
            // The standard error may be closed too. Then there is no way to tell.
            let name = self.path.display();
            let _ = writeln!(
                io::stderr(),
                "herd-mio: cannot write the log {name}: {error}; lines are dropped until it works again"
            );
        }
        self.is_failing = written.is_err();
        match written {
            Ok(()) => 0,
            Err(_) => memchr::memchr_iter(b'\n', lines).count() as u64,
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

    /// A turn's buffer with room for 8,000 bytes, and a writer that gathers for a minute unless
    /// there is enough to write.
    fn with_writer(path: &Path) -> TurnBuffer {
        let shared = Arc::new(Shared::default());
        let sink = Sink::open(path).unwrap();
        let (path, of_writer) = (path.to_owned(), shared.clone());
        let gather = (Duration::from_secs(60), 8_000 / ENOUGH);
        thread::spawn(move || {
            write_out(&of_writer, sink, &path, gather);
        });
        TurnBuffer {
            shared,
            stamp: Stamp::default(),
            lines: Vec::new(),
            limit: 8_000,
            handed_over: 0,
            at_line_start: true,
            dropping: false,
            dropped: 0,
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
    fn whenever_there_is_enough_the_writer_writes_it_at_once() {
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
    fn a_turn_may_say_more_than_there_is_room_for_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut turn = with_writer(&path);
        for count in 1..=20 {
            turn.write_all(&[b'x'; 2_000]).unwrap();
            turn.write_all(b"\n").unwrap();
            // The last line stays with the turn until the next one begins.
            wait_for_lines(&path, count - 1);
        }
        assert_eq!(turn.dropped, 0);
    }
}
