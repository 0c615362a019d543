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

/// The arguments of this program, `[--udp | --unix PATH] [--buffer BYTES]`: what to listen on, and how large the
/// buffer of each connection is in bytes, which is what the peer's documentation uses unless it is given.
///
/// Ends the program with status 2 and a line that says what was expected if they are anything else.
pub fn arguments(documented_buffer_bytes: usize) -> (Transport, usize) {
    parse(std::env::args().skip(1), documented_buffer_bytes).unwrap_or_else(|text| {
        eprintln!("{text}");
        std::process::exit(2)
    })
}

/// As [`arguments`], for the servers that know only TCP.
pub fn buffer_bytes(documented_buffer_bytes: usize) -> usize {
    let (transport, buffer_bytes) = arguments(documented_buffer_bytes);
    if transport != Transport::Tcp {
        eprintln!("{transport:?}: this server knows only TCP");
        std::process::exit(2);
    }
    buffer_bytes
}

fn parse(
    mut arguments: impl Iterator<Item = String>,
    mut buffer_bytes: usize,
) -> Result<(Transport, usize), String> {
    let mut transport = Transport::Tcp;
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--udp" => transport = Transport::Udp,
            "--unix" => {
                transport = Transport::Unix(arguments.next().ok_or("--unix: expected a path")?.into())
            }
            "--buffer" => {
                let text = arguments.next().unwrap_or_default();
                let expected = || format!("--buffer {text:?}: expected a positive number of bytes");
                buffer_bytes = text.parse().ok().filter(|&bytes| bytes > 0).ok_or_else(expected)?;
            }
            _ => return Err(format!("{name:?}: expected --udp, --unix PATH or --buffer BYTES")),
        }
    }
    Ok((transport, buffer_bytes))
}
