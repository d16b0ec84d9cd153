//! The SBOM: the crates in the programs, as CycloneDX JSON.
//!
//! Cargo says which crates the packages depend on, for the platform on which this runs. The
//! checksums are those of Cargo.lock. There is no time and no random number in it, so the same
//! checkout gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use herd_testkit::failure::{Failure, system};
use ring::digest;
use serde_json::{Value, json};

use crate::build;

/// An SBOM of the crates in these packages of the workspace.
///
/// # Errors
/// Cargo cannot be run, or there is no such package.
pub(crate) fn text(packages: &[String]) -> Result<String, Failure> {
    let platform = build::host()?;
    let metadata = build::cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        &platform,
    ])?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::Failed(format!("cargo metadata is no JSON: {error}")))?;
    // Cargo's metadata has every feature that a test of the workspace needs, and the crates for them.
    // Its tree has only what a build compiles.
    let tree = build::cargo(&[
        "tree",
        "--locked",
        "--workspace",
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
    ])?;
    let lock = build::root().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).map_err(system("read Cargo.lock"))?;
    let sbom = sbom(
        packages,
        &Graph::of(&metadata, &tree),
        &checksums(&lock)?,
        &platform,
    )?;
    Ok(format!("{sbom:#}\n"))
}

/// SHA-256 of each crate from a registry, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>, Failure> {
    let lock: toml::Table = lock
        .parse()
        .map_err(|error| Failure::Failed(format!("Cargo.lock is no TOML: {error}")))?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let checksum = |package: &toml::Value| {
        let field = |name| Some(package.get(name)?.as_str()?.to_owned());
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    Ok(packages
        .into_iter()
        .flatten()
        .filter_map(checksum)
        .collect())
}

/// What cargo says about the packages and their dependencies.
struct Graph<'a> {
    packages: BTreeMap<&'a str, &'a Value>,
    /// For each package, those that it depends on; and whether they are part of the program, or
    /// only run while it is built.
    dependencies: BTreeMap<&'a str, Vec<(&'a str, Part)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    OfBuild,
    OfProgram,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl<'a> Graph<'a> {
    /// The packages of `metadata` that are in the tree, a package in each line: `serde v1.0.0 …`.
    fn of(metadata: &'a Value, tree: &str) -> Graph<'a> {
        let built: BTreeSet<(&str, &str)> = tree
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.next()?.strip_prefix('v')?))
            })
            .collect();
        let packages: BTreeMap<_, _> = list(&metadata["packages"])
            .filter(|package| built.contains(&(word(&package["name"]), word(&package["version"]))))
            .map(|package| (word(&package["id"]), package))
            .collect();
        let is_macro = |id: &str| {
            let targets = packages.get(id).map(|package| &package["targets"]);
            let mut kinds = targets
                .into_iter()
                .flat_map(list)
                .flat_map(|target| list(&target["kind"]));
            kinds.any(|kind| kind == "proc-macro")
        };
        let part = |dependency: &Value| {
            let has = |kind: Value| list(&dependency["dep_kinds"]).any(|one| one["kind"] == kind);
            if has(Value::Null) && !is_macro(word(&dependency["pkg"])) {
                Some(Part::OfProgram)
            } else if has(Value::Null) || has(json!("build")) {
                Some(Part::OfBuild)
            } else {
                None // only for tests
            }
        };
        let dependencies = list(&metadata["resolve"]["nodes"]).map(|node| {
            let those = list(&node["deps"])
                .filter_map(|dependency| Some((word(&dependency["pkg"]), part(dependency)?)))
                .filter(|(id, _)| packages.contains_key(id));
            (word(&node["id"]), those.collect())
        });
        Graph {
            dependencies: dependencies.collect(),
            packages,
        }
    }

    /// The package of the workspace with this name.
    fn member(&self, name: &str) -> Option<&'a str> {
        let mut all = self.packages.iter();
        let found = all.find(|(_, package)| package["source"].is_null() && package["name"] == name);
        found.map(|(id, _)| *id)
    }

    /// All packages that these depend on, and these.
    fn reachable(&self, roots: &[&'a str]) -> BTreeMap<&'a str, Part> {
        let mut found: BTreeMap<&str, Part> = BTreeMap::new();
        let mut next: Vec<(&str, Part)> = roots.iter().map(|id| (*id, Part::OfProgram)).collect();
        while let Some((id, part)) = next.pop() {
            if found.get(id).is_some_and(|known| *known >= part) {
                continue;
            }
            found.insert(id, part);
            for (dependency, its_part) in self.dependencies.get(id).into_iter().flatten() {
                next.push((dependency, part.min(*its_part)));
            }
        }
        found
    }
}

fn sbom(
    names: &[String],
    graph: &Graph<'_>,
    checksums: &BTreeMap<(String, String), String>,
    platform: &str,
) -> Result<Value, Failure> {
    let root = |name: &String| {
        graph
            .member(name)
            .ok_or_else(|| Failure::Usage(format!("the workspace has no package {name}")))
    };
    let roots = names.iter().map(root).collect::<Result<Vec<_>, _>>()?;
    let reachable = graph.reachable(&roots);
    let component = |(id, part): (&&str, &Part)| {
        let package = graph.packages.get(id)?;
        Some(component(package, *part, roots.contains(id), checksums))
    };
    let mut components: Vec<Value> = reachable.iter().filter_map(component).collect();
    components.sort_by_key(|component| word(&component["bom-ref"]).to_owned());

    let reference = |id: &&str| graph.packages.get(id).map(|package| purl(package));
    let depends_on = |ids: BTreeSet<String>| ids.into_iter().collect::<Vec<_>>();
    let mut dependencies = vec![json!({
        "ref": "herd-mio-package",
        "dependsOn": depends_on(roots.iter().filter_map(reference).collect()),
    })];
    let mut by_package: Vec<_> = reachable.keys().collect();
    by_package.sort();
    for id in by_package {
        let of = graph.dependencies.get(id).into_iter().flatten();
        let of = of.filter_map(|(id, _)| reference(id)).collect();
        dependencies.push(json!({"ref": reference(id), "dependsOn": depends_on(of)}));
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut sbom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "herd-package", "version": version}]},
            "component": {
                "type": "application",
                "bom-ref": "herd-mio-package",
                "name": "herd-mio",
                "version": version,
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            },
            "properties": [{"name": "herd-mio:platform", "value": platform}],
        },
        "components": components,
        "dependencies": dependencies,
    });
    sbom["serialNumber"] = json!(serial_number(&sbom.to_string()));
    Ok(sbom)
}

/// The package's URL in the format that SBOMs use. It names a component, too.
fn purl(package: &Value) -> String {
    // A `+` begins the version's build metadata, and stands for a space in some URLs.
    let version = word(&package["version"]).replace('+', "%2B");
    format!("pkg:cargo/{}@{version}", word(&package["name"]))
}

fn component(
    package: &Value,
    part: Part,
    is_root: bool,
    checksums: &BTreeMap<(String, String), String>,
) -> Value {
    let (name, version) = (word(&package["name"]), word(&package["version"]));
    let mut component = json!({
        "type": if is_root { "application" } else { "library" },
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "scope": match part {
            Part::OfProgram => "required",
            Part::OfBuild => "excluded",
        },
        "purl": purl(package),
    });
    if let Some(text) = package["description"].as_str() {
        component["description"] = json!(text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if let Some(license) = package["license"].as_str() {
        // Old crates separate licences by a slash.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

/// A UUID (version 8, RFC 9562) from the text's SHA-256.
fn serial_number(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
