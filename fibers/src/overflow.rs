//! Handles stack overflows: the process ends with a message that names the fiber instead of a bare SIGSEGV.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::current::with_running;
use crate::fiber::Fiber;

/// The actions that were installed before ours, for SIGSEGV and SIGBUS.
static PREVIOUS: [AtomicPtr<libc::sigaction>; 2] =
    [AtomicPtr::new(std::ptr::null_mut()), AtomicPtr::new(std::ptr::null_mut())];
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Installs the handler for the process and an alternate signal stack for this thread, once each.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
            // SAFETY: the handler is async-signal-safe; both structures are valid for the call.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let mut old: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(signal, &action, &mut old) == 0 {
                    // Leaked on purpose: the handler may need it until the process ends.
                    previous.store(Box::into_raw(Box::new(old)), Ordering::Release);
                }
            }
        }
    });
    ensure_signal_stack()
}

/// The standard library gives its own threads an alternate stack; threads made elsewhere have none.
fn ensure_signal_stack() -> io::Result<()> {
    const SIZE_BYTES: usize = 64 * 1024;
    // SAFETY: the structures are valid for the calls. The stack is leaked: the thread's kernel state
    // refers to it until the thread ends.
    unsafe {
        let mut current: libc::stack_t = std::mem::zeroed();
        if libc::sigaltstack(std::ptr::null(), &mut current) != 0 {
            return Err(io::Error::last_os_error());
        }
        if current.ss_flags & libc::SS_DISABLE == 0 {
            return Ok(());
        }
        let memory = Box::leak(vec![0u8; SIZE_BYTES].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIZE_BYTES };
        if libc::sigaltstack(&stack, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// If the fault is in the running fiber's guard, reports the overflow and aborts. Any other fault is left to the
/// action that was installed before ours.
extern "C" fn on_fault(signal: c_int, information: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo for SA_SIGINFO. A fault has a positive code and an
    // address; a signal sent by a process has neither.
    let (fault, address) = unsafe { ((*information).si_code > 0, (*information).si_addr() as usize) };
    with_running(|fiber| {
        if let Some(fiber) = fiber.filter(|fiber| fault && fiber.guard().contains(&address)) {
            report(fiber);
            // SAFETY: abort has no preconditions and is async-signal-safe.
            unsafe { libc::abort() };
        }
    });
    for (candidate, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
        let previous = previous.load(Ordering::Acquire);
        if candidate == signal && !previous.is_null() {
            // SAFETY: stored by `install` and never freed; sigaction is async-signal-safe.
            unsafe { libc::sigaction(signal, previous, std::ptr::null_mut()) };
        }
    }
    if !fault {
        // A signal that was sent does not repeat by itself, as a fault does.
        // SAFETY: raise has no preconditions and is async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}

fn report(fiber: &Fiber) {
    let mut digits = [0u8; 20];
    let (id, name) = fiber.identity();
    write_error(b"ringspun: fiber ");
    write_error(decimal(id, &mut digits));
    if let Some(name) = name {
        write_error(b" '");
        write_error(name.as_bytes());
        write_error(b"'");
    }
    write_error(b" overflowed its stack of ");
    write_error(decimal(fiber.stack_size_bytes() as u64, &mut digits));
    write_error(b" bytes; give it a larger one with FiberBuilder::stack_size_bytes\n");
}

fn write_error(bytes: &[u8]) {
    // SAFETY: the bytes are valid for their length; write is async-signal-safe. There is no one to report a
    // failure to.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

/// Formats without allocating, as a signal handler must.
fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 || start == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_formatted_whole() {
        for value in [0, 7, 10, 131_072, u64::MAX] {
            assert_eq!(decimal(value, &mut [0; 20]), value.to_string().as_bytes());
        }
    }
}
