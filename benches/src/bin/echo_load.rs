//! Drives an echo server: `echo_load HOST:PORT CONNECTIONS SECONDS` keeps one 64-byte message in flight
//! on each connection and prints one line of JSON with what came back.
//!
//! For measurements by scripts: a bare io_uring loop that is independent of Ringspun, and takes less CPU than the
//! servers that it drives. For general use, see `ringspun load`.

use std::io::{self, Error, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use ringspun_benches::buffers::Buffers;

const MESSAGE: [u8; 64] = [b'x'; 64];
const BUFFER_SIZE_BYTES: usize = 256;
/// Marks the `user_data` of sends; the rest is the connection's index.
const SEND: u64 = 1 << 32;

struct Plan {
    target: SocketAddr,
    connections: usize,
    duration: Duration,
}

fn main() -> ExitCode {
    let outcome = plan()
        .map_err(|text| (2, text))
        .and_then(|plan| drive(&plan).map_err(|error| (1, format!("echo_load: {}: {error}", plan.target))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, text)) => {
            eprintln!("{text}");
            ExitCode::from(status)
        }
    }
}

fn plan() -> Result<Plan, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, connections, seconds] = arguments.as_slice() else {
        return Err("usage: echo_load HOST:PORT CONNECTIONS SECONDS".to_string());
    };
    let resolved = target.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let target = resolved.ok_or(format!("{target:?}: expected HOST:PORT"))?;
    let duration = Duration::from_secs(number(seconds)?);
    Ok(Plan { target, connections: number(connections)? as usize, duration })
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or(format!("{text:?}: expected a positive number"))
}

struct Connection {
    stream: TcpStream,
    sent_at: Instant,
    missing: usize,
}

fn drive(plan: &Plan) -> io::Result<()> {
    // Declared first, so dropped last: the kernel writes into it for as long as the ring lives.
    let mut buffers = Buffers::new(BUFFER_SIZE_BYTES);
    let mut ring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(32 * 1024).build(4096)?;
    buffers.register(&ring)?;
    let now = Instant::now();
    let mut connections = (0..plan.connections)
        .map(|_| Ok(Connection { stream: TcpStream::connect(plan.target)?, sent_at: now, missing: 0 }))
        .collect::<io::Result<Vec<_>>>()?;

    let start = Instant::now();
    for (index, connection) in connections.iter_mut().enumerate() {
        receive(&mut ring, index, connection)?;
        connection.sent_at = start;
        send(&mut ring, index, connection)?;
    }
    let (mut echoes, mut slowest, mut busy) = (0u64, Duration::ZERO, connections.len());
    let end = start + plan.duration;
    let mut completions = Vec::new();
    while busy > 0 {
        ring.submit_and_wait(1)?;
        completions.extend(ring.completion());
        let now = Instant::now();
        for completion in completions.drain(..) {
            let index = completion.user_data() as u32 as usize;
            if completion.user_data() & SEND != 0 {
                if completion.result() != MESSAGE.len() as i32 {
                    return Err(failure(completion.result()));
                }
                continue;
            }
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                buffers.give_back(buffer);
            }
            let connection = &mut connections[index];
            if !cqueue::more(completion.flags()) {
                // Out of buffers, which come back with each turn.
                receive(&mut ring, index, connection)?;
            }
            match completion.result() {
                received @ 1.. => connection.missing = connection.missing.saturating_sub(received as usize),
                error if error == -libc::ENOBUFS => continue,
                other => return Err(failure(other)),
            }
            if connection.missing == 0 {
                echoes += 1;
                slowest = slowest.max(now - connection.sent_at);
                if now < end {
                    connection.sent_at = now;
                    send(&mut ring, index, connection)?;
                } else {
                    busy -= 1;
                }
            }
        }
        buffers.publish();
    }
    let elapsed = start.elapsed();
    println!(
        "{{\"connections\":{},\"echoes\":{echoes},\"seconds\":{:.3},\"echoes_per_second\":{:.0},\"slowest_ms\":{:.1}}}",
        plan.connections,
        elapsed.as_secs_f64(),
        echoes as f64 / elapsed.as_secs_f64(),
        slowest.as_secs_f64() * 1000.0,
    );
    Ok(())
}

fn failure(result: i32) -> Error {
    if result < 0 { Error::from_raw_os_error(-result) } else { ErrorKind::UnexpectedEof.into() }
}

fn receive(ring: &mut IoUring, index: usize, connection: &Connection) -> io::Result<()> {
    let descriptor = Fd(connection.stream.as_raw_fd());
    push(ring, opcode::RecvMulti::new(descriptor, 0).build().user_data(index as u64))
}

fn send(ring: &mut IoUring, index: usize, connection: &mut Connection) -> io::Result<()> {
    connection.missing = MESSAGE.len();
    let descriptor = Fd(connection.stream.as_raw_fd());
    let entry = opcode::Send::new(descriptor, MESSAGE.as_ptr(), MESSAGE.len() as u32).build();
    push(ring, entry.user_data(SEND | index as u64))
}

fn push(ring: &mut IoUring, entry: squeue::Entry) -> io::Result<()> {
    // SAFETY: entries point at static bytes or at nothing; the descriptors stay open until the end.
    while unsafe { ring.submission().push(&entry) }.is_err() {
        ring.submit()?;
    }
    Ok(())
}
