//! The scenes with what is no socket: files, pipes, child processes, and signals.

use std::io;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{self, raise};
use ringspun_fibers::{self as fibers, Signal, Signals};
use ringspun_net::fs::File;
use ringspun_net::{self as net, Pipe, WriteInterrupted};

use crate::count::{Failure, Limit, Operation, Random, Storm};
use crate::scenes::{SCENES_AT_ONCE, pattern};

const BLOCK_BYTES: usize = 20_000;
const BLOCKS: u64 = 8;

/// Makes the descriptors by which signals are waited for, which are kept and used again.
pub fn keep_descriptors() -> io::Result<()> {
    (0..SCENES_AT_ONCE).map(|_| Signals::new(&[Signal::USR1])).collect::<io::Result<Vec<_>>>().map(drop)
}

fn temporary_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("ringspun-storm-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

/// Fibers that write blocks of a file and read them again, and are cancelled meanwhile.
pub fn files(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let file = Rc::new(temporary_file()?);
    let mut handles = Vec::new();
    for block in 0..BLOCKS {
        let (file, mut random, storm) = (file.clone(), random.fork(), storm.clone());
        handles.push(fibers::spawn(move || {
            let place = block * BLOCK_BYTES as u64;
            let mut present = vec![0; BLOCK_BYTES];
            file.write_all_at(&present, place).unwrap_or_default();
            let mut is_known = false;
            for round in 0..20 {
                let limit = if random.below(2) == 0 { Limit::None } else { Limit::deadline(&mut random) };
                let next = pattern(round, place as usize, BLOCK_BYTES);
                let mut found = vec![0; BLOCK_BYTES];
                let result = limit.hold(|| match random.below(3) {
                    0 => file.write_at(&next, place).map(|count| {
                        assert_eq!(count, BLOCK_BYTES);
                        (present, is_known) = (next, true);
                    }),
                    1 => file.chunk_at(&mut found, place).map(|_| {
                        assert!(!is_known || found == present, "a block that was written is there");
                    }),
                    _ => file.sync_data(),
                });
                if let Err(error) = result {
                    storm.failed(Operation::File, limit, &error);
                }
            }
        })?);
    }
    while !handles.iter().all(fibers::JoinHandle::is_finished) {
        handles[random.below(BLOCKS) as usize].cancel();
        fibers::sleep(random.moment())?;
    }
    Ok(())
}

/// Writes to a pipe, whatever interrupts it, and returns how much the kernel took.
fn write(storm: &Storm, mut random: Random, pipe: &Pipe, salt: u8) -> usize {
    let mut written = 0;
    for _ in 0..20 {
        let length = 1 + random.below(100_000) as usize;
        let limit = Limit::deadline(&mut random);
        match limit.hold(|| pipe.write(&pattern(salt, written, length))) {
            Ok(count) => written += count,
            Err(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<WriteInterrupted>());
                let count = inner.unwrap_or_else(|| panic!("no count in: {error}")).written_bytes;
                written += count;
                storm.failed(Operation::Pipe, limit, &error);
            }
        }
    }
    written
}

/// A reader and a writer of a pipe, which are cancelled: each byte comes once.
pub fn pipes(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let (reader, writer) = net::pipe()?;
    let salt = random.next() as u8;
    let (choices, shared) = (random.fork(), storm.clone());
    let writing = fibers::spawn(move || write(&shared, choices, &writer, salt))?;
    let (mut choices, shared) = (random.fork(), storm.clone());
    let reading = fibers::spawn(move || {
        let (mut received, mut buffer) = (0, vec![0; 30_000]);
        loop {
            let limit = Limit::deadline(&mut choices);
            let length = 1 + choices.below(buffer.len() as u64) as usize;
            match limit.hold(|| reader.read(&mut buffer[..length])) {
                Ok(0) => return received,
                Ok(count) => {
                    assert!(buffer[..count] == pattern(salt, received, count));
                    received += count;
                }
                Err(error) => drop(shared.failed(Operation::Pipe, limit, &error)),
            }
        }
    })?;
    while !reading.is_finished() {
        if random.below(2) == 0 {
            writing.cancel()
        } else {
            reading.cancel()
        }
        fibers::sleep(random.moment())?;
    }
    assert_eq!(reading.join()?, writing.join()?);
    Ok(())
}

/// A child that is waited for again and again, and killed by a signal or with its handle.
pub fn children(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let mut child = net::spawn(Command::new("sleep").arg("1000"))?;
    child.set_kill_on_drop(true);
    let (mut choices, shared) = (random.fork(), storm.clone());
    let waiting = fibers::spawn(move || {
        for _ in 0..5 {
            let limit = Limit::deadline(&mut choices);
            let error = limit.hold(|| child.wait()).expect_err("it sleeps for long");
            shared.failed(Operation::Child, limit, &error);
        }
        if choices.below(2) == 0 {
            child.signal(Signal::TERM).unwrap();
            while child.wait().is_err() {}
        }
    })?;
    while !waiting.is_finished() {
        waiting.cancel();
        fibers::sleep(random.moment())?;
    }
    Ok(waiting.join()?)
}

/// Fibers that wait for a signal, of which one at least sees each that arrives.
pub fn signals(storm: &Rc<Storm>, mut random: Random) -> io::Result<()> {
    let signals = Rc::new(Signals::new(&[Signal::USR1])?);
    for _ in 0..5 {
        let handles = (0..3).map(|_| {
            let (signals, mut random, storm) = (signals.clone(), random.fork(), storm.clone());
            fibers::spawn(move || {
                loop {
                    let limit = if random.below(2) == 0 { Limit::None } else { Limit::deadline(&mut random) };
                    match limit.hold(|| signals.wait()) {
                        Ok(signal) => return assert_eq!(signal, Signal::USR1),
                        Err(error) => {
                            let failure = storm.failed(Operation::Signal, limit, &error);
                            assert!(matches!(failure, Failure::Interrupted));
                        }
                    }
                }
            })
        });
        let handles = handles.collect::<io::Result<Vec<_>>>()?;
        while !handles.iter().all(fibers::JoinHandle::is_finished) {
            handles[random.below(3) as usize].cancel();
            raise(signal::Signal::SIGUSR1)?;
            fibers::sleep(random.moment())?;
        }
    }
    Ok(())
}

/// Puts a fiber into each of these operations.
pub fn occupy(storm: &Rc<Storm>) -> io::Result<()> {
    let shared = storm.clone();
    let (reader, writer) = net::pipe()?;
    fibers::spawn(move || {
        let error = reader.read(&mut [0]).unwrap_err();
        shared.failed(Operation::Pipe, Limit::None, &error);
    })?;
    let shared = storm.clone();
    fibers::spawn(move || {
        let error = Signals::new(&[Signal::USR2]).and_then(|signals| signals.wait()).unwrap_err();
        shared.failed(Operation::Signal, Limit::None, &error);
    })?;
    // Until the end: the reader waits for bytes that never come.
    fibers::spawn(move || {
        let _ = fibers::sleep(Duration::from_secs(3600));
        drop(writer);
    })?;
    Ok(())
}
