//! `serve echo --metrics`: the text is parsed as Prometheus does, and the counts are those of what was done.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command, Stdio};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::backend;
use crate::support::prometheus::{Samples, parse};

#[test]
fn the_parser_refuses_what_is_not_in_the_format() {
    let right =
        "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\\\"}\",y=\"\"} 2\na_total 3.5\n";
    assert_eq!(parse(right).unwrap().len(), 2);
    let times = "# HELP t_seconds Times.\n# TYPE t_seconds summary\nt_seconds{a=\"b\",quantile=\"0.5\"} 0.1\n\
                 t_seconds_sum{a=\"b\"} 1\nt_seconds_count{a=\"b\"} 2\n";
    assert_eq!(parse(times).unwrap().len(), 3);
    for (from, to) in [
        (",quantile=\"0.5\"", ""),
        ("t_seconds_sum{a=\"b\"", "t_seconds_sum{quantile=\"0.5\""),
        ("t_seconds_count", "t_seconds_max"),
        ("t_seconds summary", "t_seconds gauge"),
    ] {
        let wrong = times.replace(from, to);
        assert!(wrong != times && parse(&wrong).is_err(), "{wrong}");
    }
    for (from, to) in [
        ("# HELP a_total Things.\n", ""),
        ("# TYPE a_total counter\n", ""),
        ("a_total counter", "a_total amount"),
        ("a_total counter", "b_total counter"),
        ("3.5\n", "3.5"),
        ("3.5", "many"),
        ("a_total 3.5", "a_total"),
        ("a_total 3.5", "a-total 3.5"),
        ("a_total 3.5", "a_total{x=\"1\\\"}\",y=\"\"} 2"),
        ("y=\"\"", "y"),
    ] {
        let wrong = right.replace(from, to);
        assert!(wrong != right && parse(&wrong).is_err(), "{wrong}");
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn the_metrics_of_a_server_are_in_the_format_and_count_what_was_served() {
    for &backend in backend::usable() {
        let arguments = ["serve", "echo", "--tcp", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--workers", "2"];
        let mut server = Command::new(env!("CARGO_BIN_EXE_ringspun"))
            .args(arguments)
            .args(["--metrics", "127.0.0.1:0"])
            .env("RINGSPUN_BACKEND", backend)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
        let _server = Ended(server);
        let mut word =
            |number: usize| lines.next().unwrap().split_whitespace().nth(number).unwrap().to_string();
        let (tcp, udp, url) = (word(2), word(2), word(2));
        let metrics = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();

        let mut peers: Vec<_> = (0..5).map(|_| TcpStream::connect(&tcp).unwrap()).collect();
        for peer in &mut peers {
            peer.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        for mut peer in peers.drain(..2) {
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", &udp).unwrap();
        socket.recv(&mut [0]).unwrap();

        let response = request(metrics, "GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let samples = parse(body).unwrap();
        let sum = |name: &str| {
            let of_name = samples.iter().filter(|(key, _)| key.split('{').next() == Some(name));
            of_name.map(|(_, value)| value).sum::<f64>()
        };
        assert_eq!(sum("ringspun_connections_total"), 5.0, "{body}");
        assert_eq!(sum("ringspun_datagrams_total"), 1.0, "{body}");
        assert_eq!(sum("ringspun_received_bytes_total"), 5.0, "{body}");
        assert_eq!(sum("ringspun_connections_failed_total"), 0.0, "{body}");
        let queue_times = samples.iter().filter(|(key, _)| key.starts_with("ringspun_queue_time_seconds{"));
        assert!(
            queue_times.clone().count() == 2 && queue_times.clone().all(|(_, time)| *time > 0.0),
            "{body}"
        );
        // The ends of the two may be noticed later than this.
        assert!((3.0..=5.0).contains(&sum("ringspun_connections")), "{body}");
        assert!(sum("ringspun_fibers") >= 5.0 && sum("ringspun_waits_total") > 0.0, "{body}");
        let name = if backend == "poll" { "backend=\"poll\"" } else { "backend=\"" };
        let fibers = samples.keys().filter(|key| key.starts_with("ringspun_fibers{") && key.contains(name));
        assert_eq!(fibers.count(), 2, "one of each worker: {body}");

        for peer in peers {
            // Its close is a reset.
            setsockopt(&peer, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
        // The server may notice them later.
        let failed = |body: &str| {
            let of_name = |(key, _): &(&String, &f64)| key.starts_with("ringspun_connections_failed_total{");
            parse(body).unwrap().iter().filter(of_name).map(|(_, value)| value).sum::<f64>()
        };
        let body_now = || {
            request(metrics, "GET /metrics HTTP/1.1\r\n\r\n").split_once("\r\n\r\n").unwrap().1.to_string()
        };
        while failed(&body_now()) < 3.0 {}

        assert!(request(metrics, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(request(metrics, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        // Too large a request is not answered, and the next one is.
        let mut endless = TcpStream::connect(metrics).unwrap();
        let _ = endless.write_all(&[b'x'; 16 * 1024]);
        let _ = endless.read_to_end(&mut Vec::new());
        assert!(request(metrics, "GET /metrics HTTP/1.1\r\n\r\n").contains("200 OK"));
    }
}

/// The counts of a process, as `ringspun top` asks for them, once they have a metric.
fn asked(process: &Ended, metric: &str) -> Samples {
    let name = SocketAddr::from_abstract_name(format!("ringspun-inspection-{}", process.0.id())).unwrap();
    loop {
        // It may not listen yet.
        let Ok(mut stream) = UnixStream::connect_addr(&name) else { continue };
        stream.write_all(b"metrics\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (length, text) = text.split_once('\n').unwrap();
        assert_eq!(length.parse(), Ok(text.len()));
        // Before the first progress of a run there may be nothing.
        let samples = if text.is_empty() { Samples::new() } else { parse(text).unwrap() };
        if samples.keys().any(|key| key.split('{').next() == Some(metric)) {
            return samples;
        }
    }
}

#[test]
fn the_metrics_of_a_janet_program_and_of_a_load_generator_are_in_the_format() {
    let ringspun = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).env_remove("RINGSPUN_COMMAND");
        command
    };
    for &backend in backend::usable() {
        let program = "(net/listen \"127.0.0.1\" \"0\") (ev/spawn (ev/sleep 3600)) (ev/sleep 3600)";
        let janet =
            ringspun().args(["janet", "-e", program]).env("RINGSPUN_BACKEND", backend).spawn().unwrap();
        let samples = asked(&Ended(janet), "ringspun_timers");
        assert!(samples["ringspun_janet_fibers"] >= 2.0, "{samples:?}");

        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("tcp://{}", silent.local_addr().unwrap());
        let load = ringspun()
            .args(["load", &target, "--connections", "2", "--duration", "1h"])
            .env("RINGSPUN_BACKEND", backend)
            .spawn()
            .unwrap();
        let samples = asked(&Ended(load), "ringspun_load_connections");
        assert_eq!(samples["ringspun_load_errors_total"], 0.0, "{samples:?}");
    }
}
