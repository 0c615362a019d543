//! What takes a process of its own: dying of an overflow, and the memory of a million fibers.

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use common::mappings_max;
use nix::fcntl::{Flock, FlockArg};
use ringspun_fibers::{self as fibers, FiberBuilder, Runtime};
use ringspun_runtime::probe;

const ROLE: &str = "RINGSPUN_TEST_ROLE";

/// Runs the named test of this binary again, in a process that takes `role`.
fn in_process(test: &str, role: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .output()
        .unwrap()
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    std::hint::black_box([depth; 64])[3] + overflow(depth + 1)
}

#[test]
fn a_stack_overflow_names_the_fiber_and_its_stack() {
    if role().is_some() {
        let _ = fibers::run(|| {
            let builder = FiberBuilder::new().name("deep thought").stack_size_bytes(48 * 1024);
            builder.spawn(|| overflow(0)).unwrap().join()
        });
        return;
    }
    let output = in_process("a_stack_overflow_names_the_fiber_and_its_stack", "overflow");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("fiber 1 'deep thought' overflowed its stack of 49152 bytes"), "{text}");
}

/// How far below the lowest address of its stack a C function of these tests writes: just there, with a work area
/// that is larger than many guards, and at the far end of what Linux keeps free below the stacks of threads.
const STEPS_BEYOND_KIB: [usize; 3] = [1, 100, 1000];

#[test]
fn a_frame_of_c_that_steps_over_the_end_of_the_stack_meets_the_guard() {
    const STACK_KIB: usize = 64;
    if let Some(role) = role() {
        let beyond_bytes = role.parse::<usize>().unwrap() * 1024;
        let _ = fibers::run(move || {
            let sleepers = || {
                let sleep =
                    || FiberBuilder::new().stack_size_bytes(STACK_KIB * 1024).spawn(wait_long).unwrap();
                Vec::from_iter((0..8).map(|_| sleep()))
            };
            // Neighbours on both sides, whose stacks are in use.
            let before = sleepers();
            let builder = FiberBuilder::new().name("caller of C").stack_size_bytes(STACK_KIB * 1024);
            let caller = builder.spawn(move || {
                fibers::yield_now().unwrap();
                let top_of_stack = 0_u8;
                let address = (&raw const top_of_stack).addr() - STACK_KIB * 1024 - beyond_bytes;
                // SAFETY: none; as C code without stack probes does, this writes to what a frame has, and to
                // nothing between. It is meant to fault.
                unsafe { std::ptr::without_provenance_mut::<u8>(address).write_volatile(1) };
            });
            drop((before, sleepers()));
            caller.unwrap().join()
        });
        return;
    }
    for beyond_kib in STEPS_BEYOND_KIB {
        let test = "a_frame_of_c_that_steps_over_the_end_of_the_stack_meets_the_guard";
        let output = in_process(test, &beyond_kib.to_string());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{beyond_kib} KiB beyond the stack");
        assert!(
            text.contains("'caller of C' overflowed its stack of 65536 bytes"),
            "{beyond_kib} KiB: {text}"
        );
    }
}

fn wait_long() {
    let _ = fibers::sleep(Duration::from_secs(3600));
}

/// What this process has in memory, in KiB.
#[cfg(target_os = "linux")]
fn resident_kib() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Uses so much of the stack.
#[cfg(target_os = "linux")]
fn burn(kib: usize) -> u8 {
    let page = std::hint::black_box([kib as u8; 1024]);
    if kib == 0 { page[0] } else { burn(kib - 1).wrapping_add(page[1023]) }
}

/// Starts so many fibers at a time, each of which uses so much of its stack, and waits until all have ended.
#[cfg(target_os = "linux")]
fn use_stacks(count: usize, size_kib: usize) {
    let use_one = move || {
        std::hint::black_box(burn(size_kib));
        fibers::yield_now().unwrap();
    };
    let fibers = Vec::from_iter((0..count).map(|_| fibers::spawn(use_one).unwrap()));
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

/// Lets the loop be idle until less than this is in memory, or long enough to tell that it will not be; what is in
/// memory then.
#[cfg(target_os = "linux")]
fn resident_kib_when_idle(limit_kib: usize) -> usize {
    for _ in 0..2000 {
        fibers::sleep(Duration::from_millis(1)).unwrap();
        // Some kernels count in steps of 256 KiB, so it may well be equal.
        if resident_kib() < limit_kib {
            break;
        }
    }
    resident_kib()
}

#[cfg(target_os = "linux")]
#[test]
fn stacks_give_back_what_they_no_longer_use() {
    const SLACK_KIB: usize = 4 * 1024;
    if role().is_none() {
        let output = in_process("stacks_give_back_what_they_no_longer_use", "measure");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let measured = fibers::run(|| {
        // What is not stacks, such as the lists of so many fibers, has its full size from here on.
        use_stacks(1000, 1);
        let before = resident_kib();
        [(1000, 100), (400, 400)].map(|(count, size_kib)| {
            use_stacks(count, size_kib);
            (count, size_kib, resident_kib_when_idle(before + SLACK_KIB).saturating_sub(before))
        })
    });
    for (count, size_kib, more_kib) in measured.unwrap() {
        println!("{count} fibers used {size_kib} KiB each, {more_kib} KiB are left");
        assert!(more_kib < SLACK_KIB, "{count} fibers that used {size_kib} KiB each leave {more_kib} KiB");
    }
}

/// While it lives, if it says so; what its frames hold stays as it was.
#[cfg(target_os = "linux")]
#[test]
fn a_living_fiber_gives_back_the_stack_that_it_needed_once() {
    const TEST: &str = "a_living_fiber_gives_back_the_stack_that_it_needed_once";
    const FIBERS: usize = 1000;
    const USED_KIB: usize = 100;
    if role().is_none() {
        let output = in_process(TEST, "measure");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let left_kib = fibers::run(|| {
        let before = resident_kib();
        let use_one = |number: usize| {
            let held = std::hint::black_box([number; 100]);
            for _ in 0..2 {
                std::hint::black_box(burn(USED_KIB));
                fibers::release_stack();
                fibers::yield_now().unwrap();
                assert!(std::hint::black_box(held) == [number; 100]);
            }
            wait_long();
        };
        let fibers =
            Vec::from_iter((0..FIBERS).map(|number| fibers::spawn(move || use_one(number)).unwrap()));
        (0..5).for_each(|_| fibers::yield_now().unwrap());
        let left_kib = resident_kib().saturating_sub(before);
        for fiber in fibers {
            fiber.cancel();
            fiber.join().unwrap();
        }
        left_kib
    });
    let left_kib = left_kib.unwrap();
    println!("{FIBERS} fibers have used {USED_KIB} KiB each, and keep {left_kib} KiB");
    assert!(left_kib < FIBERS * USED_KIB / 4, "{left_kib} KiB");
    // Outside of a fiber, there is nothing to give back.
    fibers::release_stack();
}

#[test]
fn a_fault_elsewhere_is_not_blamed_on_a_fiber() {
    if role().is_some() {
        let _ = fibers::run(|| {
            // SAFETY: none; reading address 64 is meant to fault.
            unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u8>(64)) }
        });
        return;
    }
    let output = in_process("a_fault_elsewhere_is_not_blamed_on_a_fiber", "fault");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(!text.contains("overflowed"), "{text}");
}

/// Memory this machine can spare, in bytes.
fn available_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[test]
fn a_million_fibers_park_in_one_process() {
    const FIBERS: usize = 1_000_000;
    // Two pages of its stack, some 2 KiB of page tables, and a little heap.
    const NEEDED_BYTES: u64 = 12 << 30;
    if role().is_none() {
        if cfg!(target_os = "linux") && !probe::stack_guards().available && mappings_max() < 2 * FIBERS {
            println!(
                "SKIPPED: before Linux 6.13, a million stacks take sysctl vm.max_map_count={}",
                3 * FIBERS
            );
            return;
        }
        // The same test on the other backend is likely to run at this time, and would need the same memory.
        let path = format!("ringspun-a-million-fibers-{}.lock", nix::unistd::getuid());
        let file = std::fs::File::create(std::env::temp_dir().join(path)).unwrap();
        let _turn = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        if available_memory_bytes() < NEEDED_BYTES {
            println!("SKIPPED: a million fibers take {NEEDED_BYTES} bytes of free memory");
            return;
        }
        let output = in_process("a_million_fibers_park_in_one_process", "million");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("parked 1000000"), "{text}");
        return;
    }
    let done = Runtime::new().run(|| {
        let handles: Vec<_> = (0..FIBERS)
            .map(|_| fibers::spawn(|| fibers::sleep(Duration::from_secs(3600))).unwrap())
            .collect();
        fibers::yield_now().unwrap();
        let statistics = fibers::statistics().unwrap();
        let timers = fibers::event_loop().unwrap().statistics().timers;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        println!("parked {} in {maps} mappings", statistics.alive - 1);
        assert_eq!((statistics.alive - 1, timers), (FIBERS, FIBERS));
        for handle in &handles {
            handle.cancel();
        }
        handles
            .into_iter()
            .filter(|_| true)
            .map(|handle| handle.join().unwrap())
            .filter(Result::is_err)
            .count()
    });
    assert_eq!(done.unwrap(), FIBERS);
}
