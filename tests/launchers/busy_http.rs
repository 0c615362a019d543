//! A server of HTTP/1.1 whose answers cost what their paths say, for scripts/measures/wrk.sh:
//!
//! ```text
//! busy-http LISTEN
//! ```
//!
//! `/busy/20` computes for 20 microseconds before it answers, which all others wait for, and other paths do not. Requests
//! have no bodies, and are answered in order. Prints the address it listens on.

use std::hint::spin_loop;
use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

use ringspun::net::{self, Stream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\ndone\n";
const BUSY_MAX: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    let place = std::env::args().nth(1);
    let place = place.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "expected: LISTEN"))?;
    ringspun::run(move || {
        let listener = net::listen(place)?;
        println!("listening at {}", listener.localname()?);
        // Errors of a connection only affect its peer.
        listener.accept_loop(|stream| drop(serve(&stream)))
    })?
}

fn serve(stream: &Stream) -> Result<()> {
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    while let Some(bytes) = stream.receive()? {
        received.extend_from_slice(&bytes);
        while let Some(end) = received.windows(4).position(|part| part == b"\r\n\r\n") {
            compute(&received[..end]);
            received.drain(..end + 4);
            answers.extend_from_slice(ANSWER);
        }
        stream.write(&answers)?;
        answers.clear();
    }
    Ok(())
}

/// Computes for as long as the path of a request says.
fn compute(request: &[u8]) {
    let head = String::from_utf8_lossy(request);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let Some(microseconds) = path.strip_prefix("/busy/").and_then(|number| number.parse().ok()) else {
        return;
    };
    let (begun, time) = (Instant::now(), Duration::from_micros(microseconds).min(BUSY_MAX));
    while begun.elapsed() < time {
        spin_loop();
    }
}
