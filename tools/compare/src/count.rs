//! The length of a program: its lines of code, without comments, blank lines and unit tests.
//!
//! This is no parser, but exact enough to compare sizes. A line with code before a comment counts
//! as code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The number of lines of code in these files.
///
/// # Errors
/// One of them cannot be read.
pub fn code_lines(files: &[PathBuf]) -> io::Result<usize> {
    let mut sum = 0;
    for file in files {
        sum += of_text(&fs::read_to_string(file)?, syntax_of(file));
    }
    Ok(sum)
}

/// The comment syntax of a language.
struct Syntax {
    line: &'static str,
    block: (&'static str, &'static str),
}

const C_LIKE: Syntax = Syntax {
    line: "//",
    block: ("/*", "*/"),
};
/// A string at the beginning of a line counts as a docstring.
const PYTHON: Syntax = Syntax {
    line: "#",
    block: ("\"\"\"", "\"\"\""),
};

fn syntax_of(file: &Path) -> &'static Syntax {
    match file.extension() {
        Some(extension) if extension == "py" => &PYTHON,
        Some(_) | None => &C_LIKE,
    }
}

fn of_text(text: &str, syntax: &Syntax) -> usize {
    let (begin, end) = syntax.block;
    let mut is_in_block = false;
    let mut count = 0;
    for line in text.lines().map(str::trim) {
        // Rust's unit tests are at the end of a file.
        if line == "#[cfg(test)]" {
            break;
        }
        if is_in_block {
            is_in_block = !line.contains(end);
        } else if let Some(rest) = line.strip_prefix(begin) {
            is_in_block = !rest.contains(end);
        } else if !line.is_empty() && !line.starts_with(syntax.line) {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_tests_are_not_counted() {
        let rust = "//! A file.\n\nuse x; // why\n/* one\n two */\n/** a */\nfn f() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(of_text(rust, &C_LIKE), 2);
        let python = "\"\"\"A file.\n\nMore.\n\"\"\"\n\n# why\nx = 1\n\"\"\"What x is.\"\"\"\ndef f():\n    return \"\"\n";
        assert_eq!(of_text(python, &PYTHON), 3);
    }
}
