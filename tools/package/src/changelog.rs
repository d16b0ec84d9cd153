//! The changelog: the subjects of commits, by version and by what they change. It needs git and the
//! history, and gives the same text for the same history.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use herd_testkit::failure::Failure;

use crate::build;

/// What a commit changes, in the order of the changelog. A commit that changes several has the
/// first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    Server,
    Tools,
    Tests,
    Documentation,
    Other,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Area::Server => "Server",
            Area::Tools => "Tools",
            Area::Tests => "Tests",
            Area::Documentation => "Documentation",
            Area::Other => "Other",
        }
    }

    /// The area of a file.
    fn of(path: &str) -> Area {
        let is_test = path.starts_with("tests/") || path.contains("/tests/");
        if path.starts_with("src/") {
            Area::Server
        } else if is_test || path.starts_with("tools/fuzz/") || path.starts_with("tools/mutants/") {
            Area::Tests
        } else if path.ends_with(".md") {
            Area::Documentation
        } else if path.starts_with("tools/") {
            Area::Tools
        } else {
            Area::Other
        }
    }
}

/// The marks between the parts of git's output. No subject and no path has such bytes.
const COMMIT: char = '\u{1e}';
const FIELD: char = '\u{1f}';

/// The changelog of the checkout, newest version first.
///
/// # Errors
/// Git is missing, or the checkout has no history.
pub(crate) fn text() -> Result<String, Failure> {
    let format = format!("--format={COMMIT}%D{FIELD}%cs{FIELD}%s{FIELD}");
    let log = build::git(&[
        "-c",
        "core.quotePath=false",
        "log",
        "--no-merges",
        "--name-only",
        "--decorate-refs=refs/tags/v*",
        "--decorate=short",
        &format,
    ])?;
    Ok(from_log(&log))
}

fn from_log(log: &str) -> String {
    let mut text = "# Changes\n".to_owned();
    // Commits above the newest tag are in no version yet.
    let mut heading = "Not released".to_owned();
    let mut areas: BTreeMap<Area, Vec<&str>> = BTreeMap::new();
    for commit in log.split(COMMIT).skip(1) {
        let mut fields = commit.split(FIELD);
        let mut next = || fields.next().unwrap_or_default();
        let (tags, date, subject, paths) = (next(), next(), next(), next());
        if let Some(version) = version(tags) {
            write_version(&mut text, &heading, &areas);
            areas.clear();
            heading = format!("{version} ({date})");
        }
        let paths = paths.lines().filter(|path| !path.is_empty());
        let area = paths.map(Area::of).min().unwrap_or(Area::Other);
        areas.entry(area).or_default().push(subject);
    }
    write_version(&mut text, &heading, &areas);
    text
}

/// The version in `tag: v1.2.3, tag: other`.
fn version(tags: &str) -> Option<&str> {
    let mut versions = tags
        .split(", ")
        .filter_map(|tag| tag.strip_prefix("tag: v"));
    versions.find(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

fn write_version(text: &mut String, heading: &str, areas: &BTreeMap<Area, Vec<&str>>) {
    if areas.is_empty() {
        return;
    }
    // Writing into a String never fails.
    let _ = write!(text, "\n## {heading}\n");
    for (area, subjects) in areas {
        let _ = write!(text, "\n### {}\n\n", area.name());
        for subject in subjects {
            let _ = writeln!(text, "- {subject}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_grouped_by_version_and_area() {
        let commit = |tags: &str, subject: &str, paths: &str| {
            format!("{COMMIT}{tags}{FIELD}2026-01-02{FIELD}{subject}{FIELD}\n\n{paths}\n")
        };
        let log = [
            commit(
                "",
                "Add a flag",
                "README.md\nsrc/cli.rs\ntests/behaviour/logs.rs",
            ),
            commit("", "Explain it", "README.md\ntools/bench/README.md"),
            commit("tag: v0.2.0", "Test more", "tools/load/tests/tls.rs"),
            commit("", "Report rates", "tools/load/src/report.rs"),
            commit("tag: vote, tag: v0.1.0", "Begin", "Cargo.toml"),
        ];
        assert_eq!(
            from_log(&log.concat()),
            "# Changes\n\
             \n## Not released\n\
             \n### Server\n\n- Add a flag\n\
             \n### Documentation\n\n- Explain it\n\
             \n## 0.2.0 (2026-01-02)\n\
             \n### Tools\n\n- Report rates\n\
             \n### Tests\n\n- Test more\n\
             \n## 0.1.0 (2026-01-02)\n\
             \n### Other\n\n- Begin\n"
        );
    }
}
