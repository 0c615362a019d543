//! Probes the kernel's features, for `ringspun doctor` and for error texts that name the remedy.

#[cfg(target_os = "linux")]
use std::io;

/// A kernel feature that the runtime uses if available.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// The first version of Linux that has it, such as `"6.1"`.
    pub since: &'static str,
    /// Whether this kernel has it.
    pub available: bool,
    /// Its purpose, and the fallback without it.
    pub purpose: &'static str,
}

/// The state of io_uring on this machine.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct RingReport {
    /// Why io_uring cannot be used, with the remedy; `None` if it can.
    pub refusal: Option<String>,
    /// The features that the runtime uses; empty if io_uring is refused.
    pub features: Vec<Feature>,
}

/// Adds the cause and the remedy to an error of `io_uring_setup(2)`. The kind is `Unsupported`, unless the error is
/// unrelated to io_uring.
#[cfg(target_os = "linux")]
pub(crate) fn explain_refusal(error: io::Error) -> io::Error {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let cause = match (error.raw_os_error(), disabled.trim()) {
        (Some(libc::EPERM), "1" | "2") => {
            "the administrator disabled it; set sysctl kernel.io_uring_disabled=0 to allow it"
        }
        (Some(libc::EPERM), _) => {
            "a security policy refuses it, as container runtimes do by default; \
             allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
        }
        (Some(libc::ENOSYS), _) => {
            "this kernel, or a seccomp profile, does not have it; it requires Linux 6.0 or later"
        }
        (Some(libc::ENOMEM), _) => "not enough lockable memory; raise the memlock limit (ulimit -l)",
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            let text =
                format!("no file descriptor is left; raise the limit on open files (ulimit -n) ({error})");
            return io::Error::new(error.kind(), text);
        }
        _ => "the kernel refused it",
    };
    io::Error::new(io::ErrorKind::Unsupported, format!("io_uring cannot be used: {cause} ({error})"))
}

/// Probes io_uring by setting up small rings (`io_uring_setup(2)`; `IORING_REGISTER_PROBE` in `io_uring_register(2)`).
#[cfg(target_os = "linux")]
pub fn ring_report() -> RingReport {
    use io_uring::{IoUring, Probe, opcode};

    let ring: IoUring = match IoUring::builder().build(8) {
        Ok(ring) => ring,
        Err(error) => {
            return RingReport { refusal: Some(explain_refusal(error).to_string()), features: Vec::new() };
        }
    };
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let has = |code: u8| probed && probe.is_supported(code);
    let accepts = |apply: fn(&mut io_uring::Builder)| {
        let mut builder = IoUring::builder();
        apply(&mut builder);
        builder.build(8).is_ok()
    };
    let feature = |name, since, available, purpose| Feature { name, since, available, purpose };
    let features = vec![
        feature(
            "multishot receive",
            "6.0",
            has(opcode::SendZc::CODE),
            "one submission receives all data of a stream; required by the io_uring backend",
        ),
        feature(
            "deferred task work",
            "6.1",
            accepts(|builder| {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            }),
            "completions are posted on our own core, on request; without it: cooperative task work",
        ),
        feature(
            "cooperative task work",
            "5.19",
            accepts(|builder| {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }),
            "no interrupts between cores for completions; without it: the kernel's default",
        ),
        feature(
            "submit all",
            "5.18",
            accepts(|builder| {
                builder.setup_submit_all();
            }),
            "one bad entry does not hold back the rest of a batch",
        ),
        feature(
            "no dropped completions",
            "5.5",
            ring.params().is_feature_nodrop(),
            "completions beyond the queue wait in the kernel instead of being lost",
        ),
        feature(
            "operations on files",
            "5.6",
            [opcode::OpenAt::CODE, opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE]
                .into_iter()
                .all(has),
            "files are opened, read and written by the ring; without it: by threads for blocking calls",
        ),
        feature(
            "minimum wait",
            "6.12",
            ring.params().is_feature_min_timeout(),
            "larger batches per system call; not used yet",
        ),
    ];
    let refusal =
        (!features[0].available).then(|| "io_uring is too old: it requires Linux 6.0 or later".to_string());
    RingReport { refusal, features }
}

/// Probes io_uring, which systems other than Linux do not have.
#[cfg(not(target_os = "linux"))]
pub fn ring_report() -> RingReport {
    RingReport { refusal: Some("io_uring exists on Linux only".to_string()), features: Vec::new() }
}

/// Probes stack guards that need no mappings of their own (`MADV_GUARD_INSTALL` in `madvise(2)`), by installing one.
pub fn stack_guards() -> Feature {
    Feature {
        name: "guards without mappings",
        since: "6.13",
        available: can_install_guard(),
        purpose: "a million fiber stacks fit in a few mappings; without it: vm.max_map_count limits them",
    }
}

#[cfg(target_os = "linux")]
fn can_install_guard() -> bool {
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    /// As in Linux's `mman-common.h`; the libc crate does not have it.
    const MADV_GUARD_INSTALL: i32 = 102;
    // At least one page, whatever the page size.
    const LENGTH: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
    let Ok(start) = (unsafe { mmap_anonymous(None, LENGTH, protection, MapFlags::MAP_PRIVATE) }) else {
        return false;
    };
    // SAFETY: our own new mapping, which is unused and unmapped as a whole below.
    unsafe {
        let installed = libc::madvise(start.as_ptr(), LENGTH.get(), MADV_GUARD_INSTALL) == 0;
        installed & munmap(start, LENGTH.get()).is_ok()
    }
}

#[cfg(not(target_os = "linux"))]
fn can_install_guard() -> bool {
    false
}
