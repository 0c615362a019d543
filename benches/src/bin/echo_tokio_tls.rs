//! An echo server on tokio-rustls, as its documentation writes one, on one thread: TLS with the provider, versions and
//! cipher suites of ours, a certificate for "localhost" that has signed itself, and tickets. Each connection has a
//! buffer of 1 KiB unless `--buffer BYTES` says otherwise. Prints the address it listens on.

use std::io;
use std::sync::Arc;

use ringspun_benches::Arguments;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

fn main() -> io::Result<()> {
    let Arguments { buffer_bytes, .. } = ringspun_benches::tcp_arguments(1024);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(buffer_bytes))
}

fn config() -> io::Result<Arc<ServerConfig>> {
    let certified =
        rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config =
        builder.with_single_cert(vec![certified.cert.der().clone()], key).map_err(io::Error::other)?;
    config.ticketer = Ticketer::new().map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

async fn serve(buffer_bytes: usize) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(config()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {} (tokio-rustls)", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        if connection.set_nodelay(true).is_ok() {
            let acceptor = acceptor.clone();
            // Errors of a connection only affect its peer.
            tokio::spawn(async move { echo(acceptor, connection, buffer_bytes).await.unwrap_or_default() });
        }
    }
}

async fn echo(acceptor: TlsAcceptor, connection: TcpStream, buffer_bytes: usize) -> io::Result<()> {
    let mut connection = acceptor.accept(connection).await?;
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return connection.shutdown().await;
        }
        connection.write_all(&buffer[..count]).await?;
        connection.flush().await?;
    }
}
