//! Drives an echo server: `echo_load HOST:PORT CONNECTIONS SECONDS [BYTES]` keeps one message in flight
//! on each connection and prints one line of JSON with what came back. A yardstick for scripts and
//! tests; `ringspun load` will be the real instrument.

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun::{Runtime, fibers, net};

struct Plan {
    target: String,
    connections: usize,
    duration: Duration,
    message_bytes: usize,
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(text) => {
            eprintln!("{text}\nusage: echo_load HOST:PORT CONNECTIONS SECONDS [BYTES]");
            return ExitCode::from(2);
        }
    };
    match Runtime::new().stack_size_bytes(32 * 1024).run(move || drive(plan)).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Result<Plan, String> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let target = next("HOST:PORT")?;
    let connections = number(&next("CONNECTIONS")?)?;
    let duration = Duration::from_secs(number(&next("SECONDS")?)? as u64);
    let message_bytes = arguments.next().map_or(Ok(64), |text| number(&text))?;
    Ok(Plan { target, connections, duration, message_bytes })
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or(format!("{text:?}: expected a positive number"))
}

fn drive(plan: Plan) -> io::Result<()> {
    let opened =
        (0..plan.connections).map(|_| net::connect(plan.target.as_str())).collect::<io::Result<Vec<_>>>()?;
    let echoes = Rc::new(Cell::new(0u64));
    let slowest = Rc::new(Cell::new(Duration::ZERO));
    let start = Instant::now();
    let end = start + plan.duration;
    let clients = opened
        .into_iter()
        .map(|stream| {
            let (echoes, slowest) = (echoes.clone(), slowest.clone());
            let message = vec![b'x'; plan.message_bytes];
            fibers::spawn(move || -> io::Result<()> {
                let mut sent = Instant::now();
                while sent < end {
                    stream.write(&message)?;
                    let mut missing = message.len();
                    while missing > 0 {
                        let received = stream.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                        missing = missing.saturating_sub(received.len());
                    }
                    let now = Instant::now();
                    slowest.set(slowest.get().max(now - sent));
                    sent = now;
                    echoes.set(echoes.get() + 1);
                }
                Ok(())
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    for client in clients {
        client.join()??;
    }
    let elapsed = start.elapsed();
    println!(
        "{{\"connections\":{},\"echoes\":{},\"seconds\":{:.3},\"echoes_per_second\":{:.0},\"slowest_ms\":{:.1}}}",
        plan.connections,
        echoes.get(),
        elapsed.as_secs_f64(),
        echoes.get() as f64 / elapsed.as_secs_f64(),
        slowest.get().as_secs_f64() * 1000.0,
    );
    Ok(())
}
