//! An echo server on compio, as its examples read and write: io_uring through its owned buffers, one thread, or with
//! `--threads N` so many that listen at the same port (`SO_REUSEPORT`). The examples size a buffer for the message at
//! hand; here each connection has 8 KiB, as with monoio, which compio is modelled on, unless `--buffer BYTES` says
//! otherwise. Prints the address it listens on.

use std::io;
use std::net::SocketAddr;
use std::thread;

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpSocket, TcpStream};
use compio::runtime::Runtime;
use ringspun_benches::Arguments;

fn main() -> io::Result<()> {
    let Arguments { buffer_bytes, threads, .. } = ringspun_benches::tcp_arguments(8 * 1024);
    run(async move {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        for _ in 1..threads {
            thread::spawn(move || run(async move { serve(listen(address).await?, buffer_bytes).await }));
        }
        println!("listening on {address} (compio)");
        serve(listener, buffer_bytes).await
    })
}

fn run(server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    Runtime::new()?.block_on(server)
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4().await?;
    socket.set_reuseport(true)?;
    socket.bind(address).await?;
    socket.listen(1024).await
}

async fn serve(listener: TcpListener, buffer_bytes: usize) -> io::Result<()> {
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
