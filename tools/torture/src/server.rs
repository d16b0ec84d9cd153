//! A server process that is always killed and reaped in the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use herd_testkit::clock;
use herd_testkit::server::{Listening, Process};

/// The files for its standard output and error, in its directory.
pub(crate) const OUT: &str = "out";
pub(crate) const ERR: &str = "err";

/// A server. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    directory: PathBuf,
}

impl Server {
    /// Starts the command. Its output goes to files of this directory, so that strace can tell them
    /// apart by path.
    pub(crate) fn start(mut command: Command, directory: &Path) -> Result<Server, String> {
        let file = |name: &str| {
            let path = directory.join(name);
            File::create(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))
        };
        command
            .stdin(Stdio::null())
            .stdout(file(OUT)?)
            .stderr(file(ERR)?);
        let process = Process::spawn(&mut command).map_err(|error| {
            let program = command.get_program().display();
            format!("cannot run {program}: {error}")
        })?;
        Ok(Server {
            process,
            directory: directory.to_owned(),
        })
    }

    /// Waits until the server reports that it is ready. `None` if it ends before that, or at the
    /// deadline.
    pub(crate) fn ready(&mut self, deadline: Instant) -> Option<Listening> {
        let out = self.directory.join(OUT);
        clock::wait_for(deadline, || {
            let has_ended = self.process.has_ended();
            let said = fs::read_to_string(&out).unwrap_or_default();
            // The line counts only when its LF has been written.
            match said.strip_suffix('\n').and_then(Listening::from_line) {
                Some(listening) => Some(Some(listening)),
                None => has_ended.then_some(None),
            }
        })
        .flatten()
    }

    /// The content of its standard error.
    pub(crate) fn words(&self) -> String {
        let words = fs::read(self.directory.join(ERR)).unwrap_or_default();
        String::from_utf8_lossy(&words).into_owned()
    }
}
