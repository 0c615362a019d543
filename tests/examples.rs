//! The examples run, and what the README shows is what runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const RINGSPUN: &str = env!("CARGO_BIN_EXE_ringspun");

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an echo server that prints its address, and echoes once.
fn echoes(mut command: Command) {
    let mut server = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening at ").expect("the server prints its address");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"Echo...").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"Echo...");
}

#[test]
fn the_tour_ends_by_itself_and_says_which_backend_served_it() {
    let output = Command::new(RINGSPUN).arg("janet").arg(project("examples/tour.janet")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "served by io_uring",
        "the echo server answered: Echo...",
        "all 10000 messages came back",
        "order: quick, a-little-slow, slower-than-most, slow",
        "1048576 bytes came back, unchanged",
        "gave the error: timeout",
        "what came later: still here",
        "gets: Connection refused",
    ] {
        assert!(text.contains(line), "{line:?} is missing from:\n{text}");
    }
}

#[test]
fn the_hello_servers_echo() {
    for script in ["examples/hello.janet", "examples/echo.janet"] {
        let mut janet = Command::new(RINGSPUN);
        janet.arg("janet").arg(project(script));
        echoes(janet);
    }
    let hello = Path::new(RINGSPUN).with_file_name("examples").join("hello");
    assert!(hello.exists(), "cargo builds {hello:?} for a whole test run, or by `cargo build --examples`");
    echoes(Command::new(hello));
}

#[test]
fn the_readme_shows_the_hello_programs_as_they_are_and_in_under_fifteen_lines() {
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    for path in ["examples/hello.janet", "examples/hello.rs"] {
        let program = std::fs::read_to_string(project(path)).unwrap();
        assert!(readme.contains(&program), "{path} is not in the README as it is");
        assert!(program.lines().count() < 15, "{path} has grown");
    }
}
