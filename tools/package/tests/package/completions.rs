//! The completions.

use std::path::Path;
use std::process::Command;

use crate::{PROGRAMS, has, make, text};

fn completions() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    make(&["completions", "--out", directory.path().to_str().unwrap()]);
    directory
}

/// What bash would offer for these words. The last one is begun, or empty.
fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    // bash calls the function with the command, the word and the word before it.
    let run = r#"source "$0" && COMP_WORDS=("$@") && COMP_CWORD=$(($# - 1)) &&
        specification=($(complete -p "$1")) &&
        for at in "${!specification[@]}"; do if [ "${specification[at]}" = -F ]; then function=${specification[at + 1]}; fi; done &&
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" && printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", run]).arg(script).args(words);
    let offered = text(command.output().unwrap());
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_loads_the_completions_and_offers_flags_subcommands_and_files() {
    if !has("bash") {
        return;
    }
    let completions = completions();
    let script = |program: &str| completions.path().join("bash").join(program);
    for program in PROGRAMS {
        text(
            Command::new("bash")
                .arg("-n")
                .arg(script(program))
                .output()
                .unwrap(),
        );
        let flags = offered(&script(program), &[program, "--"]);
        assert!(flags.contains(&"--help".to_owned()), "{program}: {flags:?}");
    }
    let client = offered(&script("herd-client"), &["herd-client", "sta"]);
    assert_eq!(client, ["status"]);
    let status = offered(&script("herd-client"), &["herd-client", "status", "--ign"]);
    assert_eq!(status, ["--ignore"]);
    let load = offered(
        &script("herd-load"),
        &["herd-load", "iamat", "Riley", "--dep"],
    );
    assert_eq!(load, ["--depth"]);
    let fsync = offered(&script("herd-mio"), &["herd-mio", "--fsync", ""]);
    assert_eq!(fsync, ["always", "interval", "never"]);
    let file = completions.path().join("bash/herd-mi");
    let file = file.to_str().unwrap();
    let files = offered(&script("herd-mio"), &["herd-mio", "--config", file]);
    assert_eq!(files, [format!("{file}o")]);
}

#[test]
fn zsh_loads_the_completions() {
    if !has("zsh") {
        return;
    }
    let completions = completions();
    let folder = completions.path().join("zsh");
    for program in PROGRAMS {
        let file = folder.join(format!("_{program}"));
        text(Command::new("zsh").arg("-n").arg(&file).output().unwrap());
    }
    // compinit reads the first line of each file. It takes a second, so it runs once.
    let run = r#"fpath=("$1" $fpath); shift; autoload -Uz compinit && compinit -u -D
        for program; do print -r -- "$_comps[$program]" && autoload +X "_$program" || exit; done"#;
    let mut command = Command::new("zsh");
    command
        .args(["-f", "-c", run, "zsh"])
        .arg(&folder)
        .args(PROGRAMS);
    let found = text(command.output().unwrap());
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        PROGRAMS.map(|program| format!("_{program}"))
    );
}

#[test]
fn fish_loads_the_completions_and_offers_subcommands() {
    if !has("fish") {
        return;
    }
    let completions = completions();
    let folder = completions.path().join("fish");
    let home = tempfile::tempdir().unwrap();
    for (program, begun, wanted) in [
        ("herd-mio", "herd-mio --fs", "--fsync"),
        ("herd-journal", "herd-journal ver", "verify"),
        ("herd-client", "herd-client sta", "status"),
        ("herd-certificates", "herd-certificates --ren", "--renew"),
        ("herd-load", "herd-load iamat --dep", "--depth"),
        ("herd-places", "herd-places --tru", "--truncate"),
    ] {
        let run = format!(
            "source {folder}/{program}.fish; complete -C '{begun}'",
            folder = folder.display()
        );
        let mut command = Command::new("fish");
        command
            .args(["--no-config", "-c", &run])
            .env("HOME", home.path());
        let offered = text(command.output().unwrap());
        assert!(
            offered.lines().any(|line| line.starts_with(wanted)),
            "{begun}: {offered}"
        );
    }
}
