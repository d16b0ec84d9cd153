//! The tools that a world's server needs, and whether this machine has them in a new enough
//! version.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

/// A program that a world needs.
#[derive(Debug)]
pub struct Tool {
    /// The name of the program.
    pub program: &'static str,
    /// The arguments that make it print its version.
    version: &'static [&'static str],
    /// The oldest version that is accepted.
    pub least: Version,
    /// How to install it.
    pub install: &'static str,
}

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// CPython.
pub const PYTHON: Tool = Tool {
    program: "python3",
    version: &["--version"],
    least: Version(3, 11),
    install: "apt install python3 python3-venv, or https://www.python.org/downloads/",
};
/// A part of CPython that Debian packages separately. Without it, a virtual environment has no pip.
pub const VENV: Tool = Tool {
    program: "python3",
    version: &["-c", "import ensurepip, venv; print(ensurepip.version())"],
    least: Version(0, 0),
    install: "apt install python3-venv",
};
/// Node.
pub const NODE: Tool = Tool {
    program: "node",
    version: &["--version"],
    least: Version(18, 11),
    install: "apt install nodejs, or https://nodejs.org/en/download",
};
/// Java's virtual machine.
pub const JAVA: Tool = Tool {
    program: "java",
    version: &["--version"],
    least: Version(17, 0),
    install: "apt install openjdk-17-jdk-headless, or https://adoptium.net/",
};
/// Java's compiler.
pub const JAVAC: Tool = Tool {
    program: "javac",
    version: &["--version"],
    ..JAVA
};
/// Go.
pub const GO: Tool = Tool {
    program: "go",
    version: &["version"],
    least: Version(1, 19),
    install: "apt install golang-go, or https://go.dev/dl/",
};
/// Rust's builder.
pub const CARGO: Tool = Tool {
    program: "cargo",
    version: &["--version"],
    least: Version(1, 85),
    install: "https://rustup.rs/",
};

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// The first word of `text` that looks like a version, with or without letters before it
    /// (`v20.1`, `go1.19`).
    fn find(text: &str) -> Option<Version> {
        text.split_whitespace().find_map(|word| {
            let word = word.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
            let mut numbers = word.split('.').map(|number| {
                let end = number
                    .find(|digit: char| !digit.is_ascii_digit())
                    .unwrap_or(number.len());
                number[..end].parse().ok()
            });
            let major = numbers.next().flatten()?;
            Some(Version(major, numbers.next().flatten().unwrap_or(0)))
        })
    }
}

impl Tool {
    /// Its version.
    ///
    /// # Errors
    /// The program is missing or too old. The text says what to do.
    pub fn check(&self) -> Result<Version, String> {
        let Tool {
            program,
            version,
            least,
            install,
        } = self;
        let said = Command::new(program)
            .args(*version)
            .stdin(Stdio::null())
            .output();
        let said = match said {
            Ok(said) => said,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{program}: not found; {install}"));
            }
            Err(error) => return Err(format!("{program}: {error}; {install}")),
        };
        let words = [said.stdout, said.stderr].concat();
        let words = String::from_utf8_lossy(&words);
        if !said.status.success() {
            let last = words.lines().last().unwrap_or_default();
            return Err(format!("{program}: {last} ({}); {install}", said.status));
        }
        match Version::find(&words) {
            Some(found) if found >= *least => Ok(found),
            Some(found) => Err(format!(
                "{program}: version {found} is too old, at least {least} is needed; {install}"
            )),
            None => Err(format!("{program}: does not print its version; {install}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_versions_are_parsed() {
        for (said, version) in [
            ("Python 3.11.7", Version(3, 11)),
            ("v20.20.2", Version(20, 20)),
            ("go version go1.19.8 linux/amd64", Version(1, 19)),
            ("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", Version(1, 95)),
            ("openjdk 17.0.15 2025-04-15", Version(17, 0)),
            ("javac 21", Version(21, 0)),
            ("openjdk 22-ea 2024-03-19", Version(22, 0)),
        ] {
            assert_eq!(Version::find(said), Some(version), "{said}");
        }
        assert_eq!(Version::find("no such thing"), None);
    }

    #[test]
    fn a_missing_tool_is_reported_with_a_fix() {
        let tool = Tool {
            program: "no-such-tool",
            install: "find one",
            ..GO
        };
        assert_eq!(
            tool.check(),
            Err("no-such-tool: not found; find one".to_owned())
        );
        let tool = Tool {
            least: Version(999, 0),
            ..CARGO
        };
        let reason = tool.check().unwrap_err();
        assert!(
            reason.contains("is too old, at least 999.0 is needed"),
            "{reason}"
        );
    }
}
