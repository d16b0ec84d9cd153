//! Every input that is kept, given to its target again: what reaches something new, and what once found a mistake.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs;
use std::path::Path;

/// Gives the target each file of `corpus/<name>` and `findings/<name>`; the name of the one that fails is printed before its panic.
fn replay(name: &str, target: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for kind in ["corpus", "findings"] {
        let folder = root.join(kind).join(name);
        let Ok(files) = fs::read_dir(&folder) else {
            assert_ne!(kind, "corpus", "{} cannot be read", folder.display());
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            count += 1;
        }
    }
    assert!(count > 0, "there is something to replay");
}

#[test]
fn client_line() {
    replay("client_line", herd_fuzz::client_line);
}

#[test]
fn link_lines() {
    replay("link_lines", herd_fuzz::link_lines);
}

#[test]
fn http_response() {
    replay("http_response", herd_fuzz::http_response);
}

#[test]
fn journal() {
    replay("journal", herd_fuzz::journal);
}

#[test]
fn node() {
    replay("node", herd_fuzz::node);
}

#[test]
fn proxy_header() {
    replay("proxy_header", herd_fuzz::proxy_header);
}
