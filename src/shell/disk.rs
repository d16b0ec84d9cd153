//! Opens, reads and writes the journal's files. While the server runs, this module does the
//! [`DiskWork`] that the core requests, and decides nothing itself.
//!
//! The data directory contains `journal`, `journal.new` (the next file, written by a compaction)
//! and `lock` (held by one process at a time). The files are opened relative to a descriptor of the
//! directory, so the directory may be moved while the server runs.
//!
//! Three threads do the work, and each thread does its jobs in order. The writer appends, the
//! reserver reserves disk space, and the keeper does everything else. While the server serves, the
//! loop waits for none of these threads. A slow sync delays neither an append nor the next
//! reservation.
//!
//! # Errors of file systems that are tolerated
//!
//! | call | errors | reaction |
//! |---|---|---|
//! | `fallocate` | `EOPNOTSUPP`, `ENOSYS`, `EPERM`, `EINVAL`, `ENODEV` | sandboxes and some file systems cannot reserve: the server writes without a reservation |
//! | `flock` | `ENOLCK`, `EOPNOTSUPP`, `ENOSYS`, `EINVAL` | the file system has no locks: the operator gets a warning |
//! | `fsync` of a directory | `EINVAL`, `EBADF`, `EOPNOTSUPP`, `ENOSYS`, `EACCES` | the file system syncs names by itself, or never: the operator gets a warning |
//! | `rename` | any, if the old file still has its name | the compaction is abandoned |
//!
//! A lack of space (`ENOSPC`, `EDQUOT`, `EFBIG`) is reported as [`DiskErrorKind::Full`], whichever
//! call returns it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use log::{info, warn};
use mio::Waker;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use crate::core::journal::durability::{
    Chunk, DiskDone, DiskError, DiskErrorKind, DiskWork, FileId, Opened, SwitchOutcome,
};
use crate::core::journal::format::{End, Entry, Format, JournalError, Replay};
use crate::shell::clock::Clock;
use crate::shell::executor::Executor;

/// The number of bytes that one call reads when the journal is read at start.
const READ_BYTES: usize = 1 << 20;
/// The time between two log lines that report how much of the journal is read.
const PROGRESS: Duration = Duration::from_secs(2);
/// If a directory cannot be synced because the disk is full, the keeper waits this long before it
/// tries again.
const SYNC_AGAIN: Duration = Duration::from_millis(200);

/// Mode of the journal's files: positions of clients are private, so only the server's user may
/// read them.
const OWNER_ONLY: Mode = Mode::from_raw_mode(0o600);

/// The journal's file name in a data directory.
pub(crate) const JOURNAL: &str = "journal";
/// The name of the file that a server locks.
pub(crate) const LOCK: &str = "lock";
pub(crate) const NEXT: &str = "journal.new";

/// Why the journal cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The directory is in use or cannot be used, or its journal is damaged or not this server's.
    /// The text gives the reason.
    Unusable(String),
    /// A signal stopped the server while it read the journal.
    Stopped,
}

impl From<String> for OpenError {
    fn from(what: String) -> OpenError {
        OpenError::Unusable(what)
    }
}

/// The open journal files of one server, and the threads that work on them.
pub struct Disk {
    directory: Arc<File>,
    /// The open lock file. The directory stays locked until this file is closed.
    _lock: File,
    /// The open journal file. While a compaction runs, also `journal.new`, the file that replaces
    /// the journal.
    files: Vec<(FileId, Arc<File>)>,
    writer: Executor<Vec<(Arc<File>, Chunk)>, Finished>,
    keeper: Executor<Job, Finished>,
    /// Has a thread of its own: on the keeper's thread, a slow sync would delay a reservation.
    reserver: Executor<Job, Finished>,
    results: Receiver<Finished>,
    /// The number of jobs that were submitted and have no result yet.
    in_flight: usize,
}

/// A job for the keeper or the reserver.
enum Job {
    Reserve {
        id: FileId,
        file: Arc<File>,
        offset: u64,
        bytes: u64,
    },
    Sync(Vec<(FileId, Arc<File>)>),
    Create {
        id: FileId,
        directory: Arc<File>,
    },
    Switch {
        id: FileId,
        directory: Arc<File>,
        old: Arc<File>,
        new: Arc<File>,
    },
    Discard(Arc<File>),
    /// Close a file whose name was removed. Closing a large file takes a while, so the keeper does
    /// it instead of the loop's thread.
    Close(Arc<File>),
}

/// The result of a job.
enum Finished {
    Done(DiskDone),
    Created(FileId, io::Result<File>),
    /// The job has no result to report.
    Nothing,
}

impl Disk {
    /// Opens the journal of `server` in `directory`, and calls `on_entry` with each of its entries.
    /// The directory and the journal are created if they do not exist. `is_stopped` is called
    /// before each read. Reading ends when `is_stopped` returns true.
    ///
    /// # Errors
    /// The directory is in use or cannot be used, its journal is damaged or not this
    /// server's, or `is_stopped` returned true.
    pub fn open(
        directory: &Path,
        server: &str,
        waker: &Arc<Waker>,
        mut is_stopped: impl FnMut() -> bool,
        mut on_entry: impl FnMut(Entry<'_>),
    ) -> Result<(Disk, Opened), OpenError> {
        let at = |what: &str, error: io::Error| {
            format!(
                "cannot {what} in the data directory {}: {error}",
                directory.display()
            )
        };
        create_directory(directory)?;
        let lock = lock(directory)?;
        let directory_file = File::open(directory).map_err(|error| at("read what is", error))?;
        // A server that crashed may have left a `journal.new`. It is not needed: the journal itself
        // is complete.
        remove_next(&directory_file).map_err(|error| at("remove journal.new", error))?;
        let path = directory.join(JOURNAL);
        check_journal_path(&directory_file, &path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = retry_on_intr(|| {
            openat(
                &directory_file,
                JOURNAL,
                flags | OFlags::NONBLOCK,
                OWNER_ONLY,
            )
        });
        let file = File::from(open.map_err(|error| at("open the journal", error.into()))?);
        is_regular(&file, &path)?;
        // A compaction needs a `journal.new`. If this file cannot be created, the operator has to
        // know at the start, not hours later.
        create_next(&directory_file)
            .and_then(|_| remove_next(&directory_file))
            .map_err(|error| at("make journal.new, for compactions,", error))?;
        let machine = machine_boot_id();
        let end = read_back(
            &file,
            &path,
            server,
            machine,
            &mut is_stopped,
            &mut on_entry,
        )?;
        sync_directory(directory, &directory_file)?;
        let (report, results) = channel();
        let mut disk = Disk {
            directory: Arc::new(directory_file),
            _lock: lock,
            files: vec![(FileId(0), Arc::new(file))],
            writer: Executor::new("writer", 1, waker.clone(), report.clone(), append),
            keeper: Executor::new("keeper", 1, waker.clone(), report.clone(), run_job),
            reserver: Executor::new("reserver", 1, waker.clone(), report, run_job),
            results,
            in_flight: 0,
        };
        let started = disk.writer.start().and_then(|()| disk.keeper.start());
        let started = started.and_then(|()| disk.reserver.start());
        started.map_err(|error| {
            format!("no thread to write the journal: {error}; raise the limits of processes and of memory (ulimit -u, -v)")
        })?;
        let opened = Opened {
            length: end.offset,
            format: end.format,
            machine,
        };
        Ok((disk, opened))
    }

    /// Checks whether [`Disk::open`] would succeed. Reads the journal without changing it, and
    /// removes every file and directory that the check created. Returns a note for the operator if
    /// the end of the journal is incomplete.
    ///
    /// # Errors
    /// As for [`Disk::open`].
    pub fn check(
        directory: &Path,
        server: &str,
        on_entry: impl FnMut(Entry<'_>),
    ) -> Result<Option<String>, OpenError> {
        let shown = directory.display();
        let created = CreatedDirectories::make(directory)?;
        let directory_file = File::open(directory).map_err(|error| {
            format!("cannot read what is in the data directory {shown}: {error}")
        })?;
        // A missing lock file is not created. A server could open the same file meanwhile, and
        // removing the file afterwards would take that server's lock away.
        let lock_path = directory.join(LOCK);
        let _lock = match lock_path.exists() {
            true => Some(lock(directory)?),
            false => None,
        };
        let path = directory.join(JOURNAL);
        check_journal_path(&directory_file, &path)?;
        let probe = format!("check.{}", std::process::id());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        retry_on_intr(|| openat(&directory_file, probe.as_str(), flags, OWNER_ONLY))
            .and_then(|_| unlinkat(&directory_file, probe.as_str(), AtFlags::empty()))
            .map_err(|error| {
                format!("cannot make files in the data directory {shown}: {error}; let this user write there, or choose another with --data-dir or HERD_DATA_DIR")
            })?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let note = match retry_on_intr(|| openat(&directory_file, JOURNAL, flags, Mode::empty())) {
            Err(Errno::NOENT) => None,
            Err(error) => {
                return Err(OpenError::Unusable(format!(
                    "cannot open the journal in the data directory {shown}: {error}"
                )));
            }
            Ok(file) => {
                let file = File::from(file);
                is_regular(&file, &path)?;
                let machine = machine_boot_id();
                let end = read_through(&file, &path, server, machine, &mut || false, on_entry)?;
                (end.torn_bytes > 0).then(|| {
                    format!(
                        "the last {} bytes of {} were not written whole; a start cuts them off",
                        end.torn_bytes,
                        path.display()
                    )
                })
            }
        };
        drop(created);
        Ok(note)
    }

    /// Starts the disk work. [`Disk::finished`] returns the result later. If the work cannot start,
    /// the error is returned at once.
    pub fn perform(&mut self, work: DiskWork) -> Option<DiskDone> {
        let (started, failed_work) = match work {
            DiskWork::Append(chunks) => {
                let first = chunks.first().map_or(FileId(0), |chunk| chunk.file);
                let failed_work = DiskWork::Append(vec![Chunk {
                    file: first,
                    offset: 0,
                    bytes: Vec::new(),
                }]);
                (self.append(chunks), failed_work)
            }
            work => {
                let job = self.job(&work);
                let thread = match work {
                    DiskWork::Reserve { .. } => &mut self.reserver,
                    _ => &mut self.keeper,
                };
                (job.and_then(|job| thread.submit(job)), work)
            }
        };
        match started {
            Ok(()) => {
                self.in_flight += 1;
                None
            }
            Err(error) => failed(failed_work, disk_error(&error)),
        }
    }

    fn append(&mut self, chunks: Vec<Chunk>) -> io::Result<()> {
        let files = chunks
            .into_iter()
            .map(|chunk| Ok((self.file(chunk.file)?, chunk)));
        let files = files.collect::<io::Result<_>>()?;
        self.writer.submit(files)
    }

    fn job(&mut self, work: &DiskWork) -> io::Result<Job> {
        Ok(match *work {
            DiskWork::Append(_) => return Err(ErrorKind::InvalidInput.into()),
            DiskWork::Reserve {
                file: id,
                offset,
                bytes,
            } => Job::Reserve {
                id,
                file: self.file(id)?,
                offset,
                bytes,
            },
            DiskWork::Sync { ref files } => {
                let files = files.iter().map(|&id| Ok((id, self.file(id)?)));
                Job::Sync(files.collect::<io::Result<_>>()?)
            }
            DiskWork::Create { file: id } => Job::Create {
                id,
                directory: self.directory.clone(),
            },
            DiskWork::Switch { file: id } => {
                let old = self.files.iter().find(|(other, _)| *other != id);
                Job::Switch {
                    id,
                    directory: self.directory.clone(),
                    old: old.ok_or(ErrorKind::NotFound)?.1.clone(),
                    new: self.file(id)?,
                }
            }
            DiskWork::Discard { file } => {
                self.files.retain(|(id, _)| *id != file);
                Job::Discard(self.directory.clone())
            }
        })
    }

    fn file(&self, id: FileId) -> io::Result<Arc<File>> {
        let file = self.files.iter().find(|(other, _)| *other == id);
        file.map(|(_, file)| file.clone())
            .ok_or_else(|| io::Error::from(ErrorKind::NotFound))
    }

    /// Returns the result of the next finished job, if there is one.
    pub fn finished(&mut self) -> Option<DiskDone> {
        while let Ok(finished) = self.results.try_recv() {
            if let Some(done) = self.account(finished) {
                return Some(done);
            }
        }
        None
    }

    /// Waits at most `timeout` for a result. Returns `None` at once if no job is in progress.
    pub fn wait(&mut self, timeout: Duration) -> Option<DiskDone> {
        if self.in_flight == 0 {
            return None;
        }
        let finished = self.results.recv_timeout(timeout).ok()?;
        self.account(finished)
    }

    /// Whether a job is in progress.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    fn account(&mut self, finished: Finished) -> Option<DiskDone> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match finished {
            Finished::Nothing => None,
            Finished::Created(file, created) => {
                let outcome = created.map(|created| self.files.push((file, Arc::new(created))));
                Some(DiskDone::Created {
                    file,
                    outcome: outcome.map_err(|error| disk_error(&error)),
                })
            }
            Finished::Done(done) => {
                if let DiskDone::Switched {
                    file,
                    outcome: SwitchOutcome::Done,
                } = done
                {
                    let is_old = |(id, _): &mut (FileId, Arc<File>)| *id != file;
                    let old: Vec<_> = self.files.extract_if(.., is_old).collect();
                    for (_, old) in old {
                        // If the job cannot be submitted, the file is closed when `old` is dropped
                        // here.
                        if self.keeper.submit(Job::Close(old)).is_ok() {
                            self.in_flight += 1;
                        }
                    }
                }
                Some(done)
            }
        }
    }

    /// Starts a sync of all files, even if the core did not request one. After this sync, a loss of
    /// power does not lose the bytes that were appended before. [`Disk::finished`] returns the
    /// result later. If the work cannot start, the error is returned at once.
    pub fn sync_all(&mut self) -> Option<DiskDone> {
        let files = self.files.iter().map(|(id, _)| *id).collect();
        self.perform(DiskWork::Sync { files })
    }

    /// Closes the files when the server has stopped, and removes `journal.new`.
    pub fn close(self) {
        let _ = remove_next(&self.directory); // if this fails, the next start removes it
    }
}

/// Rejects a journal that is not a regular file. A pipe or a device may have no end, and does not
/// return what was written to it.
fn is_regular(file: &File, path: &Path) -> Result<(), String> {
    let path = path.display();
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(format!(
            "the journal {path} is no regular file: move it away, or choose another directory"
        )),
        Err(error) => Err(format!("cannot look at the journal {path}: {error}")),
    }
}

/// Directories that [`Disk::check`] created, to find out whether they can be created. Dropping this
/// value removes them.
struct CreatedDirectories(Vec<PathBuf>);

impl CreatedDirectories {
    fn make(directory: &Path) -> Result<CreatedDirectories, String> {
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing = directory.ancestors().take_while(is_missing);
        let created = CreatedDirectories(missing.map(Path::to_path_buf).collect());
        create_directory(directory)?;
        Ok(created)
    }
}

impl Drop for CreatedDirectories {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = fs::remove_dir(directory); // fails if the directory is not empty any more
        }
    }
}

fn create_directory(directory: &Path) -> Result<(), String> {
    // Other users may use the parent directories too, so these get the usual mode.
    let created = directory.parent().map_or(Ok(()), fs::create_dir_all);
    let mut make = DirBuilder::new();
    make.recursive(true).mode(0o700);
    created
        .and_then(|()| make.create(directory))
        .map_err(|error| {
            format!(
                "cannot make the data directory {}: {error}; choose another with --data-dir or HERD_DATA_DIR",
                directory.display()
            )
        })
}

fn lock(directory: &Path) -> Result<File, String> {
    let path = directory.display();
    let lock = File::create(directory.join(LOCK))
        .map_err(|error| format!("cannot make a lock in the data directory {path}: {error}"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(format!(
                "another process uses the data directory {path}: end it, or choose another directory"
            ));
        }
        Err(TryLockError::Error(error)) if has_no_locks(&error) => warn!(
            "journal: the file system of {path} has no locks ({error}): make sure that no other process uses that directory"
        ),
        Err(TryLockError::Error(error)) => {
            return Err(format!("cannot lock the data directory {path}: {error}"));
        }
    }
    Ok(lock)
}

/// Whether the error means that the file system has no locks.
pub(crate) fn has_no_locks(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
    )
}

/// Rejects a journal that is a symbolic link or a mount point. A compaction renames a new file to
/// the journal's name. Renaming would replace a symbolic link, and so move the journal to another
/// disk. The system refuses to rename a file to a mount point.
fn check_journal_path(directory_file: &File, path: &Path) -> Result<(), String> {
    let stat = match rustix::fs::statat(directory_file, JOURNAL, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => {
            return Err(format!(
                "cannot look at the journal {}: {error}",
                path.display()
            ));
        }
    };
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind == rustix::fs::FileType::Symlink {
        return Err(format!(
            "the journal {} is a symbolic link, which a compaction would replace: make the data directory itself the link, or choose the directory that it leads to",
            path.display()
        ));
    }
    let device = directory_file.metadata().map(|metadata| metadata.dev());
    let is_elsewhere = device.is_ok_and(|device| device != stat.st_dev);
    if is_elsewhere || is_mount_point(directory_file) {
        return Err(format!(
            "the journal {} is a mount point, which cannot be renamed over: mount the data directory instead",
            path.display()
        ));
    }
    Ok(())
}

/// Whether a file system is mounted on the journal. Linux before 5.8 does not report this.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_mount_point(directory_file: &File) -> bool {
    use rustix::fs::{StatxAttributes, StatxFlags, statx};
    let stat = statx(
        directory_file,
        JOURNAL,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::TYPE,
    );
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_mount_point(_names: &File) -> bool {
    false
}

fn remove_next(directory_file: &File) -> io::Result<()> {
    match retry_on_intr(|| unlinkat(directory_file, NEXT, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn create_next(directory_file: &File) -> io::Result<File> {
    remove_next(directory_file)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| openat(directory_file, NEXT, flags, OWNER_ONLY)).map(File::from)?)
}

/// Syncs the directory and its parent, because the journal file and the directory may be new.
fn sync_directory(directory: &Path, directory_file: &File) -> Result<(), String> {
    // For a relative path with one component, `parent` returns the empty path, which cannot be
    // opened. After it is joined to ".", it can.
    let parent = directory.parent().map(|parent| Path::new(".").join(parent));
    let own = (directory.to_owned(), directory_file.sync_all());
    let parents = parent.map(|parent| {
        let synced = File::open(&parent).and_then(|parent| parent.sync_all());
        (parent, synced)
    });
    for (path, synced) in [Some(own), parents].into_iter().flatten() {
        match synced {
            Ok(()) => {}
            Err(error) if cannot_sync_directory(&error) => warn!(
                "journal: the directory {} cannot be synced ({error}): whether a new journal outlasts a loss of power is up to the file system",
                path.display()
            ),
            Err(error) => {
                return Err(format!(
                    "cannot sync the directory {}: {error}",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// Whether the error means that the file system cannot sync directories.
pub(crate) fn cannot_sync_directory(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP | Errno::NOSYS | Errno::ACCESS)
    )
}

/// Reads the journal and cuts off its torn tail.
fn read_back(
    file: &File,
    path: &Path,
    server: &str,
    machine: u64,
    is_stopped: &mut impl FnMut() -> bool,
    on_entry: &mut impl FnMut(Entry<'_>),
) -> Result<End, OpenError> {
    let end = read_through(file, path, server, machine, is_stopped, on_entry)?;
    let path = path.display();
    let failed =
        |what: &str, error: io::Error| format!("cannot {what} the journal {path}: {error}");
    if end.torn_bytes > 0 {
        warn!(
            "journal: the last {} bytes of {path} were not written whole; they are cut off",
            end.torn_bytes
        );
    }
    // Cutting the file also frees the reserved disk space, which is reserved again later. The sync
    // has two purposes. The server continues from the entries that were read, so a loss of power
    // must not remove them. And the part that was cut off must not come back.
    file.set_len(end.offset)
        .map_err(|error| failed("cut", error))?;
    file.sync_all().map_err(|error| failed("sync", error))?;
    if end.format == Some(Format::One) {
        info!("journal: {path} is of format 1, and is written anew before this server serves");
    }
    Ok(end)
}

/// Reads the journal from start to end, and calls `on_entry` with each entry.
fn read_through(
    mut file: &File,
    path: &Path,
    server: &str,
    machine: u64,
    is_stopped: &mut impl FnMut() -> bool,
    mut on_entry: impl FnMut(Entry<'_>),
) -> Result<End, OpenError> {
    let path = path.display();
    let failed =
        |what: &str, error: io::Error| format!("cannot {what} the journal {path}: {error}");
    let unusable = |error: JournalError| {
        format!(
            "the journal {path} cannot be used: {error}; put a good copy in its place, or move it away: then this server begins \
             empty, and is sent what its neighbours know. herd-journal repair takes out what is damaged, and keeps the rest"
        )
    };
    let clock = Clock::start();
    let since_start = || clock.now().time.since(Default::default());
    let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let mut replay = Replay::new(server, machine);
    let mut buffer = vec![0; READ_BYTES];
    let (mut entries, mut bytes, mut next_progress) = (0_u64, 0_u64, PROGRESS);
    loop {
        if is_stopped() {
            return Err(OpenError::Stopped);
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let on_entry = |entry: Entry<'_>| {
                    entries += u64::from(matches!(entry, Entry::Record { .. }));
                    on_entry(entry);
                };
                replay
                    .data_received(&buffer[..count], on_entry)
                    .map_err(unusable)?;
                bytes += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", error).into()),
        }
        if since_start() >= next_progress {
            next_progress += PROGRESS;
            info!("journal: {bytes} of {file_bytes} bytes of {path} are read");
        }
    }
    let end = replay.finish().map_err(unusable)?;
    info!(
        "journal: {entries} entries of records in {} bytes of {path}, read in {:.3} s",
        end.offset,
        since_start().as_secs_f64()
    );
    Ok(end)
}

/// Returns a number that changes with each start of the machine. Returns 0 if the system has no
/// such number.
pub(crate) fn machine_boot_id() -> u64 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Writes the chunks in order, on the writer's thread. After the first error, no more chunks are
/// written.
fn append(chunks: Vec<(Arc<File>, Chunk)>) -> Finished {
    let write = |(file, chunk): &(Arc<File>, Chunk)| {
        let written = file.write_all_at(&chunk.bytes, chunk.offset);
        written.map_err(|error| (chunk.file, disk_error(&error)))
    };
    let outcome = chunks.iter().try_for_each(write);
    Finished::Done(DiskDone::Appended {
        chunks: chunks.into_iter().map(|(_, chunk)| chunk).collect(),
        outcome,
    })
}

/// Executes a job, on the keeper's or the reserver's thread.
fn run_job(job: Job) -> Finished {
    Finished::Done(match job {
        Job::Reserve {
            id,
            file,
            offset,
            bytes,
        } => DiskDone::Reserved {
            file: id,
            outcome: reserve(&file, offset, bytes).map_err(|error| disk_error(&error)),
        },
        Job::Sync(files) => DiskDone::Synced {
            outcome: files
                .iter()
                .try_for_each(|(_, file)| file.sync_data())
                .map_err(|error| disk_error(&error)),
            files: files.into_iter().map(|(id, _)| id).collect(),
        },
        Job::Create { id, directory } => return Finished::Created(id, create_next(&directory)),
        Job::Switch {
            id,
            directory,
            old,
            new,
        } => DiskDone::Switched {
            file: id,
            outcome: switch(&directory, &old, &new),
        },
        Job::Discard(directory) => {
            // If this fails, the file is removed before the next one is created, or at the next
            // start.
            let _ = remove_next(&directory);
            return Finished::Nothing;
        }
        Job::Close(file) => {
            drop(file);
            return Finished::Nothing;
        }
    })
}

/// Reserves disk space after the written bytes. Reserving makes the file longer. The new bytes are
/// zeros, which the reader of the journal skips. Later writes into the reserved space do not change
/// the file's length, so a sync is cheaper.
fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), offset, bytes)) {
        // Reserving is not supported. Writing works without it until the disk is full.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::NODEV) => Ok(()),
        outcome => outcome.map_err(io::Error::from),
    }
}

/// Renames the new file to the journal's name, and syncs the directory.
fn switch(directory: &File, old: &File, new: &File) -> SwitchOutcome {
    // If `journal.new` is now another file, renaming would make that file the journal.
    match rustix::fs::statat(directory, NEXT, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_same(new, &stat) => {}
        Ok(_) => {
            return SwitchOutcome::Refused(DiskError {
                kind: DiskErrorKind::Broken,
                text: "journal.new was replaced by another file".to_owned(),
            });
        }
        Err(error) => return SwitchOutcome::Refused(disk_error(&error.into())),
    }
    if let Err(error) = retry_on_intr(|| renameat(directory, NEXT, directory, JOURNAL)) {
        let error = disk_error(&error.into());
        // On a network file system the rename may have succeeded, although the file server's reply
        // was lost.
        match rustix::fs::statat(directory, JOURNAL, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_same(new, &stat) => {}
            Ok(stat) if is_same(old, &stat) => return SwitchOutcome::Refused(error),
            Ok(_) | Err(_) => return SwitchOutcome::Unknown(error),
        }
    }
    loop {
        match directory.sync_all() {
            Ok(()) => return SwitchOutcome::Done,
            Err(error) if cannot_sync_directory(&error) => return SwitchOutcome::Done,
            // Retrying is safe: until `Done` is reported, every new entry goes to the old and to
            // the new journal. So after a crash, the file that has the name is complete.
            Err(error) if is_full(&error) => std::thread::sleep(SYNC_AGAIN),
            Err(error) => return SwitchOutcome::Unknown(disk_error(&error)),
        }
    }
}

fn is_same(file: &File, stat: &rustix::fs::Stat) -> bool {
    file.metadata()
        .is_ok_and(|own| (own.dev(), own.ino()) == (stat.st_dev, stat.st_ino))
}

/// Returns the result for work that could not start. Returns `None` for work that reports no
/// result.
fn failed(work: DiskWork, error: DiskError) -> Option<DiskDone> {
    Some(match work {
        DiskWork::Discard { .. } => return None,
        DiskWork::Append(chunks) => {
            let first = chunks.first().map_or(FileId(0), |chunk| chunk.file);
            DiskDone::Appended {
                chunks,
                outcome: Err((first, error)),
            }
        }
        DiskWork::Reserve { file, .. } => DiskDone::Reserved {
            file,
            outcome: Err(error),
        },
        DiskWork::Sync { files } => DiskDone::Synced {
            files,
            outcome: Err(error),
        },
        DiskWork::Create { file } => DiskDone::Created {
            file,
            outcome: Err(error),
        },
        DiskWork::Switch { file } => DiskDone::Switched {
            file,
            outcome: SwitchOutcome::Refused(error),
        },
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

fn disk_error(error: &io::Error) -> DiskError {
    DiskError {
        kind: if is_full(error) {
            DiskErrorKind::Full
        } else {
            DiskErrorKind::Broken
        },
        text: error.to_string(),
    }
}
