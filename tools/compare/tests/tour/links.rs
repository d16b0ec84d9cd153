//! Links of the page to files of this repository and to its own headings.

use std::path::{Component, Path, PathBuf};

use super::page::Page;

/// The links without a target.
pub(crate) fn wrong(page: &Page, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut is_code = false;
    let mut headings = Vec::new();
    let mut links = Vec::new();
    for (number, line) in page.lines.iter().enumerate() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        if line.starts_with('#') {
            headings.push(slug(line.trim_start_matches('#').trim()));
        }
        links.extend(targets(line).map(|target| (number, target)));
    }
    let is_wrong = |target: &str| match target.strip_prefix('#') {
        Some(heading) => !headings.iter().any(|there| there == heading),
        None => !target.starts_with("https://") && !exists(&beside(page.file, target)),
    };
    let wrong = links.into_iter().filter(|(_, target)| is_wrong(target));
    wrong
        .map(|(line, target)| format!("{}: {target} is not there", page.place(line)))
        .collect()
}

/// The targets of a line's links.
pub(crate) fn targets(line: &str) -> impl Iterator<Item = &str> {
    let links = line.split("](").skip(1);
    links.filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The anchor that GitHub makes from a heading.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// The file of this repository to which a link on the page `file` leads.
pub(crate) fn beside(file: &str, target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let mut place = PathBuf::from(file);
    place.pop();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            other => place.push(other),
        }
    }
    place.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_are_reported() {
        let page = Page::markdown(
            "tools/x/README.md",
            "# One IAMAT, *twice*\n[a](#one-iamat-twice) [b](#two) [c](../y.rs) [d](z.rs) [e](https://example.org)\n```sh\n# no heading\n```\n[f](#no-heading)\n",
        );
        assert_eq!(
            wrong(&page, &|file| file == "tools/y.rs"),
            [
                "tools/x/README.md:2: #two is not there",
                "tools/x/README.md:2: z.rs is not there",
                "tools/x/README.md:6: #no-heading is not there",
            ]
        );
    }
}
