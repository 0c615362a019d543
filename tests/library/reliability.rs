//! The table of faults in docs/reliability.md: what it names exists.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_built = path.file_name().is_some_and(|name| name == "target" || name == ".git");
        if path.is_dir() && !is_built {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names in backticks in one cell of a table.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_class_of_faults_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let section = document.split("## Classes of faults").nth(1).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    assert_eq!(rows.len(), 20, "classes in the table");

    let mut paths = Vec::new();
    sources(root, &mut paths);
    let code: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let faults = fs::read_to_string(root.join("runtime/src/sys/sim/faults.rs")).unwrap();
    let (mut missing, mut tested) = (Vec::new(), 0);
    for row in &rows {
        let [class, simulated, real] = row[..] else { panic!("three cells, not {row:?}") };
        let counted = tested;
        for fault in names(simulated) {
            tested += 1;
            if !faults.contains(&format!("\n    {fault},")) {
                missing.push(format!("{class}: the fault {fault}"));
            }
        }
        for test in names(real) {
            tested += 1;
            let exists = match test.contains('/') {
                // A file, or a script with a subcommand.
                true => match test.split_once(' ') {
                    Some((script, what)) => root.join(format!("{script}s/{what}.sh")).exists(),
                    None => root.join(test).exists(),
                },
                false => {
                    code.contains(&format!("#[test]\nfn {test}()"))
                        || code.contains(&format!("#[test]\n    fn {test}()"))
                }
            };
            if !exists {
                missing.push(format!("{class}: the test {test}"));
            }
        }
        assert!(tested > counted, "{class}: nothing tests it");
    }
    assert!(missing.is_empty(), "missing: {missing:#?}");
}
