//! The log. tracing formats lines into memory, and a thread writes them to the disk.
//!
//! So no task waits for the disk. tracing-appender does the same with a channel. But the channel
//! wakes its thread for each line, and with two lines per command that costs more than the
//! commands.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

/// The time for which lines are collected before a write.
const GATHER: Duration = Duration::from_millis(50);
/// The greatest size of unwritten lines. More lines are dropped and counted.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The log. Dropping it writes all lines so far.
pub(crate) struct Log {
    /// Dropped first, because the thread waits for that.
    closing: Option<Sender<()>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    dropped: u64,
}

/// Starts the log, which appends to `path`.
pub(crate) fn start(path: &Path, level: LevelFilter) -> io::Result<Log> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let gathered = Gathered::default();
    let (closing, closed) = channel();
    let writer = thread::Builder::new().name("log".into()).spawn({
        let gathered = gathered.clone();
        move || write_out(&gathered, file, &closed)
    })?;
    tracing_subscriber::fmt()
        .with_writer(move || gathered.clone())
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .init();
    Ok(Log {
        closing: Some(closing),
        writer: Some(writer),
    })
}

impl Drop for Log {
    fn drop(&mut self) {
        self.closing.take();
        if let Some(writer) = self.writer.take() {
            // An error means that the thread panicked, which was already reported.
            let _ = writer.join();
        }
    }
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Gathered {
    /// tracing writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lock();
        if lines.bytes.len() < MAX_BYTES {
            lines.bytes.extend_from_slice(line);
        } else {
            lines.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs in the writer thread.
fn write_out(gathered: &Gathered, mut file: File, closed: &Receiver<()>) {
    let mut batch = Vec::new();
    let mut is_open = true;
    while is_open {
        is_open = closed.recv_timeout(GATHER) == Err(RecvTimeoutError::Timeout);
        let dropped = {
            let mut lines = gathered.lock();
            std::mem::swap(&mut lines.bytes, &mut batch);
            std::mem::take(&mut lines.dropped)
        };
        if let Err(error) = file.write_all(&batch) {
            // Fails if the standard error is closed too.
            let _ = writeln!(io::stderr(), "herd-tokio: cannot write the log: {error}");
        }
        batch.clear();
        if dropped > 0 {
            tracing::warn!("{dropped} lines of the log were dropped, the disk did not keep up");
        }
    }
}
