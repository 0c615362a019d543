//! The cost of a parked fiber: `parked_fibers COUNT` parks that many fibers in one thread, and prints one line of
//! JSON with the resident memory and the time that each of them took.

use std::io::{Error, ErrorKind, Result};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringspun::fibers;

/// Longer than it takes to start them all.
const PARKED: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).filter(|&count: &u32| count > 0);
    let Some(count) = count else {
        eprintln!("usage: parked_fibers COUNT");
        return ExitCode::from(2);
    };
    match ringspun::run(move || park(count)).and_then(|outcome| outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parked_fibers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn park(count: u32) -> Result<()> {
    let (before_bytes, start) = (resident_bytes()?, Instant::now());
    for _ in 0..count {
        // The end of the runtime interrupts it, which is how all of them end.
        fibers::spawn(|| fibers::sleep(PARKED).unwrap_or_default())?;
    }
    // Fibers run in the order in which they were started: when this one is through, all of them are parked.
    fibers::spawn(|| ())?.join().map_err(Error::from)?;
    let (each, taken) = (f64::from(count), start.elapsed());
    println!(
        "{{\"fibers\":{count},\"resident_bytes_per_fiber\":{:.0},\"nanoseconds_per_fiber\":{:.0}}}",
        resident_bytes()?.saturating_sub(before_bytes) as f64 / each,
        taken.as_secs_f64() * 1e9 / each,
    );
    Ok(())
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kibibytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kibibytes.map(|kibibytes: u64| kibibytes * 1024).ok_or(ErrorKind::InvalidData.into())
}
