//! The open descriptors of a process.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Without getrandom, libraries open this file once and keep it.
const RANDOM: &str = "/dev/urandom";

/// Open descriptors, counted by kind: `socket`, `anon_inode:[eventpoll]`, or a file name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptors(BTreeMap<String, usize>);

impl Descriptors {
    /// The descriptors of a running process.
    pub(crate) fn of(process: u32) -> io::Result<Descriptors> {
        let mut counts = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
            // The descriptor may be closed by now.
            if let Ok(name) = fs::read_link(entry?.path())
                && name != Path::new(RANDOM)
            {
                *counts.entry(kind(&name.to_string_lossy())).or_default() += 1;
            }
        }
        Ok(Descriptors(counts))
    }

    /// The descriptors that `baseline` does not have. `None` if the total is not greater.
    pub(crate) fn beyond(&self, baseline: &Descriptors) -> Option<Descriptors> {
        let sum = |descriptors: &Descriptors| descriptors.0.values().sum::<usize>();
        // Another kind in the place of a closed one is no leak, for example after a log could not
        // be opened anew.
        if sum(self) <= sum(baseline) {
            return None;
        }
        let more = self.0.iter().filter_map(|(kind, count)| {
            let before = baseline.0.get(kind).copied().unwrap_or(0);
            (*count > before).then(|| (kind.clone(), count - before))
        });
        Some(Descriptors(more.collect()))
    }
}

impl fmt::Display for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, count)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} × {kind}")?;
        }
        Ok(())
    }
}

/// The target of `/proc/PID/fd/N` without the parts that differ from run to run: the number of a
/// socket or a pipe, the directory of a file.
fn kind(name: &str) -> String {
    let name = match name.split_once(":[") {
        Some((kind @ ("socket" | "pipe"), _)) => kind,
        Some(_) => name,
        None => name.rsplit_once('/').map_or(name, |(_, file)| file),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(names: &[&str]) -> Descriptors {
        let mut counts = BTreeMap::new();
        for name in names {
            *counts.entry(kind(name)).or_default() += 1;
        }
        Descriptors(counts)
    }

    #[test]
    fn additional_descriptors_are_reported() {
        let baseline = descriptors(&["socket:[1]", "socket:[2]", "/run/7/riley.log"]);
        let same = descriptors(&["socket:[3]", "socket:[4]", "/run/8/riley.log"]);
        assert_eq!(same.beyond(&baseline), None);
        assert_eq!(descriptors(&[]).beyond(&baseline), None);
        let renamed = descriptors(&["socket:[3]", "socket:[4]", "/run/8/riley.log.1"]);
        assert_eq!(renamed.beyond(&baseline), None);
        let more = descriptors(&[
            "socket:[3]",
            "socket:[4]",
            "socket:[5]",
            "/run/8/riley.log",
            "anon_inode:[eventfd]",
        ]);
        let beyond = more.beyond(&baseline).unwrap();
        assert_eq!(beyond.to_string(), "1 × anon_inode:[eventfd], 1 × socket");
    }

    #[test]
    fn descriptors_of_this_process_are_read() {
        let own = Descriptors::of(std::process::id()).unwrap();
        assert!(own.beyond(&Descriptors::default()).is_some());
        // No kernel has such a process id.
        assert!(Descriptors::of(u32::MAX).is_err());
    }
}
