//! An echo server on tokio, as its documentation writes one, on one thread, or with `--threads N` on its runtime with
//! many: over TCP, with `--udp` for datagrams, or with `--unix PATH` for connections to a Unix socket. Each connection
//! has a buffer of 1 KiB unless `--buffer BYTES` says otherwise. Prints the address it listens on.

use std::io;

use ringspun_benches::{Arguments, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    let Arguments { transport, buffer_bytes, threads } = ringspun_benches::arguments(1024);
    let runtime = match threads {
        1 => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    // In a task, as with many threads the accepting future of `block_on` is on none of the workers.
    runtime.block_on(async { tokio::spawn(serve(transport, buffer_bytes)).await? })
}

async fn serve(transport: Transport, buffer_bytes: usize) -> io::Result<()> {
    match transport {
        Transport::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on {} (tokio)", listener.local_addr()?);
            loop {
                let (connection, _) = listener.accept().await?;
                if connection.set_nodelay(true).is_ok() {
                    spawn(connection, buffer_bytes);
                }
            }
        }
        Transport::Unix(path) => {
            let listener = UnixListener::bind(&path)?;
            println!("listening on {} (tokio)", path.display());
            loop {
                spawn(listener.accept().await?.0, buffer_bytes);
            }
        }
        Transport::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            println!("listening on {} (tokio)", socket.local_addr()?);
            let mut buffer = vec![0; buffer_bytes];
            loop {
                let (count, peer) = socket.recv_from(&mut buffer).await?;
                // An answer that cannot be sent is lost, as datagrams are.
                let _ = socket.send_to(&buffer[..count], peer).await;
            }
        }
    }
}

fn spawn(connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, buffer_bytes: usize) {
    // Errors of a connection only affect its peer.
    tokio::spawn(async move { echo(connection, buffer_bytes).await.unwrap_or_default() });
}

async fn echo(mut connection: impl AsyncRead + AsyncWrite + Unpin, buffer_bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..count]).await?;
    }
}
