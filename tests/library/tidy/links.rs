//! What documents and comments name exists: files, sections of documents, scripts and their subcommands.

use std::collections::BTreeSet;

use super::tree::Tree;

/// The scripts with subcommands, and the folders in which these are.
const WITH_SUBCOMMANDS: [(&str, &str); 2] =
    [("scripts/check", "scripts/checks"), ("scripts/measure", "scripts/measures")];
/// Where the names of scripts are looked for.
const WITH_COMMENTS: [&str; 7] = [".md", ".rs", ".janet", ".toml", ".sh", ".py", ".ci/run"];

/// These have planted names.
const SELF: &str = "tests/library/tidy/";

/// One line for each fault.
pub fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.ending(&[".md"]) {
        for (number, line) in (1..).zip(text.lines()) {
            let dead = links(line).filter_map(|link| dead_link(tree, path, link));
            faults.extend(dead.map(|dead| format!("{path}:{number}: {dead}")));
        }
    }
    for (path, text) in tree.ending(&WITH_COMMENTS).filter(|(path, _)| !path.starts_with(SELF)) {
        let is_document = path.ends_with(".md");
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let named = words.iter().flat_map(|word| paths(word));
            let dead = named.filter(|named| is_dead(tree, named, is_document));
            faults.extend(dead.map(|dead| format!("{path}:{number}: there is no {dead}")));
            let unknown = words.windows(2).filter_map(|pair| unknown_subcommand(tree, pair[0], pair[1]));
            faults.extend(unknown.map(|unknown| format!("{path}:{number}: there is no {unknown}")));
        }
    }
    faults
}

/// The targets of a line's links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Says what is wrong with a link in a document.
fn dead_link(tree: &Tree, document: &str, link: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|elsewhere| link.starts_with(elsewhere)) {
        return None;
    }
    let (file, section) = link.split_once('#').map_or((link, None), |(file, section)| (file, Some(section)));
    let target = if file.is_empty() { document.to_string() } else { resolve(document, file) };
    if !tree.has(&target) {
        return Some(format!("the link {link} leads to no file"));
    }
    let section = section?;
    let has_section = tree.texts.get(&target).is_some_and(|text| anchors(text).contains(section));
    (!has_section).then(|| format!("the link {link} leads to no section"))
}

/// A path from the project's folder, of a link in a document.
fn resolve(document: &str, link: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a document's headings, as they are made on GitHub.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut anchors, mut is_code) = (BTreeSet::new(), false);
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !is_code) else { continue };
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        let anchor: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let again =
            (0..).map(|number| if number == 0 { anchor.clone() } else { format!("{anchor}-{number}") });
        let free = again.into_iter().find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The paths in one word, without what stands around them.
fn paths(word: &str) -> impl Iterator<Item = &str> {
    let around = |letter: char| "`()[]<>|\"',;!?=".contains(letter);
    word.split(around).filter_map(|path| {
        let path = path.split(':').next()?.trim_matches('*').trim_end_matches('.');
        let path = path.strip_prefix("./").unwrap_or(path);
        path.contains('/').then_some(path)
    })
}

/// Whether it names a file of this project that does not exist.
fn is_dead(tree: &Tree, path: &str, is_document: bool) -> bool {
    let Some((top, rest)) = path.split_once('/') else { return false };
    // A script in all files; any file in documents.
    if !(tree.has(top) && (top == "scripts" || is_document)) || tree.has(path) {
        return false;
    }
    // Any of several, or a word to be replaced.
    if path.contains(['*', '{', '$', '\\', '~', '#'])
        || path.contains(|letter: char| letter.is_ascii_uppercase())
    {
        return false;
    }
    // Janet's functions have such names, and its sources are called src/core/FILE.
    let is_function = ["net", "tls", "janet", "load"].contains(&top) && !rest.contains(['/', '.']);
    !is_function && !path.starts_with("src/core/")
}

/// The script and its subcommand, if there is no such subcommand.
fn unknown_subcommand(tree: &Tree, script: &str, what: &str) -> Option<String> {
    let (script, folder) = WITH_SUBCOMMANDS.into_iter().find(|(name, _)| script.ends_with(name))?;
    let letters = what.split(|letter: char| !letter.is_ascii_lowercase()).next()?;
    (!letters.is_empty() && !tree.has(&format!("{folder}/{letters}.sh")))
        .then(|| format!("{script} {letters}"))
}

#[test]
fn planted_dead_links_are_found() {
    let readme = "# A `b` c!\n[a](docs/a.md) [a](docs/a.md#second-1) [b](https://b/c) [dead](docs/b.md)\n\
        [dead](docs/a.md#third) [self](#a-b-c) [dead](#d)\n`runtime/src/lib.rs`, runtime/src/dead.rs.\n\
        `net/read`, **net/src/dead.rs**: `net/src/*.rs` runtime/src/NAME.rs net/src/lib.rs:7\n\
        `./scripts/check all`, `scripts/check dead`; `scripts/check`, and scripts/dead\n\
        ./scripts/check WHAT; ./scripts/measure --help\n";
    let found = faults(&Tree::planted(&[
        ("README.md", readme),
        (
            "docs/a.md",
            "# First\n## Second\n## Second\n```\n# Third\n```\n[up](../README.md)[dead](../docs)[dead](c.md)\n",
        ),
        (
            "net/src/lib.rs",
            "//! runtime/src/dead.rs, scripts/dead.\n// `scripts/measure\n// dead`, scripts/measure dead\n",
        ),
        ("runtime/src/lib.rs", ""),
        ("scripts/check", ""),
        ("scripts/checks/all.sh", ""),
        ("scripts/measure", ""),
    ]));
    assert_eq!(
        found,
        [
            "README.md:2: the link docs/b.md leads to no file",
            "README.md:3: the link docs/a.md#third leads to no section",
            "README.md:3: the link #d leads to no section",
            "docs/a.md:7: the link c.md leads to no file",
            "README.md:2: there is no docs/b.md",
            "README.md:4: there is no runtime/src/dead.rs",
            "README.md:5: there is no net/src/dead.rs",
            "README.md:6: there is no scripts/dead",
            "README.md:6: there is no scripts/check dead",
            "net/src/lib.rs:1: there is no scripts/dead",
            "net/src/lib.rs:3: there is no scripts/measure dead",
        ]
    );
}
