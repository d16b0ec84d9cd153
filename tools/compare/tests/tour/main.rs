//! The tour (`README.md` of this crate) shows code and figures. This test compares each excerpt
//! with its file, and each figure with a measured run.
//!
//! ```text
//! HERD_TOUR=update      cargo test -p herd-compare --test tour    writes excerpts and figures anew, where they stand
//! HERD_TOUR=report.json cargo test -p herd-compare --test tour    the same, with the figures of another run of `cargo compare`
//! ```
//!
//! In the page, a comment before each checked part names its source:
//!
//! | comment | what follows |
//! |---|---|
//! | `<!-- from src/core/client/machine.rs: fn suspend -->` | a fenced block: lines of that item, whole and in order; `// …` or `# …` where some are left out |
//! | `<!-- figures: rate_per_s 50x16; lines_of_code -->` | a table of these figures, up to `<!-- end of figures -->` |
//! | `<!-- run -->` | where and how they were measured, up to `<!-- end of run -->` |
//! | `<!-- holds: rate_per_s 50x16: mio > 5 streams -->` | nothing: what the text says in words, checked with the figures |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod excerpts;
mod figures;
mod links;
mod page;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use figures::Figures;
use page::Page;

const TOUR: &str = "tools/compare/README.md";
const MAP: &str = "src/lib.rs";
const FIGURES: &str = "tools/compare/tour-figures.json";
const REFRESH: &str = "to write it anew: HERD_TOUR=update cargo test -p herd-compare --test tour";

/// A file of this repository.
fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file)
}

/// The text of a file of this repository.
fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(path(file)).map_err(|error| format!("{file}: {error}"))
}

/// Replaces a file. Readers see either the old text or the new one.
fn write(file: &str, text: &str) {
    if read(file).is_ok_and(|before| before == text) {
        return;
    }
    let directory = path(file).parent().unwrap().to_owned();
    let mut new = tempfile::NamedTempFile::new_in(directory).unwrap();
    new.write_all(text.as_bytes()).unwrap();
    // A temporary file is private, so it gets the permissions of the old file.
    let permissions = fs::metadata(path(file)).unwrap().permissions();
    new.as_file().set_permissions(permissions).unwrap();
    new.persist(path(file)).unwrap();
}

/// The page. It is written anew first, if HERD_TOUR asks for that.
fn tour() -> Page {
    static TOUR_NOW: OnceLock<Page> = OnceLock::new();
    let page = TOUR_NOW.get_or_init(|| {
        match std::env::var("HERD_TOUR").ok().as_deref() {
            None | Some("") => {}
            Some("update") => renew(),
            Some(report) => {
                let report = fs::read_to_string(path(report)).expect(report);
                write(FIGURES, &figures::of_report(&report).unwrap());
                renew();
            }
        }
        Page::markdown(TOUR, &read(TOUR).unwrap())
    });
    page.clone()
}

fn renew() {
    let mut page = Page::markdown(TOUR, &read(TOUR).unwrap());
    let unclear = excerpts::renew(&mut page, &read);
    figures::renew(&mut page, &measured());
    write(TOUR, &page.text());
    assert!(unclear.is_empty(), "by hand:\n{}", unclear.join("\n"));
}

fn measured() -> Figures {
    Figures::parse(&read(FIGURES).unwrap()).unwrap()
}

#[test]
fn the_tour_matches_the_sources_and_the_report() {
    let page = tour();
    let mut wrong = excerpts::wrong(&page, &read);
    wrong.extend(figures::wrong(&page, &measured()));
    wrong.extend(links::wrong(&page, &|file| path(file).exists()));
    assert!(wrong.is_empty(), "{}\n{REFRESH}", wrong.join("\n"));
}

/// The documentation of `src/lib.rs` may show code too. The same rule applies.
#[test]
fn the_excerpts_in_lib_rs_match_the_sources() {
    let wrong = excerpts::wrong(&Page::rustdoc(MAP, &read(MAP).unwrap()), &read);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
