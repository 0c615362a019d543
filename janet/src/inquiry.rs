//! Questions that other threads ask a VM: what its fibers wait for, and how many there are. Its event loop answers.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringspun_runtime::{LoopStatistics, SpinStatistics};

use crate::api as janet;
use crate::api::{Janet, JanetFiber, JanetTable};
use crate::bridge::Bridge;
use crate::shims::carry_out;
use crate::stalls::running_stack;
use crate::stock::{Replacement, replacement};
use crate::values::{Verdict, bytes_of, string};

/// Counts of a VM, from [`Inquirer::statistics`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmStatistics {
    /// Fibers that its event loop has started, and that have not ended.
    pub fibers: usize,
    /// Its loop on the ring; `None` until a socket is first used, and on the VM's own network code.
    pub event_loop: Option<VmLoopStatistics>,
}

/// Counts of the loop of a VM's sockets.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmLoopStatistics {
    /// The name of its backend.
    pub backend: &'static str,
    /// What it holds.
    pub held: LoopStatistics,
    /// How it has waited.
    pub waits: SpinStatistics,
}

/// Asks the VM of another thread: from [`Vm::inquirer`](crate::Vm::inquirer). It may outlive the VM.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_janet::Vm;
///
/// let mut vm = Vm::new().unwrap();
/// let inquirer = vm.inquirer();
/// let asking = std::thread::spawn(move || inquirer.dump(Duration::from_secs(60)));
/// // Its loop answers while it runs; this waits until it is asked.
/// vm.run_string("(ev/sleep 0.1)").unwrap();
/// while !asking.is_finished() {
///     vm.run_string("(ev/sleep 0.1)").unwrap();
/// }
/// let dump = asking.join().unwrap().expect("the loop has run");
/// assert!(dump.contains("waits for: ev/sleep 0.1"), "{dump}");
/// ```
#[derive(Clone, Debug)]
pub struct Inquirer(Arc<Mutex<Option<VmAddress>>>);

#[derive(Debug)]
struct VmAddress(*mut c_void);

// SAFETY: other threads only pass it to the one function of the VM that is for other threads.
unsafe impl Send for VmAddress {}

enum Question {
    Dump(Sender<String>),
    Statistics(Sender<VmStatistics>),
}

/// Questions that have not been answered, by number, and the last number.
static ASKED: Mutex<(i32, BTreeMap<i32, Question>)> = Mutex::new((0, BTreeMap::new()));

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inquirer {
    /// What each fiber of the VM waits for, with its stack, as text: `(dump/text)` of the module `ringspun/dump`.
    ///
    /// Blocks the thread until the VM's loop has answered. `None` if it has not after `patience`, since a fiber keeps
    /// it, if it does not run at all, or if the VM has ended.
    pub fn dump(&self, patience: Duration) -> Option<String> {
        self.ask(patience, Question::Dump)
    }

    /// Counts of the VM. Blocks as [`dump`](Self::dump), and is `None` as that.
    pub fn statistics(&self, patience: Duration) -> Option<VmStatistics> {
        self.ask(patience, Question::Statistics)
    }

    /// The stack of the fiber that the VM runs now, as Janet prints stacks: why it does not answer. The VM is looked
    /// at from outside, as by [`StallWatch`](crate::StallWatch), and need not answer. `None` if it runs none, or has
    /// gone on during the look.
    pub fn running(&self) -> Option<String> {
        // Held, so that the VM does not end meanwhile.
        let vm = lock(&self.0);
        running_stack(vm.as_ref()?.0)
    }

    fn ask<T>(&self, patience: Duration, question: impl FnOnce(Sender<T>) -> Question) -> Option<T> {
        let (sender, answer) = mpsc::channel();
        // Held until the event is posted, so that the VM does not end meanwhile.
        let vm = lock(&self.0);
        let address = vm.as_ref()?.0;
        let number = {
            let (last, asked) = &mut *lock(&ASKED);
            *last = last.wrapping_add(1);
            asked.insert(*last, question(sender));
            *last
        };
        // SAFETY: the VM has not ended.
        unsafe { janet::ringspun_vm_post(address, on_question, number) };
        drop(vm);
        let answer = answer.recv_timeout(patience).ok();
        lock(&ASKED).1.remove(&number);
        answer
    }
}

/// Whom other threads ask: the VM of this thread.
#[derive(Debug)]
pub(crate) struct Asked {
    inquirer: Inquirer,
    process: u32,
}

impl Asked {
    /// The VM must have been started on this thread.
    pub(crate) fn this_thread() -> Self {
        // SAFETY: an address of this thread's.
        let vm = unsafe { janet::janet_local_vm() };
        Self { inquirer: Inquirer(Arc::new(Mutex::new(Some(VmAddress(vm))))), process: std::process::id() }
    }

    pub(crate) fn inquirer(&self) -> Inquirer {
        self.inquirer.clone()
    }

    /// The VM is about to end.
    pub(crate) fn end(&self) {
        // In a forked child, nobody asks, and the lock may be held by a thread that is not there.
        if self.process == std::process::id() {
            lock(&self.inquirer.0).take();
        }
    }
}

/// Called by the VM's loop, outside of any fiber.
extern "C" fn on_question(number: i32) {
    let mut asked = lock(&ASKED);
    match asked.1.remove(&number) {
        Some(Question::Statistics(sender)) => {
            // An error means that nobody waits any more.
            let _ = sender.send(statistics());
        }
        Some(question @ Question::Dump(_)) => {
            // `ANSWER` answers it.
            asked.1.insert(number, question);
            drop(asked);
            schedule_dump(number);
        }
        None => {}
    }
}

fn statistics() -> VmStatistics {
    let event_loop = Bridge::current().map(|bridge| VmLoopStatistics {
        backend: bridge.event_loop().backend_name(),
        held: bridge.event_loop().statistics(),
        waits: bridge.event_loop().spin_statistics(),
    });
    // SAFETY: this is the VM's thread.
    let fibers = unsafe { janet::ringspun_vm_tasks() };
    VmStatistics { fibers: usize::try_from(fibers).unwrap_or(0), event_loop }
}

/// Has a fiber take the dump, as it runs Janet code.
fn schedule_dump(number: i32) {
    let source = format!("((get-in (require \"ringspun/dump\") ['respond :value]) {number})");
    // SAFETY: the VM runs on this thread, and collects nothing before the fiber is scheduled.
    unsafe {
        let environment = janet::janet_core_env(std::ptr::null_mut());
        if let Some(fiber) = fiber_of(environment, c"eval-string", &[string(&source)]) {
            janet::janet_schedule(fiber, janet::janet_wrap_nil());
        }
    }
}

/// A new fiber that calls a function of an environment, if it has one of this name.
///
/// # Safety
///
/// The VM runs on this thread, with a live environment.
pub(crate) unsafe fn fiber_of(
    environment: *mut JanetTable,
    function: &CStr,
    arguments: &[Janet],
) -> Option<*mut JanetFiber> {
    let count = i32::try_from(arguments.len()).ok()?;
    // SAFETY: as the caller says; the value is unwrapped as what it was checked to be.
    unsafe {
        let mut value = janet::janet_wrap_nil();
        janet::janet_resolve(environment, janet::janet_csymbol(function.as_ptr()), &mut value);
        if janet::janet_checktype(value, janet::JANET_FUNCTION) == 0 {
            return None;
        }
        let fiber = janet::janet_fiber(janet::janet_unwrap_function(value), 64, count, arguments.as_ptr());
        let fiber = (!fiber.is_null()).then_some(fiber)?;
        (*fiber).env = environment;
        Some(fiber)
    }
}

/// A function of the module `ringspun/dump`.
pub(crate) const ANSWER: Replacement = replacement!(c"answer", answer);

/// `(answer number text)`: answers the question of this number, if it is still asked.
unsafe extern "C-unwind" fn answer(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM may raise.
    unsafe {
        janet::janet_fixarity(count, 2);
        let number = janet::janet_getinteger(arguments, 0);
        carry_out(|| {
            if let Some(Question::Dump(sender)) = lock(&ASKED).1.remove(&number)
                && let Some(text) = bytes_of(*arguments.add(1))
            {
                // An error means that nobody waits any more.
                let _ = sender.send(String::from_utf8_lossy(text).into_owned());
            }
            Verdict::Return(janet::janet_wrap_nil())
        })
    }
}
