//! Environment variables: an empty one counts as unset, and an error message names the variable.

use std::process::Output;

use herd_testkit::herd::server_command;

const VARIABLES: [&str; 21] = [
    "HERD_NAME",
    "HERD_CONFIG",
    "HERD_LISTEN",
    "HERD_LISTEN_PEERS",
    "HERD_HTTP",
    "HERD_HTTP_EXPOSED",
    "HERD_PROXY_PROTOCOL",
    "HERD_PROXIES",
    "HERD_SECRET",
    "HERD_SECRET_FILE",
    "HERD_PLACES_URL",
    "HERD_PLACES_CA",
    "HERD_PLACES_API",
    "HERD_PLACES_KEY",
    "HERD_PLACES_KEY_FILE",
    "HERD_PLACES_FIELD_MASK",
    "HERD_DATA_DIR",
    "HERD_FSYNC",
    "HERD_LOG_FILE",
    "HERD_LOG_LEVEL",
    "HERD_UNKNOWN",
];

/// Runs a check on ports that the system chooses.
fn check(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    server_command()
        .args(arguments)
        .args([
            "--check",
            "--listen",
            "127.0.0.1:0",
            "--listen-peers",
            "127.0.0.1:0",
        ])
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .output()
        .unwrap()
}

fn meaning(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = check(arguments, environment);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    String::from_utf8(output.stdout).unwrap()
}

fn mistake(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = check(arguments, environment);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

#[test]
fn an_empty_environment_variable_counts_as_unset() {
    let without = meaning(&["Riley"], &[]);
    for empty in ["", " ", "\n"] {
        let all: Vec<_> = VARIABLES.iter().map(|name| (*name, empty)).collect();
        assert_eq!(meaning(&["Riley"], &all), without, "{empty:?}");
        for variable in all {
            assert_eq!(meaning(&["Riley"], &[variable]), without, "{variable:?}");
        }
    }
}

#[test]
fn flags_override_herd_name_and_herd_config() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("herd.toml");
    std::fs::write(
        &file,
        "[[servers]]\nname = \"Alice\"\nclients = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let both = [("HERD_NAME", "Alice"), ("HERD_CONFIG", file)];
    assert!(meaning(&[], &both).starts_with(&format!("server      Alice of {file}\n")));
    assert!(
        meaning(&[], &[("HERD_NAME", "Riley")]).starts_with("server      Riley of preset 2021")
    );
    assert!(
        meaning(&["Jaquez", "--herd", "2022"], &both)
            .starts_with("server      Jaquez of preset 2022\n")
    );
    let conflict = mistake(&["Riley", "--config", file, "--herd", "2021"], &[]);
    assert!(conflict.contains("cannot be used with"), "{conflict}");
}

#[test]
fn enum_values_are_case_insensitive() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("herd.toml");
    let text = "fsync = \"ALWAYS\"\n[[servers]]\nname = \"Riley\"\nclients = \"127.0.0.1:1\"\n\
        [places]\napi = \"New\"\n[log]\nlevel = \"DEBUG\"\n";
    std::fs::write(&file, text).unwrap();
    let flags = [
        "--fsync",
        "ALWAYS",
        "--places-api",
        "New",
        "--log-level",
        "DEBUG",
    ];
    let variables = [
        ("HERD_FSYNC", "ALWAYS"),
        ("HERD_PLACES_API", "New"),
        ("HERD_LOG_LEVEL", "DEBUG"),
    ];
    let data = ["--data-dir", "data"];
    for text in [
        meaning(&[&["Riley"][..], &data, &flags].concat(), &[]),
        meaning(&[&["Riley"][..], &data].concat(), &variables),
        meaning(
            &[&["Riley", "--config", file.to_str().unwrap()][..], &data].concat(),
            &[],
        ),
    ] {
        for meant in ["before each answer", "new API", "level debug"] {
            assert!(text.contains(meant), "{meant} in {text}");
        }
    }
}

#[test]
fn an_invalid_environment_variable_is_named() {
    for name in VARIABLES {
        let wrong = match name {
            "HERD_SECRET" | "HERD_PLACES_KEY" | "HERD_UNKNOWN" => continue, // any text is valid
            "HERD_DATA_DIR" | "HERD_LOG_FILE" => "/dev/null/x",
            "HERD_PLACES_FIELD_MASK" => "a b",
            _ => "/nonexistent/x",
        };
        let mut command = server_command();
        if name != "HERD_NAME" {
            command.arg("Riley");
        }
        let output = command.arg("--check").env(name, wrong).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_ne!(output.status.code(), Some(0), "{name}: {told}");
        let is_port = told.contains("another program has that port");
        assert!(
            told.contains(name) || name == "HERD_NAME" || is_port,
            "{name}: {told}"
        );
    }
    // An error message does not name the variable if the value is from a flag.
    let told = mistake(&["Riley", "--fsync", "x"], &[("HERD_FSYNC", "never")]);
    assert!(
        told.contains("'--fsync <WHEN>'") && !told.contains("HERD_FSYNC"),
        "{told}"
    );
}
