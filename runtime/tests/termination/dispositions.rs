//! How a loop treats the signal dispositions of a process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use ringspun_runtime::{BackendKind, Configuration, EventLoop};

/// The output of a process whose checks have passed.
pub const AS_EXPECTED: &str = "as expected";

fn action_of(signal: Signal) -> SigHandler {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: the process gets no signal, so no handler runs meanwhile.
    unsafe {
        let present = sigaction(signal, &ignore).unwrap();
        sigaction(signal, &present).unwrap();
        present.handler()
    }
}

extern "C" fn own(_: i32) {}

static BEFORE: OnceLock<extern "C" fn(i32)> = OnceLock::new();
static CHAINED: AtomicBool = AtomicBool::new(false);

extern "C" fn chaining(signal: i32) {
    if let Some(before) = BEFORE.get() {
        before(signal);
    }
    CHAINED.store(true, Ordering::Relaxed);
}

/// Runs in a process of its own, as the first loop of a process installs the handlers.
pub fn check(backend: BackendKind, cancel_at_termination: bool) {
    // SAFETY: the handler does nothing.
    unsafe {
        signal(Signal::SIGHUP, SigHandler::SigIgn).unwrap();
        signal(Signal::SIGUSR1, SigHandler::Handler(own)).unwrap();
    }
    let configuration =
        Configuration { backend: Some(backend), cancel_at_termination, ..Configuration::default() };
    let event_loop = EventLoop::new(&configuration).unwrap();
    let is_handled = cancel_at_termination && backend == BackendKind::Uring;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR2, Signal::SIGABRT] {
        let is_default = matches!(action_of(signal), SigHandler::SigDfl);
        assert_eq!(is_default, !is_handled, "{signal} on {}", event_loop.backend_name());
    }
    assert!(matches!(action_of(Signal::SIGHUP), SigHandler::SigIgn), "SIGHUP is ignored no longer");
    assert!(matches!(action_of(Signal::SIGUSR1), SigHandler::Handler(_)));
    for fault in [Signal::SIGFPE, Signal::SIGILL, Signal::SIGCHLD, Signal::SIGWINCH] {
        assert!(matches!(action_of(fault), SigHandler::SigDfl), "{fault}");
    }
    // A later choice of the program is kept, even if another loop is made after it.
    // SAFETY: the handler does nothing.
    unsafe { signal(Signal::SIGTERM, SigHandler::Handler(own)) }.unwrap();
    drop(event_loop);
    let _other = EventLoop::new(&configuration).unwrap();
    let SigHandler::Handler(handler) = action_of(Signal::SIGTERM) else {
        panic!("the program's handler is gone")
    };
    assert!(std::ptr::fn_addr_eq(handler, own as extern "C" fn(i32)));
    nix::sys::signal::raise(Signal::SIGTERM).unwrap();
    // One that calls what was there before, as those of the crate signal-hook, and so of tokio, do.
    if let SigHandler::Handler(before) = action_of(Signal::SIGUSR2) {
        BEFORE.set(before).unwrap();
    }
    // SAFETY: both handlers are async-signal-safe.
    unsafe { signal(Signal::SIGUSR2, SigHandler::Handler(chaining)) }.unwrap();
    nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
    assert!(CHAINED.load(Ordering::Relaxed));
    println!("{AS_EXPECTED}");
}
