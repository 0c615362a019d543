//! Unix sockets that a killed server left are taken over, and no others.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::support::backend;
use crate::support::closing::leave_dead_socket;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ringspun-unix-sockets-{name}-{}", std::process::id()));
    // It is there if a test was interrupted.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn start(path: &Path, backend: &str) -> Ended {
    let server = Command::new(env!("CARGO_BIN_EXE_ringspun"))
        .args(["serve", "echo", "--workers", "1", "--unix", path.to_str().unwrap()])
        .env("RINGSPUN_BACKEND", backend)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Ended(server.unwrap())
}

/// Whether it comes to listen; otherwise it has ended.
fn listens(server: &mut Ended) -> bool {
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.starts_with("listening on ")
}

fn errors(mut server: Ended) -> String {
    let mut text = String::new();
    server.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn echoes(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn the_socket_of_a_killed_server_is_replaced() {
    for &backend in backend::usable() {
        let folder = folder(&format!("killed-{backend}"));
        let path = folder.join("echo.socket");
        let mut first = start(&path, backend);
        assert!(listens(&mut first));
        drop(first);
        assert!(path.exists(), "SIGKILL leaves it");
        // The kernel closes what a killed ring had a moment after the process has ended.
        while UnixStream::connect(&path).is_ok() {
            thread::yield_now();
        }
        let mut second = start(&path, backend);
        assert!(listens(&mut second));
        echoes(&path);
        second.0.kill().unwrap();
        assert!(errors(second).contains("replaces the socket of a server that has ended"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn what_is_not_dead_stays() {
    let folder = folder("alive");
    let path = folder.join("alive.socket");
    let listener = UnixListener::bind(&path).unwrap();
    // Some wait in its queue.
    let waiting: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let file = folder.join("file");
    fs::write(&file, "text").unwrap();
    for &backend in backend::usable() {
        for path in [&path, &file] {
            let mut server = start(path, backend);
            assert!(!listens(&mut server));
            let errors = errors(server);
            assert!(errors.contains("Address already in use") || errors.contains("in use"), "{errors}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    for _ in &waiting {
        listener.accept().unwrap();
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn of_many_servers_that_start_at_once_one_gets_the_socket() {
    for &backend in backend::usable() {
        let folder = folder(&format!("many-{backend}"));
        let path = folder.join("echo.socket");
        leave_dead_socket(&path);
        let mut servers: Vec<_> = (0..6).map(|_| start(&path, backend)).collect();
        let listening = servers.iter_mut().map(listens).filter(|&listens| listens).count();
        assert_eq!(listening, 1);
        echoes(&path);
        drop(servers);
        fs::remove_dir_all(folder).unwrap();
    }
}
