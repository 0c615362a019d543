//! Fibers that keep the loop of their VM: seen and told by a thread that looks from outside, at no cost to the VM.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use ringspun_runtime::ThreadProgress;

use crate::api as janet;
use crate::api::JanetFiber;

/// A stall is told after so many looks that have found the same run of a fiber. They are counted, so that a process
/// that is stopped for a while does not seem to stall.
const LOOKS: u32 = 4;
/// In place of a number of looks.
const TOLD: u32 = u32::MAX;
const EVERY_MIN: Duration = Duration::from_millis(1);
const STACK_MAX_BYTES: usize = 16 * 1024;

/// The address of a VM, which other threads only look at through the kernel: it may have ended.
#[derive(Clone, Copy, PartialEq)]
struct VmAddress(*mut c_void);

// SAFETY: never dereferenced by Rust, and only read through the kernel by the functions it is passed to.
unsafe impl Send for VmAddress {}

/// The VMs of this process with their threads, and perhaps some that have ended.
static VMS: Mutex<Vec<(VmAddress, i32)>> = Mutex::new(Vec::new());

fn vms() -> MutexGuard<'static, Vec<(VmAddress, i32)>> {
    VMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that there is a VM on this thread.
pub(crate) fn note_vm() {
    // SAFETY: an address of this thread's, and its number.
    let (vm, thread) = unsafe { (VmAddress(janet::janet_local_vm()), libc::gettid()) };
    let mut vms = vms();
    // A thread may have the memory of one that has ended.
    vms.retain(|(known, _)| *known != vm);
    vms.push((vm, thread));
}

/// A run of a fiber: from when the loop has resumed it until it parks or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    fiber: usize,
    schedule: u32,
}

enum Look {
    Gone,
    Idle,
    Busy(Run),
}

impl VmAddress {
    fn look(self) -> Look {
        let (mut fiber, mut schedule) = (std::ptr::null_mut::<JanetFiber>(), 0);
        // SAFETY: reads what may not be there through the kernel, and writes to both.
        match unsafe { janet::ringspun_vm_run(self.0, &raw mut fiber, &raw mut schedule) } {
            0 => Look::Idle,
            1 => Look::Busy(Run { fiber: fiber as usize, schedule }),
            _ => Look::Gone,
        }
    }

    /// The stack of this run, if it lasts.
    fn stack_of(self, run: Run) -> Option<String> {
        let mut bytes = vec![0; STACK_MAX_BYTES];
        // SAFETY: as above; writes up to the given number of bytes, and says how many.
        let length = unsafe { janet::ringspun_vm_stack(self.0, bytes.as_mut_ptr().cast(), bytes.len()) };
        bytes.truncate(length);
        let is_same = matches!(self.look(), Look::Busy(now) if now == run);
        is_same.then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The stack of the fiber that a VM runs now, as Janet prints stacks, each line after a line break. `None` if it runs
/// none.
pub(crate) fn running_stack(vm: *mut c_void) -> Option<String> {
    let vm = VmAddress(vm);
    match vm.look() {
        Look::Busy(run) => vm.stack_of(run),
        Look::Idle | Look::Gone => None,
    }
}

/// A VM whose loop does not turn: from [`StallWatch::start`]. Printed, it has the stack.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StalledVm {
    /// How long it has not turned, at least.
    pub stalled_for: Duration,
    /// The stack of the fiber that keeps it, as Janet prints stacks, the innermost function first. The line of the
    /// innermost function is where it called or was called last.
    pub stack: String,
}

impl fmt::Display for StalledVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a Janet VM stalls: a fiber has kept its loop for {:?}{}", self.stalled_for, self.stack)
    }
}

/// Tells of Janet fibers that keep the loops of their VMs, from [`start`](Self::start) until it is dropped: those of
/// each [`Vm`](crate::Vm) of this process, and of each thread of Janet code that has used a socket.
#[derive(Debug)]
pub struct StallWatch {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl StallWatch {
    /// Starts a thread that tells `observer` of each fiber that runs for longer than `limit` without parking: it
    /// computes, or a C function of it blocks the thread. Each is told once, while it still runs, and logged as a
    /// warning.
    ///
    /// The thread looks four times in `limit`, which is at least 4 ms. The VMs do nothing for it: their memory is
    /// read through the kernel, so that what is told of a stack that changes meanwhile may be wrong, but nothing is
    /// harmed.
    ///
    /// # Errors
    ///
    /// The kernel's, if it does not let this process look at itself, as in some containers before Linux 4.8
    /// (`process_vm_readv(2)`), or if there is no thread to be had.
    ///
    /// # Panics
    ///
    /// A panic of `observer` ends the watch.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// use ringspun_janet::{StallWatch, Vm};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let _watch = StallWatch::start(Duration::from_millis(20), move |stall| {
    ///     let _ = tell.send(stall.stack.clone());
    /// })?;
    /// let mut vm = Vm::new().unwrap();
    /// // It blocks the thread, where (ev/sleep 0.1) would let others run.
    /// vm.run_string("(defn doze [] (os/sleep 0.1))").unwrap();
    /// let stack = loop {
    ///     vm.run_string("(doze)").unwrap();
    ///     if let Ok(stack) = told.try_recv() {
    ///         break stack;
    ///     }
    /// };
    /// assert!(stack.contains("in os/sleep"), "{stack}");
    /// assert!(stack.contains("in doze"), "{stack}");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn start(limit: Duration, observer: impl Fn(&StalledVm) + Send + 'static) -> io::Result<Self> {
        // SAFETY: looks at a variable of its own.
        match unsafe { janet::ringspun_vm_look_errno() } {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let thread = thread::Builder::new().name("stall watch".to_string());
        // A handler of the VM that ran on another thread would end the process.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let thread = thread.spawn(move || watch(&end, limit.max(EVERY_MIN * LOOKS), &observer));
        mask.thread_set_mask()?;
        Ok(Self { ended, thread: Some(thread?), process: std::process::id() })
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // A forked child has no such thread.
        if let Some(thread) = self.thread.take()
            && self.process == std::process::id()
        {
            thread.thread().unpark();
            // Its panic has been reported by the hook.
            let _ = thread.join();
        }
    }
}

/// A run that was seen before, so many times, and how far its thread had come at the second.
struct Seen {
    vm: VmAddress,
    run: Run,
    looks: u32,
    progress: Option<ThreadProgress>,
}

fn watch(end: &AtomicBool, limit: Duration, observer: &dyn Fn(&StalledVm)) {
    let every = limit / LOOKS;
    let mut seen: Vec<Seen> = Vec::new();
    while !end.load(Ordering::Relaxed) {
        thread::park_timeout(every);
        let mut busy = Vec::new();
        vms().retain(|(vm, thread)| {
            let look = vm.look();
            if let Look::Busy(run) = look {
                let before = seen.iter().find(|before| before.vm == *vm && before.run == run);
                busy.push(Seen::again(*vm, run, before, *thread));
            }
            !matches!(look, Look::Gone)
        });
        // As long as others have the processors, it is not to blame.
        let is_starved = |seen: &Seen| seen.progress.is_some_and(|it| it.is_starved(every * (LOOKS - 1)));
        for seen in busy.iter_mut().filter(|seen| (LOOKS..TOLD).contains(&seen.looks) && !is_starved(seen)) {
            seen.looks = TOLD;
            if let Some(stack) = seen.vm.stack_of(seen.run) {
                let stall = StalledVm { stalled_for: limit, stack };
                tracing::warn!("{stall}");
                observer(&stall);
            }
        }
        seen = busy;
    }
}

impl Seen {
    fn again(vm: VmAddress, run: Run, before: Option<&Self>, thread: i32) -> Self {
        let looks = before.map_or(0, |before| before.looks.saturating_add(1));
        let progress = match looks {
            1 => Some(ThreadProgress::of(thread)),
            _ => before.and_then(|before| before.progress),
        };
        Self { vm, run, looks, progress }
    }
}
