//! The files of the project, or planted ones, for the rules to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Folders with what was built or fetched.
const NOT_OURS: [&str; 2] = ["target", ".git"];

/// Files by their paths from the project's folder, with `/` between the parts.
pub struct Tree {
    /// Those that are text, with it.
    pub texts: BTreeMap<String, String>,
    /// All files and folders.
    paths: BTreeSet<String>,
}

impl Tree {
    /// All files of the project.
    pub fn of_project() -> Self {
        let mut tree = Self { texts: BTreeMap::new(), paths: BTreeSet::new() };
        tree.read(Path::new(env!("CARGO_MANIFEST_DIR")), "");
        tree
    }

    /// Files that do not exist.
    pub fn planted(files: &[(&str, &str)]) -> Self {
        let mut tree = Self { texts: BTreeMap::new(), paths: BTreeSet::new() };
        for (path, text) in files {
            tree.texts.insert(path.to_string(), text.to_string());
            tree.paths.extend(path.match_indices('/').map(|(end, _)| path[..end].to_string()));
            tree.paths.insert(path.to_string());
        }
        tree
    }

    fn read(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.file_type().unwrap().is_dir() {
                self.read(&entry.path(), &format!("{path}/"));
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                self.texts.insert(path.clone(), text);
            }
            self.paths.insert(path);
        }
    }

    /// Whether there is a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }

    /// The text files whose names end like that.
    pub fn ending<'a>(&'a self, ends: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(|(path, _)| ends.iter().any(|end| path.ends_with(end)))
    }
}
