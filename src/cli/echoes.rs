//! What `serve echo` does with connections and datagrams, and what it counts of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringspun::net::{DatagramSocket, SocketOption, Stream, interrupt_of, is_closed};
use ringspun::tls::{self, ServerConfig, TlsStream};

use super::output;

/// The counts of all workers, and which of them is this one's.
#[derive(Clone)]
pub struct Echoes {
    counts: Arc<[Counts]>,
    worker: usize,
    /// Not counting them saves instructions of each echo.
    counts_bytes: bool,
}

/// What a worker has done, in cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Counts {
    /// Bytes received over connections, if they are counted.
    pub bytes: Counter,
    /// Datagrams received.
    pub datagrams: Counter,
    /// Connections that an error ended.
    pub failures: Counter,
}

/// Counted by one thread, and read by all.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: usize) {
        self.0.store(self.get() + count as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Echoes {
    pub fn new(counts: Arc<[Counts]>, worker: usize, counts_bytes: bool) -> Self {
        Self { counts, worker, counts_bytes }
    }

    fn counts(&self) -> &Counts {
        &self.counts[self.worker]
    }

    /// Serves a connection over TCP.
    pub fn tcp(&self, stream: &Stream) {
        // Without it, the end of a long response would wait for the acknowledgement of its beginning. If this fails, so
        // does the echo.
        let _ = stream.set_option(SocketOption::NoDelay(true));
        self.stream(stream);
    }

    /// Serves a connection of any kind.
    pub fn stream(&self, stream: &Stream) {
        self.note_end(match self.counts_bytes {
            true => echo(stream, |count| self.counts().bytes.add(count)),
            false => echo(stream, |_| {}),
        });
    }

    /// Serves a connection over TCP, from its handshake on.
    pub fn tls(&self, stream: Stream, config: &ServerConfig) {
        let _ = stream.set_option(SocketOption::NoDelay(true));
        let stream = match tls::accept(stream, config) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a handshake failed");
                return self.note_end(Err(error));
            }
        };
        self.note_end(match self.counts_bytes {
            true => echo_tls(&stream, |count| self.counts().bytes.add(count)),
            false => echo_tls(&stream, |_| {}),
        });
    }

    /// A broken connection is only of interest to its peer, and to who counts.
    fn note_end(&self, ended: io::Result<()>) {
        if ended.is_err_and(|error| !is_closed(&error) && interrupt_of(&error).is_none()) {
            self.counts().failures.add(1);
        }
    }

    /// Serves a socket until it is closed.
    pub fn datagrams(&self, socket: &DatagramSocket) {
        loop {
            match socket.receive() {
                Ok((bytes, source)) => {
                    self.counts().datagrams.add(1);
                    // Datagrams may be lost; so may this response.
                    let _ = socket.send_to(&source, &bytes);
                }
                Err(error) if is_closed(&error) || interrupt_of(&error).is_some() => return,
                Err(error) => return output::complain(error),
            }
        }
    }
}

/// Has a small frame of its own: with many connections, each cache line of a parked fiber's stack is a cache miss.
#[inline(never)]
fn echo(stream: &Stream, count: impl Fn(usize)) -> io::Result<()> {
    stream.set_write_behind(true);
    while let Some(bytes) = stream.receive()? {
        count(bytes.len());
        stream.write(&bytes)?;
    }
    Ok(())
}

fn echo_tls(stream: &TlsStream, count: impl Fn(usize)) -> io::Result<()> {
    stream.set_write_behind(true);
    while let Some(bytes) = stream.receive()? {
        count(bytes.len());
        stream.write(&bytes)?;
    }
    Ok(())
}
