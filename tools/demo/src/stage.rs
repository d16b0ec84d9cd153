//! Everything that is shown: line breaks, colours and pace.
//!
//! On a terminal, text has colours (unless NO_COLOR is set), long lines are folded, and pauses let
//! the user read. Elsewhere the text is plain, one line for each line of the protocol, without
//! pauses. A closed pipe is not an error.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use herd_testkit::output;

use crate::picture;
use crate::plan::{Doors, Plan, Who};

/// The greatest width of prose, however wide the terminal is.
const PROSE_COLUMNS: usize = 88;
/// The pause in which the user reads what comes next.
const READ: Duration = Duration::from_millis(2500);
/// The pause in which the user looks at a result.
const LOOK: Duration = Duration::from_millis(1200);
/// The width of `  → Campbell  `.
const MARGIN: usize = 14;

/// ANSI colours, by their meaning here.
#[derive(Clone, Copy)]
enum Paint {
    Heading,
    Sent,
    Received,
    Right,
    Wrong,
    Faint,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Heading => "1",
            Paint::Sent => "36",
            Paint::Received => "33",
            Paint::Right => "32",
            Paint::Wrong => "1;31",
            Paint::Faint => "2",
        }
    }
}

/// The standard output and how text is written to it.
pub(crate) struct Stage {
    coloured: bool,
    paced: bool,
    /// The columns of the terminal. Without a terminal there is no limit.
    columns: usize,
    deaf: bool,
}

impl Stage {
    /// `paced`: pause between steps, if the output is a terminal.
    pub(crate) fn new(paced: bool) -> Stage {
        let terminal = io::stdout().is_terminal();
        let columns = match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 40 => usize::from(size.ws_col),
            _ => usize::MAX, // no terminal, or its width is unknown or too small
        };
        Stage {
            coloured: terminal && colours_wanted(),
            paced: terminal && paced,
            columns,
            deaf: false,
        }
    }

    /// Whether the reader of the standard output has closed it.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// The pause after an explanation.
    pub(crate) fn time_to_read(&self) -> Duration {
        if self.paced { READ } else { Duration::ZERO }
    }

    /// The pause after an event.
    pub(crate) fn time_to_look(&self) -> Duration {
        if self.paced { LOOK } else { Duration::ZERO }
    }

    pub(crate) fn banner(&mut self) {
        self.line(&self.paint(
            Paint::Heading,
            "herd-mio: one herd of five servers; each has one thread and one event loop",
        ));
    }

    /// Text about the demo itself.
    pub(crate) fn remark(&mut self, text: &str) {
        self.prose(text, "", Some(Paint::Faint));
    }

    /// Text of other programs, such as lines of a log. It is not folded.
    pub(crate) fn report(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&self.paint(Paint::Faint, line));
        }
    }

    /// The list of servers with addresses and process ids.
    pub(crate) fn roll_call(&mut self, all: &[(Who, Doors, u32)], places_url: &str, config: &Path) {
        let config = config.display();
        self.remark(&format!(
            "Started each server with herd-mio NAME --config {config}:"
        ));
        for (who, doors, process) in all {
            let Doors { clients, peers } = doors;
            let name = who.name();
            let line =
                format!("  {name:<9} clients {clients}  neighbours {peers}  process {process}");
            self.line(&self.paint(Paint::Faint, &line));
        }
        let line = format!("  Places    a stand-in for Google's, at {places_url}");
        self.line(&self.paint(Paint::Faint, &line));
    }

    pub(crate) fn picture(&mut self, plan: &Plan, is_up: impl Fn(Who) -> bool) {
        self.line("");
        for line in picture::herd(plan, is_up).lines() {
            self.line(line);
        }
        self.line("");
    }

    /// A paragraph.
    pub(crate) fn explain(&mut self, text: &str) {
        self.prose(text, "", None);
    }

    /// The beginning of a step.
    pub(crate) fn step(&mut self, number: usize, title: &str, text: &str) {
        self.line("");
        self.line(&self.paint(Paint::Heading, &format!("{number}. {title}")));
        self.prose(text, "   ", None);
    }

    /// A command on its way to a server.
    pub(crate) fn sent(&mut self, who: Who, command: &str) {
        self.beside(Paint::Sent, '→', who.name(), command);
    }

    /// An answer.
    pub(crate) fn received(&mut self, who: Who, answer: &str) {
        self.beside(Paint::Received, '←', who.name(), answer);
    }

    /// A question from a server to Google Places.
    pub(crate) fn question_to_places(&mut self, question: &str) {
        self.beside(Paint::Faint, '⇢', "Places", question);
    }

    /// Text that belongs to the line above.
    pub(crate) fn detail(&mut self, text: &str) {
        for line in fold(text, self.columns.saturating_sub(MARGIN)) {
            self.line(&format!("{:MARGIN$}{}", "", self.paint(Paint::Faint, line)));
        }
    }

    /// Says that an answer was right, and why.
    pub(crate) fn right(&mut self, text: &str) {
        let mark = self.paint(Paint::Right, "✓");
        for (index, line) in fold(text, self.columns.saturating_sub(MARGIN))
            .iter()
            .enumerate()
        {
            let mark = if index == 0 { &mark } else { " " };
            self.line(&format!(
                "{:2$}{mark} {}",
                "",
                self.paint(Paint::Right, line),
                MARGIN - 2
            ));
        }
    }

    /// The result of the whole demo.
    pub(crate) fn verdict(&mut self, text: &str) {
        self.line("");
        self.line(&self.paint(Paint::Right, text));
    }

    /// The error that ends the demo. It goes to the standard error.
    pub(crate) fn failure(&mut self, what: &str) {
        let (first, rest) = what.split_once('\n').unwrap_or((what, ""));
        let mut error = io::stderr().lock();
        let coloured = error.is_terminal() && colours_wanted();
        // If this cannot be written either, the exit status still reports the failure.
        let _ = writeln!(
            error,
            "\n{}",
            paint(coloured, Paint::Wrong, &format!("✗ {first}"))
        );
        let _ = rest.lines().try_for_each(|line| writeln!(error, "{line}"));
    }

    /// Suggestions for a user of the running herd.
    pub(crate) fn what_next(
        &mut self,
        plan: &Plan,
        directory: &Path,
        process: impl Fn(Who) -> Option<u32>,
    ) {
        let port = |who| plan.doors(who).clients.port();
        let kill = process(Who::Juzang).unwrap_or_default();
        self.line("");
        self.line(&self.paint(Paint::Heading, "The herd runs until Ctrl-C."));
        self.explain("From another terminal, connect to any of the five:");
        self.line("");
        self.line(&format!("    nc 127.0.0.1 {}", port(Who::Riley)));
        self.line(&format!(
            "    cargo run --bin herd-client -- 127.0.0.1:{}",
            port(Who::Campbell)
        ));
        self.line("");
        self.explain("and type a line, for example:");
        self.line("");
        let now = herd_testkit::clock::since_1970().as_secs();
        self.line(&format!("    IAMAT me +51.477928-0.001545 {now}"));
        self.line("    WHATSAT me 10 5");
        self.line(&format!("    WHATSAT {} 5 2", crate::plan::KIWI));
        self.line("");
        self.explain("Read their logs, and kill one of them to see the reaction of the others:");
        self.line("");
        self.line(&format!("    tail -f {}/*.log", directory.display()));
        self.line(&format!("    kill -9 {kill}    # Juzang"));
        self.line("");
    }

    /// An arrow, a name and a text. Folded lines stay to the right of the name.
    fn beside(&mut self, paint: Paint, arrow: char, name: &str, text: &str) {
        let margin = self.paint(paint, &format!("  {arrow} {name:<9}"));
        for (index, line) in fold(text, self.columns.saturating_sub(MARGIN))
            .iter()
            .enumerate()
        {
            if index == 0 {
                self.line(&format!("{margin} {line}"));
            } else {
                self.line(&format!("{:MARGIN$}{line}", ""));
            }
        }
    }

    fn prose(&mut self, text: &str, indent: &str, paint: Option<Paint>) {
        for paragraph in text.split('\n') {
            for line in fold(paragraph, self.columns.min(PROSE_COLUMNS) - indent.len()) {
                let line = paint.map_or_else(|| line.to_owned(), |paint| self.paint(paint, line));
                self.line(&format!("{indent}{line}"));
            }
        }
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        self::paint(self.coloured, paint, text)
    }

    fn line(&mut self, text: &str) {
        self.deaf |= !output::say(format_args!("{text}\n"));
    }
}

/// See <https://no-color.org>.
fn colours_wanted() -> bool {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    unset("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn paint(coloured: bool, paint: Paint, text: &str) -> String {
    if coloured && !text.is_empty() {
        format!("\x1b[{}m{text}\x1b[0m", paint.code())
    } else {
        text.to_owned()
    }
}

/// Breaks a line at spaces into pieces of at most `columns` characters. Only a single word may be
/// longer. All other spaces stay, also leading ones.
fn fold(text: &str, columns: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((limit, _)) = rest.char_indices().nth(columns) {
        // A space right after the last column is a good place too.
        let begin = rest.len() - rest.trim_start().len();
        let before = rest[begin..]
            .char_indices()
            .rfind(|(at, c)| *c == ' ' && begin + at <= limit);
        let after = rest[limit..].find(' ').map(|at| limit + at);
        let Some(space) = before.map(|(at, _)| begin + at).or(after) else {
            break;
        };
        pieces.push(&rest[..space]);
        rest = &rest[space + 1..];
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_spaces() {
        assert_eq!(fold("", 10), [""]);
        assert_eq!(fold("one two three", 13), ["one two three"]);
        assert_eq!(fold("one two three", 12), ["one two", "three"]);
        assert_eq!(fold("one two three", 7), ["one two", "three"]);
        assert_eq!(fold("one two three", 6), ["one", "two", "three"]);
        assert_eq!(
            fold("a +34.068930-118.445127 b", 5),
            ["a", "+34.068930-118.445127", "b"]
        );
        assert_eq!(
            fold("    indented words here", 18),
            ["    indented words", "here"]
        );
        assert_eq!(fold("größer als breit", 6), ["größer", "als", "breit"]);
        assert_eq!(fold("x y", usize::MAX), ["x y"]);
    }
}
