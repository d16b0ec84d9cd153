//! The command line: names, presets, files, flags, and one line for each mistake.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use herd_testkit::herd::{Herd, Server, server_command};

fn run(arguments: &[&str]) -> Output {
    server_command()
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

/// Runs a command that must fail with status 2 and one line on the standard error. Returns that
/// line.
fn mistake(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text.strip_prefix("herd-mio: ")
        .unwrap()
        .trim_end()
        .to_owned()
}

fn check(arguments: &[&str]) -> String {
    let output = run(&[arguments, &["--check"]].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The output of `--check` for a server whose ports may be in use. All processes on this machine
/// share the ports of the presets.
fn meaning(arguments: &[&str]) -> String {
    let output = run(&[arguments, &["--check"]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => {}
        Some(1) => assert!(errors.contains("another program has that port"), "{errors}"),
        status => panic!("{status:?}: {errors}"),
    }
    String::from_utf8(output.stdout).unwrap()
}

/// The links of a server, as `--check` prints them.
fn links(name: &str, preset: &str) -> Vec<String> {
    let text = meaning(&[name, "--herd", preset]);
    let links = text.lines().filter_map(|line| {
        line.strip_prefix("link ")?
            .trim()
            .split(',')
            .next()
            .map(str::to_owned)
    });
    links.collect()
}

#[test]
fn each_preset_has_its_graph_and_ports() {
    for (year, servers, edges) in [
        (
            "2016",
            "Alford Ball Hamilton Holiday Welsh",
            "Alford–Hamilton, Alford–Welsh, Ball–Holiday, Ball–Welsh, Hamilton–Holiday",
        ),
        (
            "2018",
            "Goloman Hands Holiday Welsh Wilkes",
            "Goloman–Hands, Goloman–Holiday, Goloman–Wilkes, Hands–Wilkes, Holiday–Welsh, Holiday–Wilkes",
        ),
        (
            "2020",
            "Hill Jaquez Smith Campbell Singleton",
            "Hill–Jaquez, Hill–Smith, Singleton–Jaquez, Singleton–Smith, Singleton–Campbell, Smith–Campbell",
        ),
        (
            "2021",
            "Riley Jaquez Juzang Campbell Bernard",
            "Riley–Jaquez, Riley–Juzang, Bernard–Jaquez, Bernard–Juzang, Bernard–Campbell, Juzang–Campbell",
        ),
        (
            "2022",
            "Clark Jaquez Juzang Bernard Johnson",
            "Clark–Jaquez, Clark–Juzang, Bernard–Juzang, Bernard–Jaquez, Bernard–Johnson, Juzang–Johnson",
        ),
        (
            "2023",
            "Bailey Bona Campbell Clark Jaquez",
            "Clark–Jaquez, Clark–Bona, Campbell–Bailey, Campbell–Bona, Campbell–Jaquez, Bona–Bailey",
        ),
    ] {
        for (place, name) in servers.split(' ').enumerate() {
            let text = meaning(&[name, "--herd", year]);
            assert!(
                text.contains(&format!("clients     127.0.0.1:{}\n", 10_000 + place)),
                "{text}"
            );
            assert!(
                text.contains(&format!("neighbours  127.0.0.1:{}\n", 11_000 + place)),
                "{text}"
            );
            let mut expected: Vec<&str> = edges
                .split(", ")
                .filter_map(|edge| {
                    let (a, b) = edge.split_once('–').unwrap();
                    if a == name {
                        Some(b)
                    } else if b == name {
                        Some(a)
                    } else {
                        None
                    }
                })
                .collect();
            let mut links = links(name, year);
            expected.sort_unstable();
            links.sort_unstable();
            assert_eq!(links, expected, "{name} of {year}");
        }
    }
}

#[test]
fn a_bare_name_means_preset_2021_or_the_newest_with_it() {
    for (name, preset) in [
        ("Riley", "2021"),
        ("Jaquez", "2021"),
        ("Clark", "2023"),
        ("Johnson", "2022"),
        ("Hill", "2020"),
        ("Wilkes", "2018"),
        ("Alford", "2016"),
        ("Welsh", "2018"),
    ] {
        assert!(
            meaning(&[name]).starts_with(&format!("server      {name} of preset {preset}\n")),
            "{name}"
        );
    }
}

#[test]
fn a_configuration_error_is_one_line() {
    let text = mistake(&["Nobody"]);
    assert!(
        text.contains("\"Nobody\"")
            && text.contains("2021 (Riley Jaquez Juzang Campbell Bernard)")
            && text.contains("2016 (Alford"),
        "{text}"
    );
    assert!(mistake(&["Riley", "--herd", "2016"]).contains(
        "preset 2016 has no server \"Riley\"; it has: Alford Ball Hamilton Holiday Welsh"
    ));
    assert!(mistake(&["Riley", "--herd", "1999"]).contains("no preset \"1999\"; there are: 2016"));
    assert!(mistake(&["riley"]).contains("did you mean Riley?"));
    assert!(mistake(&["Rily"]).contains("did you mean Riley?"));
    assert!(mistake(&[]).contains("<NAME>"));
    assert!(mistake(&["Riley", "Jaquez"]).contains("unexpected argument 'Jaquez'"));
    assert!(mistake(&["Riley", "--bogus"]).contains("'--bogus'"));
    assert!(
        mistake(&["Riley", "--places-key", "x"]).contains("'--places-key'"),
        "a key is never a flag"
    );
    assert!(
        mistake(&["Riley", "--config", "/nonexistent/herd.toml"])
            .contains("cannot read the config file /nonexistent/herd.toml: No such file")
    );
    assert!(mistake(&["Riley", "--listen", "10000"]).contains(
        "where to listen for clients (--listen, HERD_LISTEN) is \"10000\"; it must be host:port"
    ));
    assert!(mistake(&["Riley", "--places-url", "http://x"]).contains("must be https://host"));
    assert!(
        mistake(&["Riley", "--places-ca", "/nonexistent/ca.pem"])
            .contains("cannot read certificates from /nonexistent/ca.pem")
    );
    assert!(
        mistake(&["Riley", "--places-key-file", "/nonexistent/key"])
            .contains("cannot read the Places key from /nonexistent/key")
    );
    assert!(mistake(&["Riley", "--log-level", "loud"]).contains("'loud'"));
    assert!(mistake(&["Riley", "--log-file", "/nonexistent/log"]).contains("cannot write the log /nonexistent/log: No such file or directory (os error 2); choose another place"));
    assert!(
        mistake(&["Riley", "--listen-peers", "0.0.0.0:11000"])
            .contains("not all of its addresses are loopback (0.0.0.0:11000 is not)")
    );
}

#[test]
fn config_file_errors_have_a_line_and_a_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    let path_text = path.to_str().unwrap();
    for (text, expected) in [
        ("links = [", ":1:10: "),
        (
            "[[servers]]\nname = \"A\"\nclient = \"127.0.0.1:1\"\n",
            ":3:1: unknown field `client`",
        ),
        (
            "[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\n[limits]\nmax_cleints = 1\n",
            ":5:1: unknown field `max_cleints`; did you mean `max_clients`? (expected one of `max_clients`, ",
        ),
        (
            "[[servers]]\nname = \"A\"\n",
            ":1:1: missing field `clients`",
        ),
        (
            "[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\n[places]\napi = \"old\"\n",
            ": places.api is \"old\"",
        ),
        (
            "[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\n[log]\nlevel = \"loud\"\n",
            ": log.level is \"loud\"",
        ),
        (
            "[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\n[limits]\nplaces_ms = 1\n",
            ": limits.places_ms is 1, must be 10 to 600000",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let mistake = mistake(&["A", "--config", path_text]);
        assert!(
            mistake.starts_with(&format!("{path_text}{expected}")),
            "{mistake}"
        );
    }
}

#[test]
fn help_version_and_check_end_with_status_0() {
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert_eq!(help.status.code(), Some(0));
    for flag in [
        "--config",
        "--herd",
        "--listen",
        "--places-url",
        "--places-ca",
        "--places-api",
        "--places-key-file",
        "--log-file",
        "--log-level",
        "--check",
        "--version",
        "HERD_PLACES_KEY",
        "HERD_SECRET",
        "Exit status",
    ] {
        assert!(text.contains(flag), "{flag} in {text}");
    }
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("herd-mio {}\n", env!("CARGO_PKG_VERSION"))
    );
    let text = check(&[
        "Riley",
        "--places-api",
        "new",
        "--log-level",
        "debug",
        "--log-file",
        "x.log",
        "--listen",
        "127.0.0.1:0",
        "--listen-peers",
        "127.0.0.1:0",
    ]);
    for line in [
        "clients     127.0.0.1:0",
        "places      https://places.googleapis.com:443, new API",
        "log         x.log, level debug",
        "secret      none",
        "max_clients",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(
        !std::env::temp_dir().join("x.log").exists(),
        "--check leaves nothing behind"
    );
}

#[test]
fn a_port_in_use_exits_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["Riley", "--listen", &address, "--log-file", "-"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let told = format!(
        "herd-mio: cannot listen on {address}: Address already in use (os error 98); another program has that port: end it, or choose another port"
    );
    assert!(text.lines().any(|line| line == told), "{text}");
    assert_eq!(text.matches("cannot listen").count(), 1, "{text}");
}

#[test]
fn a_server_answers_within_500_ms_of_its_start() {
    let herd = Herd::single();
    let begun = std::time::Instant::now();
    let server = herd.start("Riley");
    server.client().send("x\n").expect("? x\n");
    assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
}

#[test]
fn keys_from_file_and_environment_are_used_and_not_shown() {
    let places = crate::places::stand_in();
    let herd = Herd::single().asking(&places).env("HERD_PLACES_KEY", "");
    let key = herd.directory.path().join("key");
    fs::write(&key, "test-key\n").unwrap();
    let server = Server::start(
        herd.command("Riley")
            .arg("--places-key-file")
            .arg(&key)
            .args(["--log-level", "trace"]),
    );
    let arguments = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    assert!(!arguments.windows(8).any(|window| window == b"test-key"));
    let mut client = server.client();
    client.ask("IAMAT x +1+2 3");
    client.send("WHATSAT x 10 5\n");
    let (_, json) = client.places();
    assert!(json.contains("\"OK\"") && !json.contains("test-key"));
    let log = server.stop().join("\n");
    assert!(
        !log.contains("test-key") && !log.contains("own secret"),
        "{log}"
    );
}

#[test]
fn a_server_runs_with_a_closed_stdout_and_stderr() {
    let herd = Herd::single();
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg("exec \"$@\" >&- 2>&-")
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_herd-mio"))
        .current_dir(herd.directory.path());
    command
        .args(["Riley", "--log-file", "own.log", "--config"])
        .arg(herd.config_file())
        .env("HERD_SECRET", "x");
    let _ended_with_the_test = Ended(command.spawn().unwrap());
    let log = herd.directory.path().join("own.log");
    let address = || {
        let text = fs::read_to_string(&log).ok()?;
        let (_, rest) = text.split_once("clients on ")?;
        rest.split(',').next()?.parse().ok()
    };
    herd_testkit::client::wait_until("it serves", || address().is_some());
    herd_testkit::client::Client::connect(address().unwrap())
        .send("x\n")
        .expect("? x\n");
}

/// A child process. Dropping it kills it.
pub(crate) struct Ended(pub(crate) std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_readme_s_config_file_is_valid() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let toml = readme
        .split_once("```toml\n")
        .unwrap()
        .1
        .split_once("```")
        .unwrap()
        .0;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    fs::write(&path, toml).unwrap();
    fs::write(directory.path().join("herd.secret"), "secret\n").unwrap();
    fs::write(directory.path().join("places.key"), "key\n").unwrap();
    for (name, link) in [
        ("Alice", "Bob, dialled at bob.example.net:11000"),
        ("Bob", "Carol, dialled at carol.example.net:11000"),
        ("Carol", "Bob, dials us from bob.example.net"),
    ] {
        let config = ["--config", path.to_str().unwrap()];
        // The hosts in the file do not exist here, so the server listens on loopback instead.
        let ports = ["--listen", "127.0.0.1:0", "--listen-peers", "127.0.0.1:0"];
        let data = directory.path().join("data");
        let data = ["--data-dir", data.to_str().unwrap()];
        let text = check(&[&[name][..], &config, &ports, &data].concat());
        assert!(text.contains(&format!("link        {link}\n")), "{text}");
        assert!(text.contains("new API") && text.contains("20000"), "{text}");
    }
}

#[test]
fn the_readme_and_the_help_name_the_same_flags() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for command in ["verify", "stats", "list", "export", "repair"] {
        let journal = Command::new(env!("CARGO_BIN_EXE_herd-journal"))
            .args([command, "--help"])
            .output()
            .unwrap();
        help += &String::from_utf8(journal.stdout).unwrap();
    }
    for flag in readme
        .split(|c: char| c.is_whitespace() || "`;:,()".contains(c))
        .filter(|word| word.starts_with("--"))
    {
        let of_cargo_or_tools = [
            "--release",
            "--bin",
            "--example",
            "--open",
            "--once",
            "--no-deps",
            "--document-private-items",
            "--workspace",
            "--path",
            "--seeds",
            "--test",
            "--out",
            "--list",
            "--renew",
            "--client-names",
            "--quick",
            "--bench",
            "--locked",
            "--now",
            "--volume",
            "--name",
            "--input",
            "--compare",
            "--tls",
            "--tls-name",
            "--ca",
            // Flags of herd-load.
            "--rate",
            "--stop-on-loss",
            "--svg",
            "--pid",
            "--from",
            "--polite-from",
            "--polite-p99",
            "--polite-whatsat",
            "--i-own-this-server",
            // Flags of herd-client follow.
            "--own",
            "--until-caught-up",
            // Flags of herd-client status.
            "--ignore",
            "--server",
            "--timeout",
            "--json",
        ]
        .contains(&flag);
        let name = flag.split('=').next().unwrap();
        assert!(
            of_cargo_or_tools || help.contains(name),
            "{flag} is in the README and not in --help"
        );
    }
}

/// With `-p`, Cargo unifies the features of dependencies over one package only, and would rebuild
/// nearly everything. `--bin` leaves the whole workspace selected, like the build command in the
/// README.
#[test]
fn the_readme_s_commands_do_not_trigger_a_rebuild() {
    for file in ["README.md", ".cargo/config.toml", "tools/compare/README.md"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines().filter(|line| !line.contains("cargo doc")) {
            let runs = line.contains("cargo run") || line.contains("\"run ");
            let selects = line.contains(" -p ") || line.contains("--package");
            assert!(!(runs && selects), "{file}: {line}");
        }
    }
}
