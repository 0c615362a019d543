//! Benchmarks of Ringspun's inner parts: `cargo bench --manifest-path benches/Cargo.toml`. The peers that it is
//! compared with are programs in `bin/`, so that their crates never enter its own build: echo servers that print
//! `listening on ADDRESS (NAME)` and run until they are killed. What they have in common is here, and none of it
//! is about how a peer reads and writes.

pub mod buffers;

use std::path::PathBuf;

/// What a server listens on. All but one know only TCP, at a port of the kernel's choice.
#[derive(Debug, PartialEq)]
pub enum Transport {
    /// Connections to 127.0.0.1.
    Tcp,
    /// Datagrams to 127.0.0.1.
    Udp,
    /// Connections to a socket at this path.
    Unix(PathBuf),
}

/// The arguments of an echo server: `[--udp | --unix PATH] [--buffer BYTES] [--threads N]`.
#[derive(Debug, PartialEq)]
pub struct Arguments {
    /// What to listen on.
    pub transport: Transport,
    /// How large the buffer of each connection is.
    pub buffer_bytes: usize,
    /// How many threads serve: one unless it is given.
    pub threads: usize,
}

/// The arguments of this program; without `--buffer`, its buffers are as large as in the peer's documentation.
///
/// Ends the program with status 2 and a line that says what was expected if they are anything else.
pub fn arguments(documented_buffer_bytes: usize) -> Arguments {
    parse(std::env::args().skip(1), documented_buffer_bytes).unwrap_or_else(|text| {
        eprintln!("{text}");
        std::process::exit(2)
    })
}

/// As [`arguments`], for the servers that know only TCP.
pub fn tcp_arguments(documented_buffer_bytes: usize) -> Arguments {
    let arguments = arguments(documented_buffer_bytes);
    if arguments.transport != Transport::Tcp {
        eprintln!("{:?}: this server knows only TCP", arguments.transport);
        std::process::exit(2);
    }
    arguments
}

fn parse(
    mut arguments: impl Iterator<Item = String>,
    documented_buffer_bytes: usize,
) -> Result<Arguments, String> {
    let mut parsed =
        Arguments { transport: Transport::Tcp, buffer_bytes: documented_buffer_bytes, threads: 1 };
    while let Some(name) = arguments.next() {
        let mut number = |what: &str| {
            let text = arguments.next().unwrap_or_default();
            let expected = || format!("{name} {text:?}: expected a positive number{what}");
            text.parse().ok().filter(|&number| number > 0).ok_or_else(expected)
        };
        match name.as_str() {
            "--udp" => parsed.transport = Transport::Udp,
            "--unix" => {
                parsed.transport = Transport::Unix(arguments.next().ok_or("--unix: expected a path")?.into())
            }
            "--buffer" => parsed.buffer_bytes = number(" of bytes")?,
            "--threads" => parsed.threads = number("")?,
            _ => {
                let expected = "expected --udp, --unix PATH, --buffer BYTES or --threads N";
                return Err(format!("{name:?}: {expected}"));
            }
        }
    }
    Ok(parsed)
}
