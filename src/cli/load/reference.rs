//! docs/load-reference.md is what `--help` says: these tests write it, and keep the two together.
//!
//! `RINGSPUN_WRITE_REFERENCE=1 cargo test --bin ringspun reference` writes the file anew.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::cli::CommandLine;

const VARIABLE: &str = "RINGSPUN_WRITE_REFERENCE";
const HOW: &str = "RINGSPUN_WRITE_REFERENCE=1 cargo test --bin ringspun reference";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/load-reference.md")
}

/// `load` and its subcommands, each with its whole name.
fn commands() -> Vec<(String, Command)> {
    let mut program = CommandLine::command();
    program.build();
    let load = program.find_subcommand("load").unwrap().clone();
    let mut commands = vec![("ringspun load".to_string(), load.clone())];
    for subcommand in load.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        commands.push((format!("ringspun load {}", subcommand.get_name()), subcommand.clone()));
    }
    commands
}

/// Flags and what stands without one, as `--help` shows them, but for `--help` itself.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
}

/// A flag with its value: `--rate RATE`.
fn heading(argument: &Arg) -> String {
    let flag = argument.get_long().map(|long| format!("--{long}"));
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let names = argument.get_value_names().unwrap_or_default();
    let value = names.first().filter(|_| takes_value).map(ToString::to_string);
    flag.into_iter().chain(value).collect::<Vec<_>>().join(" ")
}

/// What the help says after the arguments: the examples, and the paragraphs behind them.
fn split_after_help(command: &Command) -> (String, String) {
    let text = command.get_after_help().unwrap_or_else(|| panic!("{} has examples", command.get_name()));
    let text = text.to_string();
    let (examples, rest) = text.split_once("\n\n").unwrap();
    let examples: Vec<&str> =
        examples.strip_prefix("Examples:\n").unwrap().lines().map(str::trim_start).collect();
    (examples.join("\n"), rest.to_string())
}

/// A text of the help as Markdown, which would take `<` and `*` for its own.
fn markdown(text: &str) -> String {
    text.replace('<', "\\<").replace('*', "\\*")
}

fn render() -> String {
    let mut text = format!(
        "# Reference of `ringspun load`\n\nEvery argument and flag, with what `--help` says. This file is made from it: \
         `{HOW}`.\n"
    );
    for (name, command) in commands() {
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
        let (examples, rest) = split_after_help(&command);
        writeln!(text, "\n## `{name}`\n\n{}.", markdown(&about.unwrap())).unwrap();
        writeln!(text, "\n```sh\n{examples}\n```\n\n{}", markdown(&rest)).unwrap();
        for argument in arguments(&command) {
            writeln!(text, "\n### `{}`\n", heading(argument)).unwrap();
            let help = argument.get_long_help().or(argument.get_help()).unwrap().to_string();
            let help = markdown(&help);
            let paragraphs: Vec<_> = help.split("\n\n").map(|text| text.trim_end_matches('.')).collect();
            writeln!(text, "{}.", paragraphs.join(".\n\n")).unwrap();
            let defaults: Vec<_> =
                argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            if !defaults.is_empty() && !matches!(argument.get_action(), ArgAction::SetTrue) {
                writeln!(text, "\nDefault: `{}`.", defaults.join(" ")).unwrap();
            }
        }
    }
    text
}

#[test]
fn the_reference_is_what_the_help_says() {
    let rendered = render();
    if std::env::var_os(VARIABLE).is_some() {
        fs::write(file(), &rendered).unwrap();
    }
    let written = fs::read_to_string(file()).unwrap_or_default();
    let differing = rendered.lines().zip(written.lines()).find(|(new, old)| new != old);
    assert!(rendered == written, "docs/load-reference.md is out of date ({differing:?}): run {HOW}");
}

#[test]
fn every_flag_has_an_example() {
    for (name, command) in commands() {
        let (examples, _) = split_after_help(&command);
        let words: Vec<&str> = examples.split_whitespace().collect();
        for argument in arguments(&command) {
            let Some(flag) = argument.get_long().map(|long| format!("--{long}")) else { continue };
            let help = argument.get_long_help().or(argument.get_help()).unwrap().to_string();
            let is_shown = words.contains(&flag.as_str()) || help.contains(&format!("{flag} "));
            assert!(
                is_shown,
                "{name} {flag} has no example, in its help or in those of the command:\n{examples}"
            );
        }
    }
}

/// So that nobody copies an example that does not work.
#[test]
fn every_example_is_understood() {
    for (name, command) in commands() {
        let (examples, _) = split_after_help(&command);
        for example in examples.lines() {
            assert!(example.starts_with("ringspun load "), "{name}: {example}");
            let parsed = CommandLine::command().try_get_matches_from(words(example));
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }
}

/// The words of a line as a shell takes it, where quotes go around whole words.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(ToString::to_string)),
            _ => words.push(part.to_string()),
        }
    }
    words
}
