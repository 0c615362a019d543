//! Fetches pages beside each other by hyper's client, which is written for futures, and prints what came of each.
//!
//! ```sh
//! cargo run --release --example fetch -- http://127.0.0.1:8080/hello https://example.org/
//! ```
//!
//! Each page has a fiber of its own, which connects in straight code, with TLS or without, and gives the stream to
//! hyper. A page that takes longer than ten seconds is given up.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use ringspun::fibers::{self, JoinSet};
use ringspun::net::{self, AsyncStream, PollStream};
use ringspun::tls;

const PAGE_TIME_MAX: Duration = Duration::from_secs(10);
const PAGES_MAX: usize = 100;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() || urls.len() > PAGES_MAX {
        eprintln!("fetch: expected 1 to {PAGES_MAX} addresses, such as http://127.0.0.1:8080/hello");
        return ExitCode::from(2);
    }
    match ringspun::run(move || fetch_all(urls)) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) | Err(error) => {
            eprintln!("fetch: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the pages in the order in which they come; true if all have come.
fn fetch_all(urls: Vec<String>) -> std::io::Result<bool> {
    let mut pages = JoinSet::new();
    for url in urls {
        pages.spawn(move || {
            let fetched = fibers::timeout(PAGE_TIME_MAX, || fetch(&url));
            match fetched.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok((status, length)) => println!("{url}: {status}, {length} bytes"),
                Err(error) => {
                    eprintln!("fetch: {url}: {error}");
                    return false;
                }
            }
            true
        })?;
    }
    let mut all = true;
    while let Some(page) = pages.join_next()? {
        all &= page.unwrap_or(false);
    }
    Ok(all)
}

fn fetch(url: &str) -> Outcome<(StatusCode, usize)> {
    let url: Uri = url.parse()?;
    let host = url.host().ok_or("expected an address with a host")?;
    match url.scheme_str() {
        Some("http") => ask(net::connect((host, url.port_u16().unwrap_or(80)))?, &url),
        Some("https") => ask(tls::connect((host, url.port_u16().unwrap_or(443)))?, &url),
        _ => Err("expected http:// or https://".into()),
    }
}

fn ask<S: PollStream + Unpin + 'static>(stream: S, url: &Uri) -> Outcome<(StatusCode, usize)> {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header("Host", authority).body(Empty::<Bytes>::new())?;
    fibers::block_on(async {
        let (mut sender, connection) = http1::handshake(AsyncStream::new(stream)).await?;
        // It carries the bytes of the connection as long as the sender lives.
        fibers::spawn(move || fibers::block_on(connection))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok((status, length))
    })?
}
