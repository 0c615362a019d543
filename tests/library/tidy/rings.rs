//! No file of a crate imports another that, directly or by way of others, imports it.
//!
//! What counts are paths that start with `crate::` or `super::`, outside of tests. A module's use of its own children
//! by their bare names is its table of contents, and does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Tree;

/// Modules by their paths (`sys::poll`), with those that each imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// One line for each ring.
pub fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for root in roots(tree) {
        let imports = imports_of(tree, &root);
        for ring in rings(&imports) {
            let ties = ring.iter().map(|module| {
                let inside: Vec<&str> = imports[module].intersection(&ring).map(String::as_str).collect();
                format!("{module} -> {}", inside.join(", "))
            });
            faults.push(format!(
                "{root}: a ring of {} files: {}",
                ring.len(),
                ties.collect::<Vec<_>>().join("; ")
            ));
        }
    }
    faults
}

/// The `src` folders of all crates.
fn roots(tree: &Tree) -> Vec<String> {
    let roots = tree.texts.keys().filter_map(|path| path.strip_suffix("lib.rs")?.strip_suffix('/'));
    roots.filter(|root| root.ends_with("src")).map(String::from).collect()
}

fn imports_of(tree: &Tree, root: &str) -> Imports {
    let prefix = format!("{root}/");
    let mut files = BTreeMap::new();
    for (path, text) in tree.ending(&[".rs"]) {
        let Some(module) = path.strip_prefix(&prefix).and_then(|path| path.strip_suffix(".rs")) else {
            continue;
        };
        if module != "tests" && !module.ends_with("/tests") {
            files.insert(module.strip_suffix("/mod").unwrap_or(module).replace('/', "::"), text);
        }
    }
    let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let targets = |module: &str, text: &str| {
        let paths = paths(&code_of(text));
        let found = paths.iter().filter_map(|path| target(module, path, &names));
        found.filter(|target| target != module && target != "lib" && target != "main").collect()
    };
    files.iter().map(|(module, text)| (module.clone(), targets(module, text))).collect()
}

/// The file without comments and tests.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let begins_tests = line.trim() == "#[cfg(test)]";
        if begins_tests && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod ")) {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// All paths that start with `crate::` or `super::`, those in braces one by one.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::"] {
        for (position, _) in code.match_indices(start) {
            let before = code[..position].chars().next_back();
            // Not in the middle of a longer path or word.
            if before.is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':') {
                expand(&code[position..], "", &mut paths);
            }
        }
    }
    paths
}

/// Adds the paths at the start of some code, and returns what comes behind them.
fn expand<'a>(code: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let end = code.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
    let (path, mut rest) = code.split_at(end.unwrap_or(code.len()));
    let path = format!("{prefix}{path}");
    if !path.ends_with("::") || !rest.starts_with('{') {
        paths.push(path.trim_end_matches(':').to_string());
        return rest;
    }
    rest = &rest[1..];
    loop {
        rest = expand(rest.trim_start(), &path, paths).trim_start();
        // A new name: what it names has been added.
        if let Some(renamed) = rest.strip_prefix("as ") {
            rest = renamed
                .trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_')
                .trim_start();
        }
        match rest.strip_prefix([',', '*']) {
            Some(next) => rest = next.trim_start(),
            None => return rest.strip_prefix('}').unwrap_or(rest),
        }
        if let Some(next) = rest.strip_prefix('}') {
            return next;
        }
    }
}

/// The file that a path leads to: that of the longest part of it that is a module.
fn target(module: &str, path: &str, names: &BTreeSet<&str>) -> Option<String> {
    let mut parts: Vec<&str> = module.split("::").collect();
    let mut rest = path.split("::").filter(|part| !part.is_empty()).peekable();
    match rest.peek() {
        Some(&"crate") => {
            parts.clear();
            rest.next();
        }
        _ => {
            while rest.next_if_eq(&"super").is_some() {
                parts.pop();
            }
        }
    }
    parts.extend(rest);
    let prefixes = (1..=parts.len()).rev().map(|length| parts[..length].join("::"));
    prefixes.into_iter().find(|prefix| names.contains(prefix.as_str()))
}

/// The groups of modules in which each imports, by way of others, every other.
fn rings(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|module| (module, reached_from(module, imports))).collect();
    let mut rings = BTreeSet::new();
    for (module, others) in &reached {
        if others.contains(module) {
            let ring = others.iter().filter(|other| reached[**other].contains(module));
            rings.insert(ring.map(|other| other.to_string()).collect());
        }
    }
    rings.into_iter().collect()
}

fn reached_from<'a>(module: &str, imports: &'a Imports) -> BTreeSet<&'a String> {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![module]);
    while let Some(next) = ahead.pop() {
        for other in &imports[next] {
            if reached.insert(other) {
                ahead.push(other);
            }
        }
    }
    reached
}

/// What would be a ring is found, however the imports are written; what is none is not.
#[test]
fn planted_rings_are_found() {
    let ring = [
        ("some/src/lib.rs", "//! Some.\nmod a;\nmod b;\nmod c;\n"),
        ("some/src/a.rs", "use crate::{\n    b::{B as Other, *},\n    Error,\n};\n"),
        ("some/src/b/mod.rs", "mod inner;\nfn call() { super::c::call(); }\n"),
        ("some/src/b/inner.rs", "use super::super::c;\n"),
        (
            "some/src/c.rs",
            "// use crate::b;\nuse crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::b::inner;\n}\n",
        ),
    ];
    let found = faults(&Tree::planted(&ring));
    assert_eq!(found, ["some/src: a ring of 3 files: a -> b; b -> c; c -> a"]);
    for (file, without) in
        [(1, "use crate::Error;\n"), (2, "mod inner;\n"), (4, "#[cfg(test)]\nmod tests;\n")]
    {
        let mut line = ring;
        line[file].1 = without;
        assert_eq!(faults(&Tree::planted(&line)), [""; 0], "{file}");
    }
    let child = [
        ("src/lib.rs", "//! Some.\n"),
        ("src/a/mod.rs", "use crate::a::child::Child;\n"),
        ("src/a/child.rs", "use super::Parent;\n"),
    ];
    assert_eq!(faults(&Tree::planted(&child)), ["src: a ring of 2 files: a -> a::child; a::child -> a"]);
}
