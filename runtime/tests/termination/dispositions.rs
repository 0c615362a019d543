//! How a loop treats the signal dispositions of a process.

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
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let is_default = matches!(action_of(signal), SigHandler::SigDfl);
        assert_eq!(is_default, !is_handled, "{signal} on {}", event_loop.backend_name());
    }
    assert!(matches!(action_of(Signal::SIGHUP), SigHandler::SigIgn), "SIGHUP is ignored no longer");
    assert!(matches!(action_of(Signal::SIGUSR1), SigHandler::Handler(_)));
    assert!(matches!(action_of(Signal::SIGQUIT), SigHandler::SigDfl));
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
    println!("{AS_EXPECTED}");
}
