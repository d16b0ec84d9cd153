//! Manual pages.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use herd_testkit::failure::{Failure, system};

use crate::files;
use crate::pages::Entry;
use crate::programs::{self, Program};

/// Writes a page for each program.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write_all(directory: &Path) -> Result<(), Failure> {
    for program in programs::all() {
        let path = directory.join(format!("{}.1", program.name()));
        files::write(&path, &page(&program)?)?;
    }
    Ok(())
}

/// The page of a program. A program has one page, also for its subcommands.
fn page(program: &Program) -> Result<Vec<u8>, Failure> {
    let name = program.name().to_owned();
    // The page names the subcommands anyway.
    let mut command = program.command.clone().disable_help_subcommand(true);
    if command.get_subcommands().next().is_some() {
        command = command.subcommand_value_name("COMMAND");
    }
    if let Some(usage) = command.get_overridden_usage() {
        let usage = without_remarks(&usage.to_string());
        command = command.override_usage(usage);
    }
    command.build();
    let source = format!("herd-mio {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(source)
        .manual("herd-mio");
    let mut text = Vec::new();
    let write = || system(format!("write the manual page of {name}"));
    man.render_title(&mut text).map_err(write())?;
    man.render_name_section(&mut text).map_err(write())?;
    man.render_synopsis_section(&mut text).map_err(write())?;
    man.render_description_section(&mut text).map_err(write())?;
    man.render_options_section(&mut text).map_err(write())?;
    if command.get_subcommands().next().is_some() {
        text.extend(b".SH COMMANDS\n");
    }
    for subcommand in command.get_subcommands() {
        text.extend(subcommand_part(subcommand).map_err(write())?);
    }
    let mut roff = Roff::new();
    let help = after_help(&command);
    add_help(&mut roff, Section::ExitStatus, &help);
    add_entries(&mut roff, "ENVIRONMENT", &environment(&command, program));
    add_entries(&mut roff, "FILES", &owned(program.page.files));
    add_entries(&mut roff, "SIGNALS", &owned(program.page.signals));
    for section in [Section::Notes, Section::Examples] {
        add_help(&mut roff, section, &help);
    }
    roff.control("SH", ["SEE ALSO"]);
    for (index, other) in program.page.see_also.iter().enumerate() {
        let behind = match index + 1 < program.page.see_also.len() {
            true => "(1),",
            false => "(1)",
        };
        roff.text([bold(*other), roman(behind)]);
    }
    roff.to_writer(&mut text).map_err(write())?;
    Ok(text)
}

/// The lines of a usage, without what is said behind them.
fn without_remarks(usage: &str) -> String {
    let line = |line: &str| {
        line.trim()
            .split("   ")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    usage.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The part of the page about a subcommand: how it is called, what it does, its options.
fn subcommand_part(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    roff.control("SS", [command.get_name()]);
    let usage = command.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines() {
        roff.text([bold(line.trim())]);
        roff.control("br", []);
    }
    roff.control("PP", []);
    let about = command.get_long_about().or_else(|| command.get_about());
    add_text(
        &mut roff,
        &about.map(ToString::to_string).unwrap_or_default(),
    );
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;

    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    // These are sections of a page. Here they are parts of a subsection.
    for line in String::from_utf8_lossy(&options).lines() {
        match line.strip_prefix(".SH ") {
            Some("OPTIONS") => {}
            Some(heading) => {
                let heading = heading.trim_matches('"');
                text.extend(format!(".PP\n\\fB{heading}\\fR\n").bytes());
            }
            None => text.extend(format!("{line}\n").bytes()),
        }
    }
    let mut roff = Roff::new();
    for (section, paragraphs) in after_help(command) {
        roff.control("PP", []);
        roff.text([bold(section.name())]);
        for paragraph in paragraphs {
            add_paragraph(&mut roff, &paragraph);
        }
    }
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// The sections in which a program's help after its options is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    ExitStatus,
    Notes,
    Examples,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Section::ExitStatus => "EXIT STATUS",
            Section::Notes => "NOTES",
            Section::Examples => "EXAMPLES",
        }
    }
}

/// The help after the options, paragraph by paragraph, with the section of each.
fn after_help(command: &Command) -> BTreeMap<Section, Vec<String>> {
    let help = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut found: BTreeMap<Section, Vec<String>> = BTreeMap::new();
    let mut current = Section::Notes;
    for paragraph in help.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let mut text = paragraph.to_owned();
        if first == "Examples:" {
            current = Section::Examples;
            rest.clone_into(&mut text);
        } else if first.starts_with("Exit status") {
            current = Section::ExitStatus;
            if let Some(behind) = paragraph.strip_prefix("Exit status: ") {
                behind.clone_into(&mut text);
            }
        } else if !(is_indented(paragraph)
            || current == Section::Examples && first.ends_with(':') && is_indented(rest))
        {
            // Some text without a heading. What is indented goes on with the section before it.
            current = Section::Notes;
        }
        // One line may follow the exit status, without an empty line between them.
        if let Some((before, status)) = text.clone().split_once("\nExit status: ") {
            found.entry(current).or_default().push(before.to_owned());
            current = Section::ExitStatus;
            status.clone_into(&mut text);
        }
        found.entry(current).or_default().push(text);
    }
    found
}

/// Whether every line begins with a space.
fn is_indented(text: &str) -> bool {
    text.lines().all(|line| line.starts_with(' '))
}

fn add_help(roff: &mut Roff, section: Section, help: &BTreeMap<Section, Vec<String>>) {
    let Some(paragraphs) = help.get(&section) else {
        return;
    };
    roff.control("SH", [section.name()]);
    for paragraph in paragraphs {
        add_paragraph(roff, paragraph);
    }
}

/// A paragraph with an indented line keeps its lines. Any other is filled.
fn add_paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    if !text.lines().any(|line| line.starts_with(' ')) {
        return add_text(roff, text);
    }
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

/// Text that is filled. An empty line begins a paragraph.
fn add_text(roff: &mut Roff, text: &str) {
    for line in text.lines() {
        match line.trim().is_empty() {
            true => roff.control("PP", []),
            false => roff.text([roman(line)]),
        };
    }
}

fn owned(entries: &[Entry]) -> Vec<(String, String)> {
    let owned = |(name, what): &Entry| ((*name).to_owned(), (*what).to_owned());
    entries.iter().map(owned).collect()
}

fn add_entries(roff: &mut Roff, section: &str, entries: &[(String, String)]) {
    if entries.is_empty() {
        return;
    }
    roff.control("SH", [section]);
    for (name, what) in entries {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(what)]);
    }
}

/// The variables of the options, and those that no option has.
fn environment(command: &Command, program: &Program) -> Vec<(String, String)> {
    let mut found: BTreeMap<String, String> = owned(program.page.environment).into_iter().collect();
    for command in std::iter::once(command).chain(command.get_subcommands()) {
        for argument in command.get_arguments() {
            let Some(variable) = argument.get_env() else {
                continue;
            };
            let what = match argument.get_long() {
                Some(flag) => format!("In place of --{flag}."),
                None => format!(
                    "In place of the argument {}.",
                    argument.get_id().as_str().to_uppercase()
                ),
            };
            found.insert(variable.to_string_lossy().into_owned(), what);
        }
    }
    found.into_iter().collect()
}
