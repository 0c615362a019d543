//! Lines, functions and files are short, and each file opens with what it is for.

use super::tree::Tree;

const LINE_COLUMNS_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 80;
/// Of functions in tests, benchmarks and examples, which tell a story from beginning to end.
const STORY_LINES_MAX: usize = 100;
const FILE_LINES_MAX: usize = 600;

/// One line for each fault.
pub fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.ending(&[".rs", ".janet", ".toml", ".sh", ".py", ".c", ".h"]) {
        let count = text.lines().count();
        if count > FILE_LINES_MAX {
            faults.push(format!("{path}: {count} lines, expected {FILE_LINES_MAX} at most"));
        }
    }
    for (path, text) in tree.ending(&[".rs", ".janet", ".toml", ".c", ".h"]) {
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            // A row of a table in a comment cannot be broken.
            let is_row = line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with('|');
            if columns > LINE_COLUMNS_MAX && !is_row {
                faults
                    .push(format!("{path}:{number}: {columns} columns, expected {LINE_COLUMNS_MAX} at most"));
            }
        }
    }
    for (path, text) in tree.ending(&[".rs"]) {
        if !text.starts_with("//! ") {
            faults.push(format!("{path}: expected //! and what the file is for, in its first line"));
        }
        let bound = if is_story(path) { STORY_LINES_MAX } else { FUNCTION_LINES_MAX };
        for (number, name, count) in functions(text).into_iter().filter(|(_, _, count)| *count > bound) {
            faults.push(format!("{path}:{number}: {name} has {count} lines, expected {bound} at most"));
        }
    }
    faults
}

fn is_story(path: &str) -> bool {
    ["tests", "tests.rs", "benches", "examples"]
        .iter()
        .any(|part| path.split('/').any(|found| found == *part))
}

/// All functions with a body of their own lines: where they start, their names, how many lines they have.
/// Takes what `rustfmt` writes, where a body ends with a brace that is indented as its `fn` is.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indentation = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else { continue };
        // On one line, or without a body.
        if code.ends_with(['}', ';']) {
            continue;
        }
        let rest = lines[start..].iter().position(|line| {
            line.strip_prefix(indentation)
                .is_some_and(|end| end == "}" || (end.starts_with(')') && end.ends_with(';')))
        });
        found.push((start + 1, name, rest.map_or(lines.len() - start, |rest| rest + 1)));
    }
    found
}

fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    loop {
        rest = rest.trim_start();
        if let Some(name) = rest.strip_prefix("fn ") {
            return name.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
        }
        let word =
            ["pub", "const", "async", "unsafe", "extern"].iter().find_map(|word| rest.strip_prefix(word))?;
        rest = match word.chars().next()? {
            '(' => word.split_once(')')?.1,
            _ => word,
        };
        let abi = rest.trim_start();
        if let Some(quoted) = abi.strip_prefix('"') {
            rest = quoted.split_once('"')?.1;
        }
    }
}

#[test]
fn planted_lengths_are_found() {
    let body = |count: usize| {
        format!(
            "//! Some.\n    pub(crate) unsafe extern \"C\" fn f(\n    ) {{\n{}    }}\n",
            "\n".repeat(count - 3)
        )
    };
    let (long_line, long_file) =
        (format!("//! {}\n", "é".repeat(117)), format!("//! Some.\n{}", "\n".repeat(600)));
    let row = format!("//! | {} |\n", "a".repeat(200));
    let fits = format!("//! {}\n", "é".repeat(116));
    let (function, short, story) = (body(81), body(80), body(101));
    let found = faults(&Tree::planted(&[
        ("src/bare.rs", "use std::io;\n"),
        ("src/fits.rs", &fits),
        ("src/function.rs", &function),
        ("src/long.rs", &long_file),
        ("src/row.rs", &row),
        ("src/short.rs", &short),
        ("src/wide.rs", &long_line),
        ("tests/function.rs", &function),
        ("tests/story.rs", &story),
    ]));
    assert_eq!(
        found,
        [
            "src/long.rs: 601 lines, expected 600 at most",
            "src/wide.rs:1: 121 columns, expected 120 at most",
            "src/bare.rs: expected //! and what the file is for, in its first line",
            "src/function.rs:2: f has 81 lines, expected 80 at most",
            "tests/story.rs:2: f has 101 lines, expected 100 at most",
        ]
    );
    let text = "trait T {\n    fn declared(\n        &self,\n    );\n    fn one() {}\n    async fn long() {\n    }\n}";
    assert_eq!(functions(text), [(2, "declared", 3), (6, "long", 2)]);
}
