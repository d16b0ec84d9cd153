//! The OCI image. The programs in it are stand-ins, so that no test has to build for musl.

use std::fs;
use std::path::Path;
use std::process::Command;

use ring::digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::{PROGRAM, has, make, text};

/// Static programs, as far as their headers say.
fn programs() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut elf = b"\x7fELF\x02\x01".to_vec();
    elf.resize(64, 0);
    for name in ["herd-mio", "herd-client", "herd-journal"] {
        fs::write(directory.path().join(name), &elf).unwrap();
    }
    directory
}

fn image(programs: &TempDir, out: &Path) {
    let programs = programs.path().to_str().unwrap();
    make(&[
        "image",
        "--programs",
        programs,
        "--out",
        out.to_str().unwrap(),
    ]);
}

/// The part that a descriptor names. Its size and its digest are right.
fn part(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let (algorithm, hex) = descriptor["digest"]
        .as_str()
        .unwrap()
        .split_once(':')
        .unwrap();
    let bytes = fs::read(layout.join("blobs").join(algorithm).join(hex)).unwrap();
    assert_eq!(descriptor["size"], bytes.len());
    let digest = digest::digest(&digest::SHA256, &bytes);
    let found: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(found, hex);
    bytes
}

fn unpack(tar: &Path, directory: &Path) {
    let mut command = Command::new("tar");
    command.arg("-xf").arg(tar).arg("-C").arg(directory);
    text(command.output().unwrap());
}

#[test]
fn the_image_has_the_programs_and_no_shell_and_its_user_is_not_root() {
    if !has("tar") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("image.tar");
    image(&programs(), &out);
    let layout = directory.path().join("layout");
    fs::create_dir(&layout).unwrap();
    unpack(&out, &layout);
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let read = |name: &str| json(&fs::read(layout.join(name)).unwrap());

    assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
    let manifest = json(&part(&layout, &read("index.json")["manifests"][0]));
    let config = json(&part(&layout, &manifest["config"]));
    let layer = part(&layout, &manifest["layers"][0]);
    // The layer is not compressed, so these are the same.
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        manifest["layers"][0]["digest"]
    );
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/herd-mio");
    let for_docker = read("manifest.json");
    for blob in [&for_docker[0]["Config"], &for_docker[0]["Layers"][0]] {
        assert!(layout.join(blob.as_str().unwrap()).is_file(), "{blob}");
    }

    let tar = directory.path().join("layer.tar");
    fs::write(&tar, layer).unwrap();
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "-tvf"]).arg(&tar);
    let listing = text(command.output().unwrap());
    let entries: Vec<(&str, &str, &str)> = listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0], words[1], words[5])
        })
        .collect();
    assert_eq!(
        entries,
        [
            ("drwxr-xr-x", "0/0", "etc/"),
            ("drwxr-xr-x", "0/0", "etc/herd-mio/"),
            ("drwxr-xr-x", "0/0", "usr/"),
            ("drwxr-xr-x", "0/0", "usr/bin/"),
            ("-rwxr-xr-x", "0/0", "usr/bin/herd-mio"),
            ("-rwxr-xr-x", "0/0", "usr/bin/herd-client"),
            ("-rwxr-xr-x", "0/0", "usr/bin/herd-journal"),
            ("drwxr-xr-x", "0/0", "var/"),
            ("drwxr-xr-x", "0/0", "var/lib/"),
            ("drwx------", "65532/65532", "var/lib/herd-mio/"),
        ]
    );
}

#[test]
fn the_same_programs_give_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    image(&programs(), &one);
    image(&programs(), &other);
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap());
}

#[test]
fn a_program_that_needs_libraries_is_refused() {
    let programs = programs();
    // Where Rust links statically by default, this test has no such program.
    if cfg!(target_env = "musl") {
        return eprintln!("skipped: programs are static here");
    }
    fs::copy(PROGRAM, programs.path().join("herd-client")).unwrap();
    let out = programs.path().join("image.tar");
    let mut command = Command::new(PROGRAM);
    command
        .arg("image")
        .arg("--programs")
        .arg(programs.path())
        .arg("--out")
        .arg(&out);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("herd-client is not static"), "{told}");
    assert!(!out.exists());
}
