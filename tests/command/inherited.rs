//! Several processes of `ringspun serve echo`: sockets that a process is started with, and that outlive it; ports that
//! processes share.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::backend;
use crate::support::scratch::scratch_path;

/// Starts the server with these sockets, as systemd does. The shell knows the number of the process that it becomes.
fn serve(arguments: &[&str], names: &str, sockets: &[&dyn AsRawFd]) -> Child {
    let numbers: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringspun"), "serve", "echo"]);
    command.args(arguments).env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
    // SAFETY: what runs in the child makes system calls only.
    unsafe {
        command.pre_exec(move || {
            // Out of the way first. The copies at 3 and on are not closed when the program is executed.
            let mut moved = [0; 8];
            for (to, number) in moved.iter_mut().zip(&numbers) {
                *to = libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, 100);
            }
            for (to, from) in (3..).zip(&moved[..numbers.len()]) {
                if libc::dup2(*from, to) != to {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its next line.
fn listening(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

fn check_echo(client: &mut (impl Read + Write)) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn terminate(server: &Child) {
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).unwrap();
}

#[test]
fn sockets_of_all_kinds_are_served() {
    let path = scratch_path("inherited.socket");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (unix, udp) = (UnixListener::bind(&path).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut server = serve(&["--inherited", "--workers", "2"], "web:local", &[&tcp, &unix, &udp]);
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let backend = backend::expected();
    let (tcp, udp) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    assert_eq!(listening(&mut output), format!("listening on {tcp} (tcp, {backend})\n"));
    assert_eq!(listening(&mut output), format!("listening on unix:{} (unix, {backend})\n", path.display()));
    assert_eq!(listening(&mut output), format!("listening on {udp} (udp, {backend})\n"));
    check_echo(&mut TcpStream::connect(tcp).unwrap());
    check_echo(&mut UnixStream::connect(&path).unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(udp).unwrap();
    client.send(b"datagram").unwrap();
    assert_eq!(client.recv(&mut [0; 9]).unwrap(), 8);
    terminate(&server);
    assert!(server.wait().unwrap().success());
    assert!(path.exists(), "the path is for whoever has made it to remove");
}

#[test]
fn a_listener_goes_from_one_process_to_the_next_without_a_gap() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let start = || {
        let mut server = serve(&["--inherited", "--drain", "1h"], "", &[&listener]);
        let mut output = BufReader::new(server.stdout.take().unwrap());
        assert!(listening(&mut output).starts_with("listening on "));
        server
    };
    let mut first = start();
    let mut early = TcpStream::connect(address).unwrap();
    check_echo(&mut early);
    terminate(&first);
    // It says that it waits once it has begun to drain.
    let mut errors = BufReader::new(first.stderr.take().unwrap());
    assert!(listening(&mut errors).contains("waiting up to 3600s for 1 connection"));
    // Some are still accepted by the first, others wait for the second.
    let mut between: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut second = start();
    between.iter_mut().chain([&mut early]).for_each(check_echo);
    drop((early, between));
    assert!(first.wait().unwrap().success());
    check_echo(&mut TcpStream::connect(address).unwrap());
    terminate(&second);
    assert!(second.wait().unwrap().success());
}

#[test]
fn what_is_not_a_socket_to_serve_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let said = |arguments: &[&str], sockets: &[&dyn AsRawFd]| {
        let output = serve(arguments, "", sockets).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let inherited = ["--inherited"];
    assert!(said(&inherited, &[]).contains("no sockets were passed to this process"));
    let connected = said(&inherited, &[&listener, &client]);
    assert!(connected.contains("descriptor 4: a stream socket that does not listen"), "{connected}");
    let no_socket = said(&inherited, &[&file]);
    assert!(no_socket.contains("LISTEN_FDS includes descriptor 3"), "{no_socket}");
}

#[test]
fn a_port_is_shared_by_processes_that_ask_for_it() {
    let start = |address: &str, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.args(["serve", "echo", "--tcp", address]).args(flags);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = start("127.0.0.1:0", &["--share-port"]);
    let line = listening(&mut BufReader::new(first.stdout.take().unwrap()));
    let address = line.split(' ').nth(2).unwrap().to_string();
    let refused = start(&address, &[]).wait_with_output().unwrap();
    assert!(String::from_utf8(refused.stderr).unwrap().contains("in use"));
    let mut second = start(&address, &["--share-port"]);
    let again = listening(&mut BufReader::new(second.stdout.take().unwrap()));
    assert_eq!(again, line);
    let mut clients: Vec<_> = (0..64).map(|_| TcpStream::connect(&address).unwrap()).collect();
    clients.iter_mut().for_each(check_echo);
    drop(clients);
    for server in [first, second] {
        terminate(&server);
        let errors = String::from_utf8(server.wait_with_output().unwrap().stderr).unwrap();
        // The chance that a fair kernel leaves one out is 2^-63.
        assert!(!errors.contains("served 0 connections"), "{errors}");
    }
}
