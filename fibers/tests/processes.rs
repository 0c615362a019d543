//! What takes a process of its own: dying of an overflow, and the memory of a million fibers.

use std::process::{Command, Output};
use std::time::Duration;

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

/// How many mappings a process may have; each guard takes one where the kernel has no other guards.
fn mappings_max() -> usize {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[test]
fn a_million_fibers_park_in_one_process() {
    const FIBERS: usize = 1_000_000;
    const NEEDED_BYTES: u64 = 8 << 30;
    if role().is_none() {
        if cfg!(target_os = "linux") && !probe::stack_guards().available && mappings_max() < 2 * FIBERS {
            println!(
                "SKIPPED: before Linux 6.13, a million stacks take sysctl vm.max_map_count={}",
                3 * FIBERS
            );
            return;
        }
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
    let runtime = Runtime::new().stack_size_bytes(16 * 1024);
    let done = runtime.run(|| {
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
