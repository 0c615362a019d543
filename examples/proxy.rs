//! A TCP proxy: whoever connects to it talks to the target.
//!
//! ```sh
//! cargo run --release --example proxy -- [TARGET [LISTEN]]    # 127.0.0.1:8000 and 127.0.0.1:8001
//! ```
//!
//! Each direction is a fiber. The end of one is passed on by a half-close, and the other goes on: a client
//! may send its whole question, end it, and then read the answer.

use std::io::{Error, ErrorKind, Result};
use std::net::Shutdown;
use std::process::ExitCode;
use std::rc::Rc;

use ringspun::fibers;
use ringspun::net::{self, Endpoint, Peer, Stream};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, place) = match arguments.as_slice() {
        [] => ("127.0.0.1:8000", "127.0.0.1:8001"),
        [target] => (target.as_str(), "127.0.0.1:8001"),
        [target, place] => (target.as_str(), place.as_str()),
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "expected at most two arguments: [TARGET [LISTEN]]",
            ));
        }
    };
    // Before the first client comes, so that a mistake is told at once.
    let (target, place) = (target.endpoint()?, place.endpoint()?);
    ringspun::run(move || {
        let listener = net::listen(place)?;
        println!("listening at {}", listener.localname()?);
        listener.accept_loop(move |client| {
            if let Err(error) = serve(client, &target) {
                eprintln!("proxy: {error}");
            }
        })
    })?
}

fn serve(client: Stream, target: &Endpoint) -> Result<()> {
    let (client, target) = (Rc::new(client), Rc::new(net::connect(target)?));
    fibers::spawn({
        let (client, target) = (client.clone(), target.clone());
        move || carry(&client, &target)
    })?;
    carry(&target, &client);
    Ok(())
}

/// Writes all that comes from one stream to another, and then its end. An error ends the other direction too.
fn carry(from: &Stream, to: &Stream) {
    if let Err(error) = copy(from, to) {
        from.close();
        to.close();
        // That is how the other direction hears of it.
        if !net::is_closed(&error) {
            eprintln!("proxy: {error}");
        }
    }
}

fn copy(from: &Stream, to: &Stream) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.shutdown(Shutdown::Write),
            // Parks while the receiver does not read, so nothing piles up here.
            count => to.write(&buffer[..count])?,
        };
    }
}
