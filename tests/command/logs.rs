//! What is logged to standard error, and how.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a server logs until it listens.
fn log_of(arguments: &[&str], variable: Option<&str>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.args(["serve", "echo", "--tcp", "127.0.0.1:0", "--workers", "1"]).args(arguments);
    command
        .env("RINGSPUN_BACKEND", "poll")
        .env_remove("RINGSPUN_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(value) = variable {
        command.env("RINGSPUN_LOG", value);
    }
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    server.kill().unwrap();
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    server.wait().unwrap();
    assert!(line.starts_with("listening on "), "{line}{log}");
    log
}

#[test]
fn the_level_and_the_format_come_from_the_command_line_or_the_environment() {
    assert_eq!(log_of(&[], None), "", "quiet by default");
    assert!(
        log_of(&["--log", "debug"], None).contains("DEBUG ringspun_runtime::event_loop: event loop made")
    );
    assert!(log_of(&[], Some("debug")).contains("event loop made"));
    assert_eq!(log_of(&["--log", "warn"], Some("debug")), "", "the command line has priority");
    assert!(
        log_of(&[], Some("loud")).contains("RINGSPUN_LOG: \"loud\" is no level: expected off, error, warn")
    );
}

#[test]
fn each_line_of_json_is_an_object_with_a_level_and_a_message() {
    let log = log_of(&["--log", "debug,json"], None);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"] == "DEBUG" && line["timestamp"].is_string()), "{log}");
    let made = lines.iter().find(|line| line["message"] == "event loop made").unwrap();
    assert_eq!(made["backend"], "poll");
}
