//! The prompt: a user types a line, and reads the answer.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::dial::Target;
use herd_testkit::clock;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::failure::{self, Failure, Status, Stop};
use crate::helpers;
use crate::hints::Hints;
use crate::session::Session;
use crate::show::Show;

const HELP: &str = "  help                         print this text
  quit (or Ctrl-D)             leave

Examples:
  iamat kiwi 34.0689 -118.4452
  whatsat kiwi 2 10

The server answers AT <server> <skew> <client> <location> <time>. <server> got
the client's command. <skew> is that server's clock minus the client's. The
rest is a copy of the client's command. If the command is invalid, or a whatsat
names an unknown client, the answer is ? and a copy of the command.
";

/// The greatest number of entries in the history.
const HISTORY_ENTRIES: usize = 1000;

type LineEditor = Editor<Hints, FileHistory>;

/// Runs until the user quits.
pub(crate) fn run(target: Target, timeout: Duration, show: &Show) -> Result<Status, Stop> {
    let mut editor = editor(show).map_err(|error| Failure {
        status: Status::Usage,
        message: format!("cannot set up the terminal: {error}; give the command as arguments"),
    })?;
    let mut history = History::load(&mut editor);
    let mut session = Session::new(target, timeout);
    match session.connect() {
        Ok(()) => {
            let target = session.target();
            let how = target.tls.as_ref().map_or("", |_| " over TLS");
            let mut stdout = io::stdout();
            writeln!(
                stdout,
                "Connected to {target}{how}. Type help for help, quit or Ctrl-D to leave."
            )?;
        }
        // The server may start later, and the next command connects again.
        Err(failure) => failure::print(&failure.message),
    }
    loop {
        let label = session.target().label();
        let prompt = if session.is_connected() {
            format!("{label}> ")
        } else {
            format!("{label} (not connected)> ")
        };
        let typed = match editor.readline(&prompt) {
            Ok(typed) => typed,
            // Ctrl-C drops the line, as in a shell.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Status::Fine),
            Err(error) => {
                return Err(Stop::Failed(Failure {
                    status: Status::Usage,
                    message: format!("cannot read from the terminal: {error}"),
                }));
            }
        };
        history.add(&mut editor, &typed);
        // Pasted text may have several lines.
        for line in typed.split('\n') {
            match line.trim_ascii() {
                "help" => write!(io::stdout(), "{}{HELP}", helpers::COMMANDS)?,
                "quit" | "exit" => return Ok(Status::Fine),
                _ => one(line, &mut session, show)?,
            }
        }
    }
}

/// Handles one line. Only a failure that ends the session is an error.
fn one(line: &str, session: &mut Session, show: &Show) -> Result<(), Stop> {
    let command = match helpers::outgoing(line.as_bytes(), clock::since_1970) {
        Ok(command) => command,
        Err(what) => {
            failure::print(&what);
            return Ok(());
        }
    };
    if command.expected.is_none() {
        return Ok(());
    }
    match session.command(&command, show, &mut io::stdout().lock()) {
        Err(Stop::Failed(failure)) => {
            failure::print(&failure.message);
            Ok(())
        }
        other => other,
    }
}

fn editor(show: &Show) -> rustyline::Result<LineEditor> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_ENTRIES)?
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Hints {
        coloured: show.is_coloured(),
    }));
    Ok(editor)
}

/// The path of the history. It is `None` after a failure, so that there is only one warning.
struct History(Option<PathBuf>);

impl History {
    fn load(editor: &mut LineEditor) -> History {
        let Some(path) = history_path() else {
            failure::print(
                "warning: the history is not saved: neither XDG_STATE_HOME nor HOME is set",
            );
            return History(None);
        };
        let mut history = History(Some(path.clone()));
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        history.warn(folder.map_err(ReadlineError::Io));
        match editor.load_history(&path) {
            // The first run has no history yet.
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            other => history.warn(other),
        }
        history
    }

    /// Saves each line at once, so that Ctrl-C during a wait does not lose it.
    fn add(&mut self, editor: &mut LineEditor, typed: &str) {
        if typed.trim_ascii().is_empty() {
            return;
        }
        // The entry stays in memory, even if the file cannot be written.
        let _ = editor.add_history_entry(typed);
        if let Some(path) = &self.0 {
            let saved = editor.append_history(path);
            self.warn(saved);
        }
    }

    fn warn(&mut self, done: rustyline::Result<()>) {
        if let (Err(error), Some(path)) = (done, self.0.as_ref()) {
            let path = path.display();
            failure::print(&format!(
                "warning: the history is not saved in {path}: {error}"
            ));
            self.0 = None;
        }
    }
}

/// Follows the XDG Base Directory Specification: a relative path in its variables is ignored.
fn history_path() -> Option<PathBuf> {
    let folder = |variable: &str| {
        env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("herd-client").join("history"))
}
