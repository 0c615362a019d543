//! What the fibers of the process wait for, on SIGQUIT.

use ringspun::fibers::{self, DumpOnSignal, Signal};

use super::output;

/// Has SIGQUIT print what the fibers of the process wait for, until the result is dropped. To be called in a fiber.
pub fn dump_on_quit() -> Option<DumpOnSignal> {
    fibers::dump_on_signal(Signal::QUIT)
        .inspect_err(|error| output::complain(format_args!("SIGQUIT prints no fibers: {error}")))
        .ok()
}
