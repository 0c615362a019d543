//! A storm of cancellations: every operation, ended by every means, at random moments. Afterwards nothing
//! is left, and every byte is accounted for.
//!
//! `RINGSPUN_SEED` repeats a storm's choices, though not its timing. `RINGSPUN_STORM` is how many
//! cancellations are to hit, here and in the storm of the Janet crate together: 100,000 by default.

mod count;
mod datagrams;
mod local;
mod scenes;

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::Backlog;
use ringspun_fibers::{self as fibers, FiberBuilder, JoinError, Runtime};
use ringspun_net::{self as net, Listener};
use ringspun_runtime::{Configuration, LoopStatistics};

use count::{Limit, MEANS, Means, OPERATIONS, Operation, Random, Storm};
use scenes::{TCP, connect_and_read, occupy_without_copies, pair, rage, receive, send};

const AGES: Duration = Duration::from_secs(3600);
const DEFAULT_CANCELLATIONS: usize = 100_000;
/// What this storm hits of all cancellations; the rest is for Janet's.
const SHARE_PERCENT: usize = 60;

/// Descriptors are counted, so the storms run one after another.
static ALONE: Mutex<()> = Mutex::new(());

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

fn target() -> usize {
    from_environment("RINGSPUN_STORM").unwrap_or(DEFAULT_CANCELLATIONS) * SHARE_PERCENT / 100
}

fn seed() -> Random {
    let seed = from_environment("RINGSPUN_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 | 1)
    });
    println!("RINGSPUN_SEED={seed}");
    Random(seed.max(1))
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sizes that make rings run full and buffers run out, or the usual ones.
fn configuration(random: &mut Random) -> Configuration {
    if random.below(2) == 0 {
        return Configuration::default();
    }
    Configuration {
        datagram_buffers: 8,
        submission_entries: 1 << random.below(4),
        completion_entries: 16,
        receive_buffers: 2 << random.below(4),
        receive_buffer_size_bytes: 512,
        // Busy-polling never, often, and nearly always finds a completion.
        spin_max: Some(Duration::from_micros([0, 50, 5_000][random.below(3) as usize])),
        ..Configuration::default()
    }
}

/// Checks that nothing is left, once the loop has seen the last of what was cancelled.
fn check_that_nothing_is_left(descriptors_before: usize) {
    let left = || {
        let fibers = fibers::statistics().unwrap();
        (fibers::event_loop().unwrap().statistics(), fibers.alive, descriptors())
    };
    let nothing = (LoopStatistics::default(), 1, descriptors_before);
    for _ in 0..60_000 {
        if left() == nothing {
            return;
        }
        fibers::sleep(Duration::from_millis(1)).unwrap();
    }
    assert_eq!(left(), nothing, "what is left, and what should be");
}

/// Abandoned lookups run to completion, and have files open until then.
fn check_descriptors(at_first: usize) {
    for _ in 0..60_000 {
        if descriptors() == at_first {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(descriptors(), at_first, "descriptors after a runtime, and before");
}

#[test]
fn every_operation_can_be_cancelled_at_every_stage() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = seed();
    let (_full, _filling, address) = full_listener().unwrap();
    local::keep_descriptors().unwrap();
    let at_first = descriptors();
    let storm = Storm::new(address);
    let target = target();
    while storm.total() < target {
        let goal = target.min(storm.total() + 4_000);
        let (shared, configuration) = (storm.clone(), configuration(&mut random));
        let mut choices = random.fork();
        let run = Runtime::new().configuration(configuration).run(move || {
            let before = descriptors();
            while shared.total() < goal {
                rage(&shared, &mut choices).unwrap();
            }
            check_that_nothing_is_left(before);
        });
        run.unwrap();
        check_descriptors(at_first);
    }
    storm.print();
    if target >= 10_000 {
        for (operation, hits) in OPERATIONS.iter().zip(&storm.hits) {
            assert!(hits.iter().any(|hits| hits.get() > 0), "nothing ended {operation:?}");
        }
        let waited = storm.hits[Operation::SendTo as usize][Means::Timeout as usize].get();
        assert!(waited > 0, "no datagram has ever had to wait for room");
        for means in MEANS.into_iter().filter(|means| *means != Means::End) {
            assert!(storm.hits.iter().any(|hits| hits[means as usize].get() > 0), "{means:?} ended nothing");
        }
    }
}

/// A listener that accepts no more connections, and the connections that fill its backlog.
fn full_listener() -> io::Result<(TcpListener, Vec<TcpStream>, SocketAddr)> {
    let full = TcpListener::bind("127.0.0.1:0")?;
    nix::sys::socket::listen(&full.as_fd(), Backlog::new(0)?)?;
    let address = full.local_addr()?;
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        filling.push(stream);
    }
    Ok((full, filling, address))
}

/// Puts a fiber into each kind of operation.
fn occupy(storm: &Rc<Storm>, random: &mut Random) -> io::Result<()> {
    let small = || FiberBuilder::new().stack_size_bytes(64 * 1024);
    let (client, served) = pair(TCP)?;
    let (echoing, other) = pair(TCP)?;
    datagrams::occupy(storm)?;
    local::occupy(storm)?;
    occupy_without_copies(storm)?;
    let salt = random.next() as u8;
    let (shared, choices, stream) = (storm.clone(), random.fork(), client.clone());
    small().spawn(move || send(&shared, choices, &stream, salt, u64::MAX))?;
    if random.below(2) == 0 {
        let (shared, choices) = (storm.clone(), random.fork());
        small().spawn(move || receive(&shared, choices, &served, salt))?;
    }
    for operation in [Operation::Read, Operation::Chunk, Operation::Receive] {
        let (stream, storm) = (echoing.clone(), storm.clone());
        small().spawn(move || {
            // Keeps the peer open.
            let result = match operation {
                Operation::Read => stream.read(&mut [0; 8]).map(drop),
                Operation::Chunk => stream.chunk(&mut [0; 8]).map(drop),
                _ => stream.receive().map(drop),
            };
            storm.failed(operation, Limit::None, &result.unwrap_err());
        })?;
    }
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let (accepting, address): (Rc<Listener>, _) = (listener.clone(), listener.localname()?);
    let shared = storm.clone();
    small().spawn(move || {
        let error = accepting.accept_loop(drop).unwrap_err();
        shared.failed(Operation::AcceptLoop, Limit::None, &error);
    })?;
    let quiet = net::listen("127.0.0.1:0")?;
    let shared = storm.clone();
    small().spawn(move || {
        let error = quiet.accept().map(drop).unwrap_err();
        shared.failed(Operation::Accept, Limit::None, &error);
    })?;
    let (shared, mut choices) = (storm.clone(), random.fork());
    small().spawn(move || {
        while !shared.ending.get() {
            connect_and_read(&shared, &mut choices, address);
        }
    })?;
    let (shared, stream) = (storm.clone(), echoing.clone());
    small().spawn(move || {
        let error = stream.write(&vec![0; 1 << 20]).unwrap_err();
        shared.failed(Operation::LargeWrite, Limit::None, &error);
    })?;
    let shared = storm.clone();
    small().spawn(move || {
        let error = net::connect(shared.full).map(drop).unwrap_err();
        shared.failed(Operation::Connect, Limit::None, &error);
    })?;
    // The joiner comes first, so that it hears of the end before the one it waits for.
    let slept = Rc::new(Cell::new(None));
    let (shared, sleeper) = (storm.clone(), slept.clone());
    small().spawn(move || {
        let sleeper: fibers::JoinHandle<()> = sleeper.take().unwrap();
        match sleeper.join() {
            Err(JoinError::Interrupted(interrupt)) => {
                shared.interrupted(Operation::Join, Limit::None, interrupt);
            }
            other => panic!("a fiber that sleeps for ages has ended: {other:?}"),
        }
    })?;
    let shared = storm.clone();
    let sleeper = small().spawn(move || {
        if let Err(interrupt) = fibers::sleep(AGES) {
            shared.interrupted(Operation::Sleep, Limit::None, interrupt);
        }
    })?;
    slept.set(Some(sleeper));
    // Until the end: its peers wait for bytes that never come.
    small().spawn(move || {
        let _ = fibers::sleep(AGES);
        drop((other, listener));
    })?;
    Ok(())
}

#[test]
fn runtimes_end_in_the_middle_of_everything() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = seed();
    let (_full, _filling, address) = full_listener().unwrap();
    local::keep_descriptors().unwrap();
    let at_first = descriptors();
    let storm = Storm::new(address);
    let runtimes = (target() / 200).max(1);
    for _ in 0..runtimes {
        storm.ending.set(false);
        let (shared, configuration) = (storm.clone(), configuration(&mut random));
        let mut choices = random.fork();
        let run = Runtime::new().configuration(configuration).run(move || {
            occupy(&shared, &mut choices).unwrap();
            // At least one: each fiber has started.
            for _ in 0..1 + choices.below(5) {
                fibers::yield_now().unwrap();
            }
            if choices.below(2) == 0 {
                fibers::sleep(choices.moment()).unwrap();
            }
            shared.ending.set(true);
        });
        run.unwrap();
        check_descriptors(at_first);
    }
    storm.print();
    let ended: usize = storm.hits.iter().map(|hits| hits[Means::End as usize].get()).sum();
    // All but the small write and what the two at the ends of a stream meet, whatever the timing.
    assert!(ended >= 16 * runtimes, "{ended} operations of {runtimes} runtimes");
}

#[test]
#[ignore = "a control for scripts/check sanitize, which expects the sanitizer to stop it"]
fn control_a_fiber_reads_freed_memory() {
    let value = fibers::run(|| {
        let boxed = Box::new(7u64);
        let freed = &raw const *boxed;
        drop(boxed);
        fibers::yield_now().unwrap();
        // SAFETY: none; that it has none is what the sanitizer is to find.
        unsafe { freed.read_volatile() }
    });
    println!("nobody noticed: {value:?}");
}

/// The sanitizer does not see the kernel's reads. Freed memory is filled, so that the sent bytes reveal them.
#[test]
#[ignore = "a control for scripts/check sanitize, which expects it to fail"]
fn control_the_kernel_reads_freed_memory() {
    use ringspun_runtime::{Completion, LentBytes, OperationKind, Owner, SendData};

    struct Nobody;
    impl Owner for Nobody {
        fn complete(self: Rc<Self>, _: OperationKind, _: Completion) {}
    }
    fibers::run(|| {
        let (client, served) = pair(TCP).unwrap();
        let data = vec![7u8; 4096];
        // SAFETY: none; the data is freed below, before the loop's next turn submits the send.
        let lent = SendData::Lent(unsafe { LentBytes::new(&data) });
        let send = ringspun_runtime::Operation::Send { socket: client.as_raw_fd(), data: lent };
        fibers::event_loop().unwrap().submit(send, Rc::new(Nobody));
        drop(data);
        let mut got = vec![0; 4096];
        served.chunk(&mut got).unwrap();
        assert!(got.iter().all(|byte| *byte == 7), "the kernel sent freed memory: {:?}", &got[..8]);
    })
    .unwrap();
}
