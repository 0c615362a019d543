//! A server of HTTP/1.1 on hyper and Ringspun's fibers, on one thread: what http_hyper.rs is on tokio. Every answer
//! says what was asked for, as those of examples/http.rs do. Prints the address it listens on.

use std::convert::Infallible;
use std::io;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use ringspun::fibers;
use ringspun::net::{self, AsyncStream, Stream};

fn main() -> io::Result<()> {
    ringspun::run(|| {
        let listener = net::listen("127.0.0.1:0")?;
        println!("listening on {} (hyper on fibers)", listener.localname()?);
        listener.accept_loop(serve)
    })?
}

fn serve(stream: Stream) {
    let mut builder = http1::Builder::new();
    builder.pipeline_flush(true);
    // Errors of a connection only affect its peer.
    let _ = fibers::block_on(builder.serve_connection(AsyncStream::new(stream), service_fn(answer)));
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = format!("{} {}\n", request.method(), request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
