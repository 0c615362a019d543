//! The commands of the README and the tutorials run as they are printed, and print what stands below them.
//!
//! In a network of its own, so that their ports are free. A block of `sh` runs by `sh -e` in a folder with the programs
//! of the page, and with `ringspun` in its path; what it leaves running ends with the page. If a block of `text`
//! follows, its lines are among those that are printed, in this order; `...` stands for anything.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::namespace::in_namespace;
use crate::support::scratch::ScratchFolder;

const PAGES: [&str; 4] =
    ["README.md", "docs/tutorial-janet.md", "docs/tutorial-rust.md", "docs/tutorial-load.md"];
/// Commands that other tests run, or that are this test run.
const ELSEWHERE: [(&str, &str); 2] = [
    ("./scripts/test ", "it would run this test"),
    (
        "cargo install --locked --path . ",
        "it builds with optimisation; scripts/checks/package.sh builds the package",
    ),
];

/// A block of a page, between two fences.
#[derive(Debug, PartialEq)]
struct Block {
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(language) if !is_inside => {
                blocks.push(Block { language: language.to_string(), text: String::new() });
                is_inside = true;
            }
            Some(_) => is_inside = false,
            None if is_inside => blocks.last_mut().unwrap().text += &(line.to_string() + "\n"),
            None => {}
        }
    }
    assert!(!is_inside, "the last block does not end");
    blocks
}

/// Whether a line is what was expected, where `...` stands for anything.
fn matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut is_open = false;
    for part in parts {
        is_open = true;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || (is_open && expected.ends_with("..."))
}

/// The first expected line that is not printed, in the order of the lines.
fn missing<'a>(expected: &'a str, printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    expected.lines().find(|expected| !lines.any(|line| matches(expected, line)))
}

#[test]
fn blocks_and_expected_lines_are_understood() {
    let page = "a\n```sh\none\n\ntwo\n```\n```text\nthree\n```\n";
    let block = |language: &str, text: &str| Block { language: language.to_string(), text: text.to_string() };
    assert_eq!(blocks(page), [block("sh", "one\n\ntwo\n"), block("text", "three\n")]);
    assert!(
        matches("a ... c", "a b c") && matches("a...", "a") && matches("a", "a") && matches("...z", "xyz")
    );
    assert!(!matches("a", "ab") && !matches("a ... c", "a b") && !matches("a", "") && !matches("a...", "b"));
    assert_eq!(missing("a\nc\n", "a\nb\nc\n"), None);
    assert_eq!(missing("c\na\n", "a\nb\nc\n"), Some("a"));
}

/// Ends what the commands of a page have left running.
struct Group(Vec<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        for group in &self.0 {
            // It may have ended.
            let _ = killpg(*group, Signal::SIGKILL);
        }
    }
}

/// Makes the commands that a user has after the first two: `ringspun`, and the scripts of a checkout.
fn prepare(folder: &Path) {
    let (checkout, programs) = (Path::new(env!("CARGO_MANIFEST_DIR")), folder.join("bin"));
    fs::create_dir_all(&programs).unwrap();
    symlink(env!("CARGO_BIN_EXE_ringspun"), programs.join("ringspun")).unwrap();
    symlink(checkout.join("examples"), folder.join("examples")).unwrap();
    // Without building it in release mode.
    fs::create_dir_all(folder.join("scripts")).unwrap();
    let run = folder.join("scripts/run");
    fs::write(&run, "#!/bin/sh\nexec ringspun \"$@\"\n").unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a block, and returns what it prints; what it starts in the background joins the group.
fn run(script: &str, folder: &Path, group: &mut Group) -> String {
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    // To a file: what goes on in the background keeps it open.
    let printed: PathBuf = folder.join("printed");
    let file = fs::File::create(&printed).unwrap();
    let mut shell = Command::new("sh")
        .args(["-e", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("RINGSPUN_COMMAND")
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .process_group(0)
        .spawn()
        .unwrap();
    group.0.push(Pid::from_raw(shell.id().try_into().unwrap()));
    let status = shell.wait().unwrap();
    let text = fs::read_to_string(&printed).unwrap();
    assert!(status.success(), "{script}\n{status}:\n{text}");
    text
}

/// Waits after each command in the background until its server listens, as a person does: one of `ringspun serve`, or
/// of a program of the page, whose text `program` gives.
fn with_patience(script: &str, program: impl Fn(&str) -> String) -> String {
    let mut patient = String::new();
    for line in script.lines() {
        patient += &format!("{line}\n");
        let Some((command, _)) = line.split_once(" &") else { continue };
        let port = match command.strip_prefix("ringspun janet ") {
            Some(name) => program(name).split_once("\"127.0.0.1\" \"").map(|(_, rest)| rest.to_string()),
            None => command.split_once("127.0.0.1:").map(|(_, rest)| rest.to_string()),
        };
        if let Some(port) = port {
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            let connect = format!("(:close (net/connect \"127.0.0.1\" \"{port}\"))");
            patient += &format!("until ringspun -e '{connect}' 2>/dev/null; do sleep 0.1; done\n");
        }
    }
    patient
}

fn run_page(path: &str) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let folder = ScratchFolder::new("book");
    prepare(folder.path());
    let (mut group, mut printed) = (Group(Vec::new()), None);
    for block in blocks(&page) {
        match &*block.language {
            "janet" => {
                if let Some(name) = block.text.lines().next().and_then(|line| line.strip_prefix("# "))
                    && name.ends_with(".janet")
                {
                    fs::write(folder.file(name), &block.text).unwrap();
                }
            }
            "sh" => {
                let is_here = |line: &&str| !ELSEWHERE.iter().any(|(command, _)| line.starts_with(command));
                let script: Vec<&str> = block.text.lines().filter(is_here).collect();
                let program = |name: &str| fs::read_to_string(folder.file(name)).unwrap_or_default();
                let script = with_patience(&script.join("\n"), program);
                printed = Some(run(&script, folder.path(), &mut group));
            }
            "text" => {
                let printed = printed.take().expect("a block of text follows one of sh");
                let missing = missing(&block.text, &printed);
                assert!(
                    missing.is_none(),
                    "{path}: {:?} is not printed, in this order:\n{printed}",
                    missing.unwrap()
                );
            }
            _ => printed = None,
        }
    }
}

#[test]
fn the_commands_of_the_readme_and_the_tutorials_run_as_they_are_printed() {
    let all = PAGES.map(|page| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap());
    for (command, _) in ELSEWHERE {
        assert!(all.iter().any(|page| page.contains(command)), "no page has {command:?} any more");
    }
    let ran = in_namespace(
        concat!(module_path!(), "::the_commands_of_the_readme_and_the_tutorials_run_as_they_are_printed"),
        "true",
        || PAGES.iter().for_each(|page| run_page(page)),
    );
    if !ran {
        println!("SKIPPED: no namespaces here, in which the ports of the README and the tutorials are free");
    }
}
