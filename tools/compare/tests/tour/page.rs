//! A page of Markdown as lines, with its fenced blocks and checked parts.

use std::ops::Range;

/// A page.
#[derive(Clone)]
pub(crate) struct Page {
    /// Its path, for error messages.
    pub(crate) file: &'static str,
    pub(crate) lines: Vec<String>,
}

/// A fenced block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The word after the fence.
    pub(crate) language: String,
    /// The text after `from` in the comment on the line before.
    pub(crate) source: Option<Source>,
    /// Its lines without the fences.
    pub(crate) body: Range<usize>,
}

/// The source of an excerpt.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file: String,
    /// The beginning of the item.
    pub(crate) item: String,
}

impl Page {
    pub(crate) fn markdown(file: &'static str, text: &str) -> Page {
        let lines = text.lines().map(str::to_owned).collect();
        Page { file, lines }
    }

    /// The documentation at the beginning of a Rust file.
    pub(crate) fn rustdoc(file: &'static str, text: &str) -> Page {
        let head = text.lines().map_while(|line| line.strip_prefix("//!"));
        let lines = head.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned());
        Page {
            file,
            lines: lines.collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }

    /// The place of a line in the form that editors and terminals understand.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{}", self.file, line + 1)
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = 0..self.lines.len();
        while let Some(line) = lines.next() {
            let Some(language) = self.lines[line].strip_prefix("```") else {
                continue;
            };
            let before = line
                .checked_sub(1)
                .map_or("", |before| &self.lines[before][..]);
            let source = comment(before)
                .and_then(|said| said.strip_prefix("from "))
                .and_then(|said| said.split_once(": "))
                .map(|(file, item)| Source {
                    file: file.to_owned(),
                    item: item.to_owned(),
                });
            let end = lines.find(|line| self.lines[*line] == "```");
            blocks.push(Block {
                language: language.to_owned(),
                source,
                body: line + 1..end.unwrap_or(self.lines.len()),
            });
        }
        blocks
    }

    /// The lines between `<!-- begin … -->` and `<!-- end of begin -->`, with the text after the
    /// word in the first comment.
    pub(crate) fn parts(&self, begin: &str) -> Vec<(String, Range<usize>)> {
        let end = format!("end of {begin}");
        let mut parts = Vec::new();
        for (line, text) in self.lines.iter().enumerate() {
            let Some(said) = comment(text).and_then(|said| said.strip_prefix(begin)) else {
                continue;
            };
            let rest = &self.lines[line + 1..];
            let length = rest.iter().position(|text| comment(text) == Some(&end));
            let length = length.unwrap_or_else(|| panic!("{}: no {end}", self.place(line)));
            let said = said.trim_start_matches(':').trim().to_owned();
            parts.push((said, line + 1..line + 1 + length));
        }
        parts
    }
}

/// The text of a line that is only a comment.
pub(crate) fn comment(line: &str) -> Option<&str> {
    let said = line.strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(said.trim())
}
