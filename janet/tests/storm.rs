//! A storm of cancellations in Janet: every operation on a socket, ended by every means, at random moments.
//! Afterwards no descriptor is left, and every byte is accounted for.
//!
//! `RINGSPUN_SEED` and `RINGSPUN_STORM` are as in the storm of the net crate.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringspun_janet::{Net, Vm};

const DEFAULT_CANCELLATIONS: usize = 100_000;
/// What each of the three VMs here hits of all cancellations; the rest is for the storm of the net crate.
const SHARE_PERCENT: usize = 15;

/// Descriptors are counted, so the storms run one after another.
static ALONE: Mutex<()> = Mutex::new(());

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

fn seed() -> u64 {
    let seed = from_environment("RINGSPUN_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    println!("RINGSPUN_SEED={seed}");
    seed
}

fn target() -> usize {
    from_environment("RINGSPUN_STORM").map_or(DEFAULT_CANCELLATIONS, |count| count as usize) * SHARE_PERCENT
        / 100
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Lookups that were given up run to their end, and have files open until then.
fn check_descriptors(before: usize) {
    for _ in 0..60_000 {
        if descriptors() == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let left: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some(format!("{}: {}", path.display(), std::fs::read_link(&path).ok()?.display()))
        })
        .collect();
    assert_eq!(descriptors(), before, "descriptors after the VMs, and before: {left:#?}");
}

/// A listener that answers nobody any more, and those who keep it busy.
fn full_listener() -> (TcpListener, Vec<TcpStream>, u16) {
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: the descriptor is open; listening again only changes the backlog.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let address = full.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        filling.push(stream);
    }
    (full, filling, address.port())
}

/// Storms in a VM of this thread, and returns how many cancellations hit.
fn storm(seed: u64, target: usize, full_port: u16) -> usize {
    let mut vm = Vm::with_net(Net::Ring).unwrap();
    let program = format!(
        "(def seed {}) (def target {target}) (def full-port \"{full_port}\")\n{}",
        seed % 1_000_000_007,
        include_str!("storm.janet")
    );
    let report = vm.run_string(&program).unwrap();
    println!("{report}");
    let mut numbers = report.split_whitespace().map_while(|number| number.parse::<usize>().ok());
    let (total, mismatches) = (numbers.next().unwrap(), numbers.next().unwrap());
    assert_eq!(mismatches, 0, "{report}");
    assert!(total >= target, "{report}");
    total
}

#[test]
fn every_operation_in_janet_can_be_cancelled_at_every_stage() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_full, _filling, full_port) = full_listener();
    let before = descriptors();
    storm(seed(), target(), full_port);
    check_descriptors(before);
}

#[test]
fn two_vms_storm_on_two_threads() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_full, _filling, full_port) = full_listener();
    let (before, seed, target) = (descriptors(), seed(), target());
    let threads: Vec<_> =
        (1..=2).map(|id| std::thread::spawn(move || storm(seed + id, target, full_port))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    check_descriptors(before);
}

#[test]
#[ignore = "a control for scripts/check sanitize, which expects the sanitizer to stop it"]
fn control_the_vm_writes_to_freed_memory() {
    /// As in `janet.h`.
    #[repr(C)]
    struct JanetBuffer {
        gc: [usize; 2],
        count: i32,
        capacity: i32,
        data: *mut u8,
    }
    unsafe extern "C" {
        fn janet_buffer(capacity: i32) -> *mut JanetBuffer;
        fn janet_buffer_deinit(buffer: *mut JanetBuffer);
        fn janet_buffer_push_u8(buffer: *mut JanetBuffer, byte: u8);
    }

    let _vm = Vm::with_net(Net::Ring).unwrap();
    // SAFETY: none; the VM's own code writes to a buffer that it has freed.
    unsafe {
        let buffer = janet_buffer(100);
        let freed = (*buffer).data;
        janet_buffer_deinit(buffer);
        (*buffer).data = freed;
        (*buffer).capacity = 100;
        janet_buffer_push_u8(buffer, 7);
    }
    println!("nobody noticed");
    std::process::exit(0);
}
