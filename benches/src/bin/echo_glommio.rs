//! An echo server on glommio, as its example writes one: one executor, a task for each connection, a buffer on the
//! task. The example's buffer is one byte; here it is 8 KiB, the size of glommio's own buffered streams, unless
//! `--buffer BYTES` says otherwise. Prints the address it listens on.
//!
//! The executor is not pinned to a core: scripts pin all servers alike, from outside.

use std::io;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use glommio::LocalExecutorBuilder;
use glommio::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let buffer_bytes = ringspun_benches::buffer_bytes(8 * 1024);
    let executor = LocalExecutorBuilder::default().make()?;
    executor.run(serve(buffer_bytes))
}

async fn serve(buffer_bytes: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {} (glommio)", listener.local_addr()?);
    loop {
        let connection = listener.accept().await?;
        // Errors of a connection only affect its peer.
        glommio::spawn_local(async move { echo(connection, buffer_bytes).await.unwrap_or_default() })
            .detach();
    }
}

async fn echo(mut connection: TcpStream, buffer_bytes: usize) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..count]).await?;
    }
}
