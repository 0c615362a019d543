//! An echo server on compio, as its examples read and write: io_uring through its owned buffers, one thread. They
//! size a buffer for the message at hand; here each connection has 8 KiB, as with monoio, which compio is modelled
//! on, unless `--buffer BYTES` says otherwise. Prints the address it listens on.

use std::io;

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};

#[compio::main]
async fn main() -> io::Result<()> {
    let buffer_bytes = ringspun_benches::buffer_bytes(8 * 1024);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {} (compio)", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        // Errors of a connection only affect its peer.
        compio::runtime::spawn(async move { echo(connection, buffer_bytes).await.unwrap_or_default() })
            .detach();
    }
}

async fn echo(mut connection: TcpStream, buffer_bytes: usize) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(buffer_bytes);
    loop {
        let BufResult(received, filled) = connection.read(buffer).await;
        if received? == 0 {
            return Ok(());
        }
        let BufResult(sent, emptied) = connection.write_all(filled).await;
        sent?;
        buffer = emptied;
        buffer.clear();
    }
}
