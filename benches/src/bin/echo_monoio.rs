//! An echo server on monoio, as its README writes one: io_uring through its owned buffers, a buffer of 8 KiB for each
//! connection unless `--buffer BYTES` says otherwise. One thread, or with `--threads N` so many that listen at the same
//! port (`SO_REUSEPORT`, its default). Prints the address it listens on.

use std::io;
use std::net::SocketAddr;
use std::thread;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};
use ringspun_benches::Arguments;

fn main() -> io::Result<()> {
    let Arguments { buffer_bytes, threads, .. } = ringspun_benches::tcp_arguments(8 * 1024);
    run(async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address: SocketAddr = listener.local_addr()?;
        for _ in 1..threads {
            thread::spawn(move || {
                run(async move { serve(TcpListener::bind(address)?, buffer_bytes).await }).unwrap()
            });
        }
        println!("listening on {address} (monoio)");
        serve(listener, buffer_bytes).await
    })
}

fn run(server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    RuntimeBuilder::<FusionDriver>::new().build()?.block_on(server)
}

async fn serve(listener: TcpListener, buffer_bytes: usize) -> io::Result<()> {
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
