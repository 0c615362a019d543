//! Against other implementations, where they are installed: OpenSSL's `s_client` and `s_server`, curl, Python's ssl.

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_net as net;
use ringspun_tls::{self as tls, ClientAuth, ClientConfig, ServerConfig, TlsListener, TlsStream, Versions};

mod common;

use common::{Authority, Pair, pattern, read_all, run};

/// Files of a test, which are removed after it.
struct Files {
    folder: PathBuf,
    authority: Authority,
}

impl Files {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringspun-tls-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new("authority");
        let files = Self { folder, authority };
        files.write("authority.pem", &files.authority.pem);
        files
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_string()
    }

    /// A certificate and its key, in files.
    fn sign(&self, name: &str) -> (Pair, [String; 2]) {
        let pair = self.authority.sign(&[name], |_| {});
        let files =
            [self.write(&format!("{name}.pem"), &pair.chain), self.write(&format!("{name}.key"), &pair.key)];
        (pair, files)
    }

    fn client(&self) -> tls::ClientConfigBuilder {
        ClientConfig::builder().roots(self.authority.roots())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether a program is here; says that the test is skipped otherwise.
fn has(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// Ends a program when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end while other fibers serve it, with `input` on its standard input, which stays open.
fn run_program(mut command: Command, input: &[u8]) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_vec();
    let ran = fibers::blocking(move || -> io::Result<Output> {
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().unwrap();
        // It may have ended already.
        let _ = stdin.write_all(&input);
        let output = child.wait_with_output();
        drop(stdin);
        output
    });
    ran.map_err(|error| io::Error::other(error.to_string()))?
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Echoes one line, in upper case, and closes.
fn serve_lines(config: &ServerConfig) -> io::Result<Rc<TlsListener>> {
    tls::server("127.0.0.1:0", config, |stream| {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut buffer = [0; 100];
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => line.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        line.make_ascii_uppercase();
        let _ = stream.write(&line);
    })
}

fn s_client(port: u16, files: &Files, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    let target = format!("127.0.0.1:{port}");
    command.args(["s_client", "-connect", &target, "-CAfile", &files.path("authority.pem")]);
    command.args(["-verify_return_error", "-ign_eof", "-servername", "localhost"]).args(arguments);
    command
}

#[test]
fn openssl_s_client_is_served() {
    if !has("openssl", "version") {
        return;
    }
    run(|| {
        let files = Files::new("s_client");
        let (pair, _) = files.sign("localhost");
        let (_, [certificate, key]) = files.sign("somebody");
        let server = ServerConfig::builder()
            .identity(pair.identity())
            .client_auth(ClientAuth::Required, files.authority.roots())
            .alpn(["http/1.1"])
            .build()?;
        let listener = serve_lines(&server)?;
        let port = listener.localname()?.port().unwrap();
        let session = files.path("session");
        for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let usual = [version, "-verify_hostname", "localhost", "-alpn", "h2,http/1.1"];
            let with_certificate = ["-cert", &certificate, "-key", &key];
            let first = [&usual[..], &with_certificate, &["-sess_out", &session]].concat();
            let output = text(&run_program(s_client(port, &files, &first), b"hello\n")?);
            for expected in ["HELLO", "Verify return code: 0 (ok)", "ALPN protocol: http/1.1", name] {
                assert!(output.contains(expected), "{version}: {expected:?} is not in {output}");
            }
            assert!(output.contains("New, TLSv1."), "{output}");
            let again = [&usual[..], &with_certificate, &["-sess_in", &session]].concat();
            let output = text(&run_program(s_client(port, &files, &again), b"hello\n")?);
            assert!(output.contains("HELLO") && output.contains("Reused, TLSv1."), "{version}: {output}");
            // Without a certificate.
            let output = text(&run_program(s_client(port, &files, &usual), b"hello\n")?);
            assert!(!output.contains("HELLO"), "{output}");
            assert!(
                output.contains("certificate required") || output.contains("handshake failure"),
                "{output}"
            );
        }
        listener.close();
        Ok(())
    });
}

/// `R` asks for it. OpenSSL is refused by an alert, and nothing grows: the connection ends or goes on.
#[test]
fn renegotiation_is_refused() {
    if !has("openssl", "version") {
        return;
    }
    run(|| {
        let files = Files::new("renegotiation");
        let server = ServerConfig::builder().identity(files.sign("localhost").0.identity()).build()?;
        let listener = serve_lines(&server)?;
        let port = listener.localname()?.port().unwrap();
        let mut command = s_client(port, &files, &["-tls1_2"]);
        // With -ign_eof, letters are not commands.
        command = {
            let arguments: Vec<_> =
                command.get_args().filter(|argument| *argument != "-ign_eof").map(Into::into).collect();
            let mut command = Command::new("openssl");
            command.args::<Vec<std::ffi::OsString>, _>(arguments);
            command
        };
        let output = text(&run_program(command, b"R\nR\nR\nhello\n")?);
        assert!(output.contains("RENEGOTIATING"), "{output}");
        assert!(
            output.contains("no renegotiation") || output.contains("HELLO") || output.contains("alert"),
            "{output}"
        );
        // The server goes on.
        let again = text(&run_program(s_client(port, &files, &["-tls1_2"]), b"hello\n")?);
        assert!(again.contains("HELLO"), "{again}");
        listener.close();
        Ok(())
    });
}

#[test]
fn openssl_s_client_begins_tls_after_a_plain_prologue() {
    if !has("openssl", "version") {
        return;
    }
    run(|| {
        let files = Files::new("starttls");
        let server = ServerConfig::builder().identity(files.sign("localhost").0.identity()).build()?;
        let listener = net::server("127.0.0.1:0", move |stream| {
            let line = || {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    let mut byte = [0];
                    stream.chunk(&mut byte).unwrap();
                    line.push(byte[0]);
                }
                line
            };
            stream.write(b"220 mail.example ESMTP\r\n").unwrap();
            assert!(line().starts_with(b"EHLO"));
            stream.write(b"250-mail.example\r\n250 STARTTLS\r\n").unwrap();
            assert_eq!(line(), b"STARTTLS\r\n");
            stream.write(b"220 go ahead\r\n").unwrap();
            let stream = tls::accept(stream, &server).unwrap();
            let mut greeting = [0; 6];
            stream.chunk(&mut greeting).unwrap();
            assert_eq!(&greeting, b"hello\n");
            stream.write(b"inside of TLS\n").unwrap();
        })?;
        let port = listener.localname()?.port().unwrap();
        let output = run_program(s_client(port, &files, &["-starttls", "smtp"]), b"hello\n")?;
        assert!(text(&output).contains("inside of TLS"), "{}", text(&output));
        listener.close();
        Ok(())
    });
}

#[test]
fn openssl_s_server_serves_us() {
    if !has("openssl", "version") {
        return;
    }
    run(|| {
        let files = Files::new("s_server");
        let (_, [certificate, key]) = files.sign("localhost");
        let (somebody, _) = files.sign("somebody");
        for version in [Versions::Tls12, Versions::Tls13] {
            let mut command = Command::new("openssl");
            command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", &certificate, "-key", &key]);
            // Answers each line backwards.
            command.args([
                "-CAfile",
                &files.path("authority.pem"),
                "-Verify",
                "1",
                "-rev",
                "-alpn",
                "http/1.1",
            ]);
            command.stdout(Stdio::piped()).stdin(Stdio::piped()).stderr(Stdio::null());
            let mut server = Running(command.spawn()?);
            let port = port_after("ACCEPT 127.0.0.1:", &mut server)?;
            let client = files.client().versions(version).identity(somebody.identity()).alpn(["http/1.1"]);
            let client = client.server_name("localhost").build()?;
            for round in 0..2 {
                let stream = tls::connect_with(("127.0.0.1", port), &client)?;
                stream.write(b"backwards\n")?;
                let mut answer = [0; 10];
                stream.chunk(&mut answer)?;
                assert_eq!(&answer, b"sdrawkcab\n");
                assert_eq!(stream.alpn_protocol().as_deref(), Some(&b"http/1.1"[..]));
                assert_eq!(stream.is_resumed(), round > 0, "{version:?}");
            }
            // Of another authority.
            let stranger = ClientConfig::builder().roots(Authority::new("stranger").roots());
            let error = tls::connect_with(("127.0.0.1", port), &stranger.server_name("localhost").build()?);
            assert!(error.unwrap_err().to_string().contains("is not trusted"));
        }
        Ok(())
    });
}

/// The port that a server prints after `prefix`; the rest of its output is read and dropped, by a thread.
fn port_after(prefix: &'static str, server: &mut Running) -> io::Result<u16> {
    let mut output = io::BufReader::new(server.0.stdout.take().unwrap());
    let found = fibers::blocking(move || {
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|count| count > 0) {
            if let Some(port) = line.trim().strip_prefix(prefix) {
                let port = port.parse().ok();
                std::thread::spawn(move || io::copy(&mut output, &mut io::sink()));
                return port;
            }
            line.clear();
        }
        None
    });
    found.ok().flatten().ok_or_else(|| io::Error::other("the server did not print its port"))
}

#[test]
fn curl_gets_five_megabytes() {
    if !has("curl", "--version") {
        return;
    }
    run(|| {
        let files = Files::new("curl");
        let server = ServerConfig::builder()
            .identity(files.sign("localhost").0.identity())
            .alpn(["http/1.1"])
            .build()?;
        const BYTES: usize = 5_000_000;
        let listener = tls::server("127.0.0.1:0", &server, |stream| {
            let body = pattern(BYTES);
            let mut head = Vec::new();
            while let Ok(count @ 1..) = read_some(&stream, &mut head) {
                assert!(count > 0);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
                    if stream.write(answer.as_bytes()).and_then(|_| stream.write(&body)).is_err() {
                        return;
                    }
                }
            }
        })?;
        let port = listener.localname()?.port().unwrap();
        let url = format!("https://localhost:{port}/");
        let resolve = format!("localhost:{port}:127.0.0.1");
        let curl = |arguments: &[&str]| {
            let mut command = Command::new("curl");
            command.args(["-sS", "--noproxy", "*", "--resolve", &resolve]).args(arguments);
            run_program(command, b"")
        };
        // Two requests on one connection.
        let output = curl(&["--cacert", &files.path("authority.pem"), &url, &url])?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == [pattern(BYTES), pattern(BYTES)].concat());
        let output = curl(&[&url])?;
        assert_eq!(
            output.status.code(),
            Some(60),
            "a certificate that curl must not trust: {}",
            text(&output)
        );
        listener.close();
        Ok(())
    });
}

fn read_some(stream: &TlsStream, head: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 1000];
    let count = stream.read(&mut buffer)?;
    head.extend_from_slice(&buffer[..count]);
    Ok(count)
}

const PYTHON_CLIENT: &str = "
import socket, ssl, sys
port, authority = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=authority)
with socket.create_connection(('127.0.0.1', port)) as plain:
    with context.wrap_socket(plain, server_hostname='localhost') as stream:
        data = bytes(range(251)) * 8000
        stream.sendall(data)
        stream.sendall(b'.')
        received = b''
        while len(received) < len(data):
            part = stream.recv(100000)
            assert part, 'the end came early'
            received += part
        assert received == data
        # Waits for our close_notify.
        stream.unwrap()
print('fine')
";

const PYTHON_SERVER: &str = "
import socket, ssl, sys
certificate, key = sys.argv[1:3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
with socket.create_server(('127.0.0.1', 0)) as listener:
    print('port', listener.getsockname()[1], flush=True)
    for ending in ('notify', 'cut'):
        plain, _ = listener.accept()
        stream = context.wrap_socket(plain, server_side=True)
        rest = 2000000
        while rest > 0:
            part = stream.recv(min(rest, 100000))
            stream.sendall(part)
            rest -= len(part)
        if ending == 'notify':
            stream.unwrap()
        else:
            stream.shutdown(socket.SHUT_RDWR)
        stream.close()
";

#[test]
fn python_is_served() {
    if !has("python3", "--version") {
        return;
    }
    run(|| {
        let files = Files::new("python-client");
        let server = ServerConfig::builder().identity(files.sign("localhost").0.identity()).build()?;
        let listener = tls::server("127.0.0.1:0", &server, |stream| {
            let mut received = Vec::new();
            while received.last() != Some(&b'.') || received.len() <= 2_008_000 {
                match read_some(&stream, &mut received) {
                    Ok(1..) => {}
                    _ => return,
                }
                if received.len() > 2_008_000 {
                    break;
                }
            }
            received.pop();
            stream.write(&received).unwrap();
            // Python's close_notify.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        })?;
        let port = listener.localname()?.port().unwrap().to_string();
        let mut command = Command::new("python3");
        command.args(["-c", PYTHON_CLIENT, &port, &files.path("authority.pem")]);
        let output = run_program(command, b"")?;
        assert!(text(&output).contains("fine"), "{}", text(&output));
        listener.close();
        Ok(())
    });
}

#[test]
fn python_serves_us() {
    if !has("python3", "--version") {
        return;
    }
    run(|| {
        let files = Files::new("python-server");
        let (_, [certificate, key]) = files.sign("localhost");
        let mut command = Command::new("python3");
        command.args(["-c", PYTHON_SERVER, &certificate, &key]);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut server = Running(command.spawn()?);
        let port = port_after("port ", &mut server)?;
        let client = files.client().server_name("localhost").build()?;
        for ending in ["notify", "cut"] {
            let stream = Rc::new(tls::connect_with(("127.0.0.1", port), &client)?);
            let writer = stream.clone();
            let writing = fibers::spawn(move || writer.write(&pattern(2_000_000)).unwrap())?;
            let mut echo = vec![0; 2_000_000];
            stream.chunk(&mut echo)?;
            assert!(echo == pattern(2_000_000));
            writing.join().unwrap();
            if ending == "notify" {
                // Python waits for ours, too.
                stream.shutdown(std::net::Shutdown::Write)?;
                assert_eq!(read_all(&stream)?, b"");
            } else {
                let error = stream.read(&mut [0]).unwrap_err();
                assert!(tls::is_cut(&error), "{error}");
            }
        }
        Ok(())
    });
}

/// The system's roots, where there are any: one is enough to begin with.
#[test]
fn the_systems_roots_are_found_or_the_error_says_what_to_install() {
    match tls::Roots::system() {
        Ok(roots) => assert!(format!("{roots:?}").starts_with("Roots { certificates: ")),
        Err(error) => assert!(error.to_string().contains("install ca-certificates"), "{error}"),
    }
}
