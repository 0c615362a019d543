//! What `ringspun load` counts is what servers of others count: nginx in its log, redis in its statistics. Those of
//! WebSocket are in websocket.rs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringspun::tls::Identity;

use crate::support::measuring::{measure, number};
use crate::support::scratch::ScratchFolder;

/// Ways to send requests: closed and open loops, on one thread and on two.
const PACES: [&[&str]; 4] =
    [&[], &["--rate", "2k"], &["--workers", "2"], &["--rate", "2k", "--workers", "2"]];
/// Requests of a run.
const COUNT: u64 = 300;

/// A server of others, which is ended when it is dropped.
struct Other(Child);

impl Other {
    /// Starts a server, and waits until it accepts connections at a socket; `None` if it is not installed.
    fn start(program: &str, arguments: &[&str], socket: &str) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(process) = command.spawn() else {
            println!("SKIPPED: {program} is not installed");
            return None;
        };
        let mut server = Self(process);
        while UnixStream::connect(socket).is_err() {
            let ended = server.0.try_wait().unwrap();
            assert!(ended.is_none(), "{program} ended: {ended:?}");
            thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    /// Lets it finish what it does.
    fn quit(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGQUIT).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its configuration: a server per protocol, each at a socket with a log. Connections end after 70 requests.
fn nginx_configuration(folder: &Path) -> String {
    let folder = folder.to_str().unwrap();
    let server = |name: &str, options: &str| {
        format!(
            "server {{ listen unix:{folder}/{name} {options}; access_log {folder}/{name}.log seen; \
             location / {{ return 200 hello; }} location /missing {{ return 404; }} }}\n"
        )
    };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};"))
        .concat();
    format!(
        "daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{ worker_connections 512; }}\n\
         http {{ log_format seen '$server_protocol $status'; keepalive_requests 70; {temporary}\n\
         ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;\n{}{}{}{} }}\n",
        server("http", ""),
        server("https", "ssl"),
        server("h2c", "http2"),
        server("h2", "ssl http2")
    )
}

#[test]
fn nginx_logs_what_is_counted() {
    let folder = ScratchFolder::new("ngx");
    let (certificate, key) = Identity::self_signed_pem(&["localhost"]).unwrap();
    let authority = folder.file("certificate.pem");
    fs::write(&authority, certificate).unwrap();
    fs::write(folder.file("key.pem"), key).unwrap();
    fs::write(folder.file("nginx.conf"), nginx_configuration(folder.path())).unwrap();
    let arguments = ["-p", &folder.file(""), "-c", &folder.file("nginx.conf")];
    let Some(nginx) = Other::start("nginx", &arguments, &folder.file("http")) else { return };
    let protocols = [
        ("http", "http://localhost", "HTTP/1.1", &[][..]),
        ("https", "https://localhost", "HTTP/1.1", &["--cacert", &authority]),
        ("h2c", "http://localhost", "HTTP/2.0", &["--http2", "--streams", "8"]),
        ("h2", "https://localhost", "HTTP/2.0", &["--http2", "--streams", "8", "--cacert", &authority]),
    ];
    for (name, target, _, flags) in protocols {
        let socket = format!("unix:{}", folder.file(name));
        for (path, statuses) in [("/", "200"), ("/missing", "404")] {
            for pace in PACES {
                let url = format!("{target}{path}");
                let base = [&url, "--connect-to", &socket, "--connections", "4", "--expect", statuses];
                let count = COUNT.to_string();
                let report = measure(&[&base[..], flags, pace, &["--count", &count]].concat(), 0);
                assert_eq!(number(&report["requests"]["answered"]), COUNT, "{name} {pace:?} {report}");
                assert_eq!(number(&report["errors"]["total"]), 0, "{name} {pace:?} {report}");
                assert_eq!(number(&report["statuses"][statuses]), COUNT);
            }
        }
    }
    nginx.quit();
    for (name, _, version, _) in protocols {
        let log = fs::read_to_string(folder.file(&format!("{name}.log"))).unwrap();
        for status in ["200", "404"] {
            let line = format!("{version} {status}");
            let logged = log.lines().filter(|logged| *logged == line).count() as u64;
            assert_eq!(logged, COUNT * PACES.len() as u64, "{name} {status}");
        }
        assert_eq!(log.lines().count() as u64, 2 * COUNT * PACES.len() as u64, "{name}");
    }
}

#[test]
fn redis_has_done_what_is_counted() {
    let folder = ScratchFolder::new("redis");
    let (socket, ping) = (folder.file("socket"), folder.file("ping"));
    fs::write(&ping, "PING\r\n").unwrap();
    let arguments =
        ["--port", "0", "--unixsocket", &socket, "--save", "", "--dir", folder.path().to_str().unwrap()];
    let Some(_redis) = Other::start("redis-server", &arguments, &socket) else { return };
    let target = format!("unix:{socket}");
    let depths = ["1", "8"];
    for pace in PACES {
        for depth in depths {
            let count = COUNT.to_string();
            let base =
                [&target, "--workload", "request", "--payload-file", &ping, "--response-end", "\\r\\n"];
            let flags = ["--connections", "4", "--pipeline", depth, "--count", &count];
            let report = measure(&[&base[..], &flags, pace].concat(), 0);
            assert_eq!(number(&report["requests"]["answered"]), COUNT, "{pace:?} {report}");
        }
    }
    let mut asking = UnixStream::connect(&socket).unwrap();
    asking.write_all(b"INFO commandstats\r\nQUIT\r\n").unwrap();
    let mut statistics = String::new();
    asking.read_to_string(&mut statistics).unwrap();
    let expected = format!("cmdstat_ping:calls={},", COUNT * (PACES.len() * depths.len()) as u64);
    assert!(statistics.contains(&expected), "{expected} {statistics}");
}
