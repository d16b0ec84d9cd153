//! The journal that is looked at: found, opened, read in pieces; and whether its server runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use super::sink::Stop;
use super::{DAMAGED, Failure, tell};
use crate::core::base::clock::Time;
use crate::core::journal::format::{Format, Label, Piece, Scan, Tail, label};
use crate::shell::clock::Clock;
use crate::shell::disk::{JOURNAL, LOCK, has_no_locks};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes that are read to find the header, and the first entry behind it.
const LABEL_BYTES: usize = 8 << 10;
/// When the terminal is first told how far the reading has got, and how often then.
const PROGRESS: Duration = Duration::from_secs(1);

/// A journal that can be read.
pub(super) struct Journal {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// What its header says; nothing, if none is written yet.
    pub(super) head: Option<Head>,
}

/// What a header says.
pub(super) struct Head {
    pub(super) server: String,
    pub(super) format: Format,
    /// Where the first entry begins.
    pub(super) bytes: u64,
    /// It was damaged, and enough of it is left.
    pub(super) is_mended: bool,
}

impl Journal {
    /// Opens a journal to be read only; if its server runs, that is told.
    pub(super) fn open(path: &Path) -> Result<Journal, Failure> {
        let path = find(path)?;
        let file = open(&path)?;
        let head = read_head(&path, &file)?;
        if is_locked(&path) {
            let server = head.as_ref().map_or("its server", |head| &head.server);
            tell(format_args!(
                "{server} is running: what it is writing may be incomplete here"
            ));
        }
        Ok(Journal { path, file, head })
    }

    /// Opens a journal that its server must not use meanwhile.
    pub(super) fn open_alone(path: &Path) -> Result<(Journal, Option<File>), Failure> {
        let path = find(path)?;
        let file = open(&path)?;
        let lock = lock(&path)?;
        let head = read_head(&path, &file)?;
        Ok((Journal { path, file, head }, lock))
    }

    pub(super) fn length(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Reads everything behind the header, and tells what it finds.
    pub(super) fn read(
        &self,
        stop: &Stop,
        mut tell: impl FnMut(Piece<'_>) -> Result<(), Failure>,
    ) -> Result<Tail, Failure> {
        let Some(head) = &self.head else {
            return Ok(Tail { offset: 0, torn: 0 });
        };
        let mut scan = Scan::new(head.format, head.bytes);
        let mut progress = Progress::new(self.length());
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = head.bytes;
        let mut outcome = Ok(());
        let mut pass_on = |piece: Piece<'_>| {
            if outcome.is_ok() {
                outcome = tell(piece);
            }
        };
        loop {
            stop.check()?;
            match self.file.read_at(&mut buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    offset += count as u64;
                    scan.data_received(&buffer[..count], &mut pass_on);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(offset, &error)),
            }
            progress.at(offset);
        }
        let tail = scan.finish(&mut pass_on);
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

/// The journal that a path leads to: itself, or the one in that data directory.
fn find(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let metadata = fs::metadata(path)
        .map_err(|error| Failure::new(format_args!("cannot look at {shown}: {error}")))?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let journal = path.join(JOURNAL);
    if fs::symlink_metadata(&journal).is_ok() {
        return Ok(journal);
    }
    // The data directory of a herd has one for each of its servers.
    let entries = fs::read_dir(path)
        .map_err(|error| Failure::new(format_args!("cannot look into {shown}: {error}")))?;
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
        "there is no journal in {shown}{hint}"
    )))
}

fn open(path: &Path) -> Result<File, Failure> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "; only the server's user may read it",
            _ => "",
        };
        Failure::new(format_args!("cannot read {shown}: {error}{hint}"))
    };
    // A pipe without a writer must not be waited for.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    match metadata.is_file() {
        true => Ok(file),
        false => Err(Failure::new(format_args!(
            "{shown} is no regular file, and so no journal"
        ))),
    }
}

fn read_head(path: &Path, file: &File) -> Result<Option<Head>, Failure> {
    let shown = path.display();
    let mut first = vec![0; LABEL_BYTES];
    let mut length = 0;
    while length < first.len() {
        match file.read_at(&mut first[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::new(format_args!("cannot read {shown}: {error}")));
            }
        }
    }
    first.truncate(length);
    let (server, format, bytes, is_mended) = match label(&first) {
        Label::Whole {
            server,
            format,
            bytes,
        } => (server, format, bytes, false),
        Label::Mended {
            server,
            format,
            bytes,
        } => (server, format, bytes, true),
        Label::Unwritten if has_more(file, length as u64) => return Err(lost(path)),
        Label::Unwritten => return Ok(None),
        Label::Lost => return Err(lost(path)),
        Label::Later(format) => {
            return Err(Failure::new(format_args!(
                "{shown} is a journal of format {format}, which version {} does not know; use the herd-journal of the version that wrote it",
                env!("CARGO_PKG_VERSION")
            )));
        }
        Label::Foreign => {
            return Err(Failure::new(format_args!(
                "{shown} does not begin as the journal of a herd-mio server: it is another file, or its beginning is destroyed"
            )));
        }
    };
    Ok(Some(Head {
        server,
        format,
        bytes: bytes as u64,
        is_mended,
    }))
}

/// Whether there is anything but zeros behind the first bytes of a file.
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

fn lost(path: &Path) -> Failure {
    Failure::Told(
        DAMAGED,
        format!(
            "the header of {} is destroyed, and with it the salt: no entry can be told from garbage. Put a good copy in its place, or move it away: then the server begins empty, and is sent what its neighbours know",
            path.display()
        ),
    )
}

/// The journal itself, where the path is a symbolic link to it: its server locks the directory
/// where the journal is, and repair gives its name to another file there.
fn resolve(journal: &Path) -> PathBuf {
    fs::canonicalize(journal).unwrap_or_else(|_| journal.to_owned())
}

/// The file that a server locks in the data directory of that journal.
fn lock_path(journal: &Path) -> PathBuf {
    journal.with_file_name(LOCK)
}

/// Whether a server uses the journal. It is asked for a moment's shared lock; a server that starts
/// within that moment says that another process uses its directory.
fn is_locked(journal: &Path) -> bool {
    let journal = &resolve(journal);
    let is_journal = journal.file_name().is_some_and(|name| name == JOURNAL);
    let lock = File::open(lock_path(journal)).ok().filter(|_| is_journal);
    lock.is_some_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Keeps the journal's server from starting, for as long as the file is held.
fn lock(journal: &Path) -> Result<Option<File>, Failure> {
    let journal = &resolve(journal);
    // A copy elsewhere has no server.
    if journal.file_name().is_none_or(|name| name != JOURNAL) {
        return Ok(None);
    }
    let path = lock_path(journal);
    let shown = path.display();
    let is_new = !path.exists();
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let lock = match made {
        Ok(lock) => {
            // The server, which may be another user, has to open it too.
            if is_new && let Ok(owner) = fs::metadata(journal) {
                let _ = fchown(&lock, Some(owner.uid()), Some(owner.gid())); // if this is root
            }
            lock
        }
        // Nor does a server write there.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(None),
        Err(error) => {
            return Err(Failure::new(format_args!(
                "cannot lock {shown}: {error}; repair needs to, so that no server starts meanwhile; or look at a copy of another name"
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
            tell(format_args!(
                "the file system of {shown} has no locks: make sure that the server does not run"
            ));
            Ok(None)
        }
        Err(TryLockError::Error(error)) => {
            Err(Failure::new(format_args!("cannot lock {shown}: {error}")))
        }
    }
}

/// Says on a terminal how far the reading has got, if it takes long.
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
