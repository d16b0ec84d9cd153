//! Advice for the operator: what to write into the config file, and which files to copy to which
//! host.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use herd_mio::config::HerdConfig;
use herd_mio::core::link::OPERATOR;

use crate::directory::Directory;
use crate::subject::{CLIENTS, Subject};
use herd_client::certificates::Cli;

/// The advice after a run that made missing files.
pub(crate) fn install(
    cli: &Cli,
    herd: &HerdConfig,
    directory: &Directory,
    has_clients: bool,
) -> String {
    let place = place(cli.config.as_deref(), &directory.path);
    let file = |name: &str| toml_string(&place.join(name).to_string_lossy());
    let introduction = match &cli.config {
        Some(path) => format!(
            "Put this into {}, the same on all hosts (paths are relative to that file):",
            path.display()
        ),
        None => "Put this into the config file of your herd (the course's herds have none; README.md has one to start from):".into(),
    };
    let mut text = format!(
        "\n{introduction}\n\n\
         [peers.tls]\nca_file = {}\ncertificate_file = {}\nkey_file = {}\n",
        file("ca.pem"),
        file("{name}.pem"),
        file("{name}.key")
    );
    let mut for_clients = String::new();
    if has_clients {
        text += &format!(
            "\n[clients.tls]\ncertificate_file = {}\nkey_file = {}\n",
            file("clients.pem"),
            file("clients.key")
        );
        for_clients = format!(" {CLIENTS}.pem {CLIENTS}.key");
    }
    text += "\nCopy only these files to the paths in that config file. The user who runs the server must be able to read them:\n";
    let names: Vec<&str> = herd.members.iter().map(|one| one.name.as_str()).collect();
    let widths = names.iter().map(|name| name.len());
    let width = widths.max().unwrap_or_default().max(OPERATOR.len());
    for name in names {
        // Writing into a String never fails.
        let _ = writeln!(
            text,
            "  {name:<width$}  ca.pem {name}.pem {name}.key{for_clients}"
        );
    }
    let _ = writeln!(
        text,
        "  {OPERATOR:<width$}  ca.pem {OPERATOR}.pem {OPERATOR}.key (on hosts that run tools such as herd-client status)"
    );
    if has_clients {
        text += "Clients must trust ca.pem.\n";
    }
    let _ = writeln!(
        text,
        "Keep {} here, or better offline: with it, an attacker can pose as any server.",
        directory.path.join("ca.key").display()
    );
    text
}

/// The advice after `--renew`.
pub(crate) fn renewed(subjects: &[Subject]) -> String {
    let mut text =
        "\nCopy the new files over the old ones, and send the servers SIGHUP:\n".to_owned();
    for Subject { stem, .. } in subjects {
        let host = match stem.as_str() {
            CLIENTS => "all hosts",
            OPERATOR => "hosts that run tools such as herd-client status",
            server => server,
        };
        // Writing into a String never fails.
        let _ = writeln!(text, "  {stem}.pem {stem}.key to {host}");
    }
    text
}

/// The directory's path for the config file: relative to the config file's own directory, if
/// possible.
fn place(config: Option<&Path>, directory: &Path) -> PathBuf {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = absolute(directory);
    // The parent of a bare file name is empty, which stands for the working directory. A symbolic
    // link to the config file is not followed, because servers look beside the link.
    let beside = config
        .and_then(Path::parent)
        .map(|parent| absolute(&Path::new(".").join(parent)));
    match beside.map(|beside| directory.strip_prefix(beside).map(Path::to_owned)) {
        Some(Ok(relative)) => relative,
        Some(Err(_)) | None => directory,
    }
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => quoted += &format!("\\u{:04X}", u32::from(letter)),
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_for_toml() {
        assert_eq!(toml_string("a b/ä.pem"), "\"a b/ä.pem\"");
        assert_eq!(toml_string("a\"b\\c\n\u{7f}"), r#""a\"b\\c\u000A\u007F""#);
    }

    #[test]
    fn a_directory_is_named_relative_to_the_config_file() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let (etc, below) = (root.join("etc"), root.join("etc/tls/herd"));
        std::fs::create_dir_all(&below).unwrap();
        let config = etc.join("herd.toml");
        std::fs::write(&config, "").unwrap();
        assert_eq!(place(Some(&config), &below), Path::new("tls/herd"));
        assert_eq!(place(Some(&config), &etc), Path::new(""));
        assert_eq!(place(Some(&config), &root), root);
        assert_eq!(place(None, &below), below);
        let link = root.join("link.toml");
        std::os::unix::fs::symlink(&config, &link).unwrap();
        assert_eq!(place(Some(&link), &below), Path::new("etc/tls/herd"));
    }
}
