//! `herd-places`: the stand-in for Google Places as a program, for a demo or for manual tests.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use herd_places::cli::{Arguments, DEFAULT_KEY};
use herd_places::{Behaviour, Event, Options, Places};
use herd_testkit::{output, signals};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    signals::unblock();
    let arguments = match output::command_line() {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // `eprintln!` would panic if there is no standard error.
            let _ = writeln!(io::stderr(), "herd-places: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes. An error is one line that says what failed, where, and what to do.
fn run(arguments: Arguments) -> Result<(), String> {
    // This comes before any output: a reader of the line below may send a signal at once.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| {
        format!("cannot wait for signals: {error}; the system's limits may be too low")
    })?;

    let options = options(&arguments);
    let places = Places::start(options).map_err(|error| {
        let listen = arguments.listen;
        format!("cannot listen on {listen}: {error}; stop the program that uses that address, or give another with --listen")
    })?;
    let shown = shown(&arguments.ca_file);
    write_whole(&arguments.ca_file, places.ca_pem()).map_err(|error| {
        format!("cannot write {shown}: {error}; give another file with --ca-file")
    })?;

    let mut stdout = io::stdout();
    let ready = format!("herd-places: {} (CA in {shown})", places.url());
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).map_err(|error| {
        format!("cannot write to the standard output: {error}; connect it to a file, a terminal or an open pipe")
    })?;
    // The line shows the next command to type. It does not show a key that the user chose. A failed
    // write does not matter: the reader may want only the first line.
    let key = if arguments.key == DEFAULT_KEY {
        DEFAULT_KEY
    } else {
        "YOUR-KEY"
    };
    let ca = std::path::absolute(&arguments.ca_file).unwrap_or_else(|_| arguments.ca_file.clone());
    let next = format!(
        "HERD_PLACES_KEY={key} herd-mio NAME --places-url {} --places-ca {}",
        places.url(),
        ca.display()
    );
    let _ = writeln!(stdout, "start a server that asks it: {next}");

    // Blocks until a signal comes. The iterator never ends.
    signals.forever().next();
    drop(places);
    Ok(())
}

fn options(arguments: &Arguments) -> Options {
    let mut options = Options {
        listen: arguments.listen,
        key: arguments.key.clone(),
        behaviour: behaviour(arguments),
        every: arguments.every.unwrap_or(NonZeroU64::MIN),
        silent_accept: arguments.silent,
        // The program may run for days, and never reads the requests.
        remember: false,
        ..Options::default()
    };
    // The certificate has to be valid for the address that clients use.
    let ip = arguments.listen.ip().to_string();
    if !arguments.listen.ip().is_unspecified() && !options.names.contains(&ip) {
        options.names.push(ip);
    }
    if !arguments.quiet {
        options.observer = Some(Arc::new(|event: &Event| {
            // A failed write to the standard error is ignored.
            let _ = writeln!(io::stderr(), "{event}");
        }));
    }
    options
}

fn behaviour(arguments: &Arguments) -> Behaviour {
    if let Some(delay_ms) = arguments.slow {
        Behaviour::Slow {
            delay: Duration::from_millis(delay_ms),
        }
    } else if let Some(size) = arguments.chunk {
        Behaviour::Chunked { size: size.get() }
    } else if arguments.close_delimited {
        Behaviour::CloseDelimited
    } else if arguments.drop {
        Behaviour::Drop
    } else if arguments.truncate {
        Behaviour::Truncated
    } else if let Some(status) = arguments.fail {
        Behaviour::Status(status)
    } else {
        Behaviour::Answer
    }
}

/// A reader that waits for the file must never see half of it. So it is written under another name,
/// then renamed.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // A temporary file is usually private. All users may read this one, because a certificate is
    // public.
    let all_may_read = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new()
        .prefix(".places-ca-")
        .permissions(all_may_read)
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// A path on one line: control characters are replaced.
fn shown(path: &Path) -> String {
    path.display()
        .to_string()
        .replace(char::is_control, "\u{fffd}")
}
