//! The folders of `src/core` are layers. A folder imports only from lower layers, so it can be read
//! without the layers above it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders, from the top to the bottom. Folders in the same row do not import from one another.
/// `client` is above `places`, because clients ask questions there.
const FLOORS: [&[&str]; 8] = [
    &["node"],
    &["client"],
    &["link", "places", "http"],
    &["session"],
    &["journal"],
    &["table"],
    &["wire"],
    &["base"],
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let deeper = folders.iter().flat_map(|folder| rust_files(folder));
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|it| it == "rs");
    files.into_iter().filter(is_rust).chain(deeper).collect()
}

/// The folders that this code names, outside comments and tests.
fn named_rooms(source: &str) -> BTreeSet<&str> {
    let code = source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(source);
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::core::").skip(1))
        .filter_map(|path| {
            path.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        })
        .collect()
}

#[test]
fn core_modules_import_lower_layers_only() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let files = rust_files(&core);
    let mut wrong = Vec::new();
    let mut rooms_seen = BTreeSet::new();
    for path in files {
        let inside = path.strip_prefix(&core).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap();
        if room == "mod.rs" {
            continue;
        }
        let from = floor(room).unwrap_or_else(|| panic!("{room} is on no floor"));
        rooms_seen.insert(room.to_owned());
        let source = fs::read_to_string(&path).unwrap();
        for other in named_rooms(&source)
            .into_iter()
            .filter(|&other| other != room)
        {
            match floor(other) {
                Some(to) if to > from => {}
                Some(_) => wrong.push(format!("{} imports {other}", inside.display())),
                None => wrong.push(format!("{} names {other}, no room", inside.display())),
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(rooms_seen.len(), FLOORS.concat().len(), "{rooms_seen:?}");
}
