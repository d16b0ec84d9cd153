//! The archive.

use std::fs;
use std::process::Command;

use crate::{PROGRAMS, has, make, root, text};

/// Where `cargo binstall` looks for a program in the archive.
fn bin_dir(program: &str) -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let package = &manifest["package"];
    let binstall = &package["metadata"]["binstall"];
    assert_eq!(binstall["pkg-fmt"].as_str(), Some("tar"));
    let template = binstall["bin-dir"].as_str().unwrap();
    template
        .replace("{ version }", package["version"].as_str().unwrap())
        .replace("{ target }", "x86_64-unknown-linux-gnu")
        .replace("{ bin }", program)
        .replace("{ binary-ext }", "")
}

#[test]
fn the_archive_has_the_programs_where_binstall_looks_for_them() {
    if !has("tar") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        fs::write(directory.path().join(program), program).unwrap();
    }
    let out = directory.path().join("archive.tar");
    let programs = directory.path().to_str().unwrap();
    let arguments = [
        "--target",
        "x86_64-unknown-linux-gnu",
        "--out",
        out.to_str().unwrap(),
    ];
    make(&[&["archive", "--programs", programs], &arguments[..]].concat());
    let list = Command::new("tar").arg("-tf").arg(&out).output().unwrap();
    let list = text(list);
    let entries: Vec<&str> = list.lines().collect();
    for program in PROGRAMS {
        let path = bin_dir(program);
        assert!(entries.contains(&path.as_str()), "{path}: {list}");
    }
    // Six programs, each with four files; licences and README.
    assert_eq!(entries.len(), 5 * PROGRAMS.len() + 3, "{list}");
}
