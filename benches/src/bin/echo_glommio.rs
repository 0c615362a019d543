//! An echo server on glommio, as its example writes one: one executor, a task for each connection, a buffer on the
//! task. The example's buffer is one byte; here it is 8 KiB, the size of glommio's own buffered streams, unless
//! `--buffer BYTES` says otherwise. With `--threads N`, so many executors listen at the same port (`SO_REUSEPORT`, its
//! default). Prints the address it listens on.
//!
//! Executors are not pinned to cores: scripts pin all servers alike, from outside.

use std::io;
use std::net::SocketAddr;
use std::thread;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use glommio::LocalExecutorBuilder;
use glommio::net::{TcpListener, TcpStream};
use ringspun_benches::Arguments;

fn main() -> io::Result<()> {
    let Arguments { buffer_bytes, threads, .. } = ringspun_benches::tcp_arguments(8 * 1024);
    LocalExecutorBuilder::default().make()?.run(async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address: SocketAddr = listener.local_addr()?;
        for _ in 1..threads {
            thread::spawn(move || {
                let executor = LocalExecutorBuilder::default().make()?;
                executor.run(async move { serve(TcpListener::bind(address)?, buffer_bytes).await })
            });
        }
        println!("listening on {address} (glommio)");
        Ok(serve(listener, buffer_bytes).await?)
    })
}

async fn serve(listener: TcpListener, buffer_bytes: usize) -> glommio::Result<(), ()> {
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
