//! The standard output of a tool. A failed write changes the exit status.
//!
//! A reader that closes the pipe early (`… | head -1`, EPIPE) is no failure. Any other error is
//! one: a full disk behind `--json > file` must not look like success.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

/// The status of a tool that could not write its output.
const UNWRITTEN: u8 = 1;

static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Writes to the standard output at once. Returns whether that worked. The first failure is
/// reported on the standard error, and every failure is kept for [`status`].
pub fn say(text: impl fmt::Display) -> bool {
    let mut stdout = io::stdout().lock();
    note(write!(stdout, "{text}").and_then(|()| stdout.flush()))
}

/// Like `println!`, but a failed write does not panic.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        $crate::output::say(format_args!("{}\n", format_args!($($text)*)));
    }};
}

fn note(written: io::Result<()>) -> bool {
    match written {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        Err(error) => {
            if !HAS_FAILED.swap(true, Ordering::Relaxed) {
                tell(format_args!(
                    "cannot write to the standard output: {error}; write it to a disk with free room"
                ));
            }
            false
        }
    }
}

/// Writes one line to the standard error, after the program's name. `eprintln!` would panic if
/// there is no standard error.
pub fn tell(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{}: {what}", name());
}

/// The exit status. A failed write turns success into failure.
#[must_use]
pub fn status(status: u8) -> ExitCode {
    match status {
        0 if HAS_FAILED.load(Ordering::Relaxed) => ExitCode::from(UNWRITTEN),
        status => ExitCode::from(status),
    }
}

/// Parses the command line.
///
/// # Errors
/// The command line has `--help`, `--version` or a mistake. The program has to end with this
/// status.
pub fn command_line<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| show(&error))
}

/// Shows the help, the version or clap's error. Returns the exit status.
#[must_use]
pub fn show(error: &clap::Error) -> ExitCode {
    match error.exit_code() {
        0 => {
            note(error.print().and_then(|()| io::stdout().flush()));
            status(0)
        }
        code => {
            let _ = error.print(); // Fails if there is no standard error.
            ExitCode::from(u8::try_from(code).unwrap_or(2))
        }
    }
}

/// The file name of the program.
fn name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program)
        .file_name()
        .unwrap_or_default();
    name.to_string_lossy().into_owned()
}
