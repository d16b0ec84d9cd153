//! The prompt's help for commands: the Tab key completes their names, and a hint after the cursor
//! shows their arguments.

use std::borrow::Cow;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use crate::helpers;

/// The usage of every command.
const USAGES: [&str; 6] = [
    helpers::IAMAT,
    helpers::WHATSAT,
    "IAMAT ID LOCATION TIME",
    "WHATSAT ID RADIUS BOUND",
    "help",
    "quit",
];

/// The helper of the line editor.
pub(crate) struct Hints {
    pub(crate) coloured: bool,
}

impl Helper for Hints {}
impl Validator for Hints {}

impl Completer for Hints {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..cursor).unwrap_or(line);
        Ok((0, completions(typed)))
    }
}

impl Hinter for Hints {
    type Hint = Unwritten;

    fn hint(&self, line: &str, cursor: usize, _: &Context<'_>) -> Option<Unwritten> {
        (cursor == line.len()).then(|| remaining(line)).flatten()
    }
}

/// A hint that the arrow keys do not insert, because its words are only placeholders such as ID.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwritten(String);

impl rustyline::hint::Hint for Unwritten {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Highlighter for Hints {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.coloured {
            Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
        } else {
            Cow::Borrowed(hint)
        }
    }
}

/// The commands that begin with this text.
fn completions(typed: &str) -> Vec<String> {
    let names = USAGES.iter().filter_map(|usage| usage.split(' ').next());
    names
        .filter(|name| name.starts_with(typed))
        .map(|name| match name {
            "help" | "quit" => name.to_owned(),
            _ => format!("{name} "),
        })
        .collect()
}

/// The arguments that are not typed yet.
fn remaining(line: &str) -> Option<Unwritten> {
    let mut words = line.split_ascii_whitespace();
    let verb = words.next()?;
    // An unfinished word counts as typed.
    let begun = words.count();
    let usage = USAGES
        .iter()
        .find(|usage| usage.split(' ').next() == Some(verb))?;
    let rest: Vec<&str> = usage.split(' ').skip(1 + begun).collect();
    let space = if line.ends_with(' ') { "" } else { " " };
    (!rest.is_empty()).then(|| Unwritten(format!("{space}{}", rest.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_names_are_completed() {
        assert_eq!(completions("i"), ["iamat "]);
        assert_eq!(completions("W"), ["WHATSAT "]);
        assert_eq!(completions("q"), ["quit"]);
        assert!(completions("iamat k").is_empty());
        assert_eq!(completions("").len(), USAGES.len());
    }

    #[test]
    fn command_arguments_are_hinted() {
        let hint = |line| remaining(line).map(|hint| hint.0);
        assert_eq!(hint("iamat").as_deref(), Some(" ID LAT LNG [TIME]"));
        assert_eq!(hint("iamat kiwi ").as_deref(), Some("LAT LNG [TIME]"));
        assert_eq!(hint("iamat kiwi 3").as_deref(), Some(" LNG [TIME]"));
        assert_eq!(hint("whatsat kiwi 10 5"), None);
        assert_eq!(hint("whatsat kiwi 10 5 6"), None);
        for none in ["", "iama", "help", "x"] {
            assert_eq!(hint(none), None);
        }
    }
}
