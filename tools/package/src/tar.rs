//! A tar file in memory, in the format ustar (POSIX.1-1988). All entries have the same time.

/// The size of a block. A tar file is a sequence of blocks.
const BLOCK: usize = 512;

/// What an entry is, beyond its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The permissions, such as 0o755.
    pub(crate) mode: u32,
    /// The user and the group that own it.
    pub(crate) owner: u32,
}

/// A tar file that is being written.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// Adds a directory. `path` ends with a slash. It has at most 100 bytes.
    pub(crate) fn directory(&mut self, path: &str, entry: Entry) {
        self.header(path, b'5', 0, entry);
    }

    /// Adds a file. `path` has at most 100 bytes, and the file less than 8 GiB.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8], entry: Entry) {
        self.header(path, b'0', contents.len(), entry);
        self.bytes.extend(contents);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole file. Two empty blocks are its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, kind: u8, size: usize, entry: Entry) {
        debug_assert!(path.len() <= 100 && size < 1 << 33, "{path} fits ustar");
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            for (to, from) in header.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        };
        put(0, path.as_bytes());
        put(100, format!("{:07o}", entry.mode).as_bytes());
        put(108, format!("{:07o}", entry.owner).as_bytes());
        put(116, format!("{:07o}", entry.owner).as_bytes());
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(148, b"        "); // the checksum counts itself as spaces
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        for (to, from) in header
            .iter_mut()
            .skip(148)
            .zip(format!("{sum:06o}\0 ").bytes())
        {
            *to = from;
        }
        self.bytes.extend(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut tar = Tar::default();
        let owner = 65_532;
        tar.directory(
            "etc/",
            Entry {
                mode: 0o755,
                owner: 0,
            },
        );
        tar.file("etc/a", b"text", Entry { mode: 0o640, owner });
        tar.file("etc/empty", b"", Entry { mode: 0o600, owner });
        tar.file("etc/block", &[b'x'; BLOCK], Entry { mode: 0o755, owner });
        tar.finish()
    }

    #[test]
    fn each_entry_begins_at_a_block() {
        // Four headers, two blocks of contents, and the end.
        assert_eq!(sample().len(), (4 + 2 + 2) * BLOCK);
    }

    #[test]
    fn tar_reads_the_entries() {
        let tar = Command::new("tar")
            .args(["--utc", "--numeric-owner", "--full-time", "-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut tar) = tar else {
            return eprintln!("skipped: there is no tar here");
        };
        tar.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let lines: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "drwxr-xr-x 0/0 0 1970-01-01 00:00:00 etc/",
                "-rw-r----- 65532/65532 4 1970-01-01 00:00:00 etc/a",
                "-rw------- 65532/65532 0 1970-01-01 00:00:00 etc/empty",
                "-rwxr-xr-x 65532/65532 512 1970-01-01 00:00:00 etc/block",
            ]
        );
    }
}
