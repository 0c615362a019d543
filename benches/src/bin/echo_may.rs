//! An echo server on may, as its README writes one: a coroutine for each connection, with a buffer of 16 KiB on the
//! heap unless `--buffer BYTES` says otherwise, and one worker thread unless `--threads N` says otherwise. Prints the
//! address it listens on.

use std::io::{self, Read, Write};

use may::net::{TcpListener, TcpStream};
use ringspun_benches::Arguments;

fn main() -> io::Result<()> {
    let Arguments { buffer_bytes, threads, .. } = ringspun_benches::tcp_arguments(16 * 1024);
    may::config().set_workers(threads);
    // In a coroutine, as in the longer of its examples: outside of one, each accept would cross threads.
    may::go!(move || serve(buffer_bytes))
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the accepting coroutine ended in a panic")))
}

fn serve(buffer_bytes: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {} (may)", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept()?;
        // Errors of a connection only affect its peer.
        may::go!(move || echo(connection, buffer_bytes).unwrap_or_default());
    }
}

fn echo(mut connection: TcpStream, buffer_bytes: usize) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..count])?;
    }
}
