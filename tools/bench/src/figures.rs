//! The instruction counts that are kept in a file. Later counts are compared with them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::toolchain::Toolchain;
use crate::workload::{Entry, Failure};

/// The command that writes the kept figures.
pub(crate) const COMMAND: &str = "cargo bench -p herd-bench --bench instructions -- --save";

/// The counts, and the tools that counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The command that wrote this file.
    pub command: String,
    /// The tools and the machine, on which the counts depend too.
    pub made_with: Toolchain,
    /// One figure for each workload.
    pub workloads: Vec<Figure>,
}

/// What one operation of a workload costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The name of the workload.
    pub name: String,
    /// What one operation of the workload is.
    pub operation: String,
    /// User instructions per operation, to a tenth.
    pub instructions: f64,
}

impl Figure {
    pub(crate) fn new(entry: &Entry, instructions: f64) -> Figure {
        Figure {
            name: entry.name.to_owned(),
            operation: entry.operation.to_owned(),
            instructions: (instructions * 10.0).round() / 10.0,
        }
    }
}

/// By how many percent `instructions` exceed `kept`. `None` if there is no kept figure.
pub(crate) fn change_percent(instructions: f64, kept: Option<f64>) -> Option<f64> {
    let kept = kept.filter(|kept| *kept > 0.0)?;
    Some((instructions / kept - 1.0) * 100.0)
}

/// A change as text, with its sign and one decimal.
pub(crate) fn signed(percent: f64) -> String {
    let tenths = (percent * 10.0).round() as i64; // An integer has no negative zero.
    let sign = if tenths < 0 { '-' } else { '+' };
    format!("{sign}{}.{} %", tenths.abs() / 10, tenths.abs() % 10)
}

/// A count as text: one decimal below a thousand, otherwise commas between the thousands.
pub(crate) fn readable(instructions: f64) -> String {
    if instructions < 1_000.0 {
        return format!("{instructions:.1}");
    }
    let digits = format!("{instructions:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Figures {
    /// The path of the file with the kept figures.
    pub(crate) fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
    }

    /// Reads the kept figures. `None` if the file does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a file.
    pub fn kept() -> Result<Option<Figures>, Failure> {
        let file = Figures::file();
        let failed = |error: &dyn std::fmt::Display| {
            format!(
                "{}: {error}; write it again with: {COMMAND}",
                file.display()
            )
        };
        match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| failed(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Instructions per operation of the workload of that name.
    pub(crate) fn of(&self, name: &str) -> Option<f64> {
        let figure = self.workloads.iter().find(|figure| figure.name == name)?;
        Some(figure.instructions)
    }

    /// The content of the file.
    pub(crate) fn json(&self) -> String {
        // These types always serialize: they are strings and finite numbers.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }

    /// The section for the README.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("```sh\n{}\n```\n\n", self.command);
        text.push_str("| workload | one operation | instructions |\n|---|---|---:|\n");
        for figure in &self.workloads {
            let Figure {
                name,
                operation,
                instructions,
            } = figure;
            let instructions = readable(*instructions);
            // Writing into a String never fails.
            let _ = writeln!(text, "| `{name}` | {operation} | {instructions} |");
        }
        let Toolchain {
            rustc,
            valgrind,
            machine,
        } = &self.made_with;
        let _ = writeln!(text, "\nMade with {rustc}, {valgrind}, on {machine}.");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_thousands_separators() {
        assert_eq!(readable(39.14), "39.1");
        assert_eq!(readable(999.9), "999.9");
        assert_eq!(readable(1_234.4), "1,234");
        assert_eq!(readable(1_234_567.8), "1,234,568");
    }

    #[test]
    fn a_change_is_shown_in_percent_of_the_saved_figure() {
        let change = |now, kept| change_percent(now, kept).map(|change| change.round());
        assert_eq!(change(110.0, Some(100.0)), Some(10.0));
        assert_eq!(change(50.0, Some(100.0)), Some(-50.0));
        assert_eq!(change(50.0, None), None);
        assert_eq!(change(50.0, Some(0.0)), None);
        assert_eq!(signed(1.26), "+1.3 %");
        assert_eq!(signed(-12.0), "-12.0 %");
        assert_eq!(signed(-0.01), "+0.0 %");
    }
}
