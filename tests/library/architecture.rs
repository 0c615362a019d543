//! docs/architecture.md follows the code: every function and test that its tables name exists, and a read takes no more
//! hops than the page promises.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/architecture.md";
/// What one read may take of its reader.
const FUNCTIONS_MAX: usize = 30;
const FILES_MAX: usize = 10;

/// A table of the document: the heading above it, and the cells of its rows.
struct Table<'a> {
    heading: &'a str,
    columns: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

fn tables(document: &str) -> Vec<Table<'_>> {
    let (mut tables, mut heading): (Vec<Table<'_>>, &str) = (Vec::new(), "");
    let mut is_in_table = false;
    for line in document.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        let cells = || line.trim().trim_matches('|').split('|').map(str::trim).collect();
        match (line.starts_with('|'), is_in_table) {
            (true, true) if line.starts_with("| ---") => {}
            (true, true) => tables.last_mut().unwrap().rows.push(cells()),
            (true, false) => tables.push(Table { heading, columns: cells(), rows: Vec::new() }),
            (false, _) => {}
        }
        is_in_table = line.starts_with('|');
    }
    tables
}

/// What stands in backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The functions of a source file: free ones by their names, others as `Type::name`, with each word of the `impl` as
/// the type.
fn functions(source: &str) -> BTreeSet<String> {
    let (mut functions, mut block) = (BTreeSet::new(), None);
    for line in source.lines() {
        if line.starts_with("impl") {
            block =
                Some(line.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()));
        } else if line == "}" {
            block = None;
        }
        let code = line.trim_start();
        let is_free = code.len() == line.len();
        if code.starts_with("//") {
            continue;
        }
        let Some((before, after)) = code.split_once("fn ") else { continue };
        if !(before.is_empty() || before.ends_with(' ')) {
            continue;
        }
        let name = after.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap();
        match &block {
            Some(words) => functions.extend(words.clone().map(|word| format!("{word}::{name}"))),
            None if is_free => drop(functions.insert(name.to_string())),
            None => {}
        }
    }
    functions
}

/// The sources that a document speaks of, by their paths, and what the project's tests are called.
struct Sources {
    functions: BTreeMap<String, BTreeSet<String>>,
    tests: BTreeSet<String>,
}

impl Sources {
    fn new(texts: &[(String, String)]) -> Self {
        let tests = texts.iter().flat_map(|(_, text)| {
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let tests = lines.windows(2).filter(|pair| pair[0] == "#[test]");
            tests
                .filter_map(|pair| pair[1].strip_prefix("fn ")?.split('(').next().map(str::to_string))
                .collect::<Vec<_>>()
        });
        let functions = texts.iter().map(|(path, text)| (path.clone(), functions(text)));
        Self { tests: tests.collect(), functions: functions.collect() }
    }

    /// A test, or a program of tests.
    fn has_test(&self, name: &str) -> bool {
        self.tests.contains(name) || self.functions.contains_key(name)
    }

    /// What is wrong with a function and the file in which it should be.
    fn missing(&self, function: &str, file: &str) -> Option<String> {
        match self.functions.get(file) {
            None => Some(format!("there is no {file}")),
            Some(functions) => (!functions.contains(function)).then(|| format!("no {function} in {file}")),
        }
    }
}

/// One line for each fault.
fn faults(document: &str, sources: &Sources) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut hops, mut rules) = (0, 0);
    for table in tables(document) {
        match table.columns[..] {
            ["#", "function", "file", _] => {
                hops += 1;
                faults.extend(faults_of_hops(&table, document, sources, hops == 1));
            }
            ["file", "functions", _] => faults.extend(table.rows.iter().flat_map(|row| {
                let file = names(row[0]).next().unwrap_or_default();
                names(row[1]).filter_map(move |function| sources.missing(function, file))
            })),
            ["#", "rule", "held by", "a test that would fail"] => {
                for row in &table.rows {
                    rules += 1;
                    let held: Vec<&str> = names(row[2]).collect();
                    let pairs = held.chunks(2).filter_map(|pair| match pair {
                        [function, file] => sources.missing(function, file),
                        odd => Some(format!("expected a function and its file, not {odd:?}")),
                    });
                    faults.extend(pairs);
                    let mut tests = names(row[3]).peekable();
                    if held.is_empty() || tests.peek().is_none() {
                        faults.push(format!("rule {}: nothing holds it, or nothing tests it", row[0]));
                    }
                    let unknown = tests.filter(|test| !sources.has_test(test));
                    faults.extend(unknown.map(|test| format!("rule {}: there is no test {test}", row[0])));
                }
            }
            _ => {}
        }
    }
    if hops == 0 || rules == 0 {
        faults.push(format!("{hops} tables of hops and {rules} rules: expected some of each"));
    }
    faults
}

/// The first table of hops is that of the read, which is bounded.
fn faults_of_hops(table: &Table<'_>, document: &str, sources: &Sources, is_bounded: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut functions, mut files) = (BTreeSet::new(), BTreeSet::new());
    for (number, row) in (1..).zip(&table.rows) {
        let (Some(function), Some(file)) = (names(row[1]).next(), names(row[2]).next()) else {
            faults.push(format!("{}: a row without a function and a file: {row:?}", table.heading));
            continue;
        };
        if row[0] != number.to_string() {
            faults.push(format!("{}: row {number} is called {}", table.heading, row[0]));
        }
        functions.insert((function, file));
        files.insert(file);
        faults.extend(sources.missing(function, file));
    }
    let counted = format!("{} functions in {} files", functions.len(), files.len());
    if !document.contains(&counted) {
        faults.push(format!("{}: the page does not say that these are {counted}", table.heading));
    }
    if is_bounded && (functions.len() > FUNCTIONS_MAX || files.len() > FILES_MAX) {
        faults.push(format!("{}: {counted}, expected {FUNCTIONS_MAX} in {FILES_MAX} at most", table.heading));
    }
    faults
}

fn read_sources(folder: &Path, prefix: &str, texts: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            read_sources(&path, &format!("{prefix}{name}/"), texts);
        } else if name.ends_with(".rs") {
            texts.push((format!("{prefix}{name}"), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn what_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    read_sources(root, "", &mut texts);
    let document = fs::read_to_string(root.join(DOCUMENT)).unwrap();
    let faults = faults(&document, &Sources::new(&texts));
    assert!(faults.is_empty(), "{DOCUMENT}:\n{}", faults.join("\n"));
}

#[test]
fn planted_faults_of_an_architecture_are_found() {
    let source = "/// fn in_a_comment\npub(crate) fn free() {}\nimpl<K: Kind> Owner for Socket<K> {\n    \
        fn complete() {}\n}\nmod tests {\n    #[test]\n    fn tested() {}\n}\n";
    let sources = Sources::new(&[("a.rs".to_string(), source.to_string())]);
    let hops = "# Read\n3 functions in 2 files.\n| # | function | file | what |\n| --- | --- | --- | --- |\n\
        | 1 | `free` | `a.rs` | |\n| 3 | `Socket::complete` | `a.rs` | |\n| 3 | `free` | `b.rs` | |\n";
    let rules = "| # | rule | held by | a test that would fail |\n| --- | --- | --- | --- |\n\
        | 1 | | `Socket::complete` in `a.rs` | `tested` |\n| 2 | | `complete` in `a.rs` | `untested` |\n| 3 | | | |\n";
    let helpers = "| file | functions | what |\n| --- | --- | --- |\n| `a.rs` | `free`, `in_a_comment` | |\n";
    assert_eq!(
        faults(&format!("{hops}\n{helpers}\n{rules}"), &sources),
        [
            "Read: row 2 is called 3",
            "there is no b.rs",
            "no in_a_comment in a.rs",
            "no complete in a.rs",
            "rule 2: there is no test untested",
            "rule 3: nothing holds it, or nothing tests it",
        ]
    );
    assert_eq!(faults("", &sources), ["0 tables of hops and 0 rules: expected some of each"]);

    let header = "| # | function | file | what |\n| --- | --- | --- | --- |\n";
    let many: String = (1..=31).map(|number| format!("| {number} | `f{number}` | `a.rs` | |\n")).collect();
    let found = faults(&format!("{header}{many}\n{rules}"), &sources);
    assert!(found.contains(&": the page does not say that these are 31 functions in 1 files".to_string()));
    assert!(found.contains(&": 31 functions in 1 files, expected 30 in 10 at most".to_string()));
}
