//! An echo server on monoio, as its README writes one: io_uring through its owned buffers, one thread, a buffer of
//! 8 KiB for each connection unless `--buffer BYTES` says otherwise. Prints the address it listens on.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

#[monoio::main]
async fn main() -> io::Result<()> {
    let buffer_bytes = ringspun_benches::buffer_bytes(8 * 1024);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {} (monoio)", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        // Errors of a connection only affect its peer.
        monoio::spawn(async move { echo(connection, buffer_bytes).await.unwrap_or_default() });
    }
}

async fn echo(mut connection: TcpStream, buffer_bytes: usize) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(buffer_bytes);
    loop {
        let (received, filled) = connection.read(buffer).await;
        if received? == 0 {
            return Ok(());
        }
        let (sent, emptied) = connection.write_all(filled).await;
        sent?;
        buffer = emptied;
        buffer.clear();
    }
}
