//! A server of HTTP/1.1 on hyper and tokio, as hyper's documentation writes one, on one thread: every answer says what
//! was asked for, as those of examples/http.rs do. Prints the address it listens on.

use std::convert::Infallible;
use std::io;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {} (hyper)", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        if connection.set_nodelay(true).is_err() {
            continue;
        }
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.pipeline_flush(true);
            // Errors of a connection only affect its peer.
            let _ = builder.serve_connection(TokioIo::new(connection), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = format!("{} {}\n", request.method(), request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
