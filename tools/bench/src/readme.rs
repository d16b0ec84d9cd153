//! The kept figures in README.md, between two marker comments.

use std::fs;
use std::path::{Path, PathBuf};

use crate::figures::Figures;
use crate::workload::Failure;

const BEGIN: &str = "<!-- figures: written by --save -->\n";
const END: &str = "<!-- end of figures -->\n";

/// The path of the README.
pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// The README's text with these figures between the markers.
///
/// # Errors
/// The markers are missing.
pub(crate) fn with(text: &str, figures: &Figures) -> Result<String, Failure> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| {
        let (begin, end) = (BEGIN.trim(), END.trim());
        format!("README.md has no place for the figures; mark it with {begin} and {end}")
    })?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", figures.markdown()))
}

/// Writes the figures into the README.
///
/// # Errors
/// The file cannot be read or written, or has no markers.
pub(crate) fn update(figures: &Figures) -> Result<(), Failure> {
    let file = file();
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let text = fs::read_to_string(&file).map_err(failed)?;
    fs::write(&file, with(&text, figures)?).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_the_saved_figures() {
        let text = fs::read_to_string(file()).unwrap();
        let kept = Figures::kept().unwrap().unwrap();
        assert_eq!(with(&text, &kept), Ok(text), "{}", kept.command);
    }

    #[test]
    fn a_readme_without_the_figures_marker_is_refused() {
        let kept = Figures::kept().unwrap().unwrap();
        assert!(with("# Title\n", &kept).is_err());
    }
}
