//! The memory that this process may use, and the budget for buffers that is derived from it.
//!
//! ```text
//!   physical memory ───────────────────────┐
//!   memory.max and memory.high of cgroups ─┼─► the minimum ──► a quarter ──► limits.buffer_bytes
//!   RLIMIT_AS, RLIMIT_DATA ────────────────┘
//! ```
//!
//! In a container, `/proc/meminfo` shows the memory of the machine. The limit of the container is
//! the limit of its cgroup and of each cgroup above it (cgroups(7)). If the container has its own
//! cgroup namespace, the process sees its cgroup as the root of the mount. Without such a
//! namespace, the path of the cgroup is in `/proc/self/cgroup`. This module tries both.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::core::base::limits::Limits;

/// The part of the memory that buffers get if `limits.buffer_bytes` is not set: a quarter. The rest
/// is for the table, the log, the journal, and the kernel's socket buffers.
const BUFFER_DIVISOR: u64 = 4;
/// The minimum of a budget that is derived from the memory, in bytes.
const MIN_BUDGET: u64 = 16 << 20;
/// The memory that is assumed if no limit is known, in bytes.
const ASSUMED_MEMORY: u64 = 1 << 30;

/// The kind of a limit on the memory of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// The memory of the machine.
    Physical,
    /// A limit of a cgroup, from this file.
    Cgroup(PathBuf),
    /// RLIMIT_AS: the limit on the size of the address space.
    AddressSpace,
    /// RLIMIT_DATA: the limit on the size of the data segment.
    Data,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitKind::Physical => f.write_str("the machine's memory"),
            LimitKind::Cgroup(file) => write!(f, "{}", file.display()),
            LimitKind::AddressSpace => f.write_str("RLIMIT_AS, ulimit -v"),
            LimitKind::Data => f.write_str("RLIMIT_DATA, ulimit -d"),
        }
    }
}

/// The memory that the process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// The smallest limit, in bytes, and its kind. `None` if no limit is known.
    pub smallest: Option<(u64, LimitKind)>,
    /// The files and limits that could not be read, one line for each.
    pub unknown: Vec<String>,
}

/// Where the budget for buffers comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetSource {
    /// The config file.
    Config,
    /// A quarter of the memory that the process may use, or `MIN_BUDGET` if that is more.
    Derived {
        /// The memory that the process may use, in bytes.
        memory_bytes: u64,
        /// The limit that gives `memory_bytes`.
        limit: LimitKind,
    },
    /// No limit on the memory is known, so a fixed size is assumed.
    Assumed,
}

/// The budget for the buffers of all connections together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The number of bytes: `limits.buffer_bytes` as the core gets it.
    pub bytes: u64,
    /// Where the number comes from.
    pub source: BudgetSource,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, ", self.bytes)?;
        match &self.source {
            BudgetSource::Config => f.write_str("from the config (limits.buffer_bytes)"),
            BudgetSource::Derived { limit, .. } if self.bytes == MIN_BUDGET => {
                write!(
                    f,
                    "the least; a quarter of what the process may have ({limit}) is less"
                )
            }
            BudgetSource::Derived {
                memory_bytes,
                limit,
            } => write!(
                f,
                "a quarter of the {memory_bytes} that the process may have ({limit})"
            ),
            BudgetSource::Assumed => {
                f.write_str("assumed, for it is unknown how much memory the process may have")
            }
        }
    }
}

impl Budget {
    /// Returns the budget from `limits.buffer_bytes`. If that is 0, derives the budget from
    /// `memory_limits`.
    #[must_use]
    pub fn of(limits: &Limits, memory_limits: &MemoryLimits) -> Budget {
        let derived = |memory_bytes: u64| (memory_bytes / BUFFER_DIVISOR).max(MIN_BUDGET);
        match (limits.buffer_bytes, &memory_limits.smallest) {
            (0, Some((memory_bytes, limit))) => Budget {
                bytes: derived(*memory_bytes),
                source: BudgetSource::Derived {
                    memory_bytes: *memory_bytes,
                    limit: limit.clone(),
                },
            },
            (0, None) => Budget {
                bytes: derived(ASSUMED_MEMORY),
                source: BudgetSource::Assumed,
            },
            (bytes, _) => Budget {
                bytes,
                source: BudgetSource::Config,
            },
        }
    }
}

impl MemoryLimits {
    /// Reads how much memory the process may use.
    #[must_use]
    pub fn read() -> MemoryLimits {
        let mut memory_limits = MemoryLimits::default();
        memory_limits.read_files(Path::new("/"));
        for (resource, limit) in [
            (rlimit::Resource::AS, LimitKind::AddressSpace),
            (rlimit::Resource::DATA, LimitKind::Data),
        ] {
            match resource.get_soft() {
                Ok(rlimit::INFINITY) => {}
                Ok(bytes) => memory_limits.add_limit(bytes, limit),
                Err(error) => memory_limits.unknown.push(format!("{limit}: {error}")),
            }
        }
        memory_limits
    }

    fn add_limit(&mut self, bytes: u64, limit: LimitKind) {
        if self
            .smallest
            .as_ref()
            .is_none_or(|(smallest, _)| bytes < *smallest)
        {
            self.smallest = Some((bytes, limit));
        }
    }

    /// Reads the limits from files below `root`. `root` is `/`, or the directory of a test.
    fn read_files(&mut self, root: &Path) {
        if let Some(text) = self.read_file(&root.join("proc/meminfo")) {
            match physical(&text) {
                Some(bytes) => self.add_limit(bytes, LimitKind::Physical),
                None => self.unknown.push("/proc/meminfo has no MemTotal".into()),
            }
        }
        let Some(cgroups) = self.read_file(&root.join("proc/self/cgroup")) else {
            return;
        };
        let Some(mounts) = self.read_file(&root.join("proc/self/mountinfo")) else {
            return;
        };
        for mount in mounts.lines().filter_map(Mount::parse) {
            let Some(path) = cgroups.lines().find_map(|line| mount.path_of(line)) else {
                continue;
            };
            let top = root.join(mount.point.trim_start_matches('/'));
            for directory in mount.directories(path) {
                for name in mount.hierarchy.files() {
                    self.read_limit(&top.join(&directory).join(name), root);
                }
            }
        }
    }

    /// Reads a limit of a cgroup from `file`. If `file` does not exist, there is no limit. The
    /// machine's root cgroup has no such file. For a cgroup outside the namespace, `file` is a path
    /// that does not exist in the container.
    fn read_limit(&mut self, file: &Path, root: &Path) {
        if !file.exists() {
            return;
        }
        let Some(text) = self.read_file(file) else {
            return;
        };
        let shown = file.strip_prefix(root).unwrap_or(file);
        let shown = Path::new("/").join(shown);
        match text.trim() {
            "max" => {}
            text => match text.parse() {
                Ok(bytes) => self.add_limit(bytes, LimitKind::Cgroup(shown)),
                Err(_) => self
                    .unknown
                    .push(format!("{} has no number", shown.display())),
            },
        }
    }

    fn read_file(&mut self, file: &Path) -> Option<String> {
        match fs::read_to_string(file) {
            Ok(text) => Some(text),
            // Only Linux has these files, and not every kernel has cgroups.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.unknown.push(format!("{}: {error}", file.display()));
                None
            }
        }
    }
}

/// Returns the memory of the machine in bytes, from the text of `/proc/meminfo`.
fn physical(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|it| it.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The two versions of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Version 2.
    Unified,
    /// The memory controller of version 1.
    Memory,
}

impl Hierarchy {
    /// Returns the names of the files with limits. Above `memory.high`, the kernel slows a process
    /// down until it hardly runs. So `memory.high` counts as a limit.
    fn files(self) -> &'static [&'static str] {
        match self {
            Hierarchy::Unified => &["memory.max", "memory.high"],
            Hierarchy::Memory => &["memory.limit_in_bytes"],
        }
    }
}

/// A mount of a cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    hierarchy: Hierarchy,
    /// The path of the cgroup that is mounted at `point`.
    root: &'a str,
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// Parses a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Returns `None` for a mount
    /// of another kind.
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = system.split(' ');
        let hierarchy = match fields.next()? {
            "cgroup2" => Hierarchy::Unified,
            "cgroup" if fields.nth(1)?.split(',').any(|it| it == "memory") => Hierarchy::Memory,
            _ => return None,
        };
        Some(Mount {
            hierarchy,
            root,
            point,
        })
    }

    /// Returns the path of the process's cgroup from a line of `/proc/self/cgroup`. `None` if the
    /// line is about another hierarchy.
    fn path_of<'b>(&self, line: &'b str) -> Option<&'b str> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_its = match self.hierarchy {
            Hierarchy::Unified => controllers.is_empty(),
            Hierarchy::Memory => controllers.split(',').any(|it| it == "memory"),
        };
        is_its.then_some(path)
    }

    /// Returns the directories of the cgroup `path` and of all cgroups above it, relative to the
    /// mount point. The last directory is the mount point. In a container without a cgroup
    /// namespace, perhaps only the mount point exists.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let below = match path.strip_prefix(self.root) {
            Some(rest) if self.root == "/" || rest.is_empty() || rest.starts_with('/') => rest,
            Some(_) | None => path,
        };
        let below = Path::new(below.trim_start_matches('/'));
        below.ancestors().map(Path::to_path_buf).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a directory with these files, and returns it.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    fn memory_limits(files: &[(&str, &str)]) -> MemoryLimits {
        let mut memory_limits = MemoryLimits::default();
        memory_limits.read_files(root(files).path());
        memory_limits
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:        8388608 kB\nMemFree: 1 kB\n",
    );
    const V2: (&str, &str) = (
        "proc/self/mountinfo",
        "23 1 8:1 / / rw - ext4 /dev/root rw\n31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
    );

    fn cgroup(bytes: u64, file: &str) -> Option<(u64, LimitKind)> {
        Some((bytes, LimitKind::Cgroup(file.into())))
    }

    #[test]
    fn the_least_limit_of_the_cgroup_and_of_all_above_it_counts() {
        let of = ("proc/self/cgroup", "0::/a/b\n");
        let own = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        let found = memory_limits(&[MEMINFO, V2, of, own]);
        assert_eq!(found.smallest, Some((8 << 30, LimitKind::Physical)));
        let above = ("sys/fs/cgroup/a/memory.max", "3000000\n");
        let found = memory_limits(&[MEMINFO, V2, of, own, above]);
        assert_eq!(
            found.smallest,
            cgroup(3_000_000, "/sys/fs/cgroup/a/memory.max")
        );
        let high = ("sys/fs/cgroup/a/b/memory.high", "2000000\n");
        let found = memory_limits(&[MEMINFO, V2, of, own, above, high]);
        assert_eq!(
            found.smallest,
            cgroup(2_000_000, "/sys/fs/cgroup/a/b/memory.high")
        );
        assert!(found.unknown.is_empty());
        // A limit that is greater than the machine's memory does not count.
        let above = ("sys/fs/cgroup/a/memory.max", "9223372036854771712\n");
        let found = memory_limits(&[MEMINFO, V2, of, above]);
        assert_eq!(found.smallest, Some((8 << 30, LimitKind::Physical)));
    }

    #[test]
    fn a_container_s_limit_is_found_with_and_without_a_namespace() {
        // With a cgroup namespace, the process sees its cgroup as the root of the mount.
        let of = ("proc/self/cgroup", "0::/\n");
        let limit = ("sys/fs/cgroup/memory.max", "536870912\n");
        let own = cgroup(512 << 20, "/sys/fs/cgroup/memory.max");
        assert_eq!(memory_limits(&[MEMINFO, V2, of, limit]).smallest, own);
        // Without a cgroup namespace, perhaps only the container's directory is mounted. The path
        // in `/proc/self/cgroup` is that of the machine.
        let of = ("proc/self/cgroup", "0::/system.slice/docker-1.scope\n");
        let part = (
            "proc/self/mountinfo",
            "31 23 0:28 /system.slice/docker-1.scope /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
        );
        assert_eq!(memory_limits(&[MEMINFO, part, of, limit]).smallest, own);
        assert_eq!(memory_limits(&[MEMINFO, V2, of, limit]).smallest, own);
    }

    #[test]
    fn the_first_version_of_cgroups_is_known_too() {
        let of = ("proc/self/cgroup", "9:cpu:/x\n4:cpuset,memory:/a\n0::/\n");
        let mounts = (
            "proc/self/mountinfo",
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let limit = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1048576\n");
        let found = memory_limits(&[MEMINFO, mounts, of, limit]);
        let file = "/sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_eq!(found.smallest, cgroup(1 << 20, file));
    }

    #[test]
    fn what_cannot_be_understood_is_told_and_the_rest_counts() {
        let of = ("proc/self/cgroup", "0::/a\n");
        let bad = ("sys/fs/cgroup/a/memory.max", "plenty\n");
        let found = memory_limits(&[MEMINFO, V2, of, bad]);
        assert_eq!(found.smallest, Some((8 << 30, LimitKind::Physical)));
        assert_eq!(found.unknown, ["/sys/fs/cgroup/a/memory.max has no number"]);
        assert_eq!(memory_limits(&[]), MemoryLimits::default(), "no Linux");
    }

    #[test]
    fn a_budget_is_a_quarter_unless_the_config_has_one() {
        let mut limits = Limits::default();
        let of = |limits: &Limits, smallest| {
            let unknown = Vec::new();
            Budget::of(limits, &MemoryLimits { smallest, unknown })
        };
        let budget = of(&limits, Some((1 << 30, LimitKind::AddressSpace)));
        assert_eq!(
            budget.to_string(),
            "268435456 bytes, a quarter of the 1073741824 that the process may have (RLIMIT_AS, ulimit -v)"
        );
        assert_eq!(
            of(&limits, Some((1 << 20, LimitKind::Data))).bytes,
            MIN_BUDGET
        );
        assert_eq!(of(&limits, None).bytes, 256 << 20);
        limits.buffer_bytes = 5_000_000;
        let budget = of(&limits, Some((1 << 30, LimitKind::Physical)));
        assert_eq!(
            budget.to_string(),
            "5000000 bytes, from the config (limits.buffer_bytes)"
        );
    }
}
