//! `RINGSPUN_STALL_MS` has the command tell of fibers that keep their loop.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::cli::{error_text, ringspun};
use super::dumps::{Ended, first_line, start};
use crate::support::backend;

const VARIABLE: &str = "RINGSPUN_STALL_MS";

#[test]
fn a_janet_program_that_computes_is_told_of_while_it_runs() {
    let program = "(defn wind [] (while true (os/sleep 0.001))) (ev/spawn (wind)) (ev/sleep 3600)";
    for net in ["ring", "stock"] {
        let mut command = ringspun(&["janet", "-e", program]);
        command.env(VARIABLE, "20").env("RINGSPUN_NET", net).stderr(Stdio::piped());
        let mut janet = Ended(command.spawn().unwrap());
        let lines = BufReader::new(janet.0.stderr.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap).skip_while(|line| !line.starts_with("  in wind"));
        // The line of the program that it is in.
        assert!(lines.next().unwrap().starts_with("  in wind [eval] on line 1"), "{net}");
    }
}

#[test]
fn a_server_that_answers_at_once_is_not_told_of() {
    for &backend in backend::usable() {
        let mut command = ringspun(&["serve", "echo", "--tcp", "127.0.0.1:0", "--workers", "2"]);
        // Long, as other work may keep the processors.
        command.env(VARIABLE, "30000").env("RINGSPUN_BACKEND", backend);
        let mut server = Ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let target = format!("tcp://{}", first_line(&mut server.0).split_whitespace().nth(2).unwrap());
        let load = ["load", &target, "--connections", "4", "--count", "20000"];
        assert!(start(backend, &load).wait().unwrap().success());
        let id = nix::unistd::Pid::from_raw(server.0.id().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        let errors = BufReader::new(server.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        // The ends of the four may still be on their way.
        let errors =
            Vec::from_iter(errors.filter(|line| !line.starts_with("ringspun: SIGTERM: waiting up to ")));
        assert_eq!(errors, ["ringspun: served 4 connections"]);
    }
}

#[test]
fn a_limit_that_is_none_is_refused() {
    for arguments in [&["janet", "-e", "1"][..], &["serve", "echo", "--tcp", "127.0.0.1:0"]] {
        for wrong in ["0", "20ms", ""] {
            let output = ringspun(arguments).env(VARIABLE, wrong).output().unwrap();
            let expected =
                format!("{VARIABLE}={wrong}: expected milliseconds, a whole number from 1 on, such as 20");
            assert!(error_text(&output).contains(&expected), "{}", error_text(&output));
            assert_eq!(output.status.code(), Some(1));
        }
    }
}
