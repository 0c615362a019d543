//! Every script, and every subcommand of one, answers `--help`, and builds and installs nothing to do so.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tree::Tree;

/// What builds or installs. In the place of each stands a program that fails, and leaves a trace.
const KEPT_FROM: [&str; 12] =
    ["cargo", "rustc", "rustup", "cc", "sudo", "apt-get", "dnf", "pacman", "zypper", "apk", "brew", "pip"];

/// One line for each fault of the project's scripts.
pub fn faults(tree: &Tree) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commands = commands(tree);
    assert!(commands.len() > 20, "only these scripts are found: {commands:?}");
    commands.iter().filter_map(|command| fault(root, command)).collect()
}

/// The command lines of all scripts, without `--help`.
fn commands(tree: &Tree) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for (path, text) in tree.ending(&[""]) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if text.starts_with("#!") && ["scripts", ".ci"].contains(&folder) {
            commands.push(vec![path.to_string()]);
        }
        for (script, folder) in
            [("scripts/check", "scripts/checks/"), ("scripts/measure", "scripts/measures/")]
        {
            if let Some(what) = path.strip_prefix(folder).and_then(|file| file.strip_suffix(".sh")) {
                commands.push(vec![script.to_string(), what.to_string()]);
            }
        }
    }
    commands
}

/// Says what is wrong with what a script does when it is asked for help.
fn fault(root: &Path, command: &[String]) -> Option<String> {
    let stubs = Stubs::new(&command.join("-").replace('/', "-"));
    let mut script = Command::new(root.join(&command[0]));
    script.args(&command[1..]).arg("--help").stdin(Stdio::null()).current_dir(&stubs.folder);
    let output =
        script.env("PATH", stubs.path()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let called = stubs.called();
    let wrong = if !called.is_empty() {
        format!("calls {called}")
    } else if !output.status.success() {
        format!("ends with {}", output.status)
    } else if output.stdout.is_empty() {
        "prints nothing".to_string()
    } else {
        return None;
    };
    Some(format!("{} --help: {wrong}", command.join(" ")))
}

/// Writes a program in a process of its own: no child that another test forks meanwhile has it open for writing, as it
/// could not be run then.
fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", text]).arg(path);
    assert!(shell.status().unwrap().success(), "{}", path.display());
}

/// A folder of programs that only write down that they were called.
struct Stubs {
    folder: PathBuf,
}

impl Stubs {
    fn new(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tidy-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let stubs = Self { folder };
        for program in KEPT_FROM {
            let path = stubs.folder.join(program);
            write_program(&path, "#!/bin/sh\necho \"${0##*/}\" >>\"${0%/*}/called\"\nexit 1\n");
        }
        stubs
    }

    fn path(&self) -> String {
        format!("{}:{}", self.folder.display(), env::var("PATH").unwrap())
    }

    fn called(&self) -> String {
        fs::read_to_string(self.folder.join("called")).unwrap_or_default().trim().replace('\n', ", ")
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        // Left behind, it is only a waste of space.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn planted_scripts_that_give_no_help_are_found() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tidy-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let run = |text: &str| {
        let path = folder.join("script");
        write_program(&path, &format!("#!/bin/sh\n{text}\n"));
        fault(&folder, &["script".to_string()])
    };
    let builds = run("cargo build; echo help");
    let found = [run("echo help"), builds, run("echo help; exit 2"), run("true")];
    fs::remove_dir_all(&folder).unwrap();
    let expected = ["calls cargo", "ends with exit status: 2", "prints nothing"];
    let expected = expected.map(|wrong| Some(format!("script --help: {wrong}")));
    assert_eq!(found[0], None);
    assert_eq!(found[1..], expected);
    let tree =
        Tree::planted(&[("scripts/a", "#!/bin/sh"), ("scripts/lib.sh", "#"), ("scripts/checks/b.sh", "#")]);
    assert_eq!(commands(&tree), [vec!["scripts/a"], vec!["scripts/check", "b"]]);
}
