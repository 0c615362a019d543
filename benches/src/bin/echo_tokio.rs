//! An echo server on tokio, as its documentation writes one, on one thread: what our poll backend is compared
//! with (`scripts/measure-poll`). Prints the address it listens on.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {} (tokio)", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        // A connection that breaks concerns its peer, who knows.
        tokio::spawn(async move { echo(connection).await.unwrap_or_default() });
    }
}

async fn echo(mut connection: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..count]).await?;
    }
}
