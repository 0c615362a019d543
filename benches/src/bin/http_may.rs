//! A server of HTTP/1.1 on may_minihttp, as its documentation writes one, on one worker: every answer says what was
//! asked for, as those of examples/http.rs do. Prints the address it listens on.

use std::io;

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Answer;

impl HttpService for Answer {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        response.header("Content-Type: text/plain");
        response
            .body_mut()
            .extend_from_slice(format!("{} {}\n", request.method(), request.path()).as_bytes());
        Ok(())
    }
}

fn main() -> io::Result<()> {
    may::config().set_workers(1);
    // It takes an address and does not tell the port that the kernel has chosen.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = HttpServer(Answer).start(address)?;
    println!("listening on {address} (may_minihttp)");
    server.wait();
    Ok(())
}
