//! The table of worlds. A world is a language with its way to do many things at once, and the
//! server that is written for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::tools::{CARGO, GO, JAVA, JAVAC, NODE, PYTHON, Tool, VENV};

/// A world and its server.
#[derive(Debug)]
pub struct World {
    /// Its name on a command line.
    pub name: &'static str,
    /// A short description.
    pub label: &'static str,
    /// The tools that it needs.
    pub needs: &'static [&'static Tool],
    /// How its server is built and started.
    pub recipe: Recipe,
    /// The directory of its sources, inside this crate's directory.
    directory: &'static str,
    /// The extension of its source files.
    extension: &'static str,
    /// Files with these prefixes belong to another world with the same directory.
    not: &'static [&'static str],
}

/// How a server is built and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// herd-mio itself. Cargo builds it in this workspace, and it needs a config file.
    Mio,
    /// A script in a virtual environment.
    Python {
        /// The script.
        script: &'static str,
        /// The arguments before all others.
        arguments: &'static [&'static str],
    },
    /// A script.
    Node,
    /// Classes.
    Java {
        /// The class with `main`.
        main: &'static str,
    },
    /// A module that `go build` builds.
    Go,
    /// A separate cargo workspace with a binary of this name.
    Cargo {
        /// The binary.
        binary: &'static str,
    },
}

/// All worlds.
pub const WORLDS: [World; 9] = [
    World {
        name: "mio",
        label: "Rust: herd-mio itself, one thread, mio",
        needs: &[&CARGO],
        recipe: Recipe::Mio,
        directory: "../../src",
        extension: "rs",
        not: &[],
    },
    World {
        name: "streams",
        label: "Python: asyncio streams",
        needs: &[&PYTHON, &VENV],
        recipe: Recipe::Python {
            script: "streams.py",
            arguments: &[],
        },
        directory: "worlds/python",
        extension: "py",
        not: &["protocols.py"],
    },
    World {
        name: "protocols",
        label: "Python: asyncio protocols",
        needs: &[&PYTHON, &VENV],
        recipe: Recipe::Python {
            script: "protocols.py",
            arguments: &[],
        },
        directory: "worlds/python",
        extension: "py",
        not: &["streams.py"],
    },
    World {
        name: "uvloop",
        label: "Python: asyncio protocols on uvloop",
        needs: &[&PYTHON, &VENV],
        recipe: Recipe::Python {
            script: "protocols.py",
            arguments: &["--loop", "uvloop"],
        },
        directory: "worlds/python",
        extension: "py",
        not: &["streams.py"],
    },
    World {
        name: "node",
        label: "JavaScript: Node, its standard library",
        needs: &[&NODE],
        recipe: Recipe::Node,
        directory: "worlds/node",
        extension: "js",
        not: &[],
    },
    World {
        name: "java-threads",
        label: "Java: blocking sockets, a thread each",
        needs: &[&JAVA, &JAVAC],
        recipe: Recipe::Java { main: "Threads" },
        directory: "worlds/java",
        extension: "java",
        not: &["Nio"],
    },
    World {
        name: "java-nio",
        label: "Java: one thread, a selector",
        needs: &[&JAVA, &JAVAC],
        recipe: Recipe::Java { main: "Nio" },
        directory: "worlds/java",
        extension: "java",
        not: &["Threads"],
    },
    World {
        name: "go",
        label: "Go: goroutines",
        needs: &[&GO],
        recipe: Recipe::Go,
        directory: "worlds/go",
        extension: "go",
        not: &[],
    },
    World {
        name: "tokio",
        label: "Rust: tokio, one thread",
        needs: &[&CARGO],
        recipe: Recipe::Cargo {
            binary: "herd-tokio",
        },
        directory: "worlds/tokio",
        extension: "rs",
        not: &[],
    },
];

/// The world with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static World> {
    WORLDS.iter().find(|world| world.name == name)
}

impl World {
    /// The directory of its sources.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.directory)
    }

    /// The sources of its server without tests, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn sources(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        self.collect(&self.directory(), &mut found)?;
        found.sort();
        Ok(found)
    }

    fn collect(&self, directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                // Tools of the world may have left files there.
                if !["target", "tests", "test", "node_modules", "__pycache__"].contains(&&*name) {
                    self.collect(&path, found)?;
                }
                continue;
            }
            let is_test = name.ends_with("_test.go") || name.ends_with(".test.js");
            let is_of_another = self.not.iter().any(|start| name.starts_with(start));
            let is_source = path
                .extension()
                .is_some_and(|extension| extension == self.extension);
            if is_source && !is_test && !is_of_another {
                found.push(path);
            }
        }
        Ok(())
    }

    /// Checks that this machine can run it. Returns the versions of its tools.
    ///
    /// # Errors
    /// A tool is missing. The text says which, and how to get it.
    pub fn check(&self) -> Result<String, String> {
        let has_sources = self.sources().is_ok_and(|files| !files.is_empty());
        if has_sources {
            self.versions()
        } else {
            let directory = self.directory;
            Err(format!(
                "{directory}: there are no sources; they are part of this repository"
            ))
        }
    }

    fn versions(&self) -> Result<String, String> {
        let mut versions = Vec::new();
        for tool in self.needs {
            let version = tool.check()?;
            let told = format!("{} {version}", tool.program);
            // Two needs may be parts of one program.
            if !versions
                .iter()
                .any(|before: &String| before.starts_with(tool.program))
            {
                versions.push(told);
            }
        }
        Ok(versions.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_is_found_by_its_name() {
        for world in &WORLDS {
            assert_eq!(
                by_name(world.name).map(|found| found.label),
                Some(world.label)
            );
        }
        assert!(by_name("cobol").is_none());
    }

    #[test]
    fn worlds_that_share_a_directory_do_not_share_their_main_file() {
        let files = |name: &str| -> Vec<String> {
            let sources = by_name(name).unwrap().sources().unwrap();
            sources
                .iter()
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let (streams, protocols) = (files("streams"), files("protocols"));
        assert!(streams.contains(&"streams.py".to_owned()));
        assert!(!streams.contains(&"protocols.py".to_owned()));
        assert!(protocols.contains(&"protocols.py".to_owned()));
        assert!(!protocols.contains(&"streams.py".to_owned()));
        assert!(
            streams.contains(&"records.py".to_owned())
                && protocols.contains(&"records.py".to_owned())
        );
    }
}
