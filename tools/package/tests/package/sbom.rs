//! The SBOM.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use herd_testkit::cargo;
use serde_json::Value;

use crate::{make, root, text};

fn sbom(arguments: &[&str]) -> Value {
    let text = make(&[&["sbom"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The crates that cargo compiles for a package, with the first word of each line.
fn tree(package: &str) -> BTreeSet<(String, String)> {
    let mut command = cargo::command();
    command.current_dir(root());
    command.args([
        "tree",
        "--locked",
        "--package",
        package,
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
    ]);
    let tree = text(command.output().unwrap());
    let mut found = BTreeSet::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_owned();
        let version = words.next().unwrap().trim_start_matches('v').to_owned();
        found.insert((name, version));
    }
    found
}

fn components(sbom: &Value) -> BTreeMap<(String, String), Value> {
    let components = sbom["components"].as_array().unwrap().iter();
    let named = |component: &Value| (word(&component["name"]), word(&component["version"]));
    components
        .map(|component| (named(component), component.clone()))
        .collect()
}

#[test]
fn the_sbom_has_the_crates_that_cargo_compiles_and_no_others() {
    for package in ["herd-mio", "herd-load"] {
        let sbom = sbom(&["--package", package]);
        let there: BTreeSet<_> = components(&sbom).into_keys().collect();
        assert_eq!(there, tree(package), "{package}");
    }
}

#[test]
fn a_crate_of_the_sbom_has_its_version_and_checksum_of_cargo_lock() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let mut checksums = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let field = |name| {
            package
                .get(name)
                .and_then(toml::Value::as_str)
                .map(str::to_owned)
        };
        checksums.insert(
            (field("name").unwrap(), field("version").unwrap()),
            field("checksum"),
        );
    }
    for (name, component) in components(&sbom(&[])) {
        let checksum = checksums
            .get(&name)
            .unwrap_or_else(|| panic!("{name:?} is not in Cargo.lock"));
        let hash = component["hashes"][0]["content"]
            .as_str()
            .map(str::to_owned);
        assert_eq!(hash, *checksum, "{name:?}");
    }
}

/// The schema is https://cyclonedx.org/schema/bom-1.5.schema.json. Its required fields, and that
/// references are unique and name something, are checked here.
#[test]
fn the_sbom_has_the_required_fields_of_its_schema() {
    let sbom = sbom(&["--package", "herd-mio", "--package", "herd-client"]);
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    assert_eq!(sbom["specVersion"], "1.5");
    assert_eq!(sbom["version"], 1);
    let serial = word(&sbom["serialNumber"]);
    let uuid = serial.strip_prefix("urn:uuid:").unwrap();
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{serial}");
    let mut references = BTreeSet::from([word(&sbom["metadata"]["component"]["bom-ref"])]);
    for component in sbom["components"].as_array().unwrap() {
        assert!(["application", "library"].contains(&word(&component["type"]).as_str()));
        assert!(!word(&component["name"]).is_empty());
        assert!(["required", "excluded"].contains(&word(&component["scope"]).as_str()));
        assert!(
            references.insert(word(&component["bom-ref"])),
            "{component}"
        );
    }
    for dependency in sbom["dependencies"].as_array().unwrap() {
        let named = dependency["dependsOn"].as_array().unwrap();
        for reference in named.iter().chain([&dependency["ref"]]) {
            assert!(references.contains(&word(reference)), "{reference}");
        }
    }
    // A macro runs while the program is built, and is not in it.
    let components = components(&sbom);
    let scope = |name: &str| {
        let mut all = components.iter();
        let (_, component) = all.find(|((one, _), _)| one == name).unwrap();
        word(&component["scope"])
    };
    assert_eq!(
        (scope("serde").as_str(), scope("serde_derive").as_str()),
        ("required", "excluded")
    );
}

#[test]
fn the_same_checkout_gives_the_same_sbom() {
    assert_eq!(make(&["sbom"]), make(&["sbom"]));
}

#[test]
fn a_package_that_is_not_in_the_workspace_is_a_mistake_in_usage() {
    let mut command = std::process::Command::new(crate::PROGRAM);
    let output = command
        .args(["sbom", "--package", "serde"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("has no package serde"), "{told}");
}
