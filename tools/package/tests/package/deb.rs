//! The Debian package.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use herd_testkit::server;

use crate::{PROGRAMS, has, make, root, text};

/// The list of files in Cargo.toml: source and destination.
fn assets() -> Vec<(String, String)> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let word = |asset: &toml::Value, name: &str| asset[name].as_str().unwrap().to_owned();
    let assets = deb["assets"].as_array().unwrap().iter();
    assets
        .map(|asset| (word(asset, "source"), word(asset, "dest")))
        .collect()
}

#[test]
fn the_list_has_every_program_and_every_file_that_is_made() {
    let assets = assets();
    for program in PROGRAMS {
        let source = format!("target/release/{program}");
        assert!(
            assets.contains(&(source, "usr/bin/".to_owned())),
            "{program}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    make(&["files", "--out", directory.path().to_str().unwrap()]);
    let mut made = BTreeSet::new();
    for (source, _) in &assets {
        let Some(source) = source.strip_prefix("target/package/") else {
            continue;
        };
        let (folder, pattern) = source.rsplit_once('/').unwrap_or(("", source));
        let there = fs::read_dir(directory.path().join(folder)).unwrap();
        for file in there {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let (before, behind) = pattern.split_once('*').unwrap_or((pattern, ""));
            let is_meant = match pattern.contains('*') {
                true => name.starts_with(before) && name.ends_with(behind),
                false => name == pattern,
            };
            if is_meant {
                made.insert(file.path());
            }
        }
    }
    // For each program a manual page and three completions; the changelog and the SBOM.
    assert_eq!(made.len(), 4 * PROGRAMS.len() + 2, "{made:?}");
}

#[test]
fn a_shell_can_read_the_maintainer_scripts() {
    for script in ["postinst", "prerm", "postrm"] {
        let path = root().join("tools/package/debian").join(script);
        text(Command::new("sh").arg("-n").arg(path).output().unwrap());
    }
}

#[test]
fn a_server_of_the_example_can_start() {
    let directory = tempfile::tempdir().unwrap();
    let program = server::build("herd-mio", &[]).unwrap();
    let mut command = Command::new(program);
    server::without_settings(&mut command);
    command
        .args([
            "Alice",
            "--check",
            "--listen",
            "127.0.0.1:0",
            "--listen-peers",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(directory.path())
        .arg("--config")
        .arg(root().join("tools/package/debian/herd.toml"));
    let said = text(command.output().unwrap());
    assert!(said.contains("Alice"), "{said}");
}

/// A small program of the system stands in for each program, because a release takes minutes to build.
#[test]
fn the_package_has_its_files_with_their_modes() {
    if !has("cargo-deb") || !has("dpkg-deb") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        fs::copy("/bin/true", directory.path().join(program)).unwrap();
    }
    let package = directory.path().join("herd-mio.deb");
    let programs = directory.path().to_str().unwrap();
    let said = make(&[
        "deb",
        "--programs",
        programs,
        "--out",
        package.to_str().unwrap(),
    ]);
    assert_eq!(Path::new(said.trim()), package);
    let listing = text(
        Command::new("dpkg-deb")
            .arg("--contents")
            .arg(&package)
            .output()
            .unwrap(),
    );
    let entries: BTreeSet<(&str, &str)> = listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0], words[5])
        })
        .collect();
    let mut wanted = vec![
        ("-rw-r--r--", "./etc/herd-mio/herd.toml".to_owned()),
        (
            "-rw-r--r--",
            "./usr/lib/systemd/system/herd-mio@.service".to_owned(),
        ),
        (
            "-rw-r--r--",
            "./usr/share/doc/herd-mio/changelog.gz".to_owned(),
        ),
        (
            "-rw-r--r--",
            "./usr/share/doc/herd-mio/copyright".to_owned(),
        ),
    ];
    for program in PROGRAMS {
        wanted.push(("-rwxr-xr-x", format!("./usr/bin/{program}")));
        for file in [
            format!("man/man1/{program}.1.gz"),
            format!("bash-completion/completions/{program}"),
            format!("zsh/vendor-completions/_{program}"),
            format!("fish/vendor_completions.d/{program}.fish"),
        ] {
            wanted.push(("-rw-r--r--", format!("./usr/share/{file}")));
        }
    }
    for (mode, path) in &wanted {
        assert!(
            entries.contains(&(*mode, path.as_str())),
            "{mode} {path}:\n{listing}"
        );
    }
    let scripts = text(
        Command::new("dpkg-deb")
            .arg("--info")
            .arg(&package)
            .output()
            .unwrap(),
    );
    for name in ["conffiles", "postinst", "prerm", "postrm"] {
        assert!(scripts.contains(name), "{name}: {scripts}");
    }
}
