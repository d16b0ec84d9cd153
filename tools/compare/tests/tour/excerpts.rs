//! Excerpts: whole lines of an item of a program, in order. They are found by their text, not by
//! line numbers.

use std::ops::Range;

use super::links;
use super::page::{Block, Page, Source};

/// Blocks in these languages are no excerpts, but pictures, shell commands and output.
const OTHER: [&str; 3] = ["mermaid", "sh", "text"];

type Read<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// The mistakes in the page's code.
pub(crate) fn wrong(page: &Page, read: Read<'_>) -> Vec<String> {
    let blocks = page.blocks();
    let wrong = blocks.iter().filter_map(|block| {
        let reason = check(page, block, read).err()?;
        Some(format!("{}: {reason}", page.place(block.body.start - 1)))
    });
    wrong.collect()
}

fn check(page: &Page, block: &Block, read: Read<'_>) -> Result<(), String> {
    let Some(source) = &block.source else {
        return match OTHER.contains(&&*block.language) {
            true => Ok(()),
            false => Err(
                "a block of code without `<!-- from FILE: ITEM -->` on the line before".to_owned(),
            ),
        };
    };
    // Above the body are the fence, the comment, an empty line, and the caption that a reader sees.
    let caption = block.body.start.checked_sub(4);
    let caption = caption.map_or("", |line| &page.lines[line]);
    if !links::targets(caption).any(|target| links::beside(page.file, target) == source.file) {
        return Err(format!(
            "no caption with a link to {}, but `{caption}`",
            source.file
        ));
    }
    let text = read(&source.file)?;
    let item = item(&text, source)?;
    let excerpt = &page.lines[block.body.clone()];
    place(&item, excerpt).map(drop).map_err(|missed| {
        let at = page.place(block.body.start + missed.line);
        let there = missed.there.map_or("its end", str::trim);
        format!(
            "{} has something else in `{}`: {at} is `{}`, there is `{there}`",
            source.file,
            source.item,
            excerpt[missed.line].trim()
        )
    })
}

/// Writes each piece of the excerpts anew, from its first line to its last. Returns those that have
/// to be written by hand.
pub(crate) fn renew(page: &mut Page, read: Read<'_>) -> Vec<String> {
    let mut unclear = Vec::new();
    // From the end of the page, so that the line numbers of earlier blocks stay valid.
    for block in page.blocks().into_iter().rev() {
        let Some(source) = &block.source else {
            continue;
        };
        let excerpt = &page.lines[block.body.clone()];
        let renewed = read(&source.file).and_then(|text| {
            let item = item(&text, source)?;
            match place(&item, excerpt) {
                Ok(_) => Ok(excerpt.to_vec()),
                Err(_) => renewed(&item, excerpt),
            }
        });
        match renewed {
            Ok(lines) => drop(page.lines.splice(block.body, lines)),
            Err(reason) => {
                unclear.push(format!("{}: {reason}", page.place(block.body.start - 1)));
            }
        }
    }
    unclear
}

/// The lines of the only item that begins with this text.
fn item<'a>(text: &'a str, source: &Source) -> Result<Vec<&'a str>, String> {
    let Source { file, item } = source;
    let lines: Vec<&str> = text.lines().collect();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let begins = |line: &str| {
        let Some((before, after)) = line.split_once(item.as_str()) else {
            return false;
        };
        let is_cut_off =
            before.ends_with(is_word) || (item.ends_with(is_word) && after.starts_with(is_word));
        !is_cut_off && !line.trim_start().starts_with("//")
    };
    let starts: Vec<usize> = (0..lines.len())
        .filter(|&line| begins(lines[line]))
        .collect();
    let [start] = starts[..] else {
        return Err(format!(
            "{file} has `{item}` {} times; it has to be there once",
            starts.len()
        ));
    };
    let depth = indent(lines[start]);
    let is_rust = file.ends_with(".rs");
    // A Rust item ends with the brace below its first letter, or on its own line. A Python item
    // ends before the next line that is not indented.
    let end = match is_rust && lines[start].ends_with(';') {
        true => start + 1,
        false => (start + 1..lines.len())
            .find(|&line| {
                let text = lines[line];
                match is_rust {
                    true => indent(text) == depth && text.trim_start().starts_with('}'),
                    false => {
                        !text.trim().is_empty()
                            && indent(text) <= depth
                            && !text.trim().starts_with(')')
                    }
                }
            })
            .map_or(lines.len(), |line| line + usize::from(is_rust)),
    };
    Ok(lines[start..end].to_vec())
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The first difference between an excerpt and its item.
struct Missed<'a> {
    /// The line number in the excerpt.
    line: usize,
    there: Option<&'a str>,
}

fn is_elision(line: &str) -> bool {
    matches!(line.trim(), "// …" | "# …")
}

/// The pieces of an excerpt, between the lines that mark an omission.
fn pieces(excerpt: &[String]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for line in 0..=excerpt.len() {
        if excerpt.get(line).is_none_or(|text| is_elision(text)) {
            if start < line {
                pieces.push(start..line);
            }
            start = line + 1;
        }
    }
    pieces
}

/// Whether the file's line is the excerpt's line, which has `depth` less indentation.
fn is_same(there: &str, shown: &str, depth: usize) -> bool {
    if shown.is_empty() {
        return there.is_empty();
    }
    there.len() == depth + shown.len() && there.ends_with(shown) && there[..depth].trim().is_empty()
}

/// The possible differences in indentation, by the text before the excerpt's first line.
fn depths(item: &[&str], first: &str) -> Vec<usize> {
    let fits = item.iter().filter(|there| there.ends_with(first));
    let mut depths: Vec<usize> = fits
        .map(|there| there.len() - first.len())
        .filter(|&depth| item.iter().any(|there| is_same(there, first, depth)))
        .collect();
    depths.dedup();
    depths
}

/// Finds all pieces of the excerpt in the item, in order.
fn place<'a>(item: &[&'a str], excerpt: &[String]) -> Result<Vec<usize>, Missed<'a>> {
    let pieces = pieces(excerpt);
    let first = pieces.first().map_or(0, |piece| piece.start);
    let mut furthest = Missed {
        line: first,
        there: None,
    };
    let Some(first) = excerpt.get(first) else {
        return Err(furthest);
    };
    for depth in depths(item, first) {
        let mut places = Vec::new();
        let mut from = 0;
        for piece in &pieces {
            let found = (from..item.len()).find(|&start| {
                let differs = piece.clone().enumerate().find(|(offset, line)| {
                    let there = item.get(start + offset);
                    !there.is_some_and(|there| is_same(there, &excerpt[*line], depth))
                });
                if let Some((offset, line)) = differs
                    && (line > furthest.line || furthest.there.is_none())
                {
                    furthest = Missed {
                        line,
                        there: item.get(start + offset).copied(),
                    };
                }
                differs.is_none()
            });
            let Some(found) = found else { break };
            places.push(found);
            from = found + piece.len();
        }
        if places.len() == pieces.len() {
            return Ok(places);
        }
    }
    Err(furthest)
}

/// The excerpt with the item's current text: each piece from its first line to its last.
fn renewed(item: &[&str], excerpt: &[String]) -> Result<Vec<String>, String> {
    let pieces = pieces(excerpt);
    let first = pieces.first().ok_or("nothing is shown")?.start;
    let gone = |line: usize| {
        format!(
            "`{}`, where a piece of the excerpt begins or ends, is not there any more",
            excerpt[line].trim()
        )
    };
    let depth = *depths(item, &excerpt[first])
        .first()
        .ok_or_else(|| gone(first))?;
    let (mut lines, mut shown, mut from) = (Vec::new(), 0, 0);
    for piece in pieces {
        lines.extend_from_slice(&excerpt[shown..piece.start]);
        shown = piece.end;
        let last = piece.end - 1;
        let is = |at: usize, line: usize| is_same(item[at], &excerpt[line], depth);
        let starts: Vec<usize> = (from..item.len())
            .filter(|&at| is(at, piece.start))
            .collect();
        let ends: Vec<usize> = (from..item.len()).filter(|&at| is(at, last)).collect();
        let all = starts.iter().flat_map(|&start| {
            let ends = ends.iter().filter(move |&&end| end >= start);
            ends.map(move |&end| (start, end))
        });
        // Both lines may occur more than once. The range that is most like the old piece is taken.
        let likeness = |&(start, end): &(usize, usize)| {
            let kept = piece
                .clone()
                .filter(|&line| (start..=end).any(|at| is(at, line)));
            2 * kept.count() as isize - (end - start) as isize
        };
        let Some((start, end)) = all.max_by_key(likeness) else {
            return Err(gone(if starts.is_empty() { piece.start } else { last }));
        };
        let cut = |there: &&str| there.get(depth..).unwrap_or_default().to_owned();
        lines.extend(item[start..=end].iter().map(cut));
        from = end + 1;
    }
    lines.extend_from_slice(&excerpt[shown..]);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::{read, tour};
    use super::*;

    /// Changes each line of each excerpt in a copy of its file. The change must be noticed, and
    /// `renew` must write the changed line into the page.
    #[test]
    fn a_changed_line_of_an_excerpt_is_detected() {
        let page = tour();
        let mut tried = 0;
        for block in page.blocks() {
            let Some(source) = &block.source else {
                continue;
            };
            let text = read(&source.file).unwrap_or_default();
            let Ok(all) = item(&text, source) else {
                continue; // Another test reports that, with its place.
            };
            let excerpt = &page.lines[block.body.clone()];
            let Ok(places) = place(&all, excerpt) else {
                continue;
            };
            for (piece, start) in pieces(excerpt).into_iter().zip(places) {
                for (offset, line) in piece.clone().enumerate() {
                    let mut changed: Vec<String> =
                        all.iter().map(|&line| line.to_owned()).collect();
                    changed[start + offset].push_str(" drifted");
                    let there: Vec<&str> = changed.iter().map(String::as_str).collect();
                    let shown = &excerpt[line];
                    // The item may contain the same line twice.
                    if all.iter().filter(|there| there.ends_with(&**shown)).count() > 1 {
                        continue;
                    }
                    tried += 1;
                    assert!(place(&there, excerpt).is_err(), "{source:?}: {shown}");
                    let is_edge = line == piece.start || line == piece.end - 1;
                    match renewed(&there, excerpt) {
                        Ok(renewed) => {
                            assert!(!is_edge && place(&there, &renewed).is_ok(), "{renewed:?}");
                            assert_eq!(renewed[line], format!("{shown} drifted"));
                        }
                        Err(reason) => assert!(is_edge, "{source:?}: {reason}"),
                    }
                }
            }
        }
        assert!(tried > 100, "{tried}");
    }

    const CODE: &str = "struct A;\n\nimpl A {\n    fn b(&self) {\n        one();\n        two();\n        three();\n    }\n\n    fn be(&self) {\n        one();\n    }\n}\n";

    fn said(markdown: &str) -> String {
        let read = |file: &str| match file {
            "a.rs" => Ok(CODE.to_owned()),
            other => Err(format!("{other}: no such file")),
        };
        wrong(&Page::markdown("page.md", markdown), &read).join("\n")
    }

    #[test]
    fn excerpt_errors_have_a_file_and_a_line() {
        let good = "[a](a.rs)\n\n<!-- from a.rs: fn b -->\n```rust\nfn b(&self) {\n    one();\n    // …\n    three();\n}\n```\n";
        assert_eq!(said(good), "");
        assert_eq!(
            said(&good.replace("three", "four")),
            "page.md:4: a.rs has something else in `fn b`: page.md:8 is `four();`, there is `two();`"
        );
        let order = good
            .replace("    one();\n", "    // …\n    three();\n")
            .replacen("    three();\n}", "    one();\n}", 1);
        assert!(said(&order).contains("page.md:9 is `one();`"), "{order}");
        let gap = good.replace("    // …\n", "");
        assert!(said(&gap).contains("page.md:7 is `three();`, there is `two();`"));
        let half = good.replace("one();", "ne();").replace("    ", "");
        assert!(said(&half).contains("something else"), "whole lines only");
        assert!(said(&good.replace("a.rs", "b.rs")).contains("b.rs: no such file"));
        assert!(said(&good.replace("[a]", "a")).contains("no caption with a link to a.rs"));
        assert!(said(&good.replace("fn b -->", "fn c -->")).contains("has `fn c` 0 times"));
        assert!(said(&good.replace("fn b -->", "fn -->")).contains("has `fn` 2 times"));
        assert!(said("```rust\nfn b() {}\n```\n").contains("page.md:1: a block of code without"));
        assert!(said("```\nfn b() {}\n```\n").contains("a block of code without"));
        assert_eq!(said("```sh\ncargo compare\n```\n"), "");
    }
}
