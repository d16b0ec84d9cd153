//! The manual pages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use herd_testkit::server;

use crate::{PROGRAMS, has, make, root, text};

/// The flags in a help: the words at the beginnings of its lines, and those after a comma.
fn flags(help: &str) -> BTreeSet<String> {
    let options = help
        .split(
            "
Examples:",
        )
        .next()
        .unwrap();
    let lines = options
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',', '=', '[']).take(3));
    words
        .filter(|word| word.len() > 1 && word.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_page_has_every_flag_that_the_program_shows_in_its_help() {
    let directory = tempfile::tempdir().unwrap();
    make(&["man", "--out", directory.path().to_str().unwrap()]);
    for program in PROGRAMS {
        let path = server::build(program, &[]).unwrap();
        let page = fs::read_to_string(directory.path().join(format!("{program}.1"))).unwrap();
        let page = page.replace("\\-", "-");
        let subcommands = page.lines().filter_map(|line| line.strip_prefix(".SS "));
        let mut parts = vec![(vec!["--help"], page.as_str())];
        for name in subcommands {
            let (_, part) = page.split_once(&format!(".SS {name}\n")).unwrap();
            let part = part.split("\n.S").next().unwrap();
            parts.push((vec![name, "--help"], part));
        }
        for (arguments, part) in parts {
            let help = text(Command::new(&path).args(&arguments).output().unwrap());
            let flags = flags(&help);
            assert!(flags.contains("--help"), "{program} {arguments:?}: {help}");
            for flag in flags {
                assert!(
                    part.contains(&format!("\\fB{flag}\\fR")),
                    "{program} {arguments:?}: {flag} is not in\n{part}"
                );
            }
        }
    }
}

#[test]
fn the_pages_of_herd_client_and_herd_mio_have_all_sections() {
    let directory = tempfile::tempdir().unwrap();
    make(&["man", "--out", directory.path().to_str().unwrap()]);
    let headings = |program: &str| -> Vec<String> {
        let page = fs::read_to_string(directory.path().join(format!("{program}.1"))).unwrap();
        let lines = page.lines();
        let heading = |line: &str| {
            let heading = line.strip_prefix(".SH ").or(line.strip_prefix(".SS "))?;
            Some(heading.trim_matches('"').to_owned())
        };
        lines.filter_map(heading).collect()
    };
    let server = headings("herd-mio");
    assert_eq!(
        server,
        [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "SIGNALS",
            "NOTES",
            "EXAMPLES",
            "SEE ALSO"
        ]
    );
    let client = headings("herd-client");
    for heading in [
        "COMMANDS",
        "status",
        "forget",
        "FILES",
        "ENVIRONMENT",
        "EXIT STATUS",
    ] {
        assert!(
            client.iter().any(|one| one == heading),
            "{heading}: {client:?}"
        );
    }
}

/// The README's table has a row of signals.
#[test]
fn the_page_of_the_server_has_every_signal_of_the_readme() {
    let directory = tempfile::tempdir().unwrap();
    make(&["man", "--out", directory.path().to_str().unwrap()]);
    let page = fs::read_to_string(directory.path().join("herd-mio.1")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let row = readme
        .lines()
        .find(|line| line.starts_with("| signals |"))
        .unwrap();
    let is_letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let words = row
        .split(|c: char| !is_letter(c))
        .filter(|word| word.len() > 4);
    let signals: BTreeSet<&str> = words.filter(|word| word.starts_with("SIG")).collect();
    assert!(signals.contains("SIGHUP"), "{signals:?}");
    for signal in signals {
        assert!(page.contains(signal), "{signal}");
    }
}

#[test]
fn man_shows_the_pages_without_a_warning() {
    if !has("man") || !has("groff") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make(&["man", "--out", directory.path().to_str().unwrap()]);
    for program in PROGRAMS {
        let output = Command::new("man")
            .args(["--warnings", "--encoding=UTF-8", "--local-file"])
            .arg(directory.path().join(format!("{program}.1")))
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{program}");
        let shown = text(output);
        assert!(shown.contains("SEE ALSO"), "{program}: {shown}");
    }
}
