//! Finds, opens and reads a journal, and checks whether the server of the journal runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use super::sink::Stop;
use super::{DAMAGED, Failure, report};
use crate::core::base::clock::Time;
use crate::core::journal::format::{Format, HeaderProbe, Piece, Scan, Tail, probe_header};
use crate::shell::clock::Clock;
use crate::shell::disk::{JOURNAL, LOCK, has_no_locks};

/// How many bytes are read at once.
const READ_BYTES: usize = 1 << 20;
/// How many bytes are read to find the header and the first entry after it.
const PROBE_BYTES: usize = 8 << 10;
/// The time after which progress is first shown on the terminal; also the interval between two
/// updates.
const PROGRESS: Duration = Duration::from_secs(1);

/// A journal that is open for reading.
pub(super) struct Journal {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The contents of the journal's header. `None` if no header is written yet.
    pub(super) head: Option<JournalHeader>,
}

/// The contents of a header.
pub(super) struct JournalHeader {
    pub(super) server: String,
    pub(super) format: Format,
    /// The length of the header in bytes. The first entry begins there.
    pub(super) bytes: u64,
    /// Whether the header is damaged, but enough of it is left to read the journal.
    pub(super) is_header_repaired: bool,
}

impl Journal {
    /// Opens a journal for reading only, without a lock. Warns on the standard error if the server
    /// of the journal is running.
    pub(super) fn open(path: &Path) -> Result<Journal, Failure> {
        let path = find(path)?;
        let file = open(&path)?;
        let head = read_header(&path, &file)?;
        if is_locked(&path) {
            let server = head.as_ref().map_or("its server", |head| &head.server);
            report(format_args!(
                "{server} is running: what it is writing may be incomplete here"
            ));
        }
        Ok(Journal { path, file, head })
    }

    /// Opens a journal, and takes the lock that its server needs. Fails if the server is running.
    /// The server cannot start while the returned lock file is open. The lock is `None` if no lock
    /// is needed or possible.
    pub(super) fn open_alone(path: &Path) -> Result<(Journal, Option<File>), Failure> {
        let path = find(path)?;
        let file = open(&path)?;
        let lock = lock(&path)?;
        let head = read_header(&path, &file)?;
        Ok((Journal { path, file, head }, lock))
    }

    pub(super) fn length(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Reads everything after the header, and calls `on_piece` with each piece. Returns the offset
    /// after the last good entry, and the number of torn bytes after that offset.
    pub(super) fn read(
        &self,
        stop: &Stop,
        mut on_piece: impl FnMut(Piece<'_>) -> Result<(), Failure>,
    ) -> Result<Tail, Failure> {
        let Some(head) = &self.head else {
            return Ok(Tail {
                offset: 0,
                torn_bytes: 0,
            });
        };
        let mut scan = Scan::new(head.format, head.bytes);
        let mut progress = Progress::new(self.length());
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = head.bytes;
        let mut outcome = Ok(());
        let mut forward = |piece: Piece<'_>| {
            if outcome.is_ok() {
                outcome = on_piece(piece);
            }
        };
        loop {
            stop.check()?;
            match self.file.read_at(&mut buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    offset += count as u64;
                    scan.data_received(&buffer[..count], &mut forward);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(offset, &error)),
            }
            progress.at(offset);
        }
        let tail = scan.finish(&mut forward);
        outcome?;
        Ok(tail)
    }

    fn unreadable(&self, offset: u64, error: &io::Error) -> Failure {
        Failure::new(format_args!(
            "cannot read {} at byte {offset}: {error}; copy what can be read elsewhere (ddrescue), and look at the copy",
            self.path.display()
        ))
    }
}

/// Returns the journal's path: `path` itself, or the journal in `path` if that is a data directory.
fn find(path: &Path) -> Result<PathBuf, Failure> {
    let path_text = path.display();
    let metadata = fs::metadata(path)
        .map_err(|error| Failure::new(format_args!("cannot look at {path_text}: {error}")))?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let journal = path.join(JOURNAL);
    if fs::symlink_metadata(&journal).is_ok() {
        return Ok(journal);
    }
    // `path` can be the parent of the data directories of several servers. The error message names
    // the journals in these directories.
    let entries = fs::read_dir(path)
        .map_err(|error| Failure::new(format_args!("cannot look into {path_text}: {error}")))?;
    let mut with_journal: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join(JOURNAL).exists())
        .map(|path| path.display().to_string())
        .collect();
    with_journal.sort();
    let hint = match with_journal.len() {
        0 => String::new(),
        _ => format!("; there is one in {}", with_journal.join(", ")),
    };
    Err(Failure::new(format_args!(
        "there is no journal in {path_text}{hint}"
    )))
}

fn open(path: &Path) -> Result<File, Failure> {
    let path_text = path.display();
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "; only the server's user may read it",
            _ => "",
        };
        Failure::new(format_args!("cannot read {path_text}: {error}{hint}"))
    };
    // Without `NONBLOCK`, opening a named pipe would wait for a writer.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    match metadata.is_file() {
        true => Ok(file),
        false => Err(Failure::new(format_args!(
            "{path_text} is no regular file, and so no journal"
        ))),
    }
}

fn read_header(path: &Path, file: &File) -> Result<Option<JournalHeader>, Failure> {
    let path_text = path.display();
    let mut first = vec![0; PROBE_BYTES];
    let mut length = 0;
    while length < first.len() {
        match file.read_at(&mut first[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::new(format_args!(
                    "cannot read {path_text}: {error}"
                )));
            }
        }
    }
    first.truncate(length);
    let (server, format, bytes, is_header_repaired) = match probe_header(&first) {
        HeaderProbe::Valid {
            server,
            format,
            bytes,
        } => (server, format, bytes, false),
        HeaderProbe::Repaired {
            server,
            format,
            bytes,
        } => (server, format, bytes, true),
        HeaderProbe::Unwritten if has_more(file, length as u64) => {
            return Err(destroyed_header(path));
        }
        HeaderProbe::Unwritten => return Ok(None),
        HeaderProbe::SaltLost => return Err(destroyed_header(path)),
        HeaderProbe::NewerFormat(format) => {
            return Err(Failure::new(format_args!(
                "{path_text} is a journal of format {format}, which version {} does not know; use the herd-journal of the version that wrote it",
                env!("CARGO_PKG_VERSION")
            )));
        }
        HeaderProbe::NotAJournal => {
            return Err(Failure::new(format_args!(
                "{path_text} does not begin as the journal of a herd-mio server: it is another file, or its beginning is destroyed"
            )));
        }
    };
    Ok(Some(JournalHeader {
        server,
        format,
        bytes: bytes as u64,
        is_header_repaired,
    }))
}

/// Whether the file has any byte except zeros at or after `offset`. Also returns `true` if the file
/// cannot be read.
fn has_more(file: &File, mut offset: u64) -> bool {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return false,
            Ok(count) if buffer[..count].iter().any(|&byte| byte != 0) => return true,
            Ok(count) => offset += count as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

fn destroyed_header(path: &Path) -> Failure {
    Failure::Error(
        DAMAGED,
        format!(
            "the header of {} is destroyed, and with it the salt: no entry can be told from garbage. Put a good copy in its place, or move it away: then the server begins empty, and is sent what its neighbours know",
            path.display()
        ),
    )
}

/// Returns the target of `journal` if `journal` is a symbolic link, otherwise `journal`. This
/// matters because the lock file of the server is in the directory of the target.
fn resolve(journal: &Path) -> PathBuf {
    fs::canonicalize(journal).unwrap_or_else(|_| journal.to_owned())
}

/// Returns the path of the lock file: the server locks this file in the directory of its journal.
fn lock_path(journal: &Path) -> PathBuf {
    journal.with_file_name(LOCK)
}

/// Whether a server uses the journal. To find out, this function takes a shared lock for a moment.
/// A server that starts in that moment fails, and reports that another process uses its directory.
fn is_locked(journal: &Path) -> bool {
    let journal = &resolve(journal);
    let is_journal = journal.file_name().is_some_and(|name| name == JOURNAL);
    let lock = File::open(lock_path(journal)).ok().filter(|_| is_journal);
    lock.is_some_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Takes the lock of the journal's server, so that the server cannot start while the returned file
/// is open. Returns `None` if no lock is needed or possible.
fn lock(journal: &Path) -> Result<Option<File>, Failure> {
    let journal = &resolve(journal);
    // A server uses only a file with this name. A file of another name is a copy, which needs no
    // lock.
    if journal.file_name().is_none_or(|name| name != JOURNAL) {
        return Ok(None);
    }
    let path = lock_path(journal);
    let path_text = path.display();
    let is_new = !path.exists();
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let lock = match opened {
        Ok(lock) => {
            // The server has to open the lock file too, perhaps as another user. So the lock file
            // gets the owner of the journal.
            if is_new && let Ok(owner) = fs::metadata(journal) {
                let _ = fchown(&lock, Some(owner.uid()), Some(owner.gid())); // only root can
            }
            lock
        }
        // On a read-only file system, no server can write the journal, so no lock is needed.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(None),
        Err(error) => {
            return Err(Failure::new(format_args!(
                "cannot lock {path_text}: {error}; repair needs to, so that no server starts meanwhile; or look at a copy of another name"
            )));
        }
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format_args!(
            "the server of {} is running: stop it first",
            journal.display()
        ))),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => {
            report(format_args!(
                "the file system of {path_text} has no locks: make sure that the server does not run"
            ));
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(Failure::new(format_args!(
            "cannot lock {path_text}: {error}"
        ))),
    }
}

/// Shows on a terminal how much of the journal has been read, if reading takes longer than a
/// second.
struct Progress {
    clock: Clock,
    whole: u64,
    next: Time,
    is_shown: bool,
}

impl Progress {
    fn new(whole: u64) -> Progress {
        Progress {
            clock: Clock::start(),
            whole,
            next: Time::default() + PROGRESS,
            is_shown: false,
        }
    }

    fn at(&mut self, offset: u64) {
        let now = self.clock.now().time;
        if now < self.next || !io::stderr().is_terminal() {
            return;
        }
        self.next = now + PROGRESS;
        self.is_shown = true;
        let percent = offset * 100 / self.whole.max(1);
        let _ = write!(io::stderr(), "\r{:>3} % read", percent.min(100));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
