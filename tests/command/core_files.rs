//! A script for gdb finds the fibers in a core file.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cli::{error_text, text_of};
use super::dumps::Ended;
use crate::support::backend;
use crate::support::scratch::ScratchFolder;

const RINGSPUN: &str = env!("CARGO_BIN_EXE_ringspun");

/// Why there is nothing to test here.
fn obstacle() -> Option<&'static str> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    match Command::new("gdb").args(["-batch", "-ex", "python print(1)"]).output() {
        _ if !cfg!(target_arch = "x86_64") => Some("the script is for x86-64"),
        Ok(output) if text_of(&output).trim() == "1" => {
            let is_file = !pattern.trim().is_empty() && !pattern.contains(['|', '/']);
            (!is_file).then_some("core files are not written to the folder of the process")
        }
        _ => Some("there is no gdb with Python"),
    }
}

#[test]
fn the_fibers_of_a_core_file_are_listed_with_their_stacks() {
    if let Some(obstacle) = obstacle() {
        println!("SKIPPED: {obstacle}");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/gdb/fibers.py");
    for &backend in backend::usable() {
        let folder = ScratchFolder::new("core");
        let serve = "ulimit -c unlimited && exec \"$0\" serve echo --tcp 127.0.0.1:0 --workers 2";
        let mut server = Command::new("sh")
            .args(["-c", serve, RINGSPUN])
            .current_dir(folder.path())
            .env("RINGSPUN_BACKEND", backend)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut server = Ended(server);
        let address =
            line.split_whitespace().nth(2).unwrap_or_else(|| panic!("no core files may be written"));
        let mut peers: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for peer in &mut peers {
            peer.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        // The fibers park after that: until each has, a dump of the process does not have it.
        let id = server.0.id().to_string();
        let waits = |text: &str| text.matches("waits for: read from").count() == peers.len();
        while !waits(&text_of(&super::cli::output_of(&["ps", &id]))) {}
        kill(Pid::from_raw(server.0.id().try_into().unwrap()), Signal::SIGABRT).unwrap();
        server.0.wait().unwrap();
        let core: Option<PathBuf> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).next();
        let core = core.expect("a core file");

        let listed = Command::new("gdb")
            .arg(RINGSPUN)
            .arg(&core)
            .args(["-nx", "-batch", "-ex", &format!("source {script}"), "-ex", "fibers 6"])
            .output()
            .unwrap();
        let text = text_of(&listed);
        let groups: Vec<&str> = text.split("\n\n").collect();
        let group = groups.iter().find(|group| group.contains("ringspun::cli::echoes::echo<"));
        let group = group.unwrap_or_else(|| panic!("{text}\n{}", error_text(&listed)));
        assert!(group.starts_with("3 fibers, parked at 0x"), "{text}");
        assert!(group.contains("ringspun_net::stream::Stream::receive"), "{text}");
        // Not how it is parked, and not what an earlier park has left on the stack.
        assert!(!group.contains("Fiber::suspend"), "{text}");
        assert!(text.contains("parked fibers\n"), "{text}");
        for frame in ["Listener::accept", "ringspun::cli::serve::echo_server"] {
            assert!(text.contains(frame), "{frame}: {text}");
        }
        let wrong = ["-nx", "-batch", "-ex", &format!("source {script}"), "-ex", "fibers many"];
        let refused = Command::new("gdb").arg(RINGSPUN).arg(&core).args(wrong).output().unwrap();
        assert!(error_text(&refused).contains("fibers many: expected a number of frames"));
    }
}
