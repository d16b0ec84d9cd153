//! No circles in the tools: if one module imports another, that one never imports the first, not
//! even through others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The source folders of the tools, and of programs that have their own folders.
fn crates() -> Vec<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all: Vec<PathBuf> = fs::read_dir(tools)
        .unwrap()
        .map(|tool| tool.unwrap().path().join("src"))
        .filter(|source| source.is_dir())
        .collect();
    all.push(tools.join("client/src/bin/herd-certificates"));
    all.push(tools.join("compare/worlds/tokio/src"));
    all.sort();
    all
}

/// For each top-level module of a crate, the modules that it names.
fn imports(source: &Path) -> Imports {
    let mut found = Imports::new();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // The crate roots name everything. Files in `bin` are crates of their own.
        if !["lib", "main", "bin"].contains(&name.as_str()) {
            let named = found.entry(name.clone()).or_default();
            named.extend(named_in(&path));
            named.remove(&name);
        }
    }
    let modules: BTreeSet<String> = found.keys().cloned().collect();
    for named in found.values_mut() {
        named.retain(|other| modules.contains(other));
    }
    found
}

/// The names after `crate::` in a file or a folder, without unit tests.
fn named_in(path: &Path) -> BTreeSet<String> {
    if path.is_dir() {
        let files = fs::read_dir(path).unwrap();
        return files
            .flat_map(|file| named_in(&file.unwrap().path()))
            .collect();
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut named = BTreeSet::new();
    for line in lines {
        for behind in line.split("crate::").skip(1) {
            // `use crate::{a, b::c};`
            let names = behind
                .strip_prefix('{')
                .map_or(vec![behind], |list| list.split(", ").collect());
            let name = |text: &str| {
                let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                text[..end.unwrap_or(text.len())].to_owned()
            };
            named.extend(names.into_iter().map(name));
        }
    }
    named
}

/// A path of imports from a module back to itself.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn follow(imports: &Imports, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let last = way[way.len() - 1].clone();
        for next in &imports[&last] {
            if let Some(begin) = way.iter().position(|module| module == next) {
                way.drain(..begin);
                return true;
            }
            if !done.contains(next) {
                way.push(next.clone());
                if follow(imports, way, done) {
                    return true;
                }
                way.pop();
            }
        }
        done.insert(last);
        false
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| {
        let mut way = vec![module.clone()];
        follow(imports, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn no_tool_has_an_import_cycle() {
    for source in crates() {
        let imports = imports(&source);
        assert_eq!(circle(&imports), None, "{}", source.display());
    }
}

#[test]
fn an_import_cycle_is_found() {
    let module = |name: &str, named: &[&str]| {
        let named = named.iter().map(|name| (*name).to_owned()).collect();
        (name.to_owned(), named)
    };
    let mut imports = Imports::from([
        module("a", &["b", "c"]),
        module("b", &["c"]),
        module("c", &[]),
    ]);
    assert_eq!(circle(&imports), None);
    imports.extend([module("c", &["b"])]);
    assert_eq!(circle(&imports), Some(vec!["b".to_owned(), "c".to_owned()]));
}

#[test]
fn module_imports_are_parsed() {
    let testkit = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let imports = imports(&testkit);
    let named: Vec<&str> = imports["herd"].iter().map(String::as_str).collect();
    assert_eq!(named, ["client", "clock", "ports", "server"]);
    assert_eq!(imports["rng"], BTreeSet::new());
}
