//! The output of the log's writer thread: a file that can be opened again and rotated. The log does
//! not use all the free space of the disk, so that the journal can grow.
//!
//! ```text
//!   lines ──► space on disk? ──► space in the file? ────────────────────────► file
//!                  └ no: dropped,    └ no: rename file ─► file.1 ─► …, open a new one
//!                    counted, logged once
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use log::Level;

use super::now;
use super::stamp::Stamp;
use crate::shell::disk::{JOURNAL, NEXT};

/// When the server rotates its log, and how many rotated files it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The maximum length of a file, in bytes. A file becomes longer only if a single line is
    /// longer, or if the rotation fails.
    pub max_bytes: u64,
    /// The number of rotated files that are kept. `file.1` is the newest.
    pub keep: u64,
}

/// The disk space that the log leaves free for the journal, if both are on one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The number of bytes that the log leaves free. A quarter of the file system is used instead
    /// if that is less. In addition, the log leaves as many bytes free as the journal has, because
    /// a compaction writes a second journal.
    pub bytes: u64,
    /// The journal's directory.
    pub data_dir: PathBuf,
}

/// The maximum number of bytes that are written before the free space is checked again. If there is
/// little free space, the next check is earlier.
const UNCHECKED_BYTES: u64 = 1 << 20;
/// A divisor of [`Rotation::max_bytes`]. After a failed rotation, the next one is tried when the
/// file has grown by this fraction (1/16) of the maximum length.
const RETRY_DIVISOR: u64 = 16;

pub(super) enum Sink {
    File(File),
    StandardError,
}

impl Sink {
    pub(super) fn open(path: &Path) -> io::Result<Sink> {
        match path.to_str() {
            Some("-") => Ok(Sink::StandardError),
            _ => {
                // If no program reads the pipe yet, opening it only for writing would block
                // (fifo(7)). So a pipe is opened for reading too.
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

    /// Returns the metadata of the file, if it is a regular file.
    fn plain_file(&self) -> Option<fs::Metadata> {
        let Sink::File(file) = self else {
            return None;
        };
        file.metadata().ok().filter(fs::Metadata::is_file)
    }
}

/// The open log file (or the standard error), with its rotation, and with the disk space that it
/// leaves free for the journal.
pub(super) struct Output {
    sink: Sink,
    path: PathBuf,
    rotation: Option<Rotation>,
    reserve: Option<Reserve>,
    /// Whether the last write failed.
    is_failing: bool,
    /// Whether the file could not be opened again. Then `sink` is still the old file, and the
    /// writer tries again.
    pub(super) is_stale: bool,
    /// Whether the sink is a regular file. Only a regular file can be rotated.
    is_plain: bool,
    /// The length of the file in bytes.
    length: u64,
    /// Set after a failed rotation: the length of the file at which the next rotation is tried.
    retry_at: Option<u64>,
    /// The number of bytes that may still be written before the free space is checked again.
    unchecked: u64,
    /// Whether lines are dropped, because the journal needs the free space.
    is_out_of_space: bool,
}

impl Output {
    pub(super) fn new(
        sink: Sink,
        path: PathBuf,
        rotation: Option<Rotation>,
        reserve: Option<Reserve>,
    ) -> Output {
        let mut output = Output {
            sink,
            path,
            rotation,
            reserve,
            is_failing: false,
            is_stale: false,
            is_plain: false,
            length: 0,
            retry_at: None,
            unchecked: 0,
            is_out_of_space: false,
        };
        output.opened();
        output
    }

    /// Reads the type and the length of the file. Call this after another file was opened, or when
    /// a failed write left the length unknown.
    fn opened(&mut self) {
        let file = self.sink.plain_file();
        self.is_plain = file.is_some();
        self.length = file.map_or(0, |file| file.len());
        self.unchecked = 0;
    }

    pub(super) fn reopen(&mut self) {
        match Sink::open(&self.path) {
            Ok(opened) => {
                self.sink = opened;
                self.opened();
                if std::mem::take(&mut self.is_stale) {
                    self.report("the log is opened anew at last");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_stale, true) {
                    let name = self.path.display();
                    self.report(&format!(
                        "cannot open the log {name} anew: {error}; lines go on into the old file, and it is tried again every second"
                    ));
                }
            }
        }
    }

    /// Reports an event of the log itself to the operator: in the log, and on the standard error.
    /// The standard error may be closed, so its errors are ignored.
    fn report(&mut self, message: &str) {
        let _ = writeln!(io::stderr(), "herd-mio: {message}");
        if let Sink::File(_) = self.sink {
            self.write_unchecked(&notice_line(message));
        }
    }

    /// Writes a line about the log itself. Returns whether the line was written.
    pub(super) fn write_notice(&mut self, message: &str) -> bool {
        self.write(&notice_line(message)) == 0
    }

    /// Writes lines. Returns the number of lines that were lost.
    pub(super) fn write(&mut self, mut lines: &[u8]) -> u64 {
        if !lines.is_empty() && !self.has_space(lines.len() as u64) {
            return count_lines(lines);
        }
        let mut lost = 0;
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(self.writable_bytes(lines));
            lost += self.write_unchecked(piece);
            lines = rest;
        }
        lost
    }

    /// Writes lines to the open file, without a check of its length or of the free space. Returns
    /// the number of lost lines.
    fn write_unchecked(&mut self, lines: &[u8]) -> u64 {
        // The last write failed, and may have written only a part of a line. So end that line
        // first.
        let torn = if self.is_failing {
            self.sink.write_all(b"\n")
        } else {
            Ok(())
        };
        let written = torn.and_then(|()| self.sink.write_all(lines));
        if let (Err(error), false) = (&written, self.is_failing) {
            // The standard error may be closed too. Then the failure cannot be reported.
            let name = self.path.display();
            let _ = writeln!(
                io::stderr(),
                "herd-mio: cannot write the log {name}: {error}; lines are dropped until it works again"
            );
        }
        self.is_failing = written.is_err();
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                0
            }
            Err(_) => {
                self.opened(); // some of the bytes may be written
                count_lines(lines)
            }
        }
    }

    /// Returns the number of bytes of `lines` to write to the file now. The number is never 0, and
    /// these bytes are whole lines. If the first line would make the file longer than `max_bytes`,
    /// this function first rotates the file.
    fn writable_bytes(&mut self, lines: &[u8]) -> usize {
        let Some(max_bytes) = self.rotation.as_ref().map(|rotation| rotation.max_bytes) else {
            return lines.len();
        };
        if !self.is_plain {
            return lines.len();
        }
        let limit = self.retry_at.unwrap_or(max_bytes);
        if let Some(length) = whole_lines(lines, limit.saturating_sub(self.length)) {
            return length;
        }
        // An empty file is not rotated. Otherwise, while all writes fail, repeated rotations would
        // replace all rotated files by empty files.
        if self.length > 0
            && !self.is_stale
            && let Err(error) = self.rotate()
        {
            let was_reported = self.retry_at.is_some();
            self.retry_at = Some(self.length + (max_bytes / RETRY_DIVISOR).max(1));
            if !was_reported {
                let name = self.path.display();
                self.report(&format!(
                    "cannot rotate the log {name}: {error}; lines go on into it, and it is tried again as it grows"
                ));
            }
            return lines.len();
        }
        whole_lines(lines, max_bytes.saturating_sub(self.length))
            .or_else(|| memchr::memchr(b'\n', lines).map(|end| end + 1))
            .unwrap_or(lines.len())
    }

    /// Renames the file, and opens a new file with its name.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(file) = self.sink.plain_file() else {
            return Ok(());
        };
        if file.len() < self.length {
            self.length = file.len(); // shortened by another program: logrotate's copytruncate
            return Ok(());
        }
        let keep = self.rotation.as_ref().map_or(1, |rotation| rotation.keep);
        // The path may be a symbolic link. Then its target is rotated. If the path does not exist,
        // or is a different file now, another program has already moved the open file away, and
        // nothing is renamed.
        let named = fs::canonicalize(&self.path);
        if let Ok(named) = named
            && let Ok(target_file) = fs::metadata(&named)
            && (target_file.dev(), target_file.ino()) == (file.dev(), file.ino())
        {
            for older in (1..keep).rev() {
                match fs::rename(numbered(&named, older), numbered(&named, older + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&named, numbered(&named, 1))?;
        }
        if self.retry_at.take().is_some() {
            self.report("the log is rotated at last");
        }
        self.reopen();
        if let Sink::File(new) = &self.sink
            && !self.is_stale
        {
            // The new file gets the permissions of the old file, so that no other users can read
            // it.
            let _ = new.set_permissions(file.permissions());
        }
        Ok(())
    }

    /// Whether the disk has space for `bytes` more bytes, in addition to the space that is reserved
    /// for the journal. Reports to the operator when the space becomes too small.
    fn has_space(&mut self, bytes: u64) -> bool {
        if let Some(unchecked) = self.unchecked.checked_sub(bytes) {
            self.unchecked = unchecked;
            return true;
        }
        let Some(FreeSpace { free, reserved }) = self.free_space() else {
            return true;
        };
        // After lines were dropped, the log needs an eighth of `reserved` more free space before it
        // writes again. Otherwise it could stop again after a few lines.
        let more = if self.is_out_of_space {
            reserved / 8
        } else {
            0
        };
        let left = free.checked_sub(reserved + more + bytes);
        self.unchecked = left.map_or(0, |left| (left / 16).min(UNCHECKED_BYTES));
        let was_out_of_space = std::mem::replace(&mut self.is_out_of_space, left.is_none());
        if self.is_out_of_space && !was_out_of_space {
            self.report(&format!(
                "the log stops: {free} bytes are free on its file system, and the journal may need {reserved} (limits.log_reserve_bytes, and its own length); lines are dropped until there is more"
            ));
        }
        !self.is_out_of_space
    }

    /// Returns the free disk space, and how much of it is reserved for the journal. `None` if the
    /// journal is not on the same file system, or if the system does not report the space.
    fn free_space(&self) -> Option<FreeSpace> {
        let reserve = self.reserve.as_ref()?;
        let (Sink::File(file), Some(log_file)) = (&self.sink, self.sink.plain_file()) else {
            return None;
        };
        let journal = fs::metadata(reserve.data_dir.join(JOURNAL)).ok()?;
        if journal.dev() != log_file.dev() {
            return None;
        }
        let next = fs::metadata(reserve.data_dir.join(NEXT)).map_or(0, |next| next.len());
        let disk = rustix::fs::fstatvfs(file).ok()?;
        let quarter = disk.f_blocks.saturating_mul(disk.f_frsize) / 4;
        Some(FreeSpace {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            // A compaction in progress has already written `next` bytes of the second journal to
            // the disk. So these bytes need not be reserved.
            reserved: reserve.bytes.min(quarter) + journal.len().saturating_sub(next),
        })
    }
}

/// Disk space in bytes: the free space, and the part of it that is reserved for the journal.
struct FreeSpace {
    free: u64,
    reserved: u64,
}

/// Formats a line about the log itself.
fn notice_line(message: &str) -> Vec<u8> {
    let mut line = Vec::new();
    Stamp::default().write(now(), Level::Warn, &mut line);
    line.extend_from_slice(format!("log: {message}\n").as_bytes());
    line
}

/// Returns the number of lines.
fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Returns the length of the whole lines in the first `max_bytes` bytes. `None` if there is no
/// whole line.
fn whole_lines(lines: &[u8], max_bytes: u64) -> Option<usize> {
    let max_bytes = usize::try_from(max_bytes)
        .unwrap_or(usize::MAX)
        .min(lines.len());
    memchr::memrchr(b'\n', &lines[..max_bytes]).map(|end| end + 1)
}

/// Returns the name of a rotated file. Older files have higher numbers.
fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEN: &[u8] = b"123456789\n";

    fn output(path: &Path, max_bytes: u64, keep: u64) -> Output {
        let rotation = Rotation { max_bytes, keep };
        let sink = Sink::open(path).unwrap();
        Output::new(sink, path.to_owned(), Some(rotation), None)
    }

    /// Returns the lengths of the log and of the rotated files.
    fn lengths(path: &Path) -> Vec<u64> {
        let rotated = (1..).map(|number| numbered(path, number));
        let files = std::iter::once(path.to_owned()).chain(rotated);
        files
            .map_while(|file| Some(fs::metadata(file).ok()?.len()))
            .collect()
    }

    #[test]
    fn log_files_stay_below_max_bytes_and_the_oldest_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut output = output(&path, 45, 2);
        assert_eq!(output.write(&TEN.repeat(3)), 0);
        assert_eq!(lengths(&path), [30]);
        assert_eq!(output.write(&TEN.repeat(2)), 0);
        assert_eq!(
            lengths(&path),
            [10, 40],
            "as many lines as fit, and no line in two"
        );
        assert_eq!(output.write(&TEN.repeat(23)), 0);
        assert_eq!(lengths(&path), [40, 40, 40]);
        assert_eq!(output.write(TEN), 0);
        assert_eq!(lengths(&path), [10, 40, 40]);
    }

    #[test]
    fn a_line_longer_than_max_bytes_gets_its_own_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut output = output(&path, 45, 9);
        let long = [&[b'x'; 60][..], b"\n"].concat();
        assert_eq!(output.write(&[&long, TEN, &long].concat()), 0);
        assert_eq!(lengths(&path), [61, 10, 61], "and no empty file is kept");
    }

    #[test]
    fn the_length_of_an_existing_log_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, TEN.repeat(4)).unwrap();
        assert_eq!(output(&path, 45, 1).write(TEN), 0);
        assert_eq!(lengths(&path), [10, 40]);
    }

    #[test]
    fn a_file_that_was_moved_away_or_cut_short_is_not_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut output = output(&path, 45, 1);
        assert_eq!(output.write(&TEN.repeat(4)), 0);
        fs::rename(&path, directory.path().join("moved")).unwrap();
        fs::write(&path, TEN).unwrap();
        assert_eq!(output.write(TEN), 0);
        assert_eq!(lengths(&path), [20], "the file that has the name now");
        assert_eq!(output.write(&TEN.repeat(2)), 0);
        fs::write(&path, "").unwrap();
        assert_eq!(output.write(TEN), 0);
        assert_eq!(lengths(&path), [10]);
    }

    #[test]
    fn the_target_of_a_symlink_is_rotated_and_the_link_stays() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path().join("log"), elsewhere.path().join("file"));
        std::os::unix::fs::symlink(&file, &path).unwrap();
        let mut output = output(&path, 45, 3);
        assert_eq!(output.write(&TEN.repeat(5)), 0);
        assert_eq!(lengths(&file), [10, 40]);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn a_new_file_has_the_mode_of_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut output = output(&path, 45, 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(output.write(&TEN.repeat(5)), 0);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failed_rotation_loses_no_lines_and_is_retried() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        // A file cannot be renamed to the name of a directory.
        let obstacle = numbered(&path, 1);
        fs::create_dir_all(obstacle.join("file")).unwrap();
        let mut output = output(&path, 1_000, 1);
        for _ in 0..200 {
            assert_eq!(output.write(TEN), 0);
        }
        let count_text = |text: &str, message: &str| text.matches(message).count();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(count_text(&text, "cannot rotate the log"), 1, "{text}");
        assert_eq!(count_text(&text, "123456789"), 200);
        fs::remove_dir_all(&obstacle).unwrap();
        for _ in 0..50 {
            assert_eq!(output.write(TEN), 0);
        }
        let old = fs::read_to_string(&obstacle).unwrap();
        let new = fs::read_to_string(&path).unwrap();
        assert_eq!(count_text(&old, "the log is rotated at last"), 1, "{old}");
        assert_eq!(
            count_text(&old, "123456789") + count_text(&new, "123456789"),
            250
        );
    }

    #[test]
    fn a_log_that_cannot_be_written_is_not_rotated() {
        let mut output = output(Path::new("/dev/full"), 45, 3);
        assert_eq!(output.write(&TEN.repeat(30)), 30);
        assert!(!Path::new("/dev/full.1").exists());
    }
}
