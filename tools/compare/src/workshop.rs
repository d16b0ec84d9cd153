//! Builds the worlds' servers, each with the tools of its world.
//!
//! All results go to `compare/` in cargo's target directory, and none into the source tree.
//! Up-to-date results are used again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use herd_testkit::cargo::{self, MANIFEST, executable_in};
use serde_json::Value;

use crate::children;
use crate::worlds::{Recipe, World};

/// A file that names the inputs of a directory. The directory is made anew when they change.
const MADE_OF: &str = "made-of";

/// The profile of a build. Only optimized programs are worth measuring. The others are built
/// faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly built.
    Dev,
    /// Optimized.
    Release,
}

/// Why a world's server is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unprepared {
    /// This machine lacks a tool, or cannot download something. The world is skipped for this
    /// reason.
    Missing(String),
    /// The build failed.
    Failed(String),
}

impl fmt::Display for Unprepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unprepared::Missing(reason) => write!(f, "skipped: {reason}"),
            Unprepared::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

impl std::error::Error for Unprepared {}

/// A server's program, ready to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its world.
    pub world: &'static World,
    /// The executable.
    pub executable: PathBuf,
    /// The arguments before the server's name.
    pub arguments: Vec<OsString>,
    /// Additional environment variables.
    pub environment: Vec<(&'static str, OsString)>,
}

/// Builds programs, each once.
#[derive(Debug)]
pub struct Workshop {
    target: PathBuf,
    profile: Profile,
    /// The results so far. Worlds that are built together share one result.
    made: Mutex<HashMap<&'static str, Made>>,
}

type Made = Arc<Mutex<Option<Result<Program, Unprepared>>>>;

impl Workshop {
    /// A workshop in this target directory.
    #[must_use]
    pub fn new(target: &Path, profile: Profile) -> Workshop {
        Workshop {
            target: target.to_owned(),
            profile,
            made: Mutex::default(),
        }
    }

    /// A workshop in cargo's target directory.
    ///
    /// # Errors
    /// Cargo does not name its target directory.
    pub fn of_cargo(profile: Profile) -> Result<Workshop, String> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1"];
        let said = run(cargo::command()
            .args(arguments)
            .args(["--manifest-path", MANIFEST]))?;
        let metadata: Value = serde_json::from_str(&said)
            .map_err(|error| format!("the output of cargo metadata is not JSON: {error}"))?;
        match metadata["target_directory"].as_str() {
            Some(target) => Ok(Workshop::new(Path::new(target), profile)),
            None => Err("cargo metadata does not name the target directory".to_owned()),
        }
    }

    /// The directory of all results.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        self.target.join("compare")
    }

    /// The program of a world's server. It is built if it is not there already. Other callers for
    /// the same world wait.
    ///
    /// # Errors
    /// The program is not available.
    pub fn prepare(&self, world: &'static World) -> Result<Program, Unprepared> {
        let made = {
            let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(world.name).or_default())
        };
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        made.get_or_insert_with(|| self.make(world)).clone()
    }

    fn make(&self, world: &'static World) -> Result<Program, Unprepared> {
        world.check().map_err(Unprepared::Missing)?;
        let sources = world.directory();
        // The three Python worlds share their packages, and the two Java worlds are compiled
        // together.
        let place = match world.recipe {
            Recipe::Python { .. } => "python",
            Recipe::Java { .. } => "java",
            Recipe::Mio | Recipe::Node | Recipe::Go | Recipe::Cargo { .. } => world.name,
        };
        let place = self.place().join(place);
        let _mine = lock(&place).map_err(|error| {
            Unprepared::Failed(format!("cannot use {}: {error}", place.display()))
        })?;
        let program = |executable: PathBuf, arguments: Vec<OsString>| Program {
            world,
            executable,
            arguments,
            environment: Vec::new(),
        };
        match world.recipe {
            Recipe::Mio => Ok(program(self.workspace_binary("herd-mio")?, Vec::new())),
            Recipe::Python { script, arguments } => {
                let python = virtual_environment(&place, &sources)?;
                let mut all = vec![sources.join(script).into_os_string()];
                all.extend(arguments.iter().map(OsString::from));
                let bytecode = place.join("bytecode").into_os_string();
                Ok(Program {
                    environment: vec![("PYTHONPYCACHEPREFIX", bytecode)],
                    ..program(python, all)
                })
            }
            Recipe::Node => Ok(program(
                "node".into(),
                vec![sources.join("main.js").into_os_string()],
            )),
            Recipe::Java { main } => {
                let classes = classes(&place, &sources)?;
                let arguments = ["-cp".into(), classes.into_os_string(), main.into()];
                Ok(program("java".into(), arguments.into()))
            }
            Recipe::Go => {
                let executable = place.join("herd-go");
                let mut go = Command::new("go");
                // Without this, the build needs git.
                go.args(["build", "-buildvcs=false", "-o"])
                    .arg(&executable)
                    .arg(".");
                // Go must not download another version of itself.
                go.current_dir(&sources).env("GOTOOLCHAIN", "local");
                run(&mut go).map_err(Unprepared::Failed)?;
                Ok(program(executable, Vec::new()))
            }
            Recipe::Cargo { binary } => {
                let manifest = sources.join("Cargo.toml");
                let mut fetch = cargo::command();
                fetch
                    .args(["fetch", "--locked", "--manifest-path"])
                    .arg(&manifest);
                run(&mut fetch).map_err(Unprepared::Missing)?;
                let mut command = cargo::command();
                command
                    .args(["build", "--locked", "--manifest-path"])
                    .arg(&manifest);
                let executable = self.cargo_build(&mut command, &place, binary)?;
                Ok(program(executable, Vec::new()))
            }
        }
    }

    /// A program of this workspace, built like the rest of the workspace (see
    /// [`herd_testkit::cargo::build`]).
    ///
    /// # Errors
    /// The program cannot be built.
    pub fn workspace_binary(&self, name: &str) -> Result<PathBuf, Unprepared> {
        let mut command = cargo::command();
        command
            .args(["build", "--manifest-path", MANIFEST])
            .args(["--workspace", "--bin", name]);
        self.cargo_build(&mut command, &self.target, name)
    }

    /// Runs cargo, which names the path of the binary. The path depends on profile and platform, so
    /// it is not guessed.
    fn cargo_build(
        &self,
        command: &mut Command,
        target: &Path,
        binary: &str,
    ) -> Result<PathBuf, Unprepared> {
        if self.profile == Profile::Release {
            command.arg("--release");
        }
        command
            .arg("--target-dir")
            .arg(target)
            .arg("--message-format=json-render-diagnostics");
        let said = run(command).map_err(Unprepared::Failed)?;
        let executable = said.lines().find_map(|line| executable_in(line, binary));
        executable
            .ok_or_else(|| Unprepared::Failed(format!("cargo does not name the path of {binary}")))
    }
}

/// A lock that keeps other processes from building there. It is held as long as the file is open.
fn lock(place: &Path) -> io::Result<File> {
    fs::create_dir_all(place)?;
    let file = File::create(place.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// Runs a tool to its end, and returns its output. An error contains the end of its standard error.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        children::output(command).map_err(|error| format!("cannot run {name}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let errors = text(&output.stderr);
    let last = errors.lines().rev().take(20).collect::<Vec<_>>();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let arguments: Vec<_> = command
        .get_args()
        .map(|argument| argument.to_string_lossy())
        .collect();
    Err(format!(
        "{name} {}: {}\n{}",
        arguments.join(" "),
        output.status,
        last.join("\n")
    ))
}

/// Makes `directory` anew with `make`, unless it was made from the same inputs before.
fn made_of(
    directory: &Path,
    what: &str,
    make: impl FnOnce() -> Result<(), Unprepared>,
) -> Result<(), Unprepared> {
    let failed = |error: io::Error| Unprepared::Failed(format!("{}: {error}", directory.display()));
    let note = directory.join(MADE_OF);
    if fs::read_to_string(&note).is_ok_and(|before| before == what) {
        return Ok(());
    }
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(failed)?;
    }
    fs::create_dir_all(directory).map_err(failed)?;
    make()?;
    // This is the last step, so that an incomplete directory is made anew.
    fs::write(&note, what).map_err(failed)
}

/// A virtual environment with the packages of `requirements.txt`. Returns its Python.
fn virtual_environment(place: &Path, sources: &Path) -> Result<PathBuf, Unprepared> {
    let requirements = sources.join("requirements.txt");
    let pinned = fs::read_to_string(&requirements)
        .map_err(|error| Unprepared::Failed(format!("{}: {error}", requirements.display())))?;
    let mut which = Command::new("python3");
    which.args(["-c", "import sys; print(sys.version, sys.base_prefix)"]);
    let which = run(&mut which).map_err(Unprepared::Failed)?;
    let directory = place.join("venv");
    let python = directory.join("bin").join("python");
    made_of(&directory, &format!("{which}{pinned}"), || {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&directory);
        run(&mut venv).map_err(Unprepared::Missing)?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        pip.arg("--requirement").arg(&requirements);
        run(&mut pip).map(drop).map_err(Unprepared::Missing)
    })?;
    Ok(python)
}

/// The directory with the compiled classes of all Java files.
fn classes(place: &Path, sources: &Path) -> Result<PathBuf, Unprepared> {
    let failed = |error: io::Error| Unprepared::Failed(format!("{}: {error}", sources.display()));
    let mut files = Vec::new();
    let mut what = String::new();
    for entry in fs::read_dir(sources).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "java")
        {
            what.push_str(&fs::read_to_string(&path).map_err(failed)?);
            files.push(path);
        }
    }
    let directory = place.join("classes");
    made_of(&directory, &what, || {
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(&directory).args(&files);
        run(&mut javac).map(drop).map_err(Unprepared::Failed)
    })?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_up_to_date_build_is_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        let mut times = 0;
        for what in ["one", "one", "two", "two"] {
            made_of(&place, what, || {
                times += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(times, 2);
        let failed = made_of(&place, "three", || Err(Unprepared::Failed("no".into())));
        assert_eq!(failed, Err(Unprepared::Failed("no".into())));
        made_of(&place, "three", || {
            times += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(times, 3, "what failed is made again");
    }

    #[test]
    fn a_failed_tool_s_output_is_quoted() {
        let reason = run(Command::new("cargo").arg("no-such-command")).unwrap_err();
        assert!(
            reason.starts_with("cargo no-such-command: exit status: 101"),
            "{reason}"
        );
        assert!(reason.contains("no such command"), "{reason}");
    }
}
