//! `--metrics`: the counts of a server over HTTP, for Prometheus.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringspun::fibers::{self, FiberBuilder};
use ringspun::janet::VmStatistics;
use ringspun::net::{self, Address, Endpoint, ServerHandle, Stream};
use ringspun::{MetricKind, Metrics};

use super::echoes::Counts;
use super::output;

const STACK_SIZE_BYTES: usize = 256 * 1024;
/// How long a client has for its request, and for taking the response. Clients are served one after the other.
const CLIENT_MAX: Duration = Duration::from_secs(2);
const REQUEST_MAX_BYTES: usize = 8 * 1024;
/// What a listener without descriptors waits before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts that a server adds to those of the process.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn(&mut Metrics) + Send + Sync>);

impl Source {
    pub fn new(add: impl Fn(&mut Metrics) + Send + Sync + 'static) -> Self {
        Self(Arc::new(add))
    }

    pub fn add_to(&self, metrics: &mut Metrics) {
        self.0(metrics);
    }
}

/// Serves the counts of the process at `endpoint`, until the runtime ends. Returns the address.
pub fn serve(endpoint: &Endpoint, source: Source) -> io::Result<Address> {
    let listener = net::listen(endpoint)?;
    let address = listener.localname()?;
    let text = move || {
        let mut metrics = ringspun::metrics();
        source.add_to(&mut metrics);
        metrics.to_string()
    };
    FiberBuilder::new().name("metrics").stack_size_bytes(STACK_SIZE_BYTES).spawn(move || {
        loop {
            match listener.accept() {
                Ok(stream) => {
                    // A client that is too slow is of no interest.
                    let _ = fibers::timeout(CLIENT_MAX, || answer(&stream, text.clone()));
                }
                Err(error) => {
                    if fibers::sleep(PAUSE).is_err() {
                        // The runtime is ending.
                        return;
                    }
                    output::complain(format_args!("metrics: {error}"));
                }
            }
        }
    })?;
    Ok(address)
}

/// Adds the counts of a server's workers.
pub fn add_workers(metrics: &mut Metrics, server: &ServerHandle, counts: &[Counts], counts_bytes: bool) {
    for (index, (worker, counts)) in server.statistics().iter().zip(counts).enumerate() {
        let index_text = index.to_string();
        let labels = [("worker", &*index_text)];
        let mut add = |name, kind, help, value| metrics.add(name, kind, help, &labels, value);
        use MetricKind::{Counter, Gauge};
        add("ringspun_connections", Gauge, "Live connections.", worker.connections as f64);
        add(
            "ringspun_connections_total",
            Counter,
            "Connections served, with the live ones.",
            worker.served as f64,
        );
        let help = "Connections accepted for other workers.";
        add("ringspun_connections_handed_over_total", Counter, help, worker.handed_over as f64);
        let help = "Connections that an error ended, such as a reset.";
        add("ringspun_connections_failed_total", Counter, help, counts.failures.get() as f64);
        add("ringspun_datagrams_total", Counter, "Datagrams received.", counts.datagrams.get() as f64);
        if counts_bytes {
            let help = "Bytes received over connections.";
            add("ringspun_received_bytes_total", Counter, help, counts.bytes.get() as f64);
        }
        if let Some(time) = worker.processor_time {
            let help = "Processor time of the worker's thread.";
            add("ringspun_processor_time_seconds_total", Counter, help, time.as_secs_f64());
        }
    }
}

/// Adds the counts of a Janet VM.
pub fn add_vm(metrics: &mut Metrics, vm: &VmStatistics) {
    let help = "Fibers of the main thread's Janet VM that have not ended.";
    metrics.add("ringspun_janet_fibers", MetricKind::Gauge, help, &[], vm.fibers as f64);
    let Some(event_loop) = vm.event_loop else { return };
    metrics.add_loop("janet", event_loop.backend, &event_loop.held, &event_loop.waits);
}

/// Answers one request, and closes.
fn answer(stream: &Stream, text: impl FnOnce() -> String + Send + 'static) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.receive()? {
            Some(bytes) if request.len() + bytes.len() <= REQUEST_MAX_BYTES => {
                request.extend_from_slice(&bytes)
            }
            _ => return Ok(()),
        }
    }
    let (status, body) = match target(&request) {
        // On another thread, as it waits for this one, too.
        Some(b"/metrics") => ("200 OK", fibers::blocking(text)?),
        Some(_) => ("404 Not Found", "The metrics are at /metrics.\n".to_string()),
        None => ("405 Method Not Allowed", "Expected GET /metrics.\n".to_string()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write((head + &body).as_bytes())?;
    Ok(())
}

/// What a GET asks for, without its query.
fn target(request: &[u8]) -> Option<&[u8]> {
    let target = request.strip_prefix(b"GET ")?.split(|&byte| byte == b' ').next()?;
    target.split(|&byte| byte == b'?').next()
}
