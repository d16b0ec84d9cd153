//! An OCI image, written without a container engine: one layer with static programs, and nothing
//! else. There is no shell in it, and no library.
//!
//! The file is a tar of an OCI image layout (<https://github.com/opencontainers/image-spec>). It has
//! a `manifest.json` too, so that `docker load` of any version reads it.

use std::fs;
use std::path::{Path, PathBuf};

use herd_testkit::failure::{Failure, system};
use ring::digest;
use serde_json::{Value, json};

use crate::cli::ImageOptions;
use crate::tar::{Entry, Tar};
use crate::{build, files};

/// The programs in the image: the server, and what looks after it.
const PROGRAMS: [&str; 3] = ["herd-mio", "herd-client", "herd-journal"];

/// The user and the group in the image. It is the one that other images without a shell have, and
/// has no name: Kubernetes checks `runAsNonRoot` by the number.
const USER: u32 = 65_532;

/// What a check of the container's health can run. NAME is the server's.
const HEALTH: &str = "/usr/bin/herd-client status --config /etc/herd-mio/herd.toml --server NAME --timeout 1 --ignore link,version";

/// Makes the image. Returns its path.
///
/// # Errors
/// A program cannot be built or read, is not static, or the image cannot be written.
pub(crate) fn make(options: &ImageOptions) -> Result<PathBuf, Failure> {
    let architecture = architecture(&options.target)?;
    let mut programs = Vec::new();
    for name in PROGRAMS {
        let path = match &options.programs {
            Some(directory) => directory.join(name),
            None => build::program(
                name,
                &["--locked", "--release", "--target", &options.target],
            )?,
        };
        programs.push((name, read_static(&path)?));
    }
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| build::files_dir().join("herd-mio.oci.tar"));
    files::write(&out, &image(&programs, architecture))?;
    Ok(out)
}

/// The OCI name of the architecture of a target.
fn architecture(target: &str) -> Result<&'static str, Failure> {
    match target.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        Some(_) | None => Err(Failure::Usage(format!(
            "no image is made for {target}; choose an x86_64 or aarch64 target"
        ))),
    }
}

/// Reads a program. It has to be static, because the image has no libraries.
fn read_static(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let program = fs::read(path).map_err(system(format_args!("read {shown}")))?;
    match asks_for_a_loader(&program) {
        Some(false) => Ok(program),
        Some(true) => Err(Failure::Failed(format!(
            "{shown} is not static; build it for a musl target, such as x86_64-unknown-linux-musl"
        ))),
        None => Err(Failure::Failed(format!(
            "{shown} is no ELF program of 64 bits"
        ))),
    }
}

/// Whether a program names a loader of libraries (PT_INTERP in the ELF program headers).
fn asks_for_a_loader(program: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = program.get(at..at.checked_add(bytes)?)?;
        let digit = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(field.iter().rev().fold(0, digit)) // little-endian
    };
    // The class (2: 64 bits) and the order of bytes (1: little-endian).
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let at = usize::try_from(number(0x20, 8)?).ok()?;
    let size = usize::try_from(number(0x36, 2)?).ok()?;
    let count = usize::try_from(number(0x38, 2)?).ok()?;
    for index in 0..count {
        let header = at.checked_add(index.checked_mul(size)?)?;
        if number(header, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// The image's file.
fn image(programs: &[(&str, Vec<u8>)], architecture: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let layer = layer(programs);
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": ["/usr/bin/herd-mio"],
            "WorkingDir": "/var/lib/herd-mio",
            "Env": ["PATH=/usr/bin", "HERD_LOG_FILE=-"],
            "Volumes": {"/var/lib/herd-mio": {}},
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "herd-mio",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
                "herd-mio.health-command": HEALTH,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created_by": "herd-package image"}],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    listed["platform"] = json!({"architecture": architecture, "os": "linux"});
    listed["annotations"] = json!({
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": format!("docker.io/library/herd-mio:{version}"),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });
    let for_docker = json!([{
        "Config": blob(&config),
        "RepoTags": [format!("herd-mio:{version}")],
        "Layers": [blob(&layer)],
    }]);

    let mut tar = Tar::default();
    let file = Entry {
        mode: 0o644,
        owner: 0,
    };
    let directory = Entry {
        mode: 0o755,
        owner: 0,
    };
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, file);
    tar.file("index.json", index.to_string().as_bytes(), file);
    tar.file("manifest.json", for_docker.to_string().as_bytes(), file);
    tar.directory("blobs/", directory);
    tar.directory("blobs/sha256/", directory);
    for contents in [&config, &manifest, &layer] {
        tar.file(&blob(contents), contents, file);
    }
    tar.finish()
}

/// The files of the image.
fn layer(programs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let directory = Entry {
        mode: 0o755,
        owner: 0,
    };
    let mut tar = Tar::default();
    for path in ["etc/", "etc/herd-mio/", "usr/", "usr/bin/"] {
        tar.directory(path, directory);
    }
    for (name, program) in programs {
        tar.file(&format!("usr/bin/{name}"), program, directory);
    }
    for path in ["var/", "var/lib/"] {
        tar.directory(path, directory);
    }
    // A new volume gets the owner and the mode of the directory below it.
    tar.directory(
        "var/lib/herd-mio/",
        Entry {
            mode: 0o700,
            owner: USER,
        },
    );
    tar.finish()
}

fn descriptor(media_type: &str, contents: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(contents), "size": contents.len()})
}

fn hex(contents: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, contents);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn digest(contents: &[u8]) -> String {
    format!("sha256:{}", hex(contents))
}

/// The path of a part in the layout.
fn blob(contents: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of this type.
    fn program(kind: u8) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64 + 56, 0);
        elf[0x20] = 64; // where the program headers are
        elf[0x36] = 56; // the size of one
        elf[0x38] = 1; // their number
        elf[64] = kind;
        elf
    }

    #[test]
    fn a_program_that_needs_a_loader_is_not_static() {
        assert_eq!(asks_for_a_loader(&program(3)), Some(true));
        assert_eq!(asks_for_a_loader(&program(1)), Some(false));
        assert_eq!(asks_for_a_loader(&program(1)[..100]), Some(false));
        assert_eq!(asks_for_a_loader(&program(1)[..60]), None);
        assert_eq!(asks_for_a_loader(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn the_same_programs_give_the_same_image() {
        let programs = [("herd-mio", program(1))];
        assert_eq!(image(&programs, "amd64"), image(&programs, "amd64"));
        assert_ne!(image(&programs, "amd64"), image(&programs, "arm64"));
    }
}
