//! Every test that `docs/manual-checklist.md` names exists, and every program of the manual is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const CHECKLIST: &str = include_str!("../../docs/manual-checklist.md");

/// Where a row of a table names tests: `FILE: NAME`, in a code span of its second column.
fn tests(row: &str) -> impl Iterator<Item = &str> {
    let column = row.split('|').nth(2).unwrap_or_default();
    column.split('`').skip(1).step_by(2)
}

fn rows() -> impl Iterator<Item = &'static str> {
    let is_row = |line: &&str| {
        line.starts_with("| ") && *line != "| the manual | shown by |" && *line != "| --- | --- |"
    };
    CHECKLIST.lines().filter(is_row)
}

/// Whether a file has a test, or in a file of Janet programs a program, of that name.
fn has(file: &str, name: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let Ok(text) = fs::read_to_string(path) else { return false };
    if !file.ends_with(".rs") {
        let title = format!("### {name}");
        return text.lines().any(|line| line == title || line.starts_with(&format!("{title} [exit status ")));
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    let is_test = |index: usize| lines[..index].iter().rev().take(3).any(|line| line.starts_with("#[test]"));
    // A scenario of a macro that makes a test of it is on a line of its own in the macro's list.
    let is_scenario = || lines.iter().any(|line| line.trim_end_matches(';') == name);
    let position = lines.iter().position(|line| line.starts_with(&function));
    position.is_some_and(|index| is_test(index) || is_scenario())
}

#[test]
fn every_test_that_is_named_exists() {
    let mut missing = Vec::new();
    for row in rows() {
        let names: Vec<&str> = tests(row).collect();
        assert!(!names.is_empty(), "no test is named by the row {row:?}");
        for name in names {
            let (file, title) =
                name.split_once(": ").unwrap_or_else(|| panic!("{name:?}: expected FILE: NAME"));
            if !has(file, title) {
                missing.push(name);
            }
        }
    }
    assert!(rows().count() > 50, "the rows of the tables are not found");
    assert!(missing.is_empty(), "these are named, and do not exist: {missing:#?}");
}

#[test]
fn what_does_not_exist_is_noticed() {
    assert!(has("tests/library/manual_checklist.rs", "what_does_not_exist_is_noticed"));
    assert!(has("tests/janet/differential/unix.janet", "a server at a path"));
    for (file, name) in [
        ("tests/no_such_file.rs", "what_does_not_exist_is_noticed"),
        ("tests/library/manual_checklist.rs", "what_does_not_exist"),
        ("tests/library/manual_checklist.rs", "has"),
        ("tests/janet/differential/unix.janet", "a server at"),
        ("tests/janet/differential/unix.janet", "(def client (net/connect :unix path))"),
    ] {
        assert!(!has(file, name), "{file}: {name}");
    }
}

#[test]
fn every_program_of_the_manual_is_in_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/janet/manual");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        assert!(
            rows().any(|row| row.contains(&format!("(`tests/janet/manual/{file}`)"))),
            "{file} is not in it"
        );
    }
}
