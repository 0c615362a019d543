//! Keeping a thread on one core.

use std::io;

/// Keeps this thread on one of the cores that it may use: worker `index` on the one that follows that of the worker
/// before it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn pin_to(index: usize) -> io::Result<()> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    // Pid 0 is the calling thread (`sched_setaffinity(2)`).
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
    let mut only = CpuSet::new();
    if !cores.is_empty() {
        only.set(cores[index % cores.len()])?;
        sched_setaffinity(this_thread, &only)?;
    }
    Ok(())
}

/// Keeps this thread on one core.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn pin_to(_: usize) -> io::Result<()> {
    let text = "threads cannot be kept on one core on this system";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
