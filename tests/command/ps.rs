//! `ringspun ps` tells what the fibers of a running process wait for, and disturbs no other process.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::cli::{error_text, output_of, ringspun, text_of};
use super::dumps::{Ended, first_line, start};
use crate::support::backend;

/// Asks until the answer has all of the texts: what they are about may not have begun, nor the process listen.
fn ps_with(process: &Ended, texts: &[&str]) -> String {
    let id = process.0.id().to_string();
    loop {
        let output = output_of(&["ps", &id]);
        let text = text_of(&output);
        let error = error_text(&output);
        assert!(output.status.success() || error.contains("does not answer questions"), "{error}");
        if texts.iter().all(|part| text.contains(part)) {
            return text;
        }
    }
}

fn json_of(process: &Ended) -> Value {
    let output = output_of(&["ps", &process.0.id().to_string(), "--json"]);
    assert!(output.status.success(), "{}", error_text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_tells_what_its_fibers_wait_for() {
    for &backend in backend::usable() {
        let mut server = Ended(start(backend, &["serve", "echo", "--tcp", "127.0.0.1:0", "--workers", "2"]));
        let address = first_line(&mut server.0).split_whitespace().nth(2).unwrap().to_string();
        let mut peer = TcpStream::connect(&address).unwrap();
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        let peer_address = peer.local_addr().unwrap().to_string();
        let reason = format!("read from {peer_address} (at {address})");
        let text = ps_with(&server, &[&format!("waits for: {reason}"), "thread 'worker 1'"]);
        assert!(text.starts_with(&format!("fibers of process {}", server.0.id())), "{text}");

        let json = json_of(&server);
        assert_eq!(json["process"], server.0.id());
        let threads = json["threads"].as_array().unwrap();
        assert_eq!((threads.len(), json["silent_threads"].as_array().unwrap().len()), (2, 0), "{json:#}");
        let (thread, fiber) = threads
            .iter()
            .find_map(|thread| {
                let fibers = thread["fibers"].as_array().unwrap();
                Some((thread, fibers.iter().find(|fiber| fiber["waits_for"] == *reason)?))
            })
            .unwrap_or_else(|| panic!("{json:#}"));
        assert_eq!(
            (fiber["state"].as_str(), fiber["operation"].as_str()),
            (Some("parked"), Some("read from"))
        );
        let stack = &thread["stacks"][usize::try_from(fiber["stack"].as_u64().unwrap()).unwrap()];
        assert!(stack.to_string().contains("ringspun::cli::echoes::echo"), "{stack:#}");
        // The fiber goes on.
        peer.write_all(b"y").unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_load_generator_and_a_janet_program_tell_what_they_wait_for() {
    let program = "(def hung (ev/chan 3)) (ev/spawn (ev/take hung)) (print :runs) (flush) (ev/sleep 3600)";
    for &backend in backend::usable() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let target = format!("tcp://{address}");
        let load = Ended(start(backend, &["load", &target, "--connections", "3", "--duration", "1h"]));
        ps_with(&load, &[&format!("waits for: read from {address}")]);

        let mut janet = Ended(start(backend, &["janet", "-e", program]));
        assert_eq!(first_line(&mut janet.0), "runs\n");
        ps_with(&janet, &["waits for: ev/take <core/channel 0x", "waits for: ev/sleep 3600"]);
        let json = json_of(&janet);
        assert_eq!(json["janet"]["answers"], true);
        assert!(json["janet"]["text"].as_str().unwrap().contains("(0 of 3 values)"), "{json:#}");
        assert!(janet.0.try_wait().unwrap().is_none(), "it has ended");
    }
}

#[test]
fn the_thread_that_answers_gets_no_signals() {
    // A handler of the Janet VM that ran on it would end the process.
    let mut janet = Ended(start("poll", &["janet", "-e", "(print :runs) (flush) (ev/sleep 3600)"]));
    first_line(&mut janet.0);
    let folder = format!("/proc/{}/task", janet.0.id());
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
    let blocked = loop {
        let mut tasks = fs::read_dir(&folder).unwrap().map(|task| status(task.unwrap()));
        // It names itself.
        if let Some(status) = tasks.find(|status| status.starts_with("Name:\tinspection\n")) {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
            break u64::from_str_radix(mask, 16).unwrap();
        }
    };
    for signal in [Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        assert!(blocked & (1 << (signal as i32 - 1)) != 0, "{signal}: {blocked:x}");
    }
}

#[test]
fn a_stock_vm_has_one_thread_and_does_not_answer() {
    let mut stock = ringspun(&["janet", "-e", "(print :runs) (flush) (ev/sleep 3600)"]);
    let mut stock = Ended(stock.env("RINGSPUN_NET", "stock").stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(first_line(&mut stock.0), "runs\n");
    let id = stock.0.id().to_string();
    assert_eq!(fs::read_dir(format!("/proc/{id}/task")).unwrap().count(), 1);
    assert!(refusal(ringspun(&["ps", &id])).contains("does not answer questions"));
}

/// The error of `ps` for a process.
fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text_of(&output), "");
    error_text(&output)
}

#[test]
fn other_processes_are_refused_and_not_disturbed() {
    let mut other = Ended(Command::new("sleep").arg("3600").spawn().unwrap());
    let id = other.0.id().to_string();
    // The kernel lets the parent go on before it has named the child.
    while fs::read_to_string(format!("/proc/{id}/comm")).unwrap() != "sleep\n" {
        thread::yield_now();
    }
    let error = refusal(ringspun(&["ps", &id]));
    let expected = format!(
        "process {id} (sleep) does not answer questions: expected a running ringspun serve, load or janet"
    );
    assert!(error.contains(&expected), "{error}");
    // Another process that listens in its place is not taken for it.
    let name = SocketAddr::from_abstract_name(format!("ringspun-inspection-{id}")).unwrap();
    let _impostor = UnixListener::bind_addr(&name).unwrap();
    let error = refusal(ringspun(&["ps", &id]));
    assert!(
        error.contains(&format!("process {} has taken the name of its socket", std::process::id())),
        "{error}"
    );
    assert!(other.0.try_wait().unwrap().is_none(), "it has ended");

    other.0.kill().unwrap();
    other.0.wait().unwrap();
    assert!(refusal(ringspun(&["ps", &id])).contains(&format!("there is no process {id}")));
    for wrong in ["0", "-1", "me", "4294967296", ""] {
        let output = output_of(&["ps", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(wrong.is_empty() || error_text(&output).contains(wrong), "{}", error_text(&output));
    }
}

#[test]
fn processes_of_other_users_are_refused() {
    let mut asking = ringspun(&["ps", "1"]);
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        asking.uid(65_534).gid(65_534);
    }
    if asking.spawn().is_err() {
        println!("SKIPPED: another user cannot run the program where it is");
        return;
    }
    let error = refusal(asking);
    assert!(error.contains("process 1 belongs to user 0: expected one of this user's"), "{error}");
    // The process refuses by itself, too, who connects without that check.
    if is_root {
        let mut server = Ended(start("poll", &["serve", "echo", "--tcp", "127.0.0.1:0", "--log", "debug"]));
        first_line(&mut server.0);
        let script = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0ringspun-inspection-{}'); \
             s.sendall(b'dump\\n'); print(len(s.recv(100)))",
            server.0.id()
        );
        let Ok(answer) = Command::new("python3").args(["-c", &script]).uid(65_534).gid(65_534).output()
        else {
            println!("SKIPPED: there is no Python here to connect with");
            return;
        };
        let said = text_of(&answer) + &error_text(&answer);
        assert!(
            said.trim() == "0" || said.contains("ConnectionReset") || said.contains("BrokenPipe"),
            "{said}"
        );
    }
}
